"""The baselines of masked prediction: counts by hand, and words that two texts share."""

import math

import pytest
import torch

from llm_from_scratch.evaluation.pretraining_baselines import NeighbourCounts, SharedWords

V, MASK = 9, 4


def counts(k=0.5):
    return NeighbourCounts([[5, 6, 7], [5, 6, 8], [5, 8, 7]], vocab_size=V, num_special=5, k=k)


def test_neighbours_by_hand():
    c, k = counts(), 0.5
    assert c.pairs_VV[5, 6] == 2
    assert c.pairs_VV[7, 5] == 0  # no pair reaches over the end of a document
    p = [(n + 0.5) / 11 for n in (3, 2, 2, 2)]  # of 5, 6, 7 and 8
    ids_BT = torch.tensor([[2, 5, MASK, 7, 3]])
    targets_BT = torch.tensor([[0, -100, 6, -100, -100]])  # the label at position 0 is passed over
    after_5 = [k * p[0] / (3 + k), (2 + k * p[1]) / (3 + k), k * p[2] / (3 + k), (1 + k * p[3]) / (3 + k)]
    before_7 = [k * p[0] / (2 + k), (1 + k * p[1]) / (2 + k), k * p[2] / (2 + k), (1 + k * p[3]) / (2 + k)]
    both = [a * b / c for a, b, c in zip(after_5, before_7, p, strict=True)]
    for sides, expected in (
        ((False, False), p),
        ((True, False), after_5),
        ((False, True), before_7),
        ((True, True), both),
    ):
        log_NV = c.log_probabilities(ids_BT, targets_BT, left=sides[0], right=sides[1])
        assert log_NV.shape == (1, V)
        expected_V = torch.tensor(expected) / sum(expected)
        torch.testing.assert_close(log_NV[0, 5:].exp(), expected_V, rtol=0, atol=1e-5)
        assert log_NV[0, :5].exp().sum() < 1e-6


def test_special_neighbours_say_nothing():
    ids_BT = torch.tensor([[2, MASK, MASK, 3]])
    targets_BT = torch.tensor([[-100, 5, 6, -100]])
    both_NV = counts().log_probabilities(ids_BT, targets_BT)
    none_NV = counts().log_probabilities(ids_BT, targets_BT, left=False, right=False)
    torch.testing.assert_close(both_NV, none_NV)


def test_shared_words():
    unigram_V = torch.tensor([1e-9] * 5 + [0.5, 0.25, 0.125, 0.125])
    words = SharedWords(unigram_V, sep_id=3, num_special=5)
    follows, other = [2, 5, 7, 3, 7, 7, 6, 3], [2, 5, 7, 3, 5, 6, 3, 0]
    assert words.score(follows) == pytest.approx(math.log(8))
    assert words.score(other) == pytest.approx(math.log(2))
    assert words.fit([follows, other, follows], [0, 1, 0]) == 1.0
    assert words.threshold == pytest.approx(math.log(8))
    assert words.accuracy([follows, other], [0, 0]) == 0.5
