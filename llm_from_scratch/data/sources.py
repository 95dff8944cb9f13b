"""Documents from files or from a Hugging Face dataset, one after another, however large the source is.

A source is a file (``.jsonl``, ``.parquet``, ``.txt``, the first and last also as ``.gz``), a folder of
such files, or ``hf:NAME`` for a dataset of the Hugging Face hub, which is streamed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HUB = "hf:"
EXTRA = 'an extra, pip install "llm-from-scratch[data]"'
SEPARATOR = "<|endoftext|>"  # alone on a line, it parts the documents of a plain text
_KINDS = {".jsonl": "jsonl", ".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file, or one dataset of the hub."""

    name: str  # as errors and the index name it
    kind: str  # "jsonl", "parquet", "text" or "hub"
    size: int | None = None  # bytes; None: not a file


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How documents are found in the sources."""

    field: str = "text"  # of a JSON object, or a column
    split: str = "train"  # of a dataset of the hub
    subset: str | None = None  # of a dataset of the hub: its configuration


def find_sources(names: list[str]) -> list[Source]:
    """Return the sources that ``names`` stand for, the files of a folder in the order of their names.

    Raises: FileNotFoundError for a path that is not there; ValueError for a file of another kind, a folder
    without files, and no name at all.
    """
    if not names:
        raise ValueError("name at least one source: a .jsonl, .parquet or .txt file, a folder, or hf:NAME")
    found: list[Source] = []
    for name in names:
        if name.startswith(HUB):
            found.append(Source(name=name, kind="hub"))
            continue
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file))
            if not files:
                raise ValueError(f"the folder {path} holds no .jsonl, .parquet or .txt file")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(
                f"there is no file or folder {name!r}; a dataset of the Hugging Face hub is named {HUB}{name}"
            )
        for file in files:
            kind = _kind(file)
            if kind is None:
                raise ValueError(
                    f"{file} is no .jsonl, .parquet or .txt file (.gz allowed): convert it first"
                )
            found.append(Source(name=str(file), kind=kind, size=file.stat().st_size))
    return found


def read_documents(sources: list[Source], reading: Reading) -> Iterator[str]:
    """Give the text of every document of every source, in order; empty ones are passed over.

    Raises: ValueError naming file and line (or row) for JSON that is none, a field that is missing or no
    text, and bytes that are no UTF-8.
    """
    readers = {"jsonl": _jsonl, "parquet": _parquet, "text": _text, "hub": _hub}
    for source in sources:
        for text in readers[source.kind](source, reading):
            if text:
                yield text


def _kind(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    return None if kind == "parquet" and path.suffix == ".gz" else kind


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Number the lines of a file from 1."""
    opened = gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # noqa: SIM115
    with opened as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})"
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}, after line {number}: the compressed file is damaged ({error})"
            ) from None


def _jsonl(source: Source, reading: Reading) -> Iterator[str]:
    for number, line in _lines(source.name):
        if not line.strip():
            continue
        where = f"{source.name}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from None
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: holds a JSON {type(entry).__name__}, expected an object")
        yield _field(entry, reading.field, where)


def _text(source: Source, reading: Reading) -> Iterator[str]:
    lines: list[str] = []
    for _, line in _lines(source.name):
        if line.strip() == SEPARATOR:
            yield "".join(lines)
            lines = []
        else:
            lines.append(line)
    yield "".join(lines)


def _parquet(source: Source, reading: Reading) -> Iterator[str]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise ValueError(f"{source.name}: {error}; Parquet files need {EXTRA}") from None
    try:
        file = ParquetFile(source.name)
    except ArrowInvalid as error:
        raise ValueError(f"{source.name}: not a whole Parquet file ({error})") from None
    with file:
        columns = file.schema_arrow.names
        if reading.field not in columns:
            raise ValueError(_missing(reading.field, columns, source.name))
        row = 0
        for batch in file.iter_batches(batch_size=1024, columns=[reading.field]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _checked(value, reading.field, f"{source.name}, row {row}")


def _hub(source: Source, reading: Reading) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ValueError(f"{source.name}: {error}; datasets of the hub need {EXTRA}") from None
    name = source.name.removeprefix(HUB)
    for row, entry in enumerate(load_dataset(name, reading.subset, split=reading.split, streaming=True), 1):
        yield _field(entry, reading.field, f"{source.name}, row {row}")


def _field(entry: dict, field: str, where: str) -> str:
    if field not in entry:
        raise ValueError(_missing(field, list(entry), where))
    return _checked(entry[field], field, where)


def _checked(value: object, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: the field {field!r} holds {type(value).__name__}, expected text")
    return value


def _missing(field: str, there_are: list[str], where: str) -> str:
    names = ", ".join(map(repr, there_are[:10])) or "none"
    return f"{where}: there is no field {field!r}; it has {names}. Name the one that holds text with --field"
