"""How the processes of a run share its work, as one object that the Trainer asks.

`Strategy` is the answer of a single process: every method leaves what it is given as it is. The
strategies for several processes lie in `training.distributed`; they override these methods, and
neither the Trainer nor a model knows which one is at work.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from llm_from_scratch.data.loader import Batch
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

        Formula: ``g <- g min(1, limit / (|g| + 1e-6))``, |g| over all parameters together.
        """
        return float(nn.utils.clip_grad_norm_(model.parameters(), limit))

    def whole(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Return a parameter, or what the optimizer keeps of one, undivided. All processes take part."""
        return tensor

    def part(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Return what this process holds of an undivided tensor, laid out as ``parameter`` is."""
        return tensor

    def random_state(self) -> dict[str, object]:
        """Return the state of the random generators, that of every process."""
        return random_state()

    def restore_random_state(self, state: dict[str, object]) -> None:
        """Continue where `random_state` stood."""
        restore_random_state(state)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Call ``make`` in the main process alone and give its result to all; ValueErrors too."""
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


def gathered_optimizer(optimizer: torch.optim.Optimizer, strategy: Strategy) -> dict[str, object]:
    """Return the optimizer's state with whole tensors: the same, whatever the strategy.

    That is what lets a run of two processes continue in one or in four.

    >>> gathered_optimizer(torch.optim.AdamW(nn.Linear(2, 1).parameters()), Strategy())["state"]
    {}
    """
    state = optimizer.state_dict()
    return {**state, "state": _converted(optimizer, state["state"], strategy.whole)}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, object], strategy: Strategy) -> None:
    """Give the optimizer this process's part of a state that `gathered_optimizer` returned."""
    parts = _converted(optimizer, state["state"], strategy.part)
    optimizer.load_state_dict({**state, "state": parts})


def _converted(
    optimizer: torch.optim.Optimizer, states: dict[int, dict], convert: Callable[[Tensor, Tensor], Tensor]
) -> dict[int, dict]:
    """Convert what is kept for each number of a parameter; the count of steps stays as it is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        index: {
            name: convert(value, parameters[index]) if isinstance(value, Tensor) and value.dim() else value
            for name, value in kept.items()
        }
        for index, kept in states.items()
    }
