"""How far a measured score can be trusted: intervals, paired comparison, spread over seeds.

Two sources of chance are kept apart. The test texts are a sample: `wilson_interval` and
`paired_bootstrap` say how much another sample might differ. Training is random too: `spread` says how much
another seed does. A difference that is claimed should outlast both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def wilson_interval(right: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return an interval for the true accuracy behind ``right`` of ``total`` texts.

    Formula: the p for which ``|right/total - p| <= z sqrt(p (1 - p) / total)``, z the normal quantile of
    (1 + level) / 2. Unlike ``p ± z s`` it stays within 0 and 1 and is not empty where all are right.
    Source: Wilson 1927. Raises: ValueError if not 0 <= right <= total, total < 1, or level outside (0, 1).

    >>> [round(end, 3) for end in wilson_interval(90, 100)]
    [0.826, 0.945]
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"{right} right of {total} texts is no count; 0 <= right <= total, and total >= 1")
    z = statistics.NormalDist().inv_cdf((1 + _checked(level)) / 2)
    part, weight = right / total, z * z / total
    centre = (part + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(part * (1 - part) / total + weight / total / 4)
    low = max(0.0, centre - half) if right > 0 else 0.0  # exact, where rounding might not be
    return low, min(1.0, centre + half) if right < total else 1.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of ``second - first`` on the same texts, and what resampling the texts says of it."""

    mean: float
    low: float  # of the interval
    high: float
    not_better: float  # part of the resamples in which second is not better than first


def paired_bootstrap(
    first_N: Any, second_N: Any, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Difference:
    """Compare two classifiers on the same texts, by drawing the texts anew, with repetition.

    ``first_N`` and ``second_N`` hold a score for each text, such as 1 for right and 0 for wrong. The texts
    are drawn, not the two results independently: a text that is hard for both adds nothing to the
    difference. The interval is from the quantiles of the resampled means.
    Source: Efron and Tibshirani 1993, chapter 13; for tests of language systems, Koehn 2004.
    Raises: ValueError if the scores are not of the same texts (another number), or a setting is no count.

    >>> found = paired_bootstrap([0, 1, 0, 1] * 50, [1, 1, 0, 1] * 50, seed=0)
    >>> found.mean, found.low > 0.15, found.high < 0.35, found.not_better
    (0.25, True, True, 0.0)
    """
    first_N, second_N = np.asarray(first_N, dtype=np.float64), np.asarray(second_N, dtype=np.float64)
    if first_N.ndim != 1 or first_N.shape != second_N.shape or not len(first_N):
        raise ValueError(
            f"the scores have the shapes {first_N.shape} and {second_N.shape}; both need one score for each "
            "of the same texts"
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    difference_N = second_N - first_N
    rng = np.random.default_rng(seed)
    values, counts = np.unique(difference_N, return_counts=True)  # few: a resample is a multinomial draw
    drawn = rng.multinomial(len(difference_N), counts / counts.sum(), size=resamples)
    means = drawn @ values / len(difference_N)
    low, high = np.quantile(means, [(1 - _checked(level)) / 2, (1 + level) / 2])
    return Difference(
        mean=float(difference_N.mean()),
        low=float(low),
        high=float(high),
        not_better=float((means <= 0).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score over several seeds."""

    mean: float
    deviation: float  # sample standard deviation, over n - 1
    lowest: float
    highest: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f} (n = {self.count})"


def spread(scores: Sequence[float]) -> Spread:
    """Return mean, sample standard deviation and extremes of the scores of several seeds.

    Raises: ValueError for fewer than 2 scores: one run says nothing of the spread.

    >>> print(spread([0.80, 0.82, 0.81]))
    0.8100 ± 0.0100 (n = 3)
    """
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} score(s) have no spread; run at least 2 seeds")
    scores = [float(score) for score in scores]
    return Spread(
        mean=statistics.fmean(scores),
        deviation=statistics.stdev(scores),
        lowest=min(scores),
        highest=max(scores),
        count=len(scores),
    )


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return level
