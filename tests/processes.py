"""Several processes that meet over gloo, as torchrun would start them, but in a moment.

A process that torchrun starts loads torch first, which takes seconds. These are forked from one server that
has loaded it. What only torchrun does, starting dead processes again, is tested with torchrun.
"""

import faulthandler
import multiprocessing
import os
import time

from torch.distributed import TCPStore

PRELOADED = [
    "tests.training.killed_run",
    "tests.training.distributed.sharded_run",
    "llm_from_scratch.training.distributed.data_parallel",
    "llm_from_scratch.training.distributed.fully_sharded",
    "llm_from_scratch.training.distributed.tensor_parallel",
    "torch._dynamo",  # what an optimizer and the drawing of the loss load on first use
    "matplotlib.backends.backend_svg",
    "llm_from_scratch.widgets.figure",
]
TIMEOUT = 240  # seconds, against a hang; never a measure of speed
GRACE = 30  # seconds in which the others notice that one has failed
DIED = 9  # the exit code of a process that a test let die


def server():
    """Return the context whose processes are forked from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_in_processes(number, function, *arguments):
    """Call ``function(*arguments)`` in each of ``number`` processes; return their exit codes, by rank."""
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # a port that is free
    started = [
        server().Process(target=_member, args=(rank, number, meeting.port, function, arguments))
        for rank in range(number)
    ]
    for process in started:
        process.start()
    deadline = time.monotonic() + TIMEOUT
    while any(process.exitcode is None for process in started) and time.monotonic() < deadline:
        if any(process.exitcode for process in started):
            deadline = min(deadline, time.monotonic() + GRACE)
        time.sleep(0.01)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
        process.close()
    assert codes.count(None) == 0 or any(codes), f"all processes hung: {codes}"
    return codes


def check_in_processes(number, function, *arguments):
    """Call ``function`` in each of the processes, none of which may fail."""
    codes = run_in_processes(number, function, *arguments)
    assert codes == [0] * number, codes


def _member(rank, number, port, function, arguments):
    import torch

    faulthandler.dump_traceback_later(TIMEOUT - 20, exit=True)
    torch.set_num_threads(1)
    start = {"RANK": rank, "WORLD_SIZE": number, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": number}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": 0}
    meeting["TORCHELASTIC_USE_AGENT_STORE"] = True
    os.environ.update({name: str(value) for name, value in {**start, **meeting}.items()})
    function(*arguments)
