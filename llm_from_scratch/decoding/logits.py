"""Reshape the scores of the next token: sharpen or flatten them, or drop the unlikely ones.

Each function takes scores and returns new ones; a dropped token has the score minus infinity,
hence probability 0, and the rest share its probability in proportion once the softmax is taken.
At least one token always stays. Where tokens tie at the border, the lower id stays.

Legend: B sequences, V vocabulary entries. Any number of leading axes may stand for B.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def apply_temperature(logits_BV: Float[Tensor, "*B V"], *, temperature: float) -> Float[Tensor, "*B V"]:
    """Divide the scores: below 1 the likely tokens gain, above 1 the unlikely ones do.

    Formula: ``p_i`` becomes proportional to ``p_i ** (1 / temperature)``. The order of the tokens
    does not change.

    Units: ``temperature`` is a bare positive number; 1 changes nothing.
    Raises: ValueError if it is not positive and finite. Temperature 0, the limit that always takes
    the most likely token, has no quotient; `sample` accepts it.
    Source: Ackley, Hinton and Sejnowski 1985, equation 5.

    >>> apply_temperature(torch.tensor([[1.0, 2.0]]), temperature=0.5).tolist()
    [[2.0, 4.0]]
    """
    if not 0.0 < temperature < math.inf:
        raise ValueError(
            f"temperature must be positive and finite, got {temperature}; "
            "sample(temperature=0) always takes the most likely token"
        )
    return logits_BV / temperature


def keep_top_k(logits_BV: Float[Tensor, "*B V"], *, top_k: int) -> Float[Tensor, "*B V"]:
    """Keep the ``top_k`` most likely tokens; all of them where there are no more.

    Units: ``top_k`` in tokens, at least 1.
    Raises: ValueError if ``top_k`` is no whole number of at least 1.
    Ties: exactly ``top_k`` stay, lower ids first. (`transformers` keeps all that tie with the
    last one.)
    Source: Fan et al. 2018, section 5.4.

    >>> keep_top_k(torch.tensor([[3.0, 1.0, 3.0, 3.0]]), top_k=2).tolist()
    [[3.0, -inf, 3.0, -inf]]
    """
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, got {top_k!r}; None turns it off")
    top_k = min(top_k, logits_BV.shape[-1])
    last_B1 = logits_BV.topk(top_k, dim=-1).values[..., -1:]
    above_BV, tied_BV = logits_BV > last_B1, logits_BV == last_B1
    places_B1 = top_k - above_BV.sum(dim=-1, keepdim=True)  # for those that tie with the last one
    kept_BV = above_BV | (tied_BV & (tied_BV.cumsum(dim=-1) <= places_B1))
    return logits_BV.masked_fill(~kept_BV, -torch.inf)


def keep_top_p(logits_BV: Float[Tensor, "*B V"], *, top_p: float) -> Float[Tensor, "*B V"]:
    """Keep the fewest most likely tokens whose total probability reaches ``top_p``.

    Formula: a token stays if and only if the tokens more likely than it have less than ``top_p``
    of the probability between them. The most likely token always stays.

    Units: ``top_p`` is a probability, 0 < top_p <= 1.
    Raises: ValueError if ``top_p`` lies outside (0, 1].
    Ties: lower ids count as more likely.
    Precision: half-precision scores are summed up in float32, since thousands of small
    probabilities would be lost in the rounding of their sum.
    Source: Holtzman et al. 2020, section 3.1.

    >>> keep_top_p(torch.tensor([[0.6, 0.3, 0.1]]).log(), top_p=0.7).exp().round(decimals=1).tolist()
    [[0.6..., 0.3..., 0.0]]
    """
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}; None turns it off")
    sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = _at_least_float32(sorted_BV).softmax(dim=-1)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    keep_BV = before_BV < (top_p if top_p < 1.0 else math.inf)  # a rounded sum may reach 1 too early
    keep_BV[..., 0] = True
    return _keep(logits_BV, ids_BV, keep_BV)


def keep_min_p(logits_BV: Float[Tensor, "*B V"], *, min_p: float) -> Float[Tensor, "*B V"]:
    """Keep the tokens at least ``min_p`` times as likely as the most likely one.

    Formula: a token stays if and only if ``p_i >= min_p * max(p)``, that is, if its score is at
    least ``max(logits) + log(min_p)``. No softmax is needed: the ratio of two probabilities
    depends on the difference of two scores alone.

    Units: ``min_p`` is a ratio, 0 <= min_p <= 1; 0 keeps all.
    Raises: ValueError if ``min_p`` lies outside [0, 1].
    Ties: tokens of equal score stay or go together.
    Source: Nguyen et al. 2024, section 3.

    >>> keep_min_p(torch.tensor([[0.6, 0.3, 0.1]]).log(), min_p=0.4).exp().round(decimals=1).tolist()
    [[0.6..., 0.3..., 0.0]]
    """
    if not 0.0 <= min_p <= 1.0:
        raise ValueError(f"min_p must be in [0, 1], got {min_p}; None turns it off")
    least = math.log(min_p) if min_p > 0.0 else -math.inf
    highest_B1 = logits_BV.max(dim=-1, keepdim=True).values
    return logits_BV.masked_fill(logits_BV < highest_B1 + least, -torch.inf)


def keep_typical(logits_BV: Float[Tensor, "*B V"], *, typical_p: float) -> Float[Tensor, "*B V"]:
    """Keep the tokens whose surprise is closest to the expected surprise, up to a total probability.

    The surprise of a token is ``-log p_i``; its expected value is the entropy
    ``H = -sum_i p_i log p_i``. The idea: people avoid words that carry much less information than
    is expected, as well as words that carry much more. So the most likely token may be dropped.

    Formula: sort by ``|-log p_i - H|``, the smallest first; keep the fewest tokens whose total
    probability reaches ``typical_p``.

    Units: ``typical_p`` is a probability, 0 < typical_p < 1; surprise and entropy are in nats.
    Raises: ValueError if ``typical_p`` lies outside (0, 1).
    Ties: tokens at the same distance as the last one stay with it.
    Source: Meister et al. 2022 (Locally typical sampling).

    >>> probs_BV = torch.tensor([[0.5, 0.2, 0.2, 0.1]])  # entropy 1.22; surprises 0.69, 1.61, 1.61, 2.30
    >>> keep_typical(probs_BV.log(), typical_p=0.3).exp().round(decimals=1).tolist()
    [[0.0, 0.2..., 0.2..., 0.0]]
    """
    if not 0.0 < typical_p < 1.0:
        raise ValueError(f"typical_p must be in (0, 1), got {typical_p}; None turns it off")
    log_probs_BV = _at_least_float32(logits_BV).log_softmax(dim=-1)
    probs_BV = log_probs_BV.exp()
    entropy_B1 = -torch.where(probs_BV > 0, probs_BV * log_probs_BV, 0.0).sum(dim=-1, keepdim=True)
    distance_BV = (-log_probs_BV - entropy_B1).abs()
    sorted_BV, ids_BV = distance_BV.sort(dim=-1, stable=True)
    reached_BV = probs_BV.gather(-1, ids_BV).cumsum(dim=-1)
    last_B1 = (reached_BV < typical_p).sum(dim=-1, keepdim=True).clamp(max=logits_BV.shape[-1] - 1)
    return logits_BV.masked_fill(distance_BV > sorted_BV.gather(-1, last_B1), -torch.inf)


def _at_least_float32(logits_BV: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    return logits_BV if logits_BV.dtype == torch.float64 else logits_BV.float()


def _keep(
    logits_BV: Float[Tensor, "*B V"], ids_BV: Tensor, keep_BV: Bool[Tensor, "*B V"]
) -> Float[Tensor, "*B V"]:
    """Drop what ``keep_BV`` does not mark, where column r of it speaks of token ``ids_BV[.., r]``."""
    kept_BV = torch.zeros_like(keep_BV).scatter(-1, ids_BV, keep_BV)
    return logits_BV.masked_fill(~kept_BV, -torch.inf)
