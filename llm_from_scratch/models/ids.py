"""What every model requires of the token ids it is given, and the errors that say so.

Legend: B sequences, T positions.
"""

import torch
from torch import Tensor


def check_ids(ids_BT: Tensor, *, vocab_size: int, limit: int | None, name: str = "ids") -> None:
    """Raise ValueError unless ``ids_BT`` is a batch of whole numbers in the vocabulary.

    ``limit`` is the longest sequence, in tokens, that the model reads; None: any length.

    >>> check_ids(torch.tensor([[3, 7]]), vocab_size=5, limit=None)
    Traceback (most recent call last):
    ...
    ValueError: ids hold 7, outside the vocabulary of 5 entries (0 to 4); encode the text with ...
    """
    if ids_BT.dim() != 2 or ids_BT.shape[1] == 0:
        raise ValueError(
            f"{name} must have the shape [sequences, tokens] with at least one token, got "
            f"{tuple(ids_BT.shape)}; {name}[None] makes one sequence a batch"
        )
    if ids_BT.is_floating_point() or ids_BT.dtype == torch.bool:
        raise ValueError(f"{name} must be whole numbers, got {ids_BT.dtype}; {name}.long() converts them")
    if limit is not None and ids_BT.shape[1] > limit:
        raise ValueError(
            f"{ids_BT.shape[1]} tokens are longer than context_length={limit}; keep the last "
            f"{limit}, or build the model with a larger context_length"
        )
    check_range(name, ids_BT, vocab_size)


def check_targets(targets_BT: Tensor, ids_BT: Tensor, *, vocab_size: int, ignore_index: int = -100) -> None:
    """Raise ValueError unless there is one target in the vocabulary, or ``ignore_index``, for each id."""
    if targets_BT.shape != ids_BT.shape:
        raise ValueError(
            f"targets {tuple(targets_BT.shape)} must have the shape of ids {tuple(ids_BT.shape)}: "
            "the token that follows each one"
        )
    check_range("targets", targets_BT, vocab_size, ignore_index)


def check_range(
    name: str, ids: Tensor, limit: int, ignore_index: int | None = None, *, kinds: str | None = None
) -> None:
    """Raise ValueError if an entry lies outside 0 .. limit - 1 and is not ``ignore_index``.

    ``kinds`` says what the entries number, where they are no tokens.

    On devices other than the CPU nothing is checked: reading a value back would wait for all work
    under way there.
    """
    if ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (ids < 0) | (ids >= limit)
    if ignore_index is not None:
        wrong &= ids != ignore_index
    if wrong.any():
        outside = f"the vocabulary of {limit} entries" if kinds is None else f"this model's {limit} {kinds}"
        way_out = (
            "encode the text with the model's own tokenizer" if kinds is None else f"number the {kinds} anew"
        )
        raise ValueError(
            f"{name} hold {ids[wrong][0].item()}, outside {outside} (0 to {limit - 1}); {way_out}"
        )
