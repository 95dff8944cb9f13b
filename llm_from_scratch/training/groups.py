"""Parameter groups that the caller chooses: a learning rate, a weight decay and a first step for each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FIELDS = {"params", "rate", "from_step", "weight_decay"}


def checked_groups(
    model: nn.Module, groups: Sequence[Mapping[str, object]], *, weight_decay: float
) -> list[dict[str, object]]:
    """Return the groups with every field filled in.

    A group has ``params``; ``rate`` (1), which multiplies the learning rate that the schedule gives;
    ``from_step`` (0), the optimizer steps that pass before it is trained; and ``weight_decay``, by default
    the argument. A group without parameters is left out.
    Raises: ValueError for unknown fields and values out of range; for a trainable parameter of the model
    that is in no group or in two, and one in a group that is frozen or not the model's; and if no group
    begins at step 0.

    >>> layer = nn.Linear(3, 2)
    >>> checked_groups(layer, [{"params": layer.parameters(), "rate": 0.5}], weight_decay=0.1)[0]["from_step"]
    0
    """
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    filled: list[dict[str, object]] = []
    seen: set[int] = set()
    for number, group in enumerate(groups):
        if unknown := group.keys() - FIELDS:
            raise ValueError(f"group {number} has the unknown field {sorted(unknown)[0]!r}; known: {FIELDS}")
        group = {"rate": 1.0, "from_step": 0, "weight_decay": weight_decay, **group}
        group["params"] = list(group.get("params", ()))
        for field in ("rate", "weight_decay", "from_step"):
            if not 0 <= group[field] < math.inf:
                raise ValueError(f"group {number}: {field} must be 0 or more, got {group[field]}")
        for parameter in group["params"]:
            if id(parameter) not in names or id(parameter) in seen:
                name = names.get(id(parameter), "a parameter that is frozen or not the model's")
                raise ValueError(
                    f"group {number} has {name}{' a second time' if id(parameter) in seen else ''}; each "
                    "trainable parameter of the model belongs to exactly one group"
                )
            seen.add(id(parameter))
        filled += [group] if group["params"] else []
    if left := [name for key, name in names.items() if key not in seen]:
        raise ValueError(
            f"{left[0]} and {len(left) - 1} more trainable parameters are in no group: add them to one, or "
            "freeze them with requires_grad_(False)"
        )
    if all(group["from_step"] for group in filled):
        raise ValueError("no group begins at step 0, so there would be nothing to train: set its from_step")
    return filled


def waiting_parameters(optimizer: torch.optim.Optimizer, step: int) -> list[Tensor]:
    """Return the parameters whose group begins after ``step`` optimizer steps.

    >>> layer = nn.Linear(3, 2)
    >>> groups = [{"params": [layer.weight], "from_step": 5}, {"params": [layer.bias]}]
    >>> [len(waiting_parameters(torch.optim.SGD(groups, lr=1.0), step)) for step in (4, 5)]
    [1, 0]
    """
    waiting = (group for group in optimizer.param_groups if step < group.get("from_step", 0))
    return [parameter for group in waiting for parameter in group["params"]]


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Compute no gradient for the parameters in this block, which saves the backward pass below them.

    >>> layer = nn.Linear(3, 2)
    >>> with frozen([layer.weight]):
    ...     layer(torch.ones(1, 3)).sum().backward()
    >>> layer.weight.grad is None, layer.bias.grad is None, layer.weight.requires_grad
    (True, False, True)
    """
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
