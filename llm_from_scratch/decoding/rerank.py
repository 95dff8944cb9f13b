"""Draw several texts, score each by another measure, and keep the best.

The scorer is any function from a candidate to a number, higher being better: a larger model's
log-probability, a reward model, a unit test that passes or fails.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

Candidate = TypeVar("Candidate")


class Ranked(NamedTuple):
    """A candidate, its score, and the place it had in the list before."""

    score: float
    candidate: object
    index: int


def rerank(candidates: Iterable[Candidate], scorer: Callable[[Candidate], float]) -> list[Ranked]:
    """Score each candidate once and sort them, the highest score first; of equal ones the earlier first.

    Raises: ValueError if there is no candidate, or if a score is no number or NaN, which has no
    place in an order.

    >>> [ranked.candidate for ranked in rerank(["bb", "a", "cc"], scorer=len)]
    ['bb', 'cc', 'a']
    """
    ranked = []
    for index, candidate in enumerate(candidates):
        given = scorer(candidate)
        try:
            score = float(given)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"the scorer must return one number, got {given!r} for candidate {index}"
            ) from None
        if math.isnan(score):
            raise ValueError(
                f"the score of candidate {index} is NaN; the scorer must return a number that orders"
            )
        ranked.append(Ranked(score, candidate, index))
    if not ranked:
        raise ValueError("there is no candidate to rank; draw at least one")
    return sorted(ranked, key=lambda item: -item.score)


def best_of_n(
    draw: Callable[[int], Candidate], scorer: Callable[[Candidate], float], *, n: int, seed: int = 0
) -> list[Ranked]:
    """Draw ``n`` candidates and rank them.

    ``draw`` takes a seed, so that the n candidates differ and the run can be repeated: it gets
    ``seed``, ``seed + 1``, and so on.

    The more candidates, the higher the best score. That the best is better is as true as the scorer
    is good: with many candidates one is found that the scorer likes by mistake.

    Units: ``n`` in candidates, at least 1.
    Raises: ValueError if ``n`` is no whole number of at least 1; see also `rerank`.
    Source: Nakano et al. 2021 (WebGPT), under "rejection sampling (best-of-n)".

    >>> best_of_n(lambda seed: seed * 7 % 5, scorer=float, n=4)[0]
    Ranked(score=4.0, candidate=4, index=2)
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    return rerank((draw(seed + number) for number in range(n)), scorer)
