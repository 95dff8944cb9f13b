"""A pipeline: the list of steps that the scores of the next token pass through, in order.

A step is any function ``(ids_BT, logits_BV) -> logits_BV``: it reads the text so far and the scores
of the next token, and returns new scores. Bind the settings of the package's functions beforehand:

>>> from functools import partial
>>> from llm_from_scratch.decoding.logits import apply_temperature, keep_top_k
>>> from llm_from_scratch.decoding.repetition import penalise_repetition
>>> pipeline = [
...     partial(penalise_repetition, penalty=2.0),
...     scores_only(apply_temperature, temperature=0.5),
...     scores_only(keep_top_k, top_k=2),
... ]
>>> run_pipeline(pipeline, torch.tensor([[0]]), torch.tensor([[4.0, 3.0, 1.0]])).tolist()
[[4.0, 6.0, -inf]]

The order matters: a penalty before top-k can push a token out of the k; after it, it cannot.

Legend: B sequences, T tokens so far, V vocabulary entries.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

LogitFunction = Callable[[Tensor, Tensor], Tensor]
Pipeline = Sequence[LogitFunction]


def scores_only(function: Callable[..., Tensor], **settings) -> LogitFunction:
    """Turn a function of the scores alone into a step, which is given the text too and ignores it.

    >>> double = scores_only(lambda logits_BV: 2 * logits_BV)
    >>> double(torch.tensor([[5]]), torch.tensor([[1.0]])).tolist()
    [[2.0]]
    """

    def step(ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        return function(logits_BV, **settings)

    return step


def run_pipeline(
    pipeline: Pipeline, ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"]
) -> Float[Tensor, "B V"]:
    """Pass the scores through each step; an empty pipeline returns them as they are.

    Raises: ValueError if a step is no function, or returns anything but scores of the same shape.
    """
    check_history(ids_BT, logits_BV)
    for number, step in enumerate(pipeline):
        if not callable(step):
            raise ValueError(
                f"step {number} of the pipeline must be a function of (ids_BT, logits_BV), got {step!r}; "
                "bind settings with functools.partial or scores_only"
            )
        result = step(ids_BT, logits_BV)
        if not isinstance(result, Tensor) or result.shape != logits_BV.shape:
            got = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)
            raise ValueError(
                f"step {number} of the pipeline must return scores of shape {tuple(logits_BV.shape)}, "
                f"got {got}"
            )
        logits_BV = result
    return logits_BV


def check_history(ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"]) -> None:
    """Raise ValueError unless the text and the scores belong together.

    >>> check_history(torch.tensor([[7]]), torch.zeros(1, 5))
    Traceback (most recent call last):
    ValueError: token id 7 lies outside the vocabulary of 5 tokens; ids run from 0 to 4
    """
    if ids_BT.dim() != 2 or logits_BV.dim() != 2 or len(ids_BT) != len(logits_BV):
        raise ValueError(
            f"a step needs ids of shape (B, T) and scores of shape (B, V) with the same B, got "
            f"{tuple(ids_BT.shape)} and {tuple(logits_BV.shape)}; a single text takes ids[None], logits[None]"
        )
    if ids_BT.dtype.is_floating_point or ids_BT.dtype == torch.bool:
        raise ValueError(f"token ids must be whole numbers, got {ids_BT.dtype}; convert them with .long()")
    V = logits_BV.shape[-1]
    outside = ids_BT[(ids_BT < 0) | (ids_BT >= V)]
    if len(outside):
        raise ValueError(
            f"token id {int(outside[0])} lies outside the vocabulary of {V} tokens; ids run from 0 to {V - 1}"
        )
