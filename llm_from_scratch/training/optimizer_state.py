"""The optimizer's state on its way to a file and back: gathered whole, or box by box.

AdamW keeps two averages for each parameter, of its size and divided as it is; Muon one for each of its
matrices. The rest is small: the count of steps, learning rates, which parameter is in which group. A
parameter's number is its place in the groups.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llm_from_scratch.training.boxes import TensorSource, WholeTensors
from llm_from_scratch.training.shard_files import label
from llm_from_scratch.training.strategy import Strategy

WAYS = ("fused", "foreach")  # fields of a group that change no number, only how fast it is computed


def gathered_optimizer(optimizer: torch.optim.Optimizer, strategy: Strategy) -> dict[str, object]:
    """Return the optimizer's state with whole tensors: the same, whatever the strategy.

    >>> gathered_optimizer(torch.optim.AdamW(torch.nn.Linear(2, 1).parameters()), Strategy())["state"]
    {}
    """
    return _converted(optimizer, strategy.whole)


def small_state(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Return the state without what `optimizer_boxes` returns."""
    return _converted(optimizer, lambda value, parameter: None)


def optimizer_boxes(optimizer: torch.optim.Optimizer, strategy: Strategy) -> dict[str, Tensor]:
    """Return the boxes of averages that this process writes; one of parameter 3 is ``3.exp_avg[0:8]``."""
    parameters = _parameters(optimizer)
    return {
        label(f"{number}.{name}", box): place
        for number, kept in optimizer.state_dict()["state"].items()
        if strategy.writes(parameters[number], number)
        for name, value in kept.items()
        if _is_large(value)
        for box, place in strategy.boxes(value, parameters[number])
    }


@torch.no_grad()
def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    state: dict[str, object],
    strategy: Strategy,
    averages: TensorSource | None = None,
) -> None:
    """Give the optimizer this process's part of a state.

    ``state`` is what `gathered_optimizer` returned or, with ``averages`` to read the rest from, what
    `small_state` did. The processes may be another number than those that wrote it, and the optimizer keeps
    its own way of computing: one kernel for all parameters, where some lie divided, is not possible.
    Raises: ValueError if the averages are not those of this optimizer's parameters.
    """
    states = {number: dict(kept) for number, kept in state["state"].items()}
    if averages is None:
        averages = WholeTensors(
            {f"{n}.{name}": v for n, kept in states.items() for name, v in kept.items() if _is_large(v)}
        )
    parameters = _parameters(optimizer)
    for stored in averages.names():
        number, _, name = stored.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters) or int(number) not in states:
            raise ValueError(f"the optimizer's state does not fit: there is no parameter for {stored!r:.80}")
        parameter = parameters[int(number)]
        if averages.shape(stored) != tuple(parameter.shape):
            raise ValueError(
                f"the optimizer's state does not fit: {stored!r:.80} has shape {averages.shape(stored)}, "
                f"its parameter {tuple(parameter.shape)}"
            )
        value = torch.zeros_like(parameter, dtype=averages.dtype(stored))
        for box, place in strategy.boxes(value, parameter):
            place.copy_(averages.read(stored, box))
        states[int(number)][name] = value
    groups = [
        {**stored, **{way: own[way] for way in WAYS if way in own}}
        for stored, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"param_groups": groups, "state": states})


def _converted(
    optimizer: torch.optim.Optimizer, convert: Callable[[Tensor, Tensor], Tensor | None]
) -> dict[str, object]:
    """Return the state with each large tensor converted, or left out where that gives None."""
    parameters, state = _parameters(optimizer), optimizer.state_dict()
    states: dict[int, dict[str, object]] = {}
    for number, kept in state["state"].items():
        converted = {
            name: convert(value, parameters[number]) if _is_large(value) else value
            for name, value in kept.items()
        }
        states[number] = {name: value for name, value in converted.items() if value is not None}
    return {**state, "state": states}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_large(value: object) -> bool:
    """Tell a tensor of the parameter's size from the count of steps."""
    return isinstance(value, Tensor) and value.dim() > 0
