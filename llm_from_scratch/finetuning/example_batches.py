"""Batches of examples of different lengths: endless for training, once through for validation.

Legend: B examples of a batch, T tokens of the longest among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llm_from_scratch.data.loader import Batch, share_of
from llm_from_scratch.finetuning.instructions import NO_TARGET

Example = TypeVar("Example")
Conversation = tuple[Int[Tensor, "T"], Int[Tensor, "T"]]  # ids and targets


class ExampleBatches(Generic[Example]):
    """Endless batches of examples: each epoch takes every example once, in an order of its own.

    The order of epoch e is drawn from ``(seed, e)`` alone, so the state is how many batches were drawn.
    A batch may end one epoch and begin the next. A subclass says how examples make a batch (`collate`).
    Raises: ValueError without examples, or for a batch_size below 1.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int, pad_id: int, seed: int):
        if not examples:
            raise ValueError("there are no examples to make batches of")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.examples, self.batch_size, self.pad_id, self.seed = list(examples), batch_size, pad_id, seed
        self.batches_drawn = 0
        self._rows = slice(None)  # of a batch, those that are read

    def collate(self, examples: Sequence[Example]) -> Any:
        """Make a batch of ``examples``."""
        raise NotImplementedError

    def read_rows(self, share: int, shares: int) -> None:
        """Read from now on only part ``share`` of ``shares`` equal parts of each batch.

        Raises: ValueError if the batch does not divide.
        """
        self._rows = share_of(self.batch_size, share, shares)

    def __iter__(self) -> Iterator:
        """Return itself: it never ends."""
        return self

    def __next__(self) -> Any:
        """Draw the next batch; with `read_rows`, this process's rows of it."""
        start, count = self.batches_drawn * self.batch_size, len(self.examples)
        places = range(start, start + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {place // count for place in places}}
        chosen = [self.examples[orders[place // count][place % count]] for place in places]
        self.batches_drawn += 1
        return self.collate(chosen[self._rows])

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(len(self.examples))

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on from here (plain numbers and text, fit for JSON)."""
        return {**self._identity(), "batches_drawn": self.batches_drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises: ValueError if it belongs to other examples or settings, or is damaged.
        """
        if not isinstance(state, dict):
            raise ValueError(f"the state of the batches is damaged: it is a {type(state).__name__}")
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state of the batches was saved with {name} {state.get(name)!r}, but these have "
                    f"{value!r}; resume with the settings and the data of the first run"
                )
        drawn = state.get("batches_drawn")
        if type(drawn) is not int or drawn < 0:
            raise ValueError(f"the state of the batches is damaged: batches_drawn is {drawn!r}")
        self.batches_drawn = drawn

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to fit."""
        digest = hashlib.sha256()
        for example in self.examples:
            for part_T in example:
                digest.update(part_T.numpy().tobytes() + b"|")
        return {
            "examples": len(self.examples),
            "digest": digest.hexdigest()[:16],
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


class InstructionBatches(ExampleBatches[Conversation]):
    """Endless batches of conversations from `encode_conversation`, padded at the end.

    A batch is ``(ids_BT, targets_BT)``: ids padded with ``pad_id``, targets with -100. Causal attention
    keeps the padding from everything before it, so no mask is needed.

    >>> import torch
    >>> talks = [(torch.tensor([1, 2]), torch.tensor([-100, 3])), (torch.tensor([4]), torch.tensor([5]))]
    >>> ids_BT, targets_BT = next(InstructionBatches(talks, batch_size=2, pad_id=0, seed=0))
    >>> sorted(zip(ids_BT.tolist(), targets_BT.tolist()))
    [([1, 2], [-100, 3]), ([4, 0], [5, -100])]
    """

    def collate(self, examples: Sequence[Conversation]) -> Batch:
        """Pad and stack."""
        return pad_conversations(examples, pad_id=self.pad_id)


def pad_conversations(examples: Sequence[Conversation], *, pad_id: int) -> Batch:
    """Stack conversations, padded at the end to the longest: ids with ``pad_id``, targets with -100."""
    ids_BT = pad_sequence([ids_T for ids_T, _ in examples], batch_first=True, padding_value=pad_id)
    targets_BT = pad_sequence(
        [targets_T for _, targets_T in examples], batch_first=True, padding_value=NO_TARGET
    )
    return ids_BT, targets_BT


def instruction_validation(examples: Sequence[Conversation], *, batch_size: int, pad_id: int) -> list[Batch]:
    """Return each conversation once, in batches in their order; the last batch may be smaller.

    >>> import torch
    >>> talks = [(torch.tensor([1]), torch.tensor([2])) for _ in range(5)]
    >>> [len(ids_BT) for ids_BT, _ in instruction_validation(talks, batch_size=2, pad_id=0)]
    [2, 2, 1]
    """
    if not examples:
        raise ValueError("there are no examples to validate on")
    groups = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
    return [pad_conversations(group, pad_id=pad_id) for group in groups]
