"""Two and four real processes on this machine, over gloo, started as a user would: by torchrun."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from llm_from_scratch.training.log import RunLog

HERE = "tests.training.distributed"
TIMEOUT = 300  # seconds, against a hang; never a measure of speed


def torchrun(processes, module, *arguments, restarts=0):
    """Start the processes at a free port of the loopback; return what happened."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = [sys.executable, *start, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


def train(processes, out, strategy, *options, restarts=0):
    done = torchrun(processes, f"{HERE}.processes_run", out, strategy, *options, restarts=restarts)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def plain(out, *options):
    command = [sys.executable, "-m", f"{HERE}.processes_run", str(out), "single", *options]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=TIMEOUT)
    return losses(out)


def losses(out):
    records = RunLog(out / "log.jsonl").read()
    assert [record["step"] for record in records] == list(range(len(records)))
    return {
        (r["step"], key): r[key] for r in records for key in ("loss", "val_loss", "grad_norm") if key in r
    }


def test_gradients_of_every_parameter_equal_those_of_one_process():
    done = torchrun(2, f"{HERE}.gradients_run")
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_take_the_steps_of_one(tmp_path):
    train(2, tmp_path / "two", "ddp")
    assert losses(tmp_path / "two") == pytest.approx(plain(tmp_path / "one"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "tensor"])
def test_a_signal_to_one_rank_saves_all_and_other_numbers_of_processes_go_on(tmp_path, strategy):
    train(2, tmp_path / "run", strategy, "--stop-at", 6)
    assert json.loads((tmp_path / "run/checkpoints.json").read_text())["last"] == "step-000006"
    shutil.copytree(tmp_path / "run", tmp_path / "four")
    whole = plain(tmp_path / "whole")
    assert plain(tmp_path / "run") == pytest.approx(whole, abs=1e-5)
    train(4, tmp_path / "four", strategy)
    assert losses(tmp_path / "four") == pytest.approx(whole, abs=1e-5)


@pytest.mark.slow
def test_with_dropout_a_killed_rank_changes_nothing(tmp_path):
    """Bit for bit: the random numbers of each rank go on too."""
    train(2, tmp_path / "whole", "fsdp", "--family", "grouped")
    train(2, tmp_path / "killed", "fsdp", "--family", "grouped", "--die-at", 7, restarts=1)
    assert (tmp_path / "killed/starts.txt").read_text().split() == ["0", "4"]  # a checkpoint each 4 steps
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
