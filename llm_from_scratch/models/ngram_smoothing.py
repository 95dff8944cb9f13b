"""Four ways to turn counts into probabilities: maximum likelihood, add-k, interpolation, Kneser-Ney.

Each is a small class with one method, ``probabilities(counts, evidence)``: the evidence is a list from the
empty context to the longest, which an ``NGramModel`` looks up. In the formulas
h is a context, w the word after it, c(h w) how often they occur together, c(h) how often h occurs,
h' the context without its oldest word, and V the size of the vocabulary.

N: predictions; K: length of the longest context, the model's order - 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from llm_from_scratch.models.ngram_counts import Evidence, NGramCounts, encode_events

Array = np.ndarray


class Smoothing(Protocol):
    """What an n-gram model asks of a smoothing method."""

    def probabilities(self, counts: NGramCounts, evidence: Sequence[Evidence]) -> Float[Array, "N"]:
        """P(word | context) for N predictions at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood:
    """The relative frequency, c(h w) / c(h).

    After a context that never occurred the quotient is 0 / 0. We return 0 for every word there, so such
    a row sums to 0 and not to 1: no estimate exists, which is the first reason to smooth.
    """

    def probabilities(self, counts: NGramCounts, evidence: Sequence[Evidence]) -> Float[Array, "N"]:
        """P(word | context) for N predictions at once."""
        longest = evidence[-1]
        return longest.count_N / np.maximum(longest.total_N, 1)


@dataclass(frozen=True, kw_only=True)
class AddK:
    """(c(h w) + k) / (c(h) + k V): pretend that every word was seen k times more after every context.

    Source: Lidstone 1920; k = 1 is Laplace's rule of succession. Raises: ValueError unless k > 0.
    """

    k: float = 1.0  # pseudo-counts a word

    def __post_init__(self) -> None:
        if not self.k > 0 or self.k == float("inf"):
            raise ValueError(
                f"k must be a finite number above 0, got {self.k}; MaximumLikelihood() adds nothing"
            )

    def probabilities(self, counts: NGramCounts, evidence: Sequence[Evidence]) -> Float[Array, "N"]:
        """P(word | context) for N predictions at once."""
        longest = evidence[-1]
        return (longest.count_N + self.k) / (longest.total_N + self.k * len(counts.vocabulary))


@dataclass(frozen=True, kw_only=True)
class Interpolated:
    """Blend of all orders: P(w|h) = λ c(h w)/c(h) + (1 - λ) P(w|h'), down to the uniform 1/V.

    ``weights[k][b]`` is λ for contexts of k words that were seen between 2^b and 2^(b+1) - 1 times; the
    last entry serves all more frequent contexts. One entry a row means one λ for every context. A context
    that was never seen gets λ = 0, so each distribution sums to 1.

    Source: Jelinek & Mercer 1980, who tune λ on held-out text by expectation maximisation and let it
    depend on the count of the context. Departure: our classes are powers of two.
    Raises: ValueError if a weight lies outside [0, 1] or there are fewer rows than the model's order.
    """

    weights: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for row in self.weights:
            if not row or not all(0.0 <= weight <= 1.0 for weight in row):
                raise ValueError(f"every row of weights needs numbers from 0 to 1, got {row}")

    def _weight(self, k: int, total_N: Int[Array, "N"]) -> Float[Array, "N"]:
        row = np.array(self.weights[k])
        return np.where(total_N > 0, row[_bucket(total_N, len(row))], 0.0)

    def probabilities(self, counts: NGramCounts, evidence: Sequence[Evidence]) -> Float[Array, "N"]:
        """P(word | context) for N predictions at once."""
        if len(self.weights) < len(evidence):
            raise ValueError(
                f"a model of order {len(evidence)} needs as many rows of weights, "
                f"got {len(self.weights)}; tune them for that order"
            )
        p_N = np.full(len(evidence[0].count_N), 1.0 / len(counts.vocabulary))
        for k, seen in enumerate(evidence):
            weight_N = self._weight(k, seen.total_N)
            p_N = weight_N * seen.count_N / np.maximum(seen.total_N, 1) + (1 - weight_N) * p_N
        return p_N

    @classmethod
    def tuned(
        cls,
        counts: NGramCounts,
        held_out: Iterable[Sequence[Hashable]],
        *,
        order: int | None = None,
        buckets: int = 1,
        rounds: int = 30,
    ) -> Interpolated:
        """Choose the weights that make a held-out text most likely, by expectation maximisation.

        Each round asks, for every held-out word, how likely it is that each order produced it, and sets λ
        to the share of an order among the words that reached it. The likelihood never falls.
        ``held_out`` must not be the text that was counted: on that text every λ would go to 1.
        """
        order = counts.order if order is None else order
        word_N, context_NK = encode_events(held_out, counts.vocabulary, order - 1)
        levels = [
            (s.count_N / np.maximum(s.total_N, 1), s.total_N) for s in counts.look_up(word_N, context_NK)
        ]
        model = cls(weights=((0.5,) * buckets,) * order)
        for _ in range(rounds):
            below = [np.full(len(word_N), 1.0 / len(counts.vocabulary))]  # P from the shorter contexts
            for k, (ml_N, total_N) in enumerate(levels):
                weight_N = model._weight(k, total_N)
                below.append(weight_N * ml_N + (1 - weight_N) * below[-1])
            reach_N = np.ones(len(word_N))  # chance that no longer context produced the word
            rows = [()] * order
            for k in reversed(range(order)):
                ml_N, total_N = levels[k]
                # below[k + 1] is 0 only where this order was never reached: 0 / tiny is 0.
                share_N = model._weight(k, total_N) * ml_N / np.maximum(below[k + 1], 1e-300)
                seen = total_N > 0
                bucket = _bucket(total_N[seen], buckets)
                reached_B = np.bincount(bucket, weights=reach_N[seen], minlength=buckets)
                taken_B = np.bincount(bucket, weights=(reach_N * share_N)[seen], minlength=buckets)
                old_B = np.array(model.weights[k])
                new_B = np.where(reached_B > 0, taken_B / np.maximum(reached_B, 1e-300), old_B)
                rows[k] = tuple(np.clip(new_B, 0.0, 1.0).tolist())
                reach_N = reach_N * (1 - share_N)
            model = cls(weights=tuple(rows))
        return model


@dataclass(frozen=True, kw_only=True)
class KneserNey:
    """Take a discount D off every count and hand the freed mass to the shorter context.

    P(w|h) = max(c(h w) - D, 0) / c(h)  +  D t(h) / c(h) * P(w|h'),   t(h): different words after h.

    The longest contexts use counts. All shorter ones use left counts: how many different words precede
    the n-gram, because a shorter context is asked only where the longer one is new. Below single words
    stands the uniform 1/V. ``discount=None`` estimates one D an order as n1 / (n1 + 2 n2), with n1 and n2
    the number of n-grams counted once and twice.

    Source: Kneser & Ney 1995; interpolated as in Chen & Goodman 1999, section 3. Departure: where
    n1 or n2 is 0, the estimate would be 0 and leave nothing for new words, or 1 and forget every n-gram
    seen once; we take 0.5.
    Raises: ValueError unless 0 < discount <= 1.
    """

    discount: float | None = None  # counts
    uniform: bool = True  # False: single words are not smoothed, as NLTK has it

    def __post_init__(self) -> None:
        if self.discount is not None and not 0.0 < self.discount <= 1.0:
            raise ValueError(
                f"discount must be above 0 and at most 1, got {self.discount}; None estimates it"
            )

    def discount_for(self, counts: NGramCounts, k: int, *, longest: bool) -> float:
        """The discount of contexts of k words."""
        if self.discount is not None:
            return self.discount
        level = counts.levels[k]
        once, twice = level.count_once_twice if longest else level.left_once_twice
        return once / (once + 2 * twice) if once and twice else 0.5

    def probabilities(self, counts: NGramCounts, evidence: Sequence[Evidence]) -> Float[Array, "N"]:
        """P(word | context) for N predictions at once."""
        p_N = np.full(len(evidence[0].count_N), 1.0 / len(counts.vocabulary))
        for k, seen in enumerate(evidence):
            longest = k == len(evidence) - 1
            count_N, total_N = (seen.count_N, seen.total_N) if longest else (seen.left_N, seen.left_total_N)
            discount = self.discount_for(counts, k, longest=longest) if k or self.uniform else 0.0
            kept_N = np.maximum(count_N - discount, 0.0)
            freed_N = discount * seen.types_N
            p_N = np.where(total_N > 0, (kept_N + freed_N * p_N) / np.maximum(total_N, 1), p_N)
        return p_N


def _bucket(total_N: Int[Array, "N"], buckets: int) -> Int[Array, "N"]:
    """Which class of frequency a context belongs to: 1, 2-3, 4-7, ... seen."""
    return np.minimum(np.log2(np.maximum(total_N, 1)).astype(np.int64), buckets - 1)
