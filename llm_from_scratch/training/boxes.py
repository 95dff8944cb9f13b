"""Which part of a tensor lies where: boxes of indices, and tensors that are read box by box.

A process that holds rows 32 to 63 of a matrix with 48 columns holds the box ``[32:64,0:48]``. Whatever way a
tensor is divided, a part of it is such a box, or several. To cut it another way, intersect what is wanted
with each box that there is, and copy what they share.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

Box = tuple[range, ...]  # the indices along each axis; empty for a single number


class TensorSource(Protocol):
    """Tensors by name, of which any box can be read."""

    def names(self) -> list[str]: ...  # noqa: D102
    def shape(self, name: str) -> tuple[int, ...]: ...  # noqa: D102
    def dtype(self, name: str) -> torch.dtype: ...  # noqa: D102
    def read(self, name: str, box: Box) -> Tensor: ...  # noqa: D102


class WholeTensors:
    """Tensors that lie undivided in memory.

    >>> WholeTensors({"a": torch.arange(6).view(2, 3)}).read("a", (range(2), range(1, 3))).tolist()
    [[1, 2], [4, 5]]
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def names(self) -> list[str]:
        """Return the name of each tensor."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return the tensor's number format."""
        return self.tensors[name].dtype

    def read(self, name: str, box: Box) -> Tensor:
        """Return one box, a view."""
        return self.tensors[name][slices(box)]


def whole_box(shape: tuple[int, ...] | torch.Size) -> Box:
    """Return the box that is all of a tensor.

    >>> whole_box((2, 3))
    (range(0, 2), range(0, 3))
    """
    return tuple(range(size) for size in shape)


def slices(box: Box, *, within: Box | None = None) -> tuple[slice, ...]:
    """Return the index that cuts ``box`` out of a tensor that is the box ``within`` (None: the whole one).

    >>> slices((range(5, 7),), within=(range(4, 8),))
    (slice(1, 3, None),)
    """
    starts = [0] * len(box) if within is None else [outer.start for outer in within]
    return tuple(slice(r.start - first, r.stop - first) for r, first in zip(box, starts, strict=True))


def numbers_in(box: Box) -> int:
    """Return how many numbers a box holds."""
    return math.prod(len(r) for r in box)


def shared_box(one: Box, other: Box) -> Box | None:
    """Return what two boxes of one tensor have in common, None if it is nothing.

    >>> shared_box((range(0, 4), range(3)), (range(2, 8), range(3)))
    (range(2, 4), range(0, 3))
    """
    common = tuple(range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(common) else None


def part_of(whole: range, part: int, parts: int) -> range:
    """Return the indices that one of several processes holds, as torch cuts them: the last hold fewer.

    >>> [list(part_of(range(5), part, 4)) for part in range(4)]
    [[0, 1], [2, 3], [4], []]
    """
    size = -(-len(whole) // parts)
    return whole[part * size : (part + 1) * size]


def runs_of(indices: list[int]) -> list[tuple[range, int]]:
    """Cut a list of indices into stretches that count up; with each, the place where it begins in the list.

    >>> runs_of([4, 5, 6, 0, 1, 9])
    [(range(4, 7), 0), (range(0, 2), 3), (range(9, 10), 5)]
    """
    runs: list[tuple[range, int]] = []
    for place, index in enumerate(indices):
        if runs and index == runs[-1][0].stop:
            runs[-1] = (range(runs[-1][0].start, index + 1), runs[-1][1])
        else:
            runs.append((range(index, index + 1), place))
    return runs
