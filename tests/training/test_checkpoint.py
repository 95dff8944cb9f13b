"""A checkpoint is whole or absent, at whatever moment the process dies, the disk fills or a file rots."""

import errno
import json
import os
import random

import pytest
import torch
from torch import nn

from llm_from_scratch.training import checkpoint as module
from llm_from_scratch.training.checkpoint import (
    load_checkpoint,
    load_run,
    save_checkpoint,
    save_sharded_checkpoint,
)
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.weights import load_weights, weight_boxes, weights_as_bytes


def save(run, step, *, best=True, value=None, sharded=False):
    """Save a model whose weight, state and tensors all say ``step``."""
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, float(step if value is None else value))
    common = {
        "step": step,
        "state": {"step_too": step},
        "tensors": {"also": torch.tensor(step)},
        "best": best,
    }
    if not sharded:
        return save_checkpoint(run, weights=weights_as_bytes(model), **common)
    boxes = weight_boxes(model, Strategy())
    averages = {"0.exp_avg[0:2]": torch.full((2,), float(step))}
    return save_sharded_checkpoint(run, weights=boxes, averages=averages, strategy=Strategy(), **common)


def steps_in(run, which="last"):
    """The step according to each of the three files and to the folder."""
    found = load_checkpoint(run, which)
    model = nn.Linear(3, 2)
    load_weights(model, found.weights)
    steps = {found.step, found.state["step_too"], int(model.weight[0, 0])}
    if found.averages is not None:
        steps.add(int(found.averages.read("0.exp_avg", (range(2),))[0]))
    return steps | ({int(found.tensors["also"])} if which == "last" else set())


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 5, best=False)
    assert steps_in(tmp_path) == {5}
    assert steps_in(tmp_path, "best") == {3}
    save(tmp_path, 7, best=False)
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["step-000003", "step-000007"]
    assert not (tmp_path / "checkpoints/step-000003/optimizer.pt").exists()


def test_the_same_step_again_changes_only_which_is_best(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 5, best=False)
    save(tmp_path, 5, best=True, value=99)
    assert steps_in(tmp_path) == steps_in(tmp_path, "best") == {5}


class Killed(BaseException):
    pass


def dying_at(monkeypatch, moment, end, names=("fsync", "replace", "unlink", "rmdir")):
    """Let ``end`` be called instead of the ``moment``-th of the named operations of os."""
    left = [moment]

    def guarded(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                end()
            return function(*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to die without any cleanup")
@pytest.mark.parametrize("sharded", [False, True])
def test_death_at_every_operation_on_files_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path, monkeypatch, sharded
):
    outcomes = []
    for moment in range(1, 100):
        run = tmp_path / str(moment)
        save(run, 3, sharded=sharded)
        save(run, 5, best=False, sharded=sharded)
        child = os.fork()
        if child == 0:
            try:
                dying_at(monkeypatch, moment, lambda: os._exit(9))
                save(run, 7, best=True, sharded=sharded)
            finally:
                os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        last, best = steps_in(run), steps_in(run, "best")
        assert (last, best) in (({5}, {3}), ({7}, {7}))
        outcomes.append(last)
        save(run, 11, sharded=sharded)  # and the next save clears away what the dead process left
        assert steps_in(run) == {11}
        assert [f.name for f in (run / "checkpoints").iterdir()] == ["step-000011"]
        if not died:
            break
    assert not died, "every moment was tried"
    assert {5} in outcomes
    assert {7} in outcomes
    assert len(outcomes) > 10


def test_a_full_disk_at_any_write_keeps_the_old_checkpoint_and_cleans_up(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for moment in range(1, 6):  # three files, their folder, the pointer
        run = tmp_path / str(moment)
        save(run, 3)
        with monkeypatch.context() as patch:
            dying_at(patch, moment, full, names=["replace"])
            with pytest.raises(OSError, match=r"(?i)disk is full|no space left") as caught:
                save(run, 7)
        assert caught.value.errno == errno.ENOSPC
        assert steps_in(run) == {3}
        assert not list(run.rglob("*.tmp"))
        save(run, 7)
        assert steps_in(run) == {7}


def test_a_file_system_that_takes_half_a_file_keeps_the_old_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")  # POSIX
    save(tmp_path, 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, 7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps_in(tmp_path) == {3}
    assert not list(tmp_path.rglob("*.tmp"))


def test_every_damaged_file_is_named(tmp_path):
    folder = save(tmp_path, 3)
    rng = random.Random(0)
    for name in ("model.safetensors", "optimizer.pt", "state.json"):
        path = folder / name
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + bytes([whole[-1] ^ 1]) + b"{"):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                load_checkpoint(tmp_path)
        if name != "state.json":
            place = rng.randrange(len(whole))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                load_checkpoint(tmp_path)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=name):
            load_checkpoint(tmp_path)
        path.write_bytes(whole)
    assert steps_in(tmp_path) == {3}
    for text in ("", "[]", "{}", '{"last": 3}', "\x00"):
        (tmp_path / "checkpoints.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"checkpoints\.json is damaged"):
            load_checkpoint(tmp_path)


def test_a_reader_survives_a_run_that_replaces_the_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 3)
    read = module._read_folder
    calls = []

    def slow(folder, which, strategy):
        calls.append(folder)
        if len(calls) == 1:
            save(tmp_path, 5)  # the training process goes on meanwhile
        return read(folder, which, strategy)

    monkeypatch.setattr(module, "_read_folder", slow)
    assert load_checkpoint(tmp_path).step == 5


def test_no_pickle_that_runs_code_is_opened(tmp_path):
    folder = save(tmp_path, 3)

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save(Evil(), folder / "optimizer.pt")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    import hashlib

    state["sha256"]["optimizer.pt"] = hashlib.sha256((folder / "optimizer.pt").read_bytes()).hexdigest()
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match=r"optimizer\.pt is damaged"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "evil").exists()


def test_folders_without_a_run_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match='must be "last" or "best", got "worst"'):
        load_checkpoint(tmp_path, "worst")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_tied_weight_is_stored_once_and_stays_tied():
    model, copy = Tied(), Tied()
    assert len(weights_as_bytes(model)) < 2 * 5 * 3 * 4 + 100
    load_weights(copy, weights_as_bytes(model))
    assert torch.equal(copy.head.weight, model.embedding.weight)
    assert copy.head.weight.data_ptr() == copy.embedding.weight.data_ptr()


def test_half_precision_weights_load_as_float32():
    model, copy = nn.Linear(7, 5), nn.Linear(7, 5)
    load_weights(copy, weights_as_bytes(model, dtype=torch.float16))
    assert copy.weight.dtype == torch.float32
    torch.testing.assert_close(copy.weight, model.weight, rtol=1e-3, atol=1e-4)


def test_weights_of_another_shape_or_name_are_refused():
    content = weights_as_bytes(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"weight has shape \[2, 3\], the model expects \[2, 5\]"):
        load_weights(nn.Linear(5, 2), content)
    with pytest.raises(ValueError, match=r"has bias in excess"):
        load_weights(nn.Linear(3, 2, bias=False), content)
    with pytest.raises(ValueError, match=r"it lacks bias"):
        load_weights(nn.Linear(3, 2), weights_as_bytes(nn.Linear(3, 2, bias=False)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("step"),
        lambda state: state.update(step="3"),
        lambda state: state.update(sha256=[]),
    ],
)
def test_a_state_without_its_step_or_its_digests_is_named(tmp_path, damage):
    save(tmp_path, 3)
    path = tmp_path / "checkpoints/step-000003/state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    damage(state)
    path.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match=r"state\.json is damaged"):
        load_checkpoint(tmp_path, "last")


@pytest.mark.parametrize("content", ['{"format": "x", "last": "a", "best": "a"}', '{"a":' * 100_000])
def test_a_pointer_of_another_kind_is_named(tmp_path, content):
    save(tmp_path, 3)
    (tmp_path / "checkpoints.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"checkpoints\.json is damaged"):
        load_checkpoint(tmp_path, "last")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../../elsewhere", "does not list every file of the model"),
        ("model-00001-of-00003.safetensors", "does not list every file of the model"),
    ],
)
def test_a_state_that_names_other_shards_is_refused(tmp_path, name, says):
    folder = save(tmp_path, 3, sharded=True)
    path = folder / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    digests = state["sha256"]
    digests[name] = digests.pop("model-00001-of-00001.safetensors")
    path.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load_checkpoint(tmp_path)


def test_a_sharded_checkpoint_stays_readable_while_the_run_replaces_it(tmp_path):
    save(tmp_path, 3, sharded=True)
    opened = load_checkpoint(tmp_path)
    save(tmp_path, 5, sharded=True)
    model = nn.Linear(3, 2)
    load_weights(model, opened.weights)
    assert model.weight[0, 0] == 3
    assert not (tmp_path / "checkpoints/step-000003").exists()
