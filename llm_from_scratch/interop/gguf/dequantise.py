"""From quantised blocks back to float32 numbers.

A block holds 32 neighbouring numbers of a row as small integers q, and what turns them back:

    Q8_0  scale d                    x = d q            q from -128 to 127, one byte each
    Q4_0  scale d                    x = d (q - 8)      q from 0 to 15, two in a byte
    Q4_1  scale d and least value m  x = d q + m        q from 0 to 15, two in a byte

d and m are float16. In the 16 bytes of four-bit numbers, byte i holds number i in its low half and number
i + 16 in its high half. So Q4_1 spends 20 bytes on 32 numbers, 5 bits each.

Source: the block layouts of ggml. F32, F16 and BF16 are not quantised; they are only widened.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_HALF = np.dtype("<f2")
_Q8_0 = np.dtype([("d", _HALF), ("q", "i1", (32,))])
_Q4_0 = np.dtype([("d", _HALF), ("q", "u1", (16,))])
_Q4_1 = np.dtype([("d", _HALF), ("m", _HALF), ("q", "u1", (16,))])


def _f32(data: np.ndarray) -> np.ndarray:
    return data.view("<f4").astype(np.float32)


def _f16(data: np.ndarray) -> np.ndarray:
    return data.view("<f2").astype(np.float32)


def _bf16(data: np.ndarray) -> np.ndarray:
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(data: np.ndarray) -> np.ndarray:
    blocks = data.view(_Q8_0)
    return blocks["q"].astype(np.float32) * blocks["d"].astype(np.float32)[:, None]


def _q4_0(data: np.ndarray) -> np.ndarray:
    blocks = data.view(_Q4_0)
    x = _nibbles(blocks["q"]) - np.float32(8)
    x *= blocks["d"].astype(np.float32)[:, None]
    return x


def _q4_1(data: np.ndarray) -> np.ndarray:
    blocks = data.view(_Q4_1)
    x = _nibbles(blocks["q"])
    x *= blocks["d"].astype(np.float32)[:, None]
    x += blocks["m"].astype(np.float32)[:, None]
    return x


def _nibbles(bytes_N16: np.ndarray) -> np.ndarray:
    """The 32 four-bit numbers of each block: the low halves of its bytes, then the high halves."""
    numbers_N32 = np.empty((len(bytes_N16), 32), dtype=np.float32)
    numbers_N32[:, :16] = bytes_N16 & 15
    numbers_N32[:, 16:] = bytes_N16 >> 4
    return numbers_N32


READABLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
}


def dequantise(data: np.ndarray, kind: str) -> np.ndarray:
    """Return the float32 numbers, in one row, that ``data`` (bytes, whole blocks) stores as ``kind``.

    Raises: ValueError for a kind that is not readable here, and for bytes that end inside a block.

    >>> block = np.array([0, 60, *range(32)], dtype=np.uint8)  # the float16 1.0, then 0 to 31
    >>> dequantise(block, "Q8_0")[:4]
    array([0., 1., 2., 3.], dtype=float32)
    """
    check_readable(kind)
    try:
        with np.errstate(all="ignore"):  # a scale of infinity times 0: the caller decides about NaN
            return READABLE[kind](np.ascontiguousarray(data, dtype=np.uint8)).reshape(-1)
    except ValueError:
        raise ValueError(f"{len(data)} bytes are no whole number of {kind} blocks") from None


def check_readable(kind: str, what: str = "the data") -> None:
    """Raise ValueError, naming the kind and the way out, if ``dequantise`` does not read ``kind``."""
    if kind not in READABLE:
        raise ValueError(
            f"{what} is stored as {kind}, which is not read here; {', '.join(READABLE)} are. Take a file of "
            f"the model in one of these, or make one: llama-quantize --allow-requantize in.gguf out.gguf Q8_0"
        )
