"""Batches from shards: each window once an epoch, the same for any number of ranks and after any pause."""

import json

import numpy as np
import pytest
import torch

from llm_from_scratch.data.shard_loader import ShardLoader, shuffled
from llm_from_scratch.data.shards import TokenShards


@pytest.fixture
def shards(tmp_path):
    """101 tokens, which are their own places, in files of 30."""
    paths = []
    for i in range(0, 101, 30):
        paths.append(tmp_path / f"train_{i}.bin")
        np.arange(i, min(i + 30, 101), dtype="<u2").tofile(paths[-1])
    return TokenShards(paths, "uint16")


def loader(shards, **changes):
    return ShardLoader(shards, **{"context_length": 7, "batch_size": 4, "seed": 5, **changes})


def test_windows_cross_files(shards):
    assert len(shards) == 101
    for start in range(95):
        assert shards.window(start, 7).tolist() == list(range(start, min(start + 7, 101)))
    with pytest.raises(IndexError):
        shards.window(95, 7)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 16, 17, 1000])
def test_the_shuffle_is_a_permutation(n):
    orders = [shuffled(np.arange(n), n, key).tolist() for key in (1, 2, 1)]
    assert sorted(orders[0]) == list(range(n))
    assert orders[0] == orders[2]
    if n >= 10:
        assert orders[0] != list(range(n))
        assert orders[0] != orders[1]
        assert shuffled(np.array([3]), n, 1).tolist() == orders[0][3:4]


def test_each_window_comes_once_an_epoch(shards):
    batches = loader(shards, batch_size=7)  # 14 windows: two batches an epoch
    epochs = []
    for _ in range(2):
        starts = torch.cat([next(batches)[0][:, 0] for _ in range(2)]).tolist()
        assert sorted(starts) == list(range(0, 98, 7))
        epochs.append(starts)
    assert epochs[0] != epochs[1]


def test_targets_lie_one_further_on(shards):
    ids_BT, targets_BT = next(loader(shards))
    assert ids_BT.shape == (4, 7)
    assert torch.equal(targets_BT, ids_BT + 1)
    assert ids_BT.dtype == torch.int64


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_read_disjoint_rows_that_together_are_one_ranks(shards, ranks):
    whole, parts = loader(shards), [loader(shards) for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part.read_rows(rank, ranks)
    for _ in range(3):  # the first three batches are less than an epoch
        rows = [next(part)[0] for part in parts]
        seen = [set(row.flatten().tolist()) for row in rows]
        assert torch.equal(torch.cat(rows), next(whole)[0])
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert {json.dumps(part.state_dict()) for part in parts} == {json.dumps(whole.state_dict())}


def test_resumed_equals_uninterrupted(shards):
    first = loader(shards)
    expected = [next(first) for _ in range(9)]
    paused = loader(shards)
    for _ in range(4):
        next(paused)
    resumed = loader(shards)
    resumed.load_state_dict(json.loads(json.dumps(paused.state_dict())))
    for ids_BT, targets_BT in expected[4:]:
        found = next(resumed)
        assert torch.equal(found[0], ids_BT)
        assert torch.equal(found[1], targets_BT)


def test_states_of_other_runs_are_refused(shards):
    state = loader(shards, fingerprint="one").state_dict()
    with pytest.raises(ValueError, match="data 'one', but this loader has 'two'"):
        loader(shards, fingerprint="two").load_state_dict(state)
    with pytest.raises(ValueError, match="seed 5, but this loader has 6"):
        loader(shards, seed=6, fingerprint="one").load_state_dict(state)
    with pytest.raises(ValueError, match="batches_drawn is -1"):
        loader(shards, fingerprint="one").load_state_dict({**state, "batches_drawn": -1})
    with pytest.raises(ValueError, match="num_tokens None"):
        loader(shards).load_state_dict([])


def test_too_little_is_refused(shards):
    with pytest.raises(ValueError, match="has 101 tokens, but a window of context_length 101 needs 102"):
        loader(shards, context_length=101)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        loader(shards, batch_size=0)
    with pytest.raises(ValueError, match="batch_size 4 does not divide among 3"):
        loader(shards).read_rows(0, 3)
