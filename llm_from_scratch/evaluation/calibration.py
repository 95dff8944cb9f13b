"""Whether a classifier is right as often as it says: reliability, calibration error, temperature.

Legend: N texts, K classes, S bins. The confidence of an answer is the largest of its probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from llm_from_scratch.evaluation.classification import checked_probabilities


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The answers whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float  # mean, in the bin; NaN in an empty one
    accuracy: float  # part of them that is right; NaN in an empty bin


def reliability_table(labels_N: Any, probs_NK: Any, *, bins: int = 10) -> list[ReliabilityBin]:
    """Compare confidence and accuracy in ``bins`` bins of equal width from 0 to 1.

    Raises: ValueError for fewer than 1 bin, or as `checked_probabilities`.

    >>> table = reliability_table([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], bins=4)
    >>> [(each.low, each.count, round(each.accuracy, 2)) for each in table if each.count]
    [(0.5, 1, 0.0), (0.75, 2, 1.0)]
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    labels_N, probs_NK = checked_probabilities(labels_N, probs_NK)
    confidence_N, right_N = probs_NK.max(axis=1), probs_NK.argmax(axis=1) == labels_N
    edges = np.linspace(0, 1, bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, bins - 1)
    table = []
    for number in range(bins):
        inside_N = bin_N == number
        count = int(inside_N.sum())
        table.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                count=count,
                confidence=float(confidence_N[inside_N].mean()) if count else float("nan"),
                accuracy=float(right_N[inside_N].mean()) if count else float("nan"),
            )
        )
    return table


def expected_calibration_error(labels_N: Any, probs_NK: Any, *, bins: int = 10) -> float:
    """Return the mean distance of accuracy and confidence over the bins, each with the weight of its texts.

    Formula: ``sum_s n_s/N |accuracy_s - confidence_s|`` (Guo et al. 2017, equation 3, where 15 bins are
    used). It depends on the bins, and with few texts in a bin it is too large even for a classifier that
    is calibrated. Raises: ValueError as `reliability_table`.

    >>> round(expected_calibration_error([0, 0], [[0.9, 0.1], [0.9, 0.1]]), 3)
    0.1
    """
    table = reliability_table(labels_N, probs_NK, bins=bins)
    total = sum(each.count for each in table)
    return sum(each.count / total * abs(each.accuracy - each.confidence) for each in table if each.count)


def fit_temperature(labels_N: Any, logits_NK: Any) -> float:
    """Return the temperature T whose ``softmax(logits / T)`` has the least loss on these texts.

    Fit it on validation, and use it on the test: T is one number, so no answer changes, only how sure the
    classifier is of it. T above 1 says that it was too sure. The loss is convex in 1/T, and its minimum is
    found by bisection of its derivative, ``mean_n sum_k p_nk (z_nk - z_n,label)`` for logits z, in T from
    0.01 to 100; at an end of the range that end is returned (where every answer is right, for example).
    Source: Guo et al. 2017, section 4.2.
    Raises: ValueError if the shapes do not fit, a logit is not finite, or a label is no class.

    >>> round(fit_temperature([0, 0, 0, 1], [[2.0, 0.0]] * 4), 3)  # 3 of 4 right: 2 / ln 3
    1.82
    """
    logits_NK = torch.as_tensor(np.asarray(logits_NK), dtype=torch.float64)
    if not torch.isfinite(logits_NK).all():
        raise ValueError("a logit is not finite; temperature needs finite logits")
    labels_N, _ = checked_probabilities(labels_N, softmax_at(logits_NK, 1.0))
    gaps_NK = logits_NK - logits_NK.gather(1, torch.as_tensor(labels_N)[:, None])
    low, high = 0.01, 100.0  # of 1/T
    for _ in range(100):
        middle = (low * high) ** 0.5
        probs_NK = F.softmax(logits_NK * middle, dim=-1)
        slope = (probs_NK * gaps_NK).sum(-1).mean()  # of the loss, by 1/T
        low, high = (middle, high) if slope <= 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def softmax_at(logits_NK: Any, temperature: float) -> Float[np.ndarray, "N K"]:
    """Return ``softmax(logits / temperature)``. Raises: ValueError for a temperature that is not above 0."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    logits_NK = torch.as_tensor(np.asarray(logits_NK), dtype=torch.float64)
    return F.softmax(logits_NK / temperature, dim=-1).numpy()
