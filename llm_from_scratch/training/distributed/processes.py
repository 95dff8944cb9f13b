"""The processes of a run: how they find each other, and what every strategy of several needs.

torchrun starts the processes and tells each, in its environment, how many there are (WORLD_SIZE), which
one it is (RANK) and where they meet (MASTER_ADDR, MASTER_PORT). When one of them dies, torchrun stops
the others and starts all again, up to ``--max-restarts`` times; the run then resumes from its folder.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from llm_from_scratch.data.loader import Batch, share_of
from llm_from_scratch.training.seeding import random_state, restore_random_state
from llm_from_scratch.training.strategy import Strategy, Value
from llm_from_scratch.training.validation import NO_TARGET

TIMEOUT = timedelta(minutes=30)  # the others wait so long while the main process scores the result
# Groups stay until the process ends. One that goes with the model waits for its threads and holds the
# interpreter's lock meanwhile; a thread that still has a tensor of the last exchange waits for that lock.
KEPT_GROUPS: list[dist.ProcessGroup] = []


class Processes(Strategy):
    """What the strategies of several processes have in common.

    By default each process takes its own share of every batch. Joins the group when it is made; `finish`
    leaves it.
    Raises: ValueError if torchrun did not start this process.
    """

    launched = True

    def __init__(self, device: torch.device) -> None:
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ValueError(
                f"strategy {self.name} needs several processes, and torchrun to start them ({missing[0]} is "
                "not set): torchrun --nproc-per-node 2 -m llm_from_scratch.cli train RECIPE "
                f"--strategy {self.name}"
            )
        self.device = device
        if device.type == "cuda":  # never run by us
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            # Each start by torchrun has addresses of its own in the store: those of a start before it belong
            # to processes that are dead, and whoever finds them waits for an answer that never comes.
            store, rank, processes = next(dist.rendezvous("env://", timeout=TIMEOUT))
            store = dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=TIMEOUT)
            KEPT_GROUPS.append(dist.group.WORLD)
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.share, self.shares = self.rank, self.processes
        self.main = self.rank == 0

    def seed_share(self) -> None:
        """Give each share random numbers of its own, so that no two drop the same entries."""
        if self.share:
            torch.manual_seed((torch.initial_seed() + self.share) % 2**63)

    def batches(self, batches: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
        """Return a source that gives this process its rows of each batch.

        Raises: ValueError if the batch does not divide among the processes.
        """
        if self.shares == 1:
            return batches
        share_of(batch_size, self.share, self.shares)
        if hasattr(batches, "read_rows"):
            batches.read_rows(self.share, self.shares)
            return batches
        return RowsOf(batches, self.share, self.shares)

    def rows(self, batch: Batch) -> Batch:
        """Return this process's rows of a validation batch, which need not divide.

        A process without a row of its own gets the first one without targets: it must call the model as
        often as the others, who wait for it there, and adds nothing to the sum.
        """
        ids_BT, targets_BT = batch
        B = len(ids_BT)
        first, last = self.share * B // self.shares, (self.share + 1) * B // self.shares
        if first == last:
            return ids_BT[:1], torch.full_like(targets_BT[:1], NO_TARGET)
        return ids_BT[first:last], targets_BT[first:last]

    def total(self, value: float) -> float:
        """Sum a number over the parts of the batch, in float64."""
        if self.shares == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.item()

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process: a signal may reach one before the others."""
        found = torch.tensor(int(flag))
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found)

    def random_state(self) -> dict[str, object]:
        """Return the main process's state, and under "others" those of the rest, by rank."""
        states: list[dict[str, object] | None] = [None] * self.processes
        dist.all_gather_object(states, random_state())
        return {**states[0], "others": states[1:]}

    def restore_random_state(self, state: dict[str, object]) -> None:
        """Continue each process's numbers; with another number of processes only the main one can."""
        others = state.get("others", [])
        restore_random_state(state)
        if self.rank and len(others) == self.processes - 1:
            restore_random_state(others[self.rank - 1])
        elif self.share:  # begin anew, from a number that all processes know
            torch.manual_seed((int(torch.randint(2**62, ())) + self.share) % 2**63)

    def from_all(self, make: Callable[[], Value]) -> list[Value]:
        """Call ``make`` in every process and give all results to all, by rank."""
        answers: list[tuple[Value | None, Exception | None] | None] = [None] * self.processes
        dist.all_gather_object(answers, _attempt(make))
        return [_value(answer) for answer in answers]

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Call ``make`` in the main process alone and give all its result, or its ValueError or OSError."""
        answer = [_attempt(make) if self.main else None]
        dist.broadcast_object_list(answer)
        return _value(answer[0])

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run the block before the others, who then find its files."""
        if not self.main:
            dist.barrier()
        yield
        if self.main:
            dist.barrier()

    def finish(self) -> None:
        """Wait for the others, then leave: without the wait, torch aborts now and then."""
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


def _attempt(make: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
    """Return the result, or the mistake that everyone is to hear of."""
    try:
        return make(), None
    except (ValueError, OSError) as error:
        return None, error.with_traceback(None)


def _value(answer: tuple[Value | None, Exception | None]) -> Value:
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


class RowsOf:
    """A source of batches cut to one share of their rows."""

    def __init__(self, batches: Iterator[Batch], share: int, shares: int) -> None:
        self.source, self.share, self.shares = batches, share, shares

    def __iter__(self) -> "RowsOf":
        return self

    def __next__(self) -> Batch:
        """Return this share of the next batch."""
        ids_BT, targets_BT = next(self.source)
        rows = share_of(len(ids_BT), self.share, self.shares)
        return ids_BT[rows], targets_BT[rows]

    def state_dict(self) -> dict[str, object]:
        """Return the place of the whole source."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from where ``state`` was taken."""
        self.source.load_state_dict(state)
