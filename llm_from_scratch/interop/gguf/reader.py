"""Open a GGUF file: its metadata, and where its tensors lie.

    header    "GGUF", version, number of tensors, number of metadata entries
    metadata  key, type, value; an array is its element type, its length and its elements
    tensors   name, number of dimensions, the dimensions (the fastest first), type, offset
    padding   up to the next multiple of the alignment
    data      the tensors, each at its offset from here

The file may come from anywhere. Every count, length and offset is compared with what the file can hold
before anything is made of it. The data stay on the disk, mapped into memory, until they are asked for.

Source: the GGUF specification, versions 2 and 3. Departures: big-endian files are refused, and so are
keys and names that occur twice, tensors that overlap, and dimensions of 0.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from llm_from_scratch.interop.gguf.dequantise import check_readable, dequantise
from llm_from_scratch.interop.gguf.types import ARRAY, BOOLEAN, NUMBERS, STRING, TENSOR_TYPES, TensorType

MAX_DEPTH = 4  # arrays inside arrays
MAX_VALUES = (
    1 << 22
)  # texts, truth values and arrays in all of the metadata; the largest vocabularies need 2^20
MAX_ENTRIES = 1 << 16  # metadata entries, and tensors; the largest models have a few thousand
MAX_DIMENSIONS = 4
_LEAST_ENTRY_BYTES = 8 + 1 + 4 + 1  # a key of one byte, its type, a value of one byte
_LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8  # a name of one byte and one dimension

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """What the file says about one tensor."""

    name: str
    shape: tuple[int, ...]  # as in torch: the last dimension is the fastest
    type: TensorType
    offset: int  # bytes from the start of the file
    num_bytes: int


class GGUFFile:
    """An open GGUF file: ``version``, ``metadata`` (a dict), ``tensors`` (name to `TensorInfo`).

    Texts are str, numbers int or float, arrays of numbers numpy arrays, other arrays lists. Use it in a
    ``with`` block, which closes the file.

    Raises: FileNotFoundError; ValueError that names the file, the field, and the limit it breaks.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no GGUF file at {self.path}")
        self._size = self.path.stat().st_size
        if self._size < 24:
            raise self.wrong("header", f"is cut off: the file has {self._size} bytes, the header alone 24")
        with open(self.path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Numbers that were read stay."""
        self._map.close()

    def wrong(self, field: str, what: str) -> ValueError:
        """Return the error that says that a field of this file ``what``."""
        return ValueError(f"{self.path}: {field} {what}")

    def read(self, name: str, first_row: int = 0, end_row: int | None = None) -> np.ndarray:
        """Return a tensor, or some of its rows, as float32; rows are all dimensions but the last.

        Raises: ValueError if there is no such tensor, or its type is not read here.
        """
        if name not in self.tensors:
            raise self.wrong(f"tensor {name!r:.60}", f"is not there; the file has {len(self.tensors)} others")
        info = self.tensors[name]
        check_readable(info.type.name, f"{self.path}: tensor {name}")
        columns = info.shape[-1]
        rows = range(info.num_bytes // self._row_bytes(info))[first_row:end_row]
        start = info.offset + rows.start * self._row_bytes(info)
        data = np.frombuffer(self._map, np.uint8, len(rows) * self._row_bytes(info), start).copy()
        shape = (len(rows), columns) if len(rows) * columns < np.prod(info.shape) else info.shape
        return dequantise(data, info.type.name).reshape(shape)

    def _row_bytes(self, info: TensorInfo) -> int:
        return info.shape[-1] // info.type.block_numbers * info.type.block_bytes

    def _read(self) -> None:
        if self._map[:4] != b"GGUF":
            raise self.wrong("magic", f"is {self._map[:4]!r}, expected b'GGUF': this is no GGUF file")
        self.version = _U32.unpack_from(self._map, 4)[0]
        if self.version not in (2, 3):
            swapped = int.from_bytes(self._map[4:8], "big")
            what = "written big-endian" if swapped in (2, 3) else f"of version {self.version}"
            raise self.wrong(
                "version",
                f"is {self.version}: the file is {what}; versions 2 and 3 in little-endian are read",
            )
        self._at = 8
        num_tensors = self._count("tensor count", _LEAST_TENSOR_BYTES)
        num_entries = self._count("metadata count", _LEAST_ENTRY_BYTES)
        for field, count in (("tensor count", num_tensors), ("metadata count", num_entries)):
            if count > MAX_ENTRIES:
                raise self.wrong(field, f"is {count}; the limit is {MAX_ENTRIES}")
        self._values_left = MAX_VALUES
        self.metadata = MappingProxyType(self._read_metadata(num_entries))
        self.tensors = MappingProxyType(self._read_tensors(num_tensors))

    # Pieces of the file, in order: each moves self._at on

    def _need(self, num_bytes: int, field: str) -> int:
        """Take ``num_bytes`` and return where they start."""
        start, left = self._at, self._size - self._at
        if num_bytes > left:
            raise self.wrong(field, f"at byte {start} takes {num_bytes} bytes, and {left} are left")
        self._at = start + num_bytes
        return start

    def _u32(self, field: str) -> int:
        return _U32.unpack_from(self._map, self._need(4, field))[0]

    def _u64(self, field: str) -> int:
        return _U64.unpack_from(self._map, self._need(8, field))[0]

    def _count(self, field: str, least_bytes: int) -> int:
        """A number of things, each of at least so many bytes, that the rest of the file has to hold."""
        count, left = self._u64(field), self._size - self._at
        if count * least_bytes > left:
            limit = left // least_bytes
            raise self.wrong(field, f"is {count}, and the {left} bytes that are left hold {limit} at most")
        return count

    def _text(self, field: str) -> str:
        length = self._u64(field)
        start = self._need(length, field)
        try:
            return str(self._map[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(field, f"at byte {start} is no UTF-8 text ({error.reason})") from None

    def _read_metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for i in range(count):
            key = self._text(f"key {i} of the metadata")
            if not key:
                raise self.wrong(f"key {i} of the metadata", "is empty")
            field = f"metadata {key!r:.80}"
            if key in metadata:
                raise self.wrong(field, "is there twice")
            metadata[key] = self._value(self._u32(field), field, depth=0)
        return metadata

    def _value(self, kind: int, field: str, depth: int) -> Any:
        if kind in NUMBERS:
            return np.frombuffer(self._map, NUMBERS[kind], 1, self._need(NUMBERS[kind].itemsize, field))[
                0
            ].item()
        if kind == STRING:
            return self._text(field)
        if kind == BOOLEAN:
            byte = self._map[self._need(1, field)]
            if byte > 1:
                raise self.wrong(field, f"is the truth value {byte}, expected 0 or 1")
            return byte == 1
        if kind != ARRAY:
            raise self.wrong(field, f"has the type {kind}; types are 0 to 12")
        return self._array(field, depth + 1)

    def _array(self, field: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.wrong(field, f"nests arrays deeper than {MAX_DEPTH}")
        kind = self._u32(field)
        if kind in NUMBERS:
            dtype = NUMBERS[kind]
            count = self._count(f"{field}: length", dtype.itemsize)
            return np.frombuffer(self._map, dtype, count, self._need(count * dtype.itemsize, field)).copy()
        least = {STRING: 8, BOOLEAN: 1, ARRAY: 12}
        if kind not in least:
            raise self.wrong(field, f"has elements of the type {kind}; types are 0 to 12")
        count = self._count(f"{field}: length", least[kind])
        self._values_left -= count
        if self._values_left < 0:
            raise self.wrong(field, f"has {count} elements; the limit is {MAX_VALUES} in all of the metadata")
        return [self._value(kind, field, depth) for _ in range(count)]

    def _read_tensors(self, count: int) -> dict[str, TensorInfo]:
        found: dict[str, tuple[tuple[int, ...], TensorType, int]] = {}
        for i in range(count):
            name = self._text(f"name of tensor {i}")
            if not name or name in found:
                raise self.wrong(f"tensor {name!r:.80}", "is there twice" if name else "has no name")
            found[name] = self._tensor_entry(f"tensor {name!r:.80}")
        alignment = self._alignment()
        base = -(-self._at // alignment) * alignment  # where the data begin
        tensors, end_before, name_before = {}, 0, ""
        for name, (shape, kind, offset) in sorted(found.items(), key=lambda item: item[1][2]):
            field, size = f"tensor {name!r:.80}", kind.block_bytes
            for dimension in (*shape[:-1], shape[-1] // kind.block_numbers):
                size *= dimension
            if offset % alignment:
                raise self.wrong(field, f"has the offset {offset}, no multiple of the alignment {alignment}")
            if base + offset + size > self._size:
                raise self.wrong(
                    field,
                    f"takes {size} bytes from byte {base + offset}, and the file ends at {self._size}; "
                    "it may have been cut off: fetch it again",
                )
            if offset < end_before:
                raise self.wrong(field, f"begins inside tensor {name_before!r:.80}")
            end_before, name_before = offset + size, name
            tensors[name] = TensorInfo(name, shape, kind, base + offset, size)
        return {name: tensors[name] for name in found}

    def _tensor_entry(self, field: str) -> tuple[tuple[int, ...], TensorType, int]:
        num_dimensions = self._u32(field)
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise self.wrong(field, f"has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        shape = tuple(self._u64(field) for _ in range(num_dimensions))[::-1]
        number = self._u32(field)
        if number not in TENSOR_TYPES:
            raise self.wrong(field, f"has the type {number}, which is not known here; use Q8_0 or F16")
        kind = TENSOR_TYPES[number]
        if 0 in shape:
            raise self.wrong(field, f"has a dimension of 0: {shape}")
        if shape[-1] % kind.block_numbers:
            raise self.wrong(
                field, f"has rows of {shape[-1]} numbers; {kind.name} stores {kind.block_numbers} at a time"
            )
        return shape, kind, self._u64(field)

    def _alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.wrong(
                "metadata 'general.alignment'", f"is {alignment!r:.40}, expected a power of 2 from 8 to 2^20"
            )
        return alignment
