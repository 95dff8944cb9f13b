"""Batches: random windows that resume exactly, and a walk that scores every token once."""

import json
import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.data.loader import BatchLoader, evaluation_batches

TOKENS = (np.arange(1_009) * 7 % 503).astype(np.uint16)


def loader(tokens=TOKENS, **changes):
    return BatchLoader(tokens, **{"context_length": 11, "batch_size": 5, "seed": 3, **changes})


def take(source, count):
    return [next(source) for _ in range(count)]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_windows_are_windows_of_the_stream():
    stream = TOKENS.tolist()
    for x_BT, y_BT in take(loader(), 20):
        assert x_BT.shape == y_BT.shape == (5, 11)
        assert x_BT.dtype == y_BT.dtype == torch.int64
        for x_T, y_T in zip(x_BT.tolist(), y_BT.tolist(), strict=True):
            assert x_T[1:] == y_T[:-1]
            window = [*x_T, y_T[-1]]
            assert any(stream[i : i + 12] == window for i in range(len(stream) - 11))


def test_every_place_is_drawn_and_none_beyond():
    drawn = set()
    for x_BT, y_BT in take(loader(np.arange(17), context_length=11), 200):
        drawn |= set(x_BT[:, 0].tolist())
        assert int(y_BT.max()) <= 16
    assert drawn == set(range(6))


@pytest.mark.parametrize("kind", ["uint16", "uint32", "int64", "list", "tensor", "memmap"])
def test_any_stream_gives_the_same_batches(kind, tmp_path):
    if kind == "memmap":
        TOKENS.tofile(tmp_path / "tokens.bin")
        tokens = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    elif kind == "tensor":
        tokens = torch.from_numpy(TOKENS.astype(np.int64))
    else:
        tokens = TOKENS.tolist() if kind == "list" else TOKENS.astype(kind)
    assert same(take(loader(tokens), 5), take(loader(), 5))
    walks = [list(evaluation_batches(each, context_length=11, batch_size=5)) for each in (tokens, TOKENS)]
    assert same(*walks)


@pytest.mark.skipif(os.name != "posix", reason="a file with a hole in it")
def test_a_large_file_is_not_read_whole(tmp_path):
    path = tmp_path / "tokens.bin"
    with open(path, "wb") as file:
        file.truncate(1 << 33)  # 8 GB of zeros that take no room
    tokens = np.memmap(path, dtype=np.uint32, mode="r")
    x_BT, _ = next(loader(tokens))
    assert x_BT.sum() == 0


def test_the_seed_alone_decides():
    first = take(loader(), 5)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert same(first, take(loader(), 5))
    assert not same(first, take(loader(seed=4), 5))
    assert not same(take(loader(), 1), take(loader(), 2)[1:])


@pytest.mark.parametrize("before", [0, 1, 7])
def test_resuming_goes_on_exactly(before):
    whole = take(loader(), before + 9)
    first = loader()
    take(first, before)
    state = json.loads(json.dumps(first.state_dict()))  # through a file
    resumed = loader()
    take(resumed, 3)  # wherever it stood
    resumed.load_state_dict(state)
    assert resumed.batches_drawn == before
    assert same(take(resumed, 9), whole[before:])
    assert same(take(first, 9), whole[before:])  # taking the state changed nothing


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 7}, "batch_size 5.* 7"),
        ({"context_length": 13}, "context_length 11.*13"),
        ({"seed": 4}, "seed 3"),
    ],
)
def test_a_state_of_other_settings_is_refused(changes, named):
    with pytest.raises(ValueError, match=f"was saved with {named}"):
        loader(**changes).load_state_dict(loader().state_dict())
    with pytest.raises(ValueError, match=r"was saved with num_tokens 1009.*1008"):
        loader(TOKENS[:-1]).load_state_dict(loader().state_dict())


@pytest.mark.parametrize(
    "damage",
    [
        {"generator": None},
        {"generator": {}},
        {"generator": {"state": "x", "inc": "1", "has_uint32": 0, "uinteger": 0}},
        {"generator": {"state": "-1", "inc": "1", "has_uint32": 0, "uinteger": 0}},
        {"generator": {"state": str(1 << 200), "inc": "1", "has_uint32": 0, "uinteger": 0}},
        {"batches_drawn": "many"},
        {"batches_drawn": None},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    target = loader()
    before = target.state_dict()
    with pytest.raises(ValueError, match="state is damaged"):
        target.load_state_dict({**before, **damage})
    assert target.state_dict() == before
    with pytest.raises(ValueError, match="state is damaged: it is a list"):
        target.load_state_dict([])


@pytest.mark.parametrize("length", [0, 1, 11])
def test_a_stream_that_is_too_short_is_refused_with_numbers(length):
    with pytest.raises(
        ValueError, match=rf"has {length} tokens.*context_length 11 needs 12.*at most {max(length - 1, 0)}"
    ):
        loader(TOKENS[:length])
    with pytest.raises(ValueError, match="needs 12"):
        loader([3] * length)
    x_BT, y_BT = next(loader(TOKENS[:12]))
    assert x_BT.tolist() == [TOKENS[:11].tolist()] * 5
    assert y_BT.tolist() == [TOKENS[1:12].tolist()] * 5


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"context_length": 0}, {"context_length": -3}])
def test_sizes_below_one_are_refused(changes):
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        loader(**changes)
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        evaluation_batches(TOKENS, **{"context_length": 3, "batch_size": 2, **changes})


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((50, 2), dtype=int), r"shape \(50, 2\)"),
        (np.zeros(50), "float64"),
        ([0.5] * 50, "float64"),
        (["a"] * 50, "must be integers"),
        (np.int64(3), r"shape \(\)"),
    ],
)
def test_what_is_no_stream_of_ids_is_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        loader(tokens)
    with pytest.raises(ValueError, match=message):
        evaluation_batches(tokens, context_length=3, batch_size=2)


@given(st.integers(2, 90), st.integers(1, 40), st.integers(1, 7))
def test_the_walk_scores_every_token_once(length, context_length, batch_size):
    stream = np.arange(length)
    batches = list(evaluation_batches(stream, context_length=context_length, batch_size=batch_size))
    assert [int(y) for _, y_BT in batches for y in y_BT.flatten()] == list(range(1, length))
    assert [int(x) for x_BT, _ in batches for x in x_BT.flatten()] == list(range(length - 1))
    for x_BT, y_BT in batches:
        assert x_BT.shape == y_BT.shape
        assert 1 <= x_BT.shape[0] <= batch_size
        assert 1 <= x_BT.shape[1] <= context_length


@pytest.mark.parametrize("length", [0, 1])
def test_a_walk_needs_two_tokens(length):
    with pytest.raises(ValueError, match=f"has {length} tokens; at least 2"):
        evaluation_batches(TOKENS[:length], context_length=3, batch_size=2)
