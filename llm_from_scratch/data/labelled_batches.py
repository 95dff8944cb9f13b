"""Batches of labelled texts, padded at their ends: endless ones to train on, a list to evaluate on.

Legend: B texts of a batch, T tokens of its longest text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from llm_from_scratch.data.loader import share_of

LabelledBatch = tuple[Int[Tensor, "B T"], Int[Tensor, " B"]]


class LabelledBatches:
    """Endless batches ``(ids_BT, labels_B)``: every text once an epoch, in an order drawn for each epoch.

    The texts of all epochs form one sequence, and batch n is its n-th piece of ``batch_size`` texts; a
    batch may lie across two epochs. So that less of a batch is padding, texts are sorted by length within
    a window of ``window`` batches, and then the batches of the window are shuffled. A window is never
    larger than an epoch, and one that lies across two is left unsorted, so that no batch gathers
    repetitions of a short text. Batch n depends on the data, ``seed`` and n alone; ``state_dict`` and
    ``load_state_dict`` carry the place from one run to the next.

    Args: ``ids`` one sequence of token ids for each text, ``labels`` the number of its class; ``pad_id``
    fills up the end; ``window=1`` sorts nothing.
    Raises: ValueError for no texts, a text without tokens, a label below 0, ids and labels of different
    number, sizes below 1.

    >>> ids, labels = [[5], [6, 7], [8, 9, 10]], [0, 1, 1]
    >>> batches = LabelledBatches(ids, labels, batch_size=3, pad_id=0, seed=0)
    >>> ids_BT, labels_B = next(batches)
    >>> ids_BT.shape, sorted(labels_B.tolist())
    (torch.Size([3, 3]), [0, 1, 1])
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        batch_size: int,
        pad_id: int,
        seed: int,
        window: int = 16,
    ):
        _check(ids, labels, batch_size=batch_size, window=window)
        self.ids, self.labels = ids, labels
        self.batch_size, self.pad_id, self.seed = batch_size, pad_id, seed
        self.window = max(1, min(window, len(ids) // batch_size))  # batches
        self.batches_drawn = 0
        self._rows = slice(None)  # of a batch, those that are read
        self._lengths = np.array([len(each) for each in ids])
        self._data = _digest(ids, labels)
        self._orders: dict[int, np.ndarray] = {}  # of the epochs at hand
        self._ready = (-1, np.empty((0, 0), dtype=np.int64))  # a window's number and its batches

    def read_rows(self, share: int, shares: int) -> None:
        """Read from now on only part ``share`` of ``shares`` equal parts of each batch.

        The state does not depend on the number of parts, and each part is padded to the length of the
        whole batch. Raises: ValueError if the batch does not divide.
        """
        self._rows = share_of(self.batch_size, share, shares)

    def __iter__(self) -> LabelledBatches:
        return self

    def __next__(self) -> LabelledBatch:
        """Draw the next batch."""
        window, place = divmod(self.batches_drawn, self.window)
        if self._ready[0] != window:
            self._ready = (window, self._window(window))
        ids_BT, labels_B = padded(self.ids, self.labels, self._ready[1][place], pad_id=self.pad_id)
        self.batches_drawn += 1
        return ids_BT[self._rows], labels_B[self._rows]

    def _window(self, number: int) -> np.ndarray:
        """Return the texts of a window's batches, one row a batch."""
        size = self.window * self.batch_size
        first, last = (number * size) // len(self.ids), ((number + 1) * size - 1) // len(self.ids)
        self._orders = {epoch: self._order(epoch) for epoch in range(first, last + 1)}
        start = number * size - first * len(self.ids)
        texts = np.concatenate(list(self._orders.values()))[start : start + size]
        if self.window > 1 and first == last:
            texts = texts[np.argsort(self._lengths[texts], kind="stable")]
        batches = texts.reshape(self.window, self.batch_size)
        return np.random.default_rng((self.seed, 1, number)).permutation(batches)

    def _order(self, epoch: int) -> np.ndarray:
        known = self._orders.get(epoch)
        if known is not None:
            return known
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.ids))

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on from here (plain numbers and text, fit for JSON)."""
        return {**self._identity(), "batches_drawn": self.batches_drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken. Raises: ValueError if it is of other data or settings."""
        for name, value in self._identity().items():
            found = state.get(name) if isinstance(state, dict) else None
            if found != value:
                raise ValueError(
                    f"the batches' state was saved with {name} {found!r}, but these have {value!r}; resume "
                    "with the settings and the data of the first run"
                )
        drawn = state.get("batches_drawn")
        if not isinstance(drawn, int) or isinstance(drawn, bool) or drawn < 0:
            raise ValueError(f"the batches' state is damaged: batches_drawn is {drawn!r}")
        self.batches_drawn = drawn

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a state to fit."""
        return {
            "data": self._data,
            "batch_size": self.batch_size,
            "pad_id": self.pad_id,
            "window": self.window,
            "seed": self.seed,
        }


def labelled_validation(
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    *,
    batch_size: int,
    pad_id: int,
    by_length: bool = False,
) -> list[LabelledBatch]:
    """Return all texts once, in batches in their own order; the last batch may be smaller.

    ``by_length`` sorts the texts by their length first, which needs less padding: for a mean over the
    texts, not for predictions that are to be laid beside the texts.
    Raises: ValueError as `LabelledBatches`.

    >>> batches = labelled_validation([[5, 6], [7], [8]], [0, 1, 1], batch_size=2, pad_id=0)
    >>> [(ids_BT.tolist(), labels_B.tolist()) for ids_BT, labels_B in batches]
    [([[5, 6], [7, 0]], [0, 1]), ([[8]], [1])]
    """
    _check(ids, labels, batch_size=batch_size)
    order = np.arange(len(ids))
    if by_length:
        order = np.argsort([len(each) for each in ids], kind="stable")
    return [
        padded(ids, labels, order[i : i + batch_size], pad_id=pad_id) for i in range(0, len(ids), batch_size)
    ]


def padded(
    ids: Sequence[Sequence[int]], labels: Sequence[int], texts: Sequence[int], *, pad_id: int
) -> LabelledBatch:
    """Return the chosen texts as one batch, each filled up with ``pad_id`` to the longest of them."""
    longest = max(len(ids[text]) for text in texts)
    ids_BT = torch.full((len(texts), longest), pad_id, dtype=torch.long)
    for row, text in enumerate(texts):
        ids_BT[row, : len(ids[text])] = torch.as_tensor(ids[text], dtype=torch.long)
    return ids_BT, torch.tensor([int(labels[text]) for text in texts])


def _check(ids: Sequence[Sequence[int]], labels: Sequence[int], **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} texts have {len(labels)} labels; each needs one")
    if len(ids) == 0:
        raise ValueError("there are no texts to make batches of")
    for number, (each, label) in enumerate(zip(ids, labels, strict=True)):
        if len(each) == 0:
            raise ValueError(
                f"text {number} has no tokens; leave it out, or begin texts with a special token"
            )
        if label < 0:
            raise ValueError(f"text {number} has the label {label}; labels count classes from 0")


def _digest(ids: Sequence[Sequence[int]], labels: Sequence[int]) -> str:
    """Return a short name of the data that changes with any token and any label."""
    digest = hashlib.sha256(np.asarray(labels, dtype=np.int64).tobytes())
    for each in ids:
        digest.update(np.int64(len(each)).tobytes())
        digest.update(np.asarray(each, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
