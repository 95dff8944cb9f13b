"""What BERT's two tasks cost without BERT: counts of neighbours, and words that two texts share.

Legend: N masked positions, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

NO_TARGET = -100


class NeighbourCounts:
    """Guess a masked token from the tokens beside it, by counts alone.

    Formula: ``p(w | l) = (c(l w) + k p(w)) / (c(l) + k)``, likewise for the right neighbour r, and from
    both ``p(w | l, r) ~ p(w | l) p(w | r) / p(w)``, which is exact if l and r are independent given w.
    ``k`` counts how many observations the unigram is worth. A side whose token is special ([MASK],
    [SEP], ...) is left out.

    ``num_special``: the ids 0 to num_special - 1 are special. A table of V x V numbers is kept.
    """

    def __init__(
        self, documents: Iterable[list[int]], *, vocab_size: int, num_special: int, k: float = 100.0
    ):
        self.num_special, self.k = num_special, k
        pairs_VV = np.zeros(vocab_size * vocab_size, dtype=np.float32)
        unigram_V = np.full(vocab_size, 0.5)
        for ids in documents:
            stream = np.asarray(ids, dtype=np.int64)
            unigram_V += np.bincount(stream, minlength=vocab_size)
            seen, counts = np.unique(stream[:-1] * vocab_size + stream[1:], return_counts=True)
            pairs_VV[seen] += counts
        unigram_V[:num_special] = 1e-9  # never the answer
        self.unigram_V = torch.from_numpy(unigram_V / unigram_V.sum()).float()
        self.pairs_VV = torch.from_numpy(pairs_VV.reshape(vocab_size, vocab_size))

    def log_probabilities(
        self, ids_BT: Tensor, targets_BT: Tensor, *, left: bool = True, right: bool = True
    ) -> Tensor:
        """Log-probabilities [N, V] at the masked positions, row by row; position 0 is passed over."""
        masked_BT = targets_BT != NO_TARGET
        masked_BT[:, 0] = False
        before_BT, after_BT = torch.zeros_like(ids_BT), torch.zeros_like(ids_BT)
        before_BT[:, 1:], after_BT[:, :-1] = ids_BT[:, :-1], ids_BT[:, 1:]
        unigram_V = self.unigram_V.log()
        scores_NV = unigram_V.repeat(int(masked_BT.sum()), 1)
        for used, beside_N, rows_VV in (
            (left, before_BT[masked_BT], self.pairs_VV),
            (right, after_BT[masked_BT], self.pairs_VV.T),
        ):
            if used:
                counts_NV = rows_VV[beside_N]
                smooth_NV = counts_NV + self.k * self.unigram_V
                told_NV = (smooth_NV / smooth_NV.sum(dim=-1, keepdim=True)).log() - unigram_V
                scores_NV += told_NV * (beside_N >= self.num_special)[:, None]
        return scores_NV.log_softmax(dim=-1)


class SharedWords:
    """Guess whether one text follows the other from the words that they share.

    Formula: the sum of ``-log p(w)`` over the different tokens w that stand in both; at or above a
    threshold the pair is said to follow. The threshold is the best one on the pairs given to `fit`.
    """

    def __init__(self, unigram_V: Tensor, *, sep_id: int, num_special: int):
        self.surprise_V, self.sep_id, self.num_special = -unigram_V.log(), sep_id, num_special
        self.threshold = 0.0

    def score(self, ids_T: list[int]) -> float:
        """How much the two texts of a pair share, in nats."""
        middle = ids_T.index(self.sep_id)
        shared = set(ids_T[:middle]) & set(ids_T[middle:])
        return sum(float(self.surprise_V[i]) for i in shared if i >= self.num_special)

    def fit(self, pairs: list[list[int]], labels: list[int]) -> float:
        """Choose the threshold; return the accuracy on these pairs. Label 0 means: follows."""
        scores = np.array([self.score(ids) for ids in pairs])
        follows = np.array(labels) == 0
        thresholds = np.unique(scores)
        right = [((scores >= threshold) == follows).mean() for threshold in thresholds]
        self.threshold = float(thresholds[int(np.argmax(right))])
        return float(max(right))

    def accuracy(self, pairs: list[list[int]], labels: list[int]) -> float:
        """The share of pairs that are guessed right."""
        guesses = [0 if self.score(ids) >= self.threshold else 1 for ids in pairs]
        return float(np.mean(np.array(guesses) == np.array(labels)))
