"""Replay: which rows come from where, and that a stream goes on where it stood."""

import numpy as np
import pytest
import torch

from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.finetuning.replay import ReplayBatches

OLD, NEW = np.arange(1000), np.arange(5000, 5900)


def batches(*, new_rows=6, old_rows=2, context_length=7):
    sizes = {"context_length": context_length}
    new = BatchLoader(NEW, batch_size=new_rows, seed=3, **sizes)
    return ReplayBatches(new, BatchLoader(OLD, batch_size=old_rows, seed=5, **sizes))


def test_rows_come_from_both_streams_in_the_share_asked_for():
    mixed = batches()
    new, old = (
        BatchLoader(t, context_length=7, batch_size=b, seed=s) for t, b, s in ((NEW, 6, 3), (OLD, 2, 5))
    )
    assert (mixed.share, mixed.batch_size) == (0.25, 8)
    for _ in range(3):
        ids_BT, targets_BT = next(mixed)
        assert ids_BT.shape == targets_BT.shape == (8, 7)
        assert torch.equal(ids_BT, torch.cat((next(new)[0], next(old)[0])))
        assert torch.equal(targets_BT, ids_BT + 1)


def test_a_stream_goes_on_where_it_stood():
    first, second = batches(), batches()
    for _ in range(3):
        next(first)
    second.load_state_dict(first.state_dict())
    for ids_BT, other_BT in zip(next(first), next(second), strict=True):
        assert torch.equal(ids_BT, other_BT)
    with pytest.raises(ValueError, match="must hold new and old"):
        second.load_state_dict({"new": first.new.state_dict()})


def test_shares_of_a_batch_are_the_batch():
    whole, parts = next(batches())[0], []
    for share in range(2):
        one = batches()
        one.read_rows(share, 2)
        parts.append(next(one)[0])
    rows = torch.cat((parts[0][:3], parts[1][:3], parts[0][3:], parts[1][3:]))
    assert torch.equal(rows, whole)


def test_windows_of_one_length():
    short = BatchLoader(OLD, context_length=5, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="got 7 and 5 tokens"):
        ReplayBatches(batches().new, short)
