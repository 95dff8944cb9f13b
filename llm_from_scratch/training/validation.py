"""The validation loss: the mean over the same tokens each time it is measured.

Legend: N tokens of the split, W windows, T context length, B windows scored at once.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llm_from_scratch.nn.modes import evaluation_mode

NO_TARGET = -100  # the padding of the last window; the loss passes over it


def windows(
    tokens_N: Int[Tensor, "N"], *, context_length: int, count: int | None = None
) -> tuple[Int[Tensor, "W T"], Int[Tensor, "W T"]]:
    """Cut tokens into windows that do not overlap, and their targets one token later.

    All windows together have every token but the first as a target exactly once: the last window
    is padded, and its padding has no target. With ``count``, that many windows are taken, spread
    evenly over the split; there may be fewer. The choice depends on N, T and ``count`` only.
    Raises: ValueError if there are fewer than two tokens: nothing follows anything.

    >>> inputs, targets = windows(torch.arange(6), context_length=3)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [3, 4, 0]], [[1, 2, 3], [4, 5, -100]])
    """
    tokens_N = torch.as_tensor(tokens_N, dtype=torch.long)
    if len(tokens_N) < 2:
        raise ValueError(f"a validation split needs 2 tokens or more, got {len(tokens_N)}; take more text")
    padding = -(len(tokens_N) - 1) % context_length
    inputs_WT = torch.cat([tokens_N[:-1], tokens_N.new_zeros(padding)]).view(-1, context_length)
    targets_WT = torch.cat([tokens_N[1:], tokens_N.new_full((padding,), NO_TARGET)]).view(-1, context_length)
    if count is not None and count < len(inputs_WT):
        chosen = torch.arange(count) * len(inputs_WT) // count
        inputs_WT, targets_WT = inputs_WT[chosen], targets_WT[chosen]
    return inputs_WT, targets_WT


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    inputs_WT: Int[Tensor, "W T"],
    targets_WT: Int[Tensor, "W T"],
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> float:
    """Return the model's mean loss in nats a token, each token with the same weight.

    The model is called as ``model(inputs_BT, targets_BT)`` and returns ``(logits, mean loss)``. Each
    batch counts by its number of targets: the mean of the batches' means would favour the tokens of
    a batch that is short. The model is left in the mode in which it was.
    Raises: ValueError if no window has a target.
    """
    total, tokens = 0.0, 0
    with evaluation_mode(model):
        for inputs_BT, targets_BT in zip(
            inputs_WT.split(batch_size), targets_WT.split(batch_size), strict=True
        ):
            counted = int((targets_BT != NO_TARGET).sum())
            if counted == 0:
                continue
            with context():
                _, loss = model(inputs_BT.to(device), targets_BT.to(device))
            total += float(loss) * counted
            tokens += counted
    if tokens == 0:
        raise ValueError("no window has a target: the validation split is empty")
    return total / tokens
