"""How the processes of a run share its work, as one object that the Trainer asks.

`Strategy` is the answer of a single process: every method leaves what it is given as it is. The
strategies for several processes lie in `training.distributed`; they override these methods, and
neither the Trainer nor a model knows which one is at work.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from llm_from_scratch.data.loader import Batch
from llm_from_scratch.training.boxes import Box, whole_box
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.seeding import random_state, restore_random_state

Value = TypeVar("Value")


class Strategy:
    """One process does everything.

    ``shares`` is the number of parts into which each batch is cut, ``share`` this process's part.
    ``main`` marks the one process that writes files and shows progress. ``one_kernel`` says whether
    the optimizer may treat all parameters in one call.

    >>> strategy = Strategy()
    >>> strategy.total(3.5), strategy.any(False), strategy.processes
    (3.5, False, 1)
    """

    name = "single"
    processes, rank, shares, share = 1, 0, 1, 0
    main = True
    one_kernel = True
    whole_matrices = True  # each process holds every matrix undivided
    launched = False  # by torchrun, which passes each signal on a second time
    divides = False  # whether parameters lie divided over several processes

    def wrap(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Prepare the model's parameters; return what a training step calls."""
        return model

    def batches(self, batches: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
        """Return a source that gives this process its rows of each batch."""
        return batches

    def rows(self, batch: Batch) -> Batch:
        """Return this process's rows of a validation batch."""
        return batch

    def micro_batch(self, *, last: bool) -> AbstractContextManager:
        """Surround one micro-batch; gradients need to meet only after the ``last`` of a step."""
        return nullcontext()

    def total(self, value: float) -> float:
        """Sum a number over the parts of the batch."""
        return value

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        return flag

    def clip_gradients(self, model: nn.Module, limit: float) -> float:
        """Scale the gradient to a norm of at most ``limit``; return the norm before.

        Formula: ``g <- g min(1, limit / (|g| + 1e-6))``, |g| over all parameters together. Without a
        limit (infinity) the gradient is read once and not written.
        """
        if limit == math.inf:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            return float(torch.stack(torch._foreach_norm(gradients)).norm()) if gradients else 0.0
        return float(nn.utils.clip_grad_norm_(model.parameters(), limit))

    def whole(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Return a parameter, or what the optimizer keeps of one, undivided. All processes take part."""
        return tensor

    def boxes(self, tensor: Tensor, parameter: Tensor) -> list[tuple[Box, Tensor]]:
        """Return what this process holds of a parameter, or of a tensor that is laid out as one.

        Each box comes with a view of its numbers: whoever writes to the view changes the tensor.
        """
        return [(whole_box(tensor.shape), tensor)]

    def writes(self, tensor: Tensor, number: int) -> bool:
        """Tell whether this process writes its boxes of the tensor with this ``number``.

        A divided tensor is written by all, one that each process holds whole by one of them in turn.
        """
        return number % self.processes == self.rank

    def random_state(self) -> dict[str, object]:
        """Return the state of the random generators, that of every process."""
        return random_state()

    def restore_random_state(self, state: dict[str, object]) -> None:
        """Continue where `random_state` stood."""
        restore_random_state(state)

    def from_all(self, make: Callable[[], Value]) -> list[Value]:
        """Call ``make`` in every process and give all results to all, by rank.

        Where it raises ValueError or OSError, every process raises the first of these.
        """
        return [make()]

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Call ``make`` in the main process alone and give all its result, or its ValueError or OSError."""
        return make()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run the block before the others, who then find its files."""
        yield

    def finish(self) -> None:
        """Wait for the others and part from them."""


def check_optimizer(config: TrainerConfig, strategy: Strategy) -> None:
    """Raise ValueError for an optimizer that needs what the strategy divides.

    >>> check_optimizer(TrainerConfig(optimizer="muon"), Strategy())
    """
    if config.optimizer == "muon" and not strategy.whole_matrices:
        raise ValueError(
            f"optimizer muon needs whole matrices, and strategy {strategy.name} divides them: use strategy "
            "ddp, or --optimizer adamw"
        )
