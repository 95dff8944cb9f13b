"""Batches for training and for evaluation, cut from one stream of tokens.

Training takes windows at random places, for ever. Evaluation walks through the stream once and scores
every token that has one before it, exactly once.

Shape letters: B windows in a batch, T tokens in a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

Batch = tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]


class BatchLoader:
    """Endless batches of random windows: ``x_BT`` and, one token further on, the targets ``y_BT``.

    ``tokens`` is one stream of ids: a numpy array, a memory-mapped file (only the windows are read), a
    list or a tensor. The places are drawn by a generator of this loader alone, so they depend on
    ``seed`` and the number of batches drawn, and on nothing else in the program. ``state_dict`` and
    ``load_state_dict`` carry the place from one run to the next: the batches go on as if never
    interrupted.

    Raises: ValueError if the stream is shorter than one window and its next token.

    >>> loader = BatchLoader(np.arange(100), context_length=4, batch_size=2, seed=0)
    >>> x_BT, y_BT = next(loader)
    >>> x_BT.shape, bool((y_BT == x_BT + 1).all())
    (torch.Size([2, 4]), True)
    """

    def __init__(self, tokens: Any, *, context_length: int, batch_size: int, seed: int):
        self.tokens = _as_stream(tokens)
        self.context_length = context_length  # tokens in a window
        self.batch_size = batch_size  # windows in a batch
        self.seed = seed
        _check_at_least_one(context_length=context_length, batch_size=batch_size)
        if len(self.tokens) < context_length + 1:
            raise ValueError(
                f"the data has {len(self.tokens)} tokens, but a window of context_length {context_length} "
                f"needs {context_length + 1} (its targets lie one further on). Use more text, or a "
                f"context_length of at most {max(len(self.tokens) - 1, 0)}"
            )
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self.batches_drawn = 0
        self._rows = slice(None)  # of a batch, those that are read

    def read_rows(self, share: int, shares: int) -> None:
        """Read from now on only part ``share`` of ``shares`` equal parts of each batch.

        The places of the whole batch are drawn all the same, so the state, and with it where a run goes
        on, does not depend on the number of parts: all parts together are the batch of one process.
        Raises: ValueError if the batch does not divide.
        """
        self._rows = share_of(self.batch_size, share, shares)

    def __iter__(self) -> BatchLoader:
        return self

    def __next__(self) -> Batch:
        """Draw the next batch."""
        last = len(self.tokens) - self.context_length  # the first place that is too late to begin
        starts_B = self._generator.integers(0, last, size=self.batch_size)[self._rows]
        self.batches_drawn += 1
        offsets_T = np.arange(self.context_length + 1)
        return _shifted(self.tokens[starts_B[:, None] + offsets_T])

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on from here (plain numbers and text, fit for JSON)."""
        return {**self._identity(), "batches_drawn": self.batches_drawn, "generator": self._generator_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises: ValueError if the state belongs to other data or settings, or is damaged.
        """
        if not isinstance(state, dict):
            raise ValueError(
                f"the loader's state is damaged: it is a {type(state).__name__}, expected a dict"
            )
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"the loader's state was saved with {name} {state.get(name)!r}, but this loader has "
                    f"{value!r}; resume with the settings and the data of the first run"
                )
        try:
            generator, batches_drawn = state["generator"], int(state["batches_drawn"])
            self._generator.bit_generator.state = {
                "bit_generator": "PCG64",
                "state": {"state": int(generator["state"]), "inc": int(generator["inc"])},
                "has_uint32": int(generator["has_uint32"]),
                "uinteger": int(generator["uinteger"]),
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the loader's state is damaged: {error!r}; use another checkpoint") from None
        self.batches_drawn = batches_drawn

    def _identity(self) -> dict[str, int]:
        """Return what must be the same for a state to fit."""
        return {
            "num_tokens": len(self.tokens),
            "context_length": self.context_length,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def _generator_state(self) -> dict[str, Any]:
        state = self._generator.bit_generator.state
        return {  # 128-bit integers as text, because many readers of JSON keep only 53 bits
            "state": str(state["state"]["state"]),
            "inc": str(state["state"]["inc"]),
            "has_uint32": state["has_uint32"],
            "uinteger": state["uinteger"],
        }


def share_of(batch_size: int, share: int, shares: int) -> slice:
    """Return the rows of a batch that are part ``share`` of ``shares``, counted from 0.

    >>> share_of(6, 1, 3)
    slice(2, 4, None)
    >>> share_of(5, 0, 2)
    Traceback (most recent call last):
    ...
    ValueError: batch_size 5 does not divide among 2 processes; choose a multiple of 2
    """
    if batch_size % shares:
        raise ValueError(
            f"batch_size {batch_size} does not divide among {shares} processes; choose a multiple of {shares}"
        )
    rows = batch_size // shares
    return slice(share * rows, (share + 1) * rows)


def evaluation_batches(tokens: Any, *, context_length: int, batch_size: int) -> Iterator[Batch]:
    """Walk through ``tokens`` once, in windows that do not overlap.

    Every token but the first of the stream is a target exactly once. The last window may be shorter; it
    then comes in a batch of its own, so that nothing is padded. A token early in its window is predicted
    from few tokens before it, which makes the loss a little higher than with overlapping windows.

    Raises: ValueError if there are fewer than 2 tokens, or a size is below 1.

    >>> [y_BT.tolist() for _, y_BT in evaluation_batches(range(8), context_length=3, batch_size=2)]
    [[[1, 2, 3], [4, 5, 6]], [[7]]]
    """
    _check_at_least_one(context_length=context_length, batch_size=batch_size)
    stream = _as_stream(tokens)
    if len(stream) < 2:
        raise ValueError(f"the data has {len(stream)} tokens; at least 2 are needed to score one")
    return _walk(stream, context_length, batch_size)


def _walk(stream: np.ndarray, context_length: int, batch_size: int) -> Iterator[Batch]:
    targets = len(stream) - 1
    starts = np.arange(0, targets - targets % context_length, context_length)
    offsets_T = np.arange(context_length + 1)
    for i in range(0, len(starts), batch_size):
        yield _shifted(stream[starts[i : i + batch_size, None] + offsets_T])
    if targets % context_length:
        yield _shifted(stream[None, targets - targets % context_length :])


def _shifted(windows: np.ndarray) -> Batch:
    """Part windows of T + 1 tokens into inputs and the targets one further on."""
    windows_BS = torch.from_numpy(windows.astype(np.int64))
    return windows_BS[:, :-1].contiguous(), windows_BS[:, 1:].contiguous()


def _as_stream(tokens: Any) -> np.ndarray:
    """Return ``tokens`` as a one-dimensional array of integers, without copying one that is an array."""
    stream = tokens if isinstance(tokens, np.ndarray) else np.asarray(tokens)
    if stream.ndim != 1:
        raise ValueError(f"tokens must be one stream (one dimension), got the shape {stream.shape}")
    if stream.size and stream.dtype.kind not in "iu":
        raise ValueError(f"tokens must be integers, got {stream.dtype}")
    return stream


def _check_at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
