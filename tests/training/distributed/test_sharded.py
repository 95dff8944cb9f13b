"""Checkpoints of which each process writes its part: cut anew when read, whole or absent after a death."""

import functools
import json
import random
import shutil

import pytest
import torch

from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.log import RunLog
from tests.processes import DIED, check_in_processes, run_in_processes
from tests.training.distributed import sharded_run
from tests.training.distributed.test_processes import losses

DIVIDING = ("fsdp", "tensor")
GATHERED = ("--checkpoint", "gathered")


def last_step(run):
    return json.loads((run / "checkpoints.json").read_text())["last"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of each strategy, stopped by a signal to one of its two processes after 6 of 12 steps."""
    folder = tmp_path_factory.mktemp("stopped")

    @functools.cache
    def run(strategy, *options):
        out = folder / "-".join([strategy, *options])
        check_in_processes(2, sharded_run.train, out, strategy, "--stop-at", 6, *options)
        assert last_step(out) == "step-000006"
        return out

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The losses of the same run, uninterrupted in one process."""
    folder = tmp_path_factory.mktemp("whole")
    check_in_processes(1, sharded_run.train, folder / "whole", "single")
    return losses(folder / "whole")


@pytest.fixture
def copied(stopped, tmp_path):
    def copy(strategy, *options):
        return shutil.copytree(stopped(strategy, *options), tmp_path / strategy, dirs_exist_ok=True)

    return copy


@pytest.mark.parametrize("strategy", DIVIDING)
def test_each_process_has_written_its_own_part(stopped, strategy):
    run = stopped(strategy)
    folder = run / "checkpoints/step-000006"
    names = [f"{kind}-0000{rank}-of-00002.safetensors" for kind in ("model", "optimizer") for rank in (1, 2)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "optimizer.pt", "state.json"])
    sizes = {name: (folder / name).stat().st_size for name in names}
    assert sizes[names[0]] == pytest.approx(sizes[names[1]], rel=0.35)  # none holds everything
    best = json.loads((run / "checkpoints.json").read_text())["best"]
    assert best == "step-000006" or not list((run / "checkpoints" / best).glob("optimizer*"))


@pytest.mark.parametrize("strategy", DIVIDING)
@pytest.mark.parametrize(("processes", "then"), [(1, "single"), (1, "same"), (2, "ddp"), (4, "same")])
def test_written_by_two_continued_by_any_number(copied, whole, strategy, processes, then):
    run = copied(strategy)
    check_in_processes(processes, sharded_run.train, run, strategy if then == "same" else then)
    assert losses(run) == pytest.approx(whole, abs=1e-5)
    assert last_step(run) == "step-000012"


@pytest.mark.parametrize("strategy", DIVIDING)
@pytest.mark.parametrize(("processes", "then"), [(1, "single"), (4, "same")])
def test_gathered_by_two_continued_by_any_number(copied, whole, strategy, processes, then):
    run = copied(strategy, *GATHERED)
    then = strategy if then == "same" else then
    check_in_processes(processes, sharded_run.train, run, then, *GATHERED)
    assert losses(run) == pytest.approx(whole, abs=1e-5)
    assert (run / "checkpoints/step-000012/model.safetensors").is_file()


@pytest.mark.parametrize(("strategy", "other"), [("fsdp", "tensor"), ("tensor", "fsdp")])
def test_strategies_and_forms_follow_each_other(copied, whole, strategy, other):
    run = copied(strategy)
    check_in_processes(4, sharded_run.train, run, other, "--stop-at", 9, *GATHERED)
    assert (run / "checkpoints/step-000009/model.safetensors").is_file()
    check_in_processes(2, sharded_run.train, run, "ddp", "--checkpoint", "sharded")
    assert losses(run) == pytest.approx(whole, abs=1e-5)
    parts = sorted(path.stat().st_size for path in run.glob("checkpoints/step-000012/model-*"))
    assert len(parts) == 2
    assert parts[0] > parts[1] / 4  # what both hold whole is shared out, too


@pytest.mark.parametrize("strategy", DIVIDING)
def test_one_process_reads_the_same_weights_as_from_a_gathered_one(stopped, strategy):
    one, other = load_checkpoint(stopped(strategy)), load_checkpoint(stopped(strategy, *GATHERED))
    assert len(one.weights.names()) > 10
    assert set(one.weights.names()) == set(other.weights.names())
    for name in one.weights.names():
        box = tuple(range(size) for size in other.weights.shape(name))
        assert torch.equal(one.weights.read(name, box), other.weights.read(name, box)), name
    state = other.tensors["optimizer"]["state"]
    for stored in one.averages.names():
        number, _, kind = stored.partition(".")
        expected = state[int(number)][kind]
        box = tuple(range(size) for size in expected.shape)
        assert torch.equal(one.averages.read(stored, box), expected), stored
    assert len(one.averages.names()) == 2 * len(state)


@pytest.mark.parametrize("strategy", ["ddp", *DIVIDING])
@pytest.mark.parametrize("processes", [2, 4])
def test_the_boxes_of_all_processes_are_the_parameter(strategy, processes):
    """Tied embeddings, query norms, grouped heads; 13 rows do not divide, and torch cuts them alike."""
    family = "gpt2" if processes == 4 else "grouped"
    check_in_processes(processes, sharded_run.compare_boxes, strategy, family)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("dies", [0, 1])
def test_a_death_at_any_operation_leaves_the_old_checkpoint_or_the_new_one(copied, tmp_path, dies):
    """Every third operation, of either process; test_checkpoint tries each of a process that is alone."""
    outcomes, deaths = [], 0
    for moment in range(1, 60, 3):
        run = shutil.copytree(copied("fsdp"), tmp_path / f"moment-{moment}")
        codes = run_in_processes(2, sharded_run.save_again, run, "fsdp", dies, moment)
        found = load_checkpoint(run)
        outcomes.append(found.step)
        assert found.step in (6, 7)
        assert found.averages is not None
        assert load_checkpoint(run, "best").step in (4, 6, 7)
        if codes[dies] == 0:
            break
        deaths += 1
        assert codes[dies] == DIED
        if deaths in (1, 3):  # what the dead left does not disturb
            check_in_processes(2, sharded_run.train, run, "fsdp", "--stop-at", 8)
            assert not list(run.rglob("*.tmp"))
    else:
        pytest.fail("it never came to its end")
    assert 6 in outcomes
    assert outcomes[-1] == 7
    assert deaths >= 3


@pytest.mark.parametrize("full", [0, 1])
def test_a_full_disk_of_one_process_is_told_to_all(copied, full):
    run = copied("fsdp")
    check_in_processes(2, sharded_run.save_on_a_full_disk, run, "fsdp", full)
    assert last_step(run) == "step-000006"
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "optimizer-00001-of-00002.safetensors"])
def test_a_damaged_or_missing_shard_is_named_to_all(copied, name):
    run = copied("fsdp")
    path = run / "checkpoints/step-000006" / name
    content = bytearray(path.read_bytes())
    content[random.Random(name).randrange(len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        load_checkpoint(run)
    check_in_processes(2, sharded_run.refuse_to_open, run, "fsdp", "ValueError", f"{name} is damaged")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_checkpoint(run)
    check_in_processes(2, sharded_run.refuse_to_open, run, "fsdp", "FileNotFoundError", f"{name} is missing")


def test_the_log_has_each_step_once(copied):
    run = copied("tensor")
    assert [r["step"] for r in RunLog(run / "log.jsonl").read()] == list(range(7))
