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
    ids_BV = logits_BV.argsort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    return _keep(logits_BV, ids_BV, (rank_V < top_k).expand_as(ids_BV))


def keep_top_p(logits_BV: Float[Tensor, "*B V"], *, top_p: float) -> Float[Tensor, "*B V"]:
    """Keep the fewest most likely tokens whose total probability reaches ``top_p``.

    Formula: a token stays if and only if the tokens more likely than it have less than ``top_p``
    of the probability between them. The most likely token always stays.

    Units: ``top_p`` is a probability, 0 < top_p <= 1.
    Raises: ValueError if ``top_p`` lies outside (0, 1].
    Ties: lower ids count as more likely.
    Source: Holtzman et al. 2020, section 3.1.

    >>> keep_top_p(torch.tensor([[0.6, 0.3, 0.1]]).log(), top_p=0.7).exp().round(decimals=1).tolist()
    [[0.6..., 0.3..., 0.0]]
    """
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}; None turns it off")
    sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = sorted_BV.softmax(dim=-1)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    keep_BV = before_BV < top_p
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


def _keep(
    logits_BV: Float[Tensor, "*B V"], ids_BV: Tensor, keep_BV: Bool[Tensor, "*B V"]
) -> Float[Tensor, "*B V"]:
    """Drop what ``keep_BV`` does not mark, where column r of it speaks of token ``ids_BV[.., r]``."""
    kept_BV = torch.zeros_like(keep_BV).scatter(-1, ids_BV, keep_BV)
    return logits_BV.masked_fill(~kept_BV, -torch.inf)
