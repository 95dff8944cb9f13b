"""One safetensors file a process: each writes the boxes that it holds; any other division reads them back.

A file holds each box as a tensor of its own, and the name says where it belongs:

    blocks.0.attention.output.weight[32:64,0:48]

torch.distributed.checkpoint (DCP) does the same work and is not used, for three reasons. Its own format keeps
the map of the boxes as a pickle, which can run code when it is opened; its safetensors writer is younger
than the oldest torch that this package runs on, and experimental. Both store one box of each tensor for a
process, while tensor parallelism leaves a process three of the joint query-key-value matrix (`tensor_plan`).
And what remains, the intersection of boxes, is short enough to read.
"""

import hashlib
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llm_from_scratch.files import atomic_path
from llm_from_scratch.training.boxes import Box, numbers_in, shared_box, slices, whole_box

LABEL = re.compile(r"(?P<name>.+)\[(?P<box>(\d+:\d+(,\d+:\d+)*)?)\]", re.DOTALL)


def label(name: str, box: Box) -> str:
    """Return the name under which a box of the tensor ``name`` is stored.

    >>> label("head.weight", (range(0, 7), range(4, 8))), label("count", ())
    ('head.weight[0:7,4:8]', 'count[]')
    """
    return f"{name}[{','.join(f'{r.start}:{r.stop}' for r in box)}]"


def parse_label(text: str) -> tuple[str, Box]:
    """Return name and box of what `label` wrote. Raises: ValueError for anything else.

    >>> parse_label("head.weight[0:7,4:8]")
    ('head.weight', (range(0, 7), range(4, 8)))
    """
    found = LABEL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.120} does not end in the box that it is, such as [0:7,4:8]")
    pairs = [pair.split(":") for pair in found["box"].split(",") if pair]
    return found["name"], tuple(range(int(first), int(last)) for first, last in pairs)


def write_shard(path: Path, boxes: dict[str, Tensor]) -> str:
    """Write the boxes of one process, by `label`; return the sha256 of the file, which is on the disk then.

    Raises: OSError if the disk is full or refuses.
    """
    stored = {name: _alone(tensor) for name, tensor in boxes.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(stored, temporary)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file that need not fit into memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardFiles:
    """The tensors whose boxes lie in several files, opened without reading one.

    The files stay open as long as this object lives, so that a run which goes on meanwhile and removes them
    does not disturb the reader.
    Raises: FileNotFoundError if one is missing; ValueError naming the file that is no shard, or the tensor
    of which a part is missing.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.boxes: dict[str, list[tuple[Box, str, object]]] = {}
        self.folder = paths[0].parent
        for path in paths:
            try:
                file = safe_open(path, framework="pt")
                for stored in list(file.keys()):
                    name, box = parse_label(stored)
                    if tuple(map(len, box)) != tuple(file.get_slice(stored).get_shape()):
                        raise ValueError(f"{stored!r:.120} has another shape than its box")
                    self.boxes.setdefault(name, []).append((box, stored, file))
            except FileNotFoundError:
                raise FileNotFoundError(f"{path} is missing: the checkpoint is not complete") from None
            except (SafetensorError, ValueError) as error:
                raise ValueError(f"{path} is damaged ({error})") from error
        for name, parts in self.boxes.items():
            dimensions = {len(box) for box, _, _ in parts}
            held = sum(numbers_in(box) for box, _, _ in parts)
            if len(dimensions) > 1 or held != numbers_in(whole_box(self.shape(name))):
                raise self._incomplete(name)

    def names(self) -> list[str]:
        """Return the name of each tensor."""
        return list(self.boxes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""
        return tuple(max(r.stop for r in axis) for axis in zip(*self._boxes(name), strict=False))

    def dtype(self, name: str) -> torch.dtype:
        """Return the tensor's number format."""
        box, _, _ = self.boxes[name][0]
        return self.read(name, tuple(range(r.start, r.start + 1) for r in box)).dtype

    def read(self, name: str, box: Box) -> Tensor:
        """Return one box, put together from those stored boxes that it meets.

        Raises: ValueError if they do not cover it.
        """
        result, held = None, 0
        for stored, key, file in self.boxes[name]:
            common = shared_box(stored, box)
            if common is None:
                continue
            if not box:
                return file.get_tensor(key)
            part = file.get_slice(key)[slices(common, within=stored)]
            if result is None:
                result = torch.empty([len(r) for r in box], dtype=part.dtype)
            result[slices(common, within=box)] = part
            held += numbers_in(common)
        if result is None or held != numbers_in(box):
            raise self._incomplete(name)
        return result

    def _boxes(self, name: str) -> list[Box]:
        return [box for box, _, _ in self.boxes[name]]

    def _incomplete(self, name: str) -> ValueError:
        return ValueError(
            f"the shards in {self.folder} are damaged: the boxes of {name!r:.120} do not make one tensor"
        )


def _alone(tensor: Tensor) -> Tensor:
    """Return the tensor on the CPU, in memory of its own: a view of a larger one is copied."""
    tensor = tensor.detach().to("cpu").contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
