"""Cross-entropy, perplexity and bits per byte of a model on a text.

Every token is scored once, by the probability that the model gave it after the tokens before.

Legend: N tokens, B windows in a batch, T positions in a window, V vocabulary entries.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llm_from_scratch.nn.modes import evaluation_mode


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """How well a text was predicted, in each of the usual units.

    >>> score = TextScore(nats_per_token=math.log(8), num_tokens=3, num_bytes=12)
    >>> round(score.bits_per_token, 6), round(score.perplexity, 6), round(score.bits_per_byte, 6)
    (3.0, 8.0, 0.75)
    """

    nats_per_token: float  # cross-entropy: mean of -ln p over the scored tokens
    num_tokens: int  # tokens scored
    num_bytes: int | None = None  # bytes of UTF-8 that the scored tokens spell; None: not counted

    @property
    def bits_per_token(self) -> float:
        """Cross-entropy in bits a token: nats divided by ln 2."""
        return self.nats_per_token / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats a token): the number of equally likely choices that would be as hard."""
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Cross-entropy in bits a byte of text; None where the bytes were not counted."""
        if self.num_bytes is None:
            return None
        return bits_per_byte(self.nats_per_token, self.num_tokens, self.num_bytes)


def bits_per_byte(nats_per_token: float, num_tokens: int, num_bytes: int) -> float:
    """Cross-entropy by the byte: comparable between models whose tokens differ.

    Formula: ``nats_per_token * num_tokens / (ln 2 * num_bytes)``, where the tokens counted are
    those that spell the bytes counted.
    Raises: ValueError if a count is not positive.
    Source: Gao et al. 2020 (The Pile), section 3.1.

    >>> bits_per_byte(math.log(2), num_tokens=30, num_bytes=120)
    0.25
    """
    if num_tokens < 1 or num_bytes < 1:
        raise ValueError(f"bits per byte need tokens and bytes, got {num_tokens} tokens, {num_bytes} bytes")
    return nats_per_token * num_tokens / (math.log(2) * num_bytes)


def from_log_probabilities(
    log_probabilities: Iterable[float] | Tensor | np.ndarray, *, num_bytes: int | None = None
) -> TextScore:
    """Score a text from the natural logarithm of each token's probability: for any kind of model.

    Formula: ``nats_per_token = -mean(log_probabilities)``. A token of probability 0 (logarithm
    minus infinity) makes it, and the perplexity, infinite.

    Arguments: ``num_bytes`` is the length in UTF-8 of what these tokens spell.
    Raises: ValueError if there are none, if one is NaN, or if one is positive (a probability
    above 1), but for rounding.
    Source: Jelinek et al. 1977 for perplexity.

    >>> from_log_probabilities([math.log(0.5), math.log(0.125)]).bits_per_token
    2.0
    """
    if isinstance(log_probabilities, Tensor):
        log_probabilities = log_probabilities.detach().cpu().double().flatten().tolist()
    values = [float(value) for value in log_probabilities]
    if not values:
        raise ValueError("no log-probabilities to score; a text needs at least one scored token")
    for place, value in enumerate(values):
        if math.isnan(value) or value > 1e-5:
            raise ValueError(
                f"log-probability {value} at place {place} is not the logarithm of a probability; "
                "give natural logarithms of numbers from 0 to 1"
            )
    nats = -math.fsum(values) / len(values)
    return TextScore(nats_per_token=max(nats, 0.0), num_tokens=len(values), num_bytes=num_bytes)


@torch.no_grad()
def token_log_probabilities(
    model: Callable[[Tensor], Tensor],
    token_ids: Iterable[int] | Tensor | np.ndarray,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    start_id: int | None = None,
) -> Float[Tensor, "N"]:
    """The ln p of each token given those before it, in order, each token scored exactly once.

    A text longer than the context is read in windows of ``context_length`` tokens, each
    ``stride`` tokens after the one before. A window scores what no earlier one has scored; the
    rest of it is context. So every token beyond the first window is predicted from at least
    ``context_length - stride + 1`` tokens. A small stride costs more and measures better.

    Arguments: ``stride`` in tokens, 1 to ``context_length``; half the context by default.
    ``batch_size`` in windows. ``start_id`` is put before the text and is not scored; without it
    nothing precedes the first token, which is then context only: N - 1 tokens are scored.
    ``context_length`` defaults to the model's own.
    Raises: ValueError for too few tokens or a stride out of range.
    Departure: the last window is moved back to end with the text, so that all are of one length.

    >>> uniform = lambda ids_BT: torch.zeros(*ids_BT.shape, 4)
    >>> token_log_probabilities(uniform, [0, 1, 2, 3, 0, 1], context_length=2).exp().tolist()
    [0.25, 0.25, 0.25, 0.25, 0.25]
    """
    ids_N = _as_ids(token_ids, start_id)
    num_targets = len(ids_N) - 1
    limit = getattr(getattr(model, "config", None), "context_length", num_targets)
    limit = limit if context_length is None else context_length
    if limit < 1:
        raise ValueError(f"context_length must be at least 1 token, got {limit}")
    stride = max(1, limit // 2) if stride is None else stride
    if not 1 <= stride <= limit:
        raise ValueError(f"stride must lie in [1, {limit}], the context in tokens, got {stride}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 window, got {batch_size}")
    width = min(limit, num_targets)
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device = "cpu" if first is None else first.device
    scored = []
    with evaluation_mode(model):
        windows = list(_windows(num_targets, width, stride))
        for i in range(0, len(windows), batch_size):
            batch = windows[i : i + batch_size]
            inputs_BT = torch.stack([ids_N[start : start + width] for start, _ in batch]).to(device)
            targets_BT = torch.stack([ids_N[start + 1 : start + width + 1] for start, _ in batch]).to(device)
            logits_BTV = model(inputs_BT).float()
            if not scored:
                _check_vocabulary(ids_N, logits_BTV.shape[-1])
            losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none").cpu()
            scored += [-losses_T[skip:] for losses_T, (_, skip) in zip(losses_BT, batch, strict=True)]
    return torch.cat(scored)


def evaluate(
    model: Callable[[Tensor], Tensor],
    token_ids: Iterable[int] | Tensor | np.ndarray,
    *,
    num_bytes: int | None = None,
    **settings,
) -> TextScore:
    """Score a model on tokens. The settings are those of `token_log_probabilities`.

    Arguments: ``num_bytes`` is the length in UTF-8 of what the scored tokens spell: all of them
    with ``start_id``, otherwise all but the first. `evaluate_text` counts them for you.
    """
    return from_log_probabilities(token_log_probabilities(model, token_ids, **settings), num_bytes=num_bytes)


def perplexity(
    model: Callable[[Tensor], Tensor], token_ids: Iterable[int] | Tensor | np.ndarray, **settings
) -> float:
    """The number of equally likely choices that would be as hard: ``exp(mean(-ln p))``.

    >>> round(perplexity(lambda ids_BT: torch.zeros(*ids_BT.shape, 4), [0, 1, 2, 3]), 6)
    4.0
    """
    return evaluate(model, token_ids, **settings).perplexity


def evaluate_text(
    model: Callable[[Tensor], Tensor], tokenizer, text: str, *, start_id: int | None = None, **settings
) -> TextScore:
    """Score a model on a text, with bits per byte from an exact count of the bytes scored.

    With ``start_id`` every token is scored, and the bytes are those of the whole text. Without it
    the first token is context only and its bytes do not count; where it ends inside a character,
    the tokens that complete the character are context too.

    Raises: ValueError if the text is shorter than two tokens, or if the tokenizer rewrites the
    start of the text, so that its first bytes cannot be counted.
    """
    ids = list(tokenizer.encode(text))
    total = len(text.encode("utf-8"))
    if start_id is not None:
        return evaluate(model, ids, start_id=start_id, num_bytes=total, **settings)
    context = next(
        (n for n in range(1, min(len(ids), 9)) if text.startswith(tokenizer.decode(ids[:n]))), None
    )
    if context is None:
        raise ValueError(
            f"cannot tell which bytes the first of {len(ids)} tokens spell: the text is too short, or the "
            "tokenizer rewrites it; give start_id, or count the bytes and call evaluate(num_bytes=...)"
        )
    scored = token_log_probabilities(model, ids, **settings)[context - 1 :]
    num_bytes = total - len(tokenizer.decode(ids[:context]).encode("utf-8"))
    return from_log_probabilities(scored, num_bytes=num_bytes)


def _windows(num_targets: int, width: int, stride: int) -> Iterator[tuple[int, int]]:
    """Each window's first place, and how many of its targets earlier windows have scored."""
    done = 0
    while done < num_targets:
        end = width if done == 0 else min(done + stride, num_targets)
        yield end - width, done - (end - width)
        done = end


def _as_ids(token_ids: Iterable[int] | Tensor | np.ndarray, start_id: int | None) -> Tensor:
    if isinstance(token_ids, Tensor):
        token_ids = token_ids.cpu().numpy()
    ids = np.asarray(token_ids if isinstance(token_ids, np.ndarray) else list(token_ids))
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(
            f"token_ids must be one sequence of whole numbers, got {ids.dtype} of shape {ids.shape}"
        )
    if start_id is not None:
        ids = np.concatenate([[start_id], ids.astype(np.int64)])
    if len(ids) < 2:
        raise ValueError(f"a text of {len(ids)} tokens, the start included, leaves none to score; give more")
    return torch.from_numpy(ids.astype(np.int64))


def _check_vocabulary(ids_N: Tensor, vocab_size: int) -> None:
    wrong = ids_N[(ids_N < 0) | (ids_N >= vocab_size)]
    if len(wrong):
        raise ValueError(
            f"the text holds token {wrong[0].item()}, outside the vocabulary of {vocab_size} entries; "
            "encode it with the model's own tokenizer"
        )
