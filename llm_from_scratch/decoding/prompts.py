"""What sampling and search begin with: a checked prompt, and the scores of the token after a text.

Legend: B texts, T positions, V vocabulary entries.
"""

import operator
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.nn.modes import evaluation_mode


def check_prompt(model, ids, max_new_tokens: int, context_length: int | None) -> tuple[list[int], int | None]:
    """Return the prompt as a list and the longest text the model reads, None if it says nothing of it.

    Raises: ValueError for a prompt that is no single, non-empty row of whole numbers, and for
    lengths out of range.

    >>> check_prompt(None, torch.tensor([[3, 1]]), 5, None)
    ([3, 1], None)
    """
    try:
        prompt = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"the prompt must be a row of token ids, got {ids!r}; encode the text first"
        ) from None
    if prompt.numel() == 0:
        raise ValueError("the prompt is empty; give at least one token, such as the one that starts a text")
    if prompt.dim() > 1 and prompt.shape[:-1].numel() > 1:
        raise ValueError(f"one sequence at a time, got ids of shape {tuple(prompt.shape)}; pass ids[0]")
    history = prompt.flatten().tolist()
    if not all(type(token) is int for token in history):
        raise ValueError(f"token ids must be whole numbers, got {history}; encode the prompt first")
    if not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be a whole number of at least 0, got {max_new_tokens!r}")
    if context_length is None:
        context_length = getattr(getattr(model, "config", None), "context_length", None)
    if context_length is not None and context_length < 1:
        raise ValueError(f"context_length must be at least 1 token, got {context_length}")
    return history, context_length


def next_token_logits(
    model, ids_BT: Int[Tensor, "B T"], context_length: int | None = None
) -> Float[Tensor, "B V"]:
    """Score the token after each text, with dropout off, in float32 on the CPU.

    The model reads the last ``context_length`` tokens.

    Raises: ValueError if a row's highest score is NaN or infinite.

    >>> model = lambda ids_BT: nn.functional.one_hot(ids_BT, 3)
    >>> next_token_logits(model, torch.tensor([[2, 1]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    window_BT = ids_BT if context_length is None else ids_BT[:, -context_length:]
    with torch.no_grad(), evaluation_mode(model):
        logits_BTV = model(window_BT if first is None else window_BT.to(first.device))
    logits_BV = logits_BTV[:, -1].float().cpu()
    highest_B = logits_BV.max(dim=-1).values  # NaN if any score of the row is NaN
    if not highest_B.isfinite().all():
        wrong = highest_B[~highest_B.isfinite()][0].item()
        raise ValueError(
            f"no next token can be drawn: the highest score is {wrong}; "
            "the weights may have diverged in training, so load an earlier checkpoint"
        )
    return logits_BV


def whole_numbers(ids: Iterable[int] | Tensor | int, name: str) -> frozenset[int]:
    """Return token ids as a set of plain integers, whether given as a number, list, array or tensor.

    >>> sorted(whole_numbers(torch.tensor([3, 1]), "stop_ids"))
    [1, 3]
    """
    plain = ids.tolist() if hasattr(ids, "tolist") else ids
    try:
        return frozenset(operator.index(i) for i in (plain if isinstance(plain, Iterable) else [plain]))
    except TypeError:
        raise ValueError(f"{name} must be token ids, whole numbers in one row, got {ids!r}") from None
