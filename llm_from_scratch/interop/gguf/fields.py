"""Take fields of a GGUF file's metadata, each checked for its type and its range."""

from __future__ import annotations

import math

import numpy as np

from llm_from_scratch.interop.gguf.reader import GGUFFile

_NONE = object()


class Metadata:
    """The metadata of an open file. Each method returns one entry, or says what is wrong with it."""

    def __init__(self, file: GGUFFile):
        self.file = file
        self._entries = file.metadata

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def wrong(self, key: str, what: str) -> ValueError:
        """Return the error that says that the entry ``key`` ``what``."""
        return self.file.wrong(f"metadata {key!r}", what)

    def size(self, key: str, default: int | object = _NONE) -> int:
        """Return a positive whole number."""
        value = self._take(key, default)
        if isinstance(value, np.ndarray):
            raise self.wrong(key, "is a list, one for each layer; one number for all is read here")
        if type(value) is not int or value < 1:
            raise self.wrong(key, f"is {value!r:.60}, expected a positive whole number")
        return value

    def number(self, key: str, default: float | object = _NONE) -> float:
        """Return a positive finite number."""
        value = self._take(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.wrong(key, f"is {value!r:.60}, expected a positive number")
        return float(value)

    def text(self, key: str, default: str | object | None = _NONE) -> str | None:
        """Return a text, or the default."""
        value = self._take(key, default)
        if value is not default and not isinstance(value, str):
            raise self.wrong(key, f"is {value!r:.60}, expected text")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        value = self._take(key, _NONE)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self.wrong(key, f"is {value!r:.60}, expected a list of texts")
        return value

    def integers(self, key: str, length: int) -> list[int]:
        """Return a list of ``length`` whole numbers."""
        value = self._take(key, _NONE)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or len(value) != length:
            raise self.wrong(key, f"is {value!r:.60}, expected a list of {length} whole numbers")
        return value.tolist()

    def _take(self, key: str, default: object) -> object:
        if key in self._entries:
            return self._entries[key]
        if default is _NONE:
            raise self.wrong(key, "is missing")
        return default
