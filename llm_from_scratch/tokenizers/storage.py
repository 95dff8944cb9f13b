"""Read and write ``tokenizer.json``, and say what is wrong with a damaged one.

A tokenizer is stored as one JSON object. ``kind`` says which class reads it, ``format`` which version of
the fields it holds. A file may come from anywhere: nothing in it is executed, and each field is checked
before it is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from llm_from_scratch.files import write_atomically

FILE_NAME = "tokenizer.json"
FORMAT = 1


def write_fields(path: str | os.PathLike[str], kind: str, fields: dict[str, Any]) -> None:
    """Store ``fields`` as the tokenizer file ``path`` (or ``path/tokenizer.json`` if it is a folder)."""
    text = json.dumps({"kind": kind, "format": FORMAT, **fields}, separators=(",", ":"))
    write_atomically(_file(path), text + "\n")


def read_fields(path: str | os.PathLike[str], kind: str | None = None) -> Fields:
    """Read a tokenizer file; with ``kind``, only one of that kind.

    Raises: FileNotFoundError if it is missing; ValueError if it is no tokenizer of ours.
    """
    file = _file(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no tokenizer at {file}; train one and save it there")
    try:
        fields = json.loads(file.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not whole JSON ({error}); save the tokenizer again") from None
    if not isinstance(fields, dict):
        raise ValueError(
            f"{file} holds a JSON {type(fields).__name__}, expected an object with a field 'kind'"
        )
    found = Fields(fields, file)
    found.text("kind")
    version = found.integer("format")
    if version != FORMAT:
        raise found.wrong("format", f"is {version}, and this version of the package reads {FORMAT}")
    if kind is not None and found.text("kind") != kind:
        raise found.wrong(
            "kind", f"is {found.text('kind')!r}, expected {kind!r}; load_tokenizer opens any kind"
        )
    return found


class Fields:
    """The fields of a tokenizer file. Each method returns one field, or says what is wrong with it."""

    def __init__(self, fields: dict[str, Any], path: Path):
        self._fields = fields
        self.path = path

    def wrong(self, name: str, what: str) -> ValueError:
        """Return the error that says that the field ``name`` ``what``."""
        return ValueError(f"{self.path}: the field {name!r} {what}")

    def has(self, name: str) -> bool:
        """Whether there is a field of that name."""
        return name in self._fields

    def text(self, name: str) -> str:
        """Return a field that must be text."""
        return self._take(name, str, "text")

    def integer(self, name: str) -> int:
        """Return a field that must be an integer."""
        return self._take(name, int, "an integer")

    def array(self, name: str) -> list[Any]:
        """Return a field that must be a list."""
        return self._take(name, list, "a list")

    def texts(self, name: str) -> list[str]:
        """Return a field that must be a list of different, non-empty texts."""
        seen: dict[str, None] = {}
        for i, value in enumerate(self.array(name)):
            if not isinstance(value, str) or not value:
                raise self.wrong(name, f"holds {value!r:.60} at position {i}, expected non-empty text")
            if value in seen:
                raise self.wrong(name, f"holds {value!r:.60} twice")
            seen[value] = None
        return list(seen)

    def _take(self, name: str, kind: type, expected: str) -> Any:
        if name not in self._fields:
            raise ValueError(
                f"{self.path}: the field {name!r} is missing, so this is not a tokenizer saved here"
            )
        value = self._fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(name, f"is {value!r:.60}, expected {expected}")
        return value


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
