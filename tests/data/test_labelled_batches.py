"""Batches of labelled texts: padding, order, epochs, resuming, and parts for several processes."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.data.labelled_batches import LabelledBatches, labelled_validation

PAD = 0


def data(count, seed=0):
    """Texts whose first token names them and whose label follows from it."""
    rng = np.random.default_rng(seed)
    ids = [[n + 1, *rng.integers(1, 50, rng.integers(0, 23)).tolist()] for n in range(count)]
    return ids, [n % 3 for n in range(count)]


def batches(count=37, **changes):
    return LabelledBatches(*data(count), **{"batch_size": 5, "pad_id": PAD, "seed": 1, **changes})


def unpadded(batch):
    ids_BT, labels_B = batch
    return [
        (row[: row.index(PAD)] if PAD in row else row, label)
        for row, label in zip(ids_BT.tolist(), labels_B.tolist(), strict=True)
    ]


@given(st.integers(1, 40), st.integers(1, 11), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_text_comes_once_an_epoch_with_its_label(count, batch_size, window, seed):
    ids, labels = data(count)
    source = LabelledBatches(ids, labels, batch_size=batch_size, pad_id=PAD, seed=seed, window=window)
    whole = source.window * batch_size * count  # texts after which windows and epochs end together
    found = []
    while len(found) < min(whole, 3_000):
        batch = next(source)
        assert batch[0].shape[0] == batch_size
        assert batch[0].dtype == batch[1].dtype == torch.long
        assert (batch[0] != PAD).any(dim=0).all()  # no column of padding alone
        found += unpadded(batch)
    for row, label in found:
        assert row == ids[row[0] - 1]
        assert label == labels[row[0] - 1]
    seen = Counter(row[0] for row, _ in found)
    assert max(seen.values()) - min(seen.get(n + 1, 0) for n in range(count)) <= (
        0 if len(found) == whole else 2
    )


def test_batches_of_a_window_are_of_one_length_and_their_order_is_random():
    ids, labels = data(400)
    sorted_, plain = (
        LabelledBatches(ids, labels, batch_size=8, pad_id=PAD, seed=3, window=w) for w in (10, 1)
    )
    lengths = [next(sorted_)[0].shape[1] for _ in range(50)]
    padding = {
        name: sum((next(source)[0] == PAD).sum().item() for _ in range(50))
        for name, source in (("sorted", sorted_), ("plain", plain))
    }
    assert padding["sorted"] < 0.25 * padding["plain"]
    first = lengths[:10]
    assert first != sorted(first)
    assert first != sorted(first, reverse=True)


def test_a_window_across_two_epochs_repeats_no_text_within_a_batch():
    """Sorting there would lay the two copies of a short text side by side."""
    source = batches(count=16, batch_size=4, window=3)  # 16 texts, windows of 12
    for _ in range(120):
        names = [row[0] for row, _ in unpadded(next(source))]
        assert len(set(names)) == 4


def test_few_texts_are_repeated_to_fill_a_batch():
    source = batches(count=2, batch_size=7)
    assert source.window == 1
    assert Counter(row[0] for row, _ in unpadded(next(source))).most_common() in (
        [(1, 4), (2, 3)],
        [(2, 4), (1, 3)],
    )


def test_the_order_differs_from_epoch_to_epoch_and_from_seed_to_seed():
    def epochs(seed):
        source = batches(count=20, batch_size=20, seed=seed)
        return [tuple(row[0] for row, _ in unpadded(next(source))) for _ in range(3)]

    assert len(set(epochs(1)) | set(epochs(2))) == 6
    assert epochs(1) == epochs(1)


@pytest.mark.parametrize("drawn", [0, 1, 6, 7, 8, 41])
def test_resumed_is_uninterrupted(drawn):
    source = batches(window=4)
    for _ in range(drawn):
        next(source)
    state = json.loads(json.dumps(source.state_dict()))
    resumed = batches(window=4)
    next(resumed)
    resumed.load_state_dict(state)
    for _ in range(30):
        for a, b in zip(next(source), next(resumed), strict=True):
            assert torch.equal(a, b)


def test_a_state_of_other_data_or_settings_is_refused():
    state = batches().state_dict()
    for name, other in {
        "data": batches(count=36, window=7),
        "batch_size": batches(batch_size=4, window=7),
        "seed": batches(seed=2),
        "pad_id": batches(pad_id=60),
        "window": batches(window=2),
    }.items():
        with pytest.raises(ValueError, match=f"saved with {name} "):
            other.load_state_dict(state)
    ids, labels = data(37)
    ids[5] = [*ids[5][:-1], ids[5][-1] + 1]
    with pytest.raises(ValueError, match="saved with data"):
        LabelledBatches(ids, labels, batch_size=5, pad_id=PAD, seed=1).load_state_dict(state)
    ids, labels = data(37)
    labels[5] += 1
    with pytest.raises(ValueError, match="saved with data"):
        LabelledBatches(ids, labels, batch_size=5, pad_id=PAD, seed=1).load_state_dict(state)
    for damaged in ({**state, "batches_drawn": "3"}, {**state, "batches_drawn": -1}):
        with pytest.raises(ValueError, match="state is damaged: batches_drawn"):
            batches().load_state_dict(damaged)
    with pytest.raises(ValueError, match="saved with data None"):
        batches().load_state_dict(["not", "a", "dict"])


def test_all_parts_together_are_the_batch():
    whole, parts = batches(batch_size=6), [batches(batch_size=6) for _ in range(3)]
    for share, part in enumerate(parts):
        part.read_rows(share, 3)
    for _ in range(20):
        ids_BT, labels_B = next(whole)
        rows = [next(part) for part in parts]
        assert torch.equal(torch.cat([ids for ids, _ in rows]), ids_BT)
        assert torch.equal(torch.cat([labels for _, labels in rows]), labels_B)
    assert parts[1].state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="batch_size 6 does not divide among 4"):
        whole.read_rows(0, 4)


@pytest.mark.parametrize("by_length", [False, True])
def test_validation_holds_every_text_once(by_length):
    ids, labels = data(23)
    found = labelled_validation(ids, labels, batch_size=5, pad_id=PAD, by_length=by_length)
    assert [len(labels_B) for _, labels_B in found] == [5, 5, 5, 5, 3]
    rows = [row for batch in found for row in unpadded(batch)]
    expected = list(zip(ids, labels, strict=True))
    if by_length:
        lengths = [len(row) for row, _ in rows]
        assert lengths == sorted(lengths)
        rows, expected = sorted(rows), sorted(expected)
    assert rows == expected


@pytest.mark.parametrize(
    ("ids", "labels", "changes", "message"),
    [
        ([], [], {}, "no texts"),
        ([[1]], [], {}, "1 texts have 0 labels"),
        ([[1], []], [0, 0], {}, "text 1 has no tokens"),
        ([[1], [1]], [0, -100], {}, "text 1 has the label -100"),
        ([[1]], [0], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ([[1]], [0], {"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(ids, labels, changes, message):
    with pytest.raises(ValueError, match=message):
        LabelledBatches(ids, labels, **{"batch_size": 2, "pad_id": PAD, "seed": 0, **changes})
    if "window" not in changes:
        with pytest.raises(ValueError, match=message):
            labelled_validation(ids, labels, batch_size=changes.get("batch_size", 2), pad_id=PAD)
