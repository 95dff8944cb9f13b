"""Boxes of tensors in several files: any cut can be read from any other, and what is missing is noticed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from llm_from_scratch.training.boxes import numbers_in, part_of, runs_of, shared_box, slices, whole_box
from llm_from_scratch.training.shard_files import ShardFiles, file_sha256, label, parse_label, write_shard


def cut(tensor, axis, parts):
    """The boxes of a tensor that is divided along one axis."""
    whole = whole_box(tensor.shape)
    boxes = []
    for part in range(parts):
        box = list(whole)
        box[axis] = part_of(whole[axis], part, parts)
        boxes.append(tuple(box))
    return boxes


def write(folder, name, tensor, boxes):
    """One file for each box."""
    paths = [folder / f"{number}.safetensors" for number in range(len(boxes))]
    for path, box in zip(paths, boxes, strict=True):
        write_shard(path, {label(name, box): tensor[slices(box)]} if numbers_in(box) else {})
    return paths


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_cut_is_read_from_every_other(tmp_path, axis, parts):
    tensor = torch.randn(5, 7)
    stored = ShardFiles(write(tmp_path, "a[0].b", tensor, cut(tensor, axis, parts)))
    assert stored.names() == ["a[0].b"]
    assert stored.shape("a[0].b") == (5, 7)
    assert stored.dtype("a[0].b") == torch.float32
    for other_axis in (0, 1):
        for other_parts in (1, 2, 4, 5):
            for box in cut(tensor, other_axis, other_parts):
                if numbers_in(box):
                    assert torch.equal(stored.read("a[0].b", box), tensor[slices(box)])


def test_single_numbers_and_other_formats(tmp_path):
    count, half = torch.tensor(41), torch.randn(3).to(torch.bfloat16)
    write_shard(tmp_path / "one", {"count[]": count, label("half", whole_box(half.shape)): half})
    stored = ShardFiles([tmp_path / "one"])
    assert torch.equal(stored.read("count", ()), count)
    assert (stored.shape("count"), stored.dtype("half")) == ((), torch.bfloat16)


def test_views_of_one_tensor_are_stored_without_the_rest(tmp_path):
    large = torch.randn(100, 100)
    digest = write_shard(tmp_path / "one", {"a[0:2,0:100]": large[3:5], "b[0:2,0:100]": large[4:6]})
    assert (tmp_path / "one").stat().st_size < 2000
    assert digest == file_sha256(tmp_path / "one")
    assert torch.equal(ShardFiles([tmp_path / "one"]).read("b", whole_box((2, 100))), large[4:6])


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_missing_box_is_noticed(tmp_path, left_out):
    tensor = torch.randn(6, 2)
    boxes = cut(tensor, 0, 3)
    del boxes[left_out]
    paths = write(tmp_path, "a", tensor, boxes)
    with pytest.raises(ValueError, match="the boxes of 'a' do not make one tensor"):
        ShardFiles(paths).read("a", whole_box((6, 2)))


def test_a_box_that_is_there_twice_is_noticed(tmp_path):
    tensor = torch.randn(6, 2)
    first, second, _ = cut(tensor, 0, 3)
    paths = write(tmp_path, "a", tensor, [first, second, first])
    with pytest.raises(ValueError, match="the boxes of 'a' do not make one tensor"):
        ShardFiles(paths)


@pytest.mark.parametrize("name", ["a", "a[0:1]", "a[0:3,0:2]", "a[0:2,]", "[0:2]", "a[-1:1]"])
def test_a_file_whose_labels_are_none_is_refused(tmp_path, name):
    save_file({name: torch.zeros(2)}, tmp_path / "one")
    with pytest.raises(ValueError, match=r"one is damaged \("):
        ShardFiles([tmp_path / "one"])


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "one").write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(ValueError, match="one is damaged"):
        ShardFiles([tmp_path / "one"])
    with pytest.raises(FileNotFoundError, match="two is missing"):
        ShardFiles([tmp_path / "two"])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=3), st.text(min_size=1))
@settings(max_examples=50)
def test_labels_come_back(pairs, name):
    box = tuple(range(first, first + size) for first, size in pairs)
    assert parse_label(label(name, box)) == (name, box)


@given(st.permutations(range(9)))
@settings(max_examples=50)
def test_runs_are_the_list(order):
    assert [index for run, _ in runs_of(order) for index in run] == order
    assert all(order[place] == run.start for run, place in runs_of(order))


def test_boxes_that_only_touch_share_nothing():
    assert shared_box((range(0, 2), range(3)), (range(2, 4), range(3))) is None
