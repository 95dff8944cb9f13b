"""kill -9 at random moments, again and again, changes nothing in the end.

Each process is forked from a server that has loaded torch. test_checkpoint.py tries every file operation.
"""

import multiprocessing
import random
import time

import pytest
import torch

from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.weights import load_weights
from tests.processes import TIMEOUT, server
from tests.training import killed_run
from tests.training.conftest import tiny_model
from tests.training.killed_run import run
from tests.training.test_trainer import losses, parameters


def kill_until_done(folder, steps, kills, longest):
    """Start the run, kill it, resume it, ...; return the steps from which it was resumed."""
    rng = random.Random(5)
    resumed_from = []
    for _ in range(kills):
        receives, sends = multiprocessing.Pipe(duplex=False)
        process = server().Process(target=killed_run.process, args=(folder, steps, sends))
        process.start()
        assert receives.poll(TIMEOUT)
        resumed_from.append(receives.recv())
        time.sleep(rng.uniform(0.0, longest))
        process.kill()
        process.join()
        process.close()
        if (folder / "checkpoints.json").exists():  # else it died before step 0 was saved
            for which in ("last", "best"):
                load_weights(tiny_model(), load_checkpoint(folder, which).weights)
    return resumed_from


def check_same_as_uninterrupted(tmp_path, steps, kills, longest):
    resumed_from = kill_until_done(tmp_path / "killed", steps, kills, longest)
    assert resumed_from == sorted(resumed_from)  # no kill has thrown a run back
    killed, whole = run(tmp_path / "killed", steps), run(tmp_path / "whole", steps)
    assert losses(killed) == losses(whole)
    assert [r["step"] for r in killed.log.read()] == list(range(steps + 1))
    assert all(torch.equal(p, q) for p, q in zip(parameters(killed), parameters(whole), strict=True))
    for which in ("best", "last"):
        one, other = (load_checkpoint(tmp_path / name, which) for name in ("killed", "whole"))
        assert one.step == other.step
        assert all(torch.equal(one.weights.tensors[n], t) for n, t in other.weights.tensors.items())
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    return resumed_from


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_kills(tmp_path):
    resumed_from = check_same_as_uninterrupted(tmp_path, steps=1000, kills=50, longest=0.2)
    assert len(set(resumed_from)) > 20
