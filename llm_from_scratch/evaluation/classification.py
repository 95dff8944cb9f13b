"""How well texts were put into classes: accuracy, precision, recall, F1, and the loss of the probabilities.

Legend: N texts, K classes. ``labels_N`` holds the right classes, ``predicted_N`` those that a classifier
chose, ``probs_NK`` its probabilities. Arrays, lists and tensors on the CPU are taken alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of each class. Where a score divides by zero, it is 0."""

    precision_K: Float[np.ndarray, " K"]  # of the texts that were given the class, the part that is of it
    recall_K: Float[np.ndarray, " K"]  # of the texts of the class, the part that was given it
    f1_K: Float[np.ndarray, " K"]  # 2 precision recall / (precision + recall)
    support_K: Int[np.ndarray, " K"]  # texts of the class

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes, each with the same weight however rare it is."""
        return float(self.f1_K.mean())


def accuracy(labels_N: Any, predicted_N: Any) -> float:
    """Return the part of the texts that were given their class.

    >>> accuracy([0, 1, 1, 0], [0, 1, 0, 0])
    0.75
    """
    labels_N, predicted_N = _pair(labels_N, predicted_N)
    return float((labels_N == predicted_N).mean())


def confusion_matrix(labels_N: Any, predicted_N: Any, num_classes: int) -> Int[np.ndarray, "K K"]:
    """Count the texts of each class (row) that were given each class (column).

    Raises: ValueError for a class outside 0 to ``num_classes`` - 1, or lists of different length.

    >>> confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], 2).tolist()
    [[1, 1], [0, 2]]
    """
    labels_N, predicted_N = _pair(labels_N, predicted_N)
    for name, classes_N in (("labels", labels_N), ("predictions", predicted_N)):
        if classes_N.min() < 0 or classes_N.max() >= num_classes:
            raise ValueError(
                f"the {name} reach from {classes_N.min()} to {classes_N.max()}, but classes go "
                f"from 0 to {num_classes - 1}"
            )
    counts_KK = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts_KK, (labels_N, predicted_N), 1)
    return counts_KK


def class_scores(labels_N: Any, predicted_N: Any, num_classes: int) -> ClassScores:
    """Return precision, recall and F1 of each class.

    Raises: ValueError as `confusion_matrix`.

    >>> scores = class_scores([0, 0, 1, 1], [0, 1, 1, 1], 2)
    >>> scores.recall_K.tolist(), round(scores.macro_f1, 3)
    ([0.5, 1.0], 0.733)
    """
    counts_KK = confusion_matrix(labels_N, predicted_N, num_classes)
    right_K, given_K, support_K = np.diag(counts_KK), counts_KK.sum(axis=0), counts_KK.sum(axis=1)
    return ClassScores(
        precision_K=right_K / np.maximum(given_K, 1),
        recall_K=right_K / np.maximum(support_K, 1),
        f1_K=2 * right_K / np.maximum(given_K + support_K, 1),  # the same, without precision and recall
        support_K=support_K,
    )


def negative_log_likelihood(labels_N: Any, probs_NK: Any) -> float:
    """Return the mean of ``-ln p`` of the right class, nats a text: the loss that a classifier is trained on.

    Infinite if a right class was given probability 0. Raises: ValueError as `checked_probabilities`.

    >>> round(negative_log_likelihood([0, 1], [[0.5, 0.5], [0.75, 0.25]]), 4)
    1.0397
    """
    labels_N, probs_NK = checked_probabilities(labels_N, probs_NK)
    with np.errstate(divide="ignore"):
        return float(-np.log(probs_NK[np.arange(len(labels_N)), labels_N]).mean())


def brier_score(labels_N: Any, probs_NK: Any) -> float:
    """Return the mean squared distance from the probabilities to the certain right answer, 0 to 2.

    Formula: ``1/N sum_n sum_k (p_nk - [k = label_n])^2`` (Brier 1950). With two classes scikit-learn's
    default halves it. Raises: ValueError as `checked_probabilities`.

    >>> brier_score([0, 1], [[0.5, 0.5], [0.0, 1.0]])
    0.25
    """
    labels_N, probs_NK = checked_probabilities(labels_N, probs_NK)
    right_NK = np.eye(probs_NK.shape[1])[labels_N]
    return float(((probs_NK - right_NK) ** 2).sum(axis=1).mean())


def checked_probabilities(
    labels_N: Any, probs_NK: Any
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N K"]]:
    """Return labels and probabilities as arrays.

    Raises: ValueError if the shapes do not fit, a label is no class, or a row is no distribution (entries
    in [0, 1] whose sum is 1, up to 0.001).
    """
    labels_N, probs_NK = np.asarray(labels_N), np.asarray(probs_NK, dtype=np.float64)
    if probs_NK.ndim != 2 or labels_N.shape != probs_NK.shape[:1] or not len(labels_N):
        raise ValueError(
            f"labels of shape {labels_N.shape} do not fit probabilities of shape {probs_NK.shape}; N labels "
            "need N rows, one entry for each class"
        )
    if labels_N.dtype.kind not in "iu" or labels_N.min() < 0 or labels_N.max() >= probs_NK.shape[1]:
        raise ValueError(f"labels must be whole numbers from 0 to {probs_NK.shape[1] - 1}, got {labels_N}")
    wrong_N = ~(np.isclose(probs_NK.sum(axis=1), 1, atol=1e-3) & (probs_NK >= 0).all(axis=1))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise ValueError(f"row {row} is no distribution: {probs_NK[row]}; give probabilities, not logits")
    return labels_N, probs_NK


def _pair(labels_N: Any, predicted_N: Any) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    labels_N, predicted_N = np.asarray(labels_N), np.asarray(predicted_N)
    if labels_N.ndim != 1 or labels_N.shape != predicted_N.shape or not len(labels_N):
        raise ValueError(
            f"labels of shape {labels_N.shape} and predictions of shape {predicted_N.shape}: one class is "
            "needed for each text in both, and at least one text"
        )
    if labels_N.dtype.kind not in "iu" or predicted_N.dtype.kind not in "iu":
        raise ValueError(f"classes are whole numbers, got {labels_N.dtype} and {predicted_N.dtype}")
    return labels_N, predicted_N
