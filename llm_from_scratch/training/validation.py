"""The validation loss: the mean over the same tokens each time it is measured.

Legend: B windows of a batch, T tokens of a window.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from llm_from_scratch.data.loader import Batch, evaluation_batches
from llm_from_scratch.nn.modes import evaluation_mode

NO_TARGET = -100  # padding: the loss passes over it


def validation_batches(
    tokens: object, *, context_length: int, batch_size: int, count: int | None = None
) -> list[Batch]:
    """Cut a split into batches of windows that do not overlap; with ``count``, that many of them.

    All batches together have every token but the first as a target exactly once. ``count`` batches
    are spread evenly over the split, and are the same ones each time.

    >>> batches = validation_batches(range(61), context_length=3, batch_size=2, count=3)
    >>> [inputs_BT.tolist() for inputs_BT, _ in batches]
    [[[0, 1, 2], [3, 4, 5]], [[18, 19, 20], [21, 22, 23]], [[36, 37, 38], [39, 40, 41]]]
    """
    batches = list(evaluation_batches(tokens, context_length=context_length, batch_size=batch_size))
    if count is None or count >= len(batches):
        return batches
    return [batches[i * len(batches) // count] for i in range(count)]


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    context: Callable[[], AbstractContextManager] = nullcontext,
    total: Callable[[float], float] = float,
) -> float:
    """Return the model's mean loss in nats a token, each token with the same weight.

    The model is called as ``model(inputs_BT, targets_BT)`` and returns ``(logits, mean loss)``. Each
    batch counts by its number of targets: the mean of the batches' means would favour the tokens of
    a batch that is short. The model is left in the mode in which it was. ``total`` adds up a number
    over the processes that share the batches; each of them calls the model on every batch.
    Raises: ValueError if no batch has a target.
    """
    nats, tokens = 0.0, 0
    with evaluation_mode(model):
        for inputs_BT, targets_BT in batches:
            counted = int((targets_BT != NO_TARGET).sum())
            with context():
                _, loss = model(inputs_BT.to(device), targets_BT.to(device))
            if counted:  # the mean over none may be NaN
                nats += float(loss) * counted
                tokens += counted
    nats, tokens = total(nats), total(tokens)
    if tokens == 0:
        raise ValueError("no batch has a target: the validation split is empty")
    return nats / tokens
