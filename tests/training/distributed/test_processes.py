"""Two real processes on this machine, over gloo, started as a user would: by torchrun.

The runs they are compared with, and what needs nothing of torchrun, are started by `tests.processes`, sooner.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from llm_from_scratch.training.log import RunLog
from tests.processes import TIMEOUT, check_in_processes
from tests.training.distributed import gradients_run, sharded_run

HERE = "tests.training.distributed"


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


def losses(out):
    records = RunLog(out / "log.jsonl").read()
    assert [record["step"] for record in records] == list(range(len(records)))
    return {
        (r["step"], key): r[key] for r in records for key in ("loss", "val_loss", "grad_norm") if key in r
    }


def test_gradients_of_every_parameter_equal_those_of_one_process():
    check_in_processes(2, gradients_run.main)


def test_two_processes_take_the_steps_of_one(tmp_path):
    train(2, tmp_path / "two", "ddp")
    check_in_processes(1, sharded_run.train, tmp_path / "one", "single")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.alone
def test_with_dropout_a_killed_rank_changes_nothing(tmp_path):
    """Bit for bit: the random numbers of each rank go on too."""
    check_in_processes(2, sharded_run.train, tmp_path / "whole", "fsdp", "--family", "grouped")
    train(2, tmp_path / "killed", "fsdp", "--family", "grouped", "--die-at", 7, restarts=1)
    assert (tmp_path / "killed/starts.txt").read_text().split() == ["0", "4"]  # a checkpoint each 4 steps
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.alone
def test_kills_at_random_moments_cost_at_most_the_last_interval(tmp_path):
    """torchrun restarts both processes each time; every 2 steps there is a checkpoint."""
    changes = json.dumps({"steps": 150, "eval_every": 2, "eval_batches": 1})
    out, rng, kills = tmp_path / "killed", random.Random(5), 3
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={kills}"]
    start += ["--monitor-interval=0.1", "-m", f"{HERE}.processes_run", str(out), "ddp", changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    reached = []
    with subprocess.Popen([sys.executable, *start], env=environment, stderr=subprocess.DEVNULL) as process:
        for kill in range(kills):
            while len(starts(out)) <= kill and process.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.5))
            if process.poll() is not None:
                break  # it was done sooner
            reached.append(max((r["step"] for r in RunLog(out / "log.jsonl").read()), default=0))
            try:
                os.kill(int((out / f"pid-{rng.randrange(2)}").read_text()), signal.SIGKILL)
            except ProcessLookupError:
                reached.pop()
                break
        assert process.wait(TIMEOUT) == 0
    resumed = starts(out)[1:]
    assert len(reached) >= 2
    assert all(step >= before - 2 for step, before in zip(resumed, reached, strict=False))
    check_in_processes(2, sharded_run.train, tmp_path / "whole", "ddp", changes)
    assert losses(out) == losses(tmp_path / "whole")


def starts(out):
    """The steps from which the run went on, one for each start."""
    path = out / "starts.txt"
    return [int(line) for line in path.read_text().split()] if path.is_file() else []
