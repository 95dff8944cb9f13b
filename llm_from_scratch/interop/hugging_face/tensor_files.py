"""The safetensors files of a folder: what they say they hold is checked before any of it is read.

A safetensors file is eight bytes (the length of its header, little-endian), the header (a JSON object:
for each tensor its number format, its shape, and where its bytes begin and end), then the bytes of all
tensors without a gap. A model in several files has an index that says which tensor lies in which.

Source: the format's own description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_from_scratch.interop.hugging_face.json_files import has_file, parse_json, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip
WEIGHTS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies, and what it is said to be."""

    file: Path
    name: str  # in the file
    format: str  # a key of BYTES
    shape: tuple[int, ...]


def read_entries(folder: Path) -> dict[str, TensorEntry]:
    """Return every tensor of the model in ``folder``, without reading one.

    Raises: FileNotFoundError if there are no safetensors, or a file of the index is not there;
    ValueError naming the file, the tensor and what is wrong with it.
    """
    if has_file(folder / SINGLE):
        return read_header(folder / SINGLE)
    if has_file(folder / INDEX):
        return _read_index(folder)
    others = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
    pickled = f" It has {', '.join(others[:3])}: pickles run code and are not opened here." if others else ""
    raise FileNotFoundError(
        f"there is no {SINGLE} and no {INDEX} in {folder}.{pickled} transformers can save the model as "
        "safetensors: model.save_pretrained(folder)"
    )


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of one file, after checking that header and file agree to the byte."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(f"{path} is {size} bytes long, too short for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        limit = min(MAX_HEADER_BYTES, size - 8)
        if length > limit:
            raise ValueError(
                f"{path} says that its header has {length} bytes; the file leaves room for {limit}: it is "
                "cut short, damaged, or no safetensors file"
            )
        header = parse_json(file.read(length), f"the header of {path}")
    header.pop("__metadata__", None)
    data_bytes = size - 8 - length
    entries, spans = {}, []
    for name, value in header.items():
        entries[name], span = _entry(path, name, value, data_bytes)
        spans.append((*span, name))
    _check_spans(path, sorted(spans), data_bytes)
    return entries


def _entry(path: Path, name: str, value: object, data_bytes: int) -> tuple[TensorEntry, tuple[int, int]]:
    where = f"{path}: the tensor {name!r:.120}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} must be described by dtype, shape and data_offsets, got {value!r:.80}")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in BYTES:
        raise ValueError(f"{where} has the number format {kind!r:.40}; known are {', '.join(BYTES)}")
    if not _whole_numbers(shape) or len(shape) > 8:
        raise ValueError(f"{where} has the shape {shape!r:.80}, expected up to 8 whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_bytes:
        raise ValueError(
            f"{where} lies at bytes {offsets!r:.80}; the file has {data_bytes} bytes of tensors: it is cut "
            "short or damaged"
        )
    expected = math.prod(shape) * BYTES[kind]
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"{where} of shape {shape!r:.80} in {kind} takes {expected} bytes; {offsets[1] - offsets[0]} are "
            "set aside for it"
        )
    return TensorEntry(file=path, name=name, format=kind, shape=tuple(shape)), (offsets[0], offsets[1])


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in values)


def _check_spans(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Raise ValueError unless the tensors lie one after the other, from the first byte to the last."""
    place = 0
    for start, end, name in spans:
        if start != place:
            what = "overlaps another one" if start < place else f"leaves {start - place} bytes before it"
            raise ValueError(f"{path}: the tensor {name!r:.120} {what}")
        place = end
    if place != data_bytes:
        raise ValueError(f"{path} ends with {data_bytes - place} bytes that belong to no tensor")


def _read_index(folder: Path) -> dict[str, TensorEntry]:
    """Return the tensors of all files that the index names, which must be all in them."""
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: the field 'weight_map' is {weight_map!r:.60}, expected names and files")
    for name, file in weight_map.items():
        _check_file_name(index, name, file)
    entries: dict[str, TensorEntry] = {}
    for file in sorted(set(weight_map.values())):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{index} names {file!r:.120}, which is not in the folder")
        for name, entry in read_header(folder / file).items():
            if weight_map.get(name) != file:
                listed = f"lists it in {weight_map[name]!r:.80}" if name in weight_map else "does not list it"
                raise ValueError(f"{folder / file} holds the tensor {name!r:.120}, and {INDEX} {listed}")
            entries[name] = entry
    if lost := [name for name in weight_map if name not in entries]:
        raise ValueError(
            f"{index} lists the tensor {lost[0]!r:.120} in {weight_map[lost[0]]!r:.80}, where it is not"
        )
    return entries


def _check_file_name(index: Path, tensor: str, file: object) -> None:
    """Raise ValueError unless ``file`` is the plain name of a safetensors file: no path leads out."""
    plain = (
        isinstance(file, str)
        and len(file) < 256
        and file.endswith(".safetensors")
        and PurePosixPath(file).name == file == PureWindowsPath(file).name
        and not any(ord(character) < 32 for character in file)
    )
    if not plain:
        raise ValueError(
            f"{index}: the tensor {tensor!r:.80} is said to lie in {file!r:.80}; only a file name that ends "
            "in '.safetensors', without a folder, is followed"
        )


def read_tensors(entries: dict[str, TensorEntry]) -> Iterator[tuple[str, Tensor]]:
    """Read the tensors one by one, file by file.

    Raises: ValueError if the file changed since its header was checked.
    """
    by_file: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        by_file.setdefault(entry.file, []).append(name)
    for path, names in by_file.items():
        try:
            with safe_open(path, framework="pt") as file:
                for name in names:
                    tensor = file.get_tensor(entries[name].name)
                    if tuple(tensor.shape) != entries[name].shape:
                        raise ValueError(f"{path}: the tensor {name!r:.120} changed while it was read")
                    yield name, tensor
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None


def is_weight(entry: TensorEntry) -> bool:
    """Tell whether a tensor holds numbers that a model can compute with."""
    return entry.format in WEIGHTS


def check_dtype(dtype: torch.dtype) -> None:
    """Raise ValueError unless ``dtype`` is a floating-point one."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype} must be a floating-point format, such as torch.float32")
