"""What a recipe's data become for the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from llm_from_scratch.data.loader import Batch
from llm_from_scratch.training.trainer import Batches

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Batches to train on, batches to choose by, and those on which the result is reported."""

    batches: Batches  # endless
    validation: list[Batch]  # all of them; a run measures some at each evaluation
    test: list[Batch] = field(default_factory=list)  # empty: the validation batches report the result
    labels: tuple[str, ...] = ()  # of classes
    counts: dict[str, int] = field(default_factory=dict)  # of what the data hold, for the record

    def __str__(self) -> str:
        """Say how much there is, in words."""
        return ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in self.counts.items())


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return ``count`` of the items, spread evenly: the same ones each time.

    >>> spread(range(10), 3)
    [0, 3, 6]
    """
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
