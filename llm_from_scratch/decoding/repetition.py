"""Make what has been said less likely: penalties on seen tokens, and no phrase a second time.

Each function takes the text so far and the scores of the next token, and returns new scores. The
text is ``ids_BT``, prompt included. ``prompt_length`` leaves that many leading tokens out of
account, so that words of the prompt may be used freely.

Legend: B sequences, T tokens so far, V vocabulary entries.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.decoding.pipeline import check_history


def penalise_repetition(
    ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"], *, penalty: float, prompt_length: int = 0
) -> Float[Tensor, "B V"]:
    """Lower the score of every token that has occurred: divide it if positive, multiply it if negative.

    Formula: ``x_i / penalty`` if ``x_i > 0``, else ``x_i * penalty``, for each token i in the text,
    however often it stands there.

    Both branches lower the score if ``penalty > 1``. The size of the step depends on the score
    itself, so a constant added to all scores, which changes no probability, changes the result.

    Units: ``penalty`` is a bare positive number; 1 changes nothing, below 1 favours repetition.
    Raises: ValueError if it is not positive and finite, or if an id lies outside the vocabulary.
    Source: Keskar et al. 2019 (CTRL), section 4.1. Departure: the paper divides negative scores as
    well, which would raise them; multiplying them is what libraries do, and so do we.

    >>> penalise_repetition(torch.tensor([[0, 1]]), torch.tensor([[2.0, -2.0, 3.0]]), penalty=2.0).tolist()
    [[1.0, -4.0, 3.0]]
    """
    if not 0.0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, got {penalty}; 1 turns it off")
    seen_BV = count_tokens(ids_BT, logits_BV, prompt_length=prompt_length) > 0
    lowered_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, lowered_BV, logits_BV)


def penalise_presence_and_frequency(
    ids_BT: Int[Tensor, "B T"],
    logits_BV: Float[Tensor, "B V"],
    *,
    presence: float = 0.0,
    frequency: float = 0.0,
    prompt_length: int = 0,
) -> Float[Tensor, "B V"]:
    """Subtract from the score of each token that has occurred: once, and once more per occurrence.

    Formula: ``x_i - presence * [c_i > 0] - frequency * c_i``, where ``c_i`` counts token i in the
    text and ``[...]`` is 1 if true, else 0.

    Unlike a quotient, a difference multiplies the odds against the other tokens by a fixed factor,
    ``exp(-presence)`` and ``exp(-frequency)``, whatever the score was.

    Units: ``presence`` and ``frequency`` in nats; 0 turns each off, negative values favour
    repetition. OpenAI's interface takes them from -2 to 2.
    Raises: ValueError if one is not finite, or if an id lies outside the vocabulary.
    Source: OpenAI's API reference, "Frequency and presence penalties". It counts the sampled tokens
    alone: pass the prompt's length as ``prompt_length`` for that.

    >>> ids_BT, logits_BV = torch.tensor([[0, 1, 1]]), torch.tensor([[5.0, 5.0, 5.0]])
    >>> penalise_presence_and_frequency(ids_BT, logits_BV, presence=1.0, frequency=0.5).tolist()
    [[3.5, 3.0, 5.0]]
    """
    for name, value in (("presence", presence), ("frequency", frequency)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}; 0 turns it off")
    counts_BV = count_tokens(ids_BT, logits_BV, prompt_length=prompt_length)
    counts_BV = counts_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    penalty_BV = presence * (counts_BV > 0) + frequency * counts_BV
    return (logits_BV - penalty_BV).to(logits_BV.dtype)


def forbid_repeated_ngrams(
    ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"], *, size: int
) -> Float[Tensor, "B V"]:
    """Give score minus infinity to each token that would complete an n-gram for the second time.

    The last ``size - 1`` tokens are the beginning of the n-gram that the next token completes.
    Wherever the same beginning stands earlier in the text, the token after it is forbidden.

    Units: ``size`` in tokens, at least 1; 1 forbids every token of the text.
    Raises: ValueError if ``size`` is no whole number of at least 1, or if an id lies outside the
    vocabulary.
    Source: Paulus et al. 2018 (A deep reinforced model for abstractive summarization), section 2.5.

    >>> forbid_repeated_ngrams(torch.tensor([[0, 1, 2, 0]]), torch.zeros(1, 3), size=2).tolist()
    [[0.0, -inf, 0.0]]
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(
            f"size must be a whole number of at least 1, got {size!r}; leave the step out instead"
        )
    check_history(ids_BT, logits_BV)
    forbidden_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    for row, ids_T in enumerate(ids_BT.tolist()):
        beginning = ids_T[len(ids_T) - size + 1 :]
        for start in range(len(ids_T) - size + 1):
            if ids_T[start : start + size - 1] == beginning:
                forbidden_BV[row, ids_T[start + size - 1]] = True
    return logits_BV.masked_fill(forbidden_BV, -torch.inf)


def count_tokens(
    ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"], *, prompt_length: int = 0
) -> Int[Tensor, "B V"]:
    """How often each entry of the vocabulary occurs in the text after its first ``prompt_length`` tokens.

    Raises: ValueError if ``prompt_length`` is no whole number of at least 0, or if an id lies
    outside the vocabulary.

    >>> count_tokens(torch.tensor([[2, 0, 2]]), torch.zeros(1, 4)).tolist()
    [[1, 0, 2, 0]]
    """
    if not isinstance(prompt_length, int) or isinstance(prompt_length, bool) or prompt_length < 0:
        raise ValueError(f"prompt_length must be a whole number of at least 0, got {prompt_length!r}")
    check_history(ids_BT, logits_BV)
    new_BT = ids_BT[:, prompt_length:].long()
    counts_BV = torch.zeros(logits_BV.shape, dtype=torch.long, device=logits_BV.device)
    return counts_BV.scatter_add(1, new_BT, torch.ones_like(new_BT))
