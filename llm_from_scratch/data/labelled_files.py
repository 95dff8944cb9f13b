"""A reader's own labelled texts, from a table (CSV) or from lines of JSON (JSONL)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from llm_from_scratch.data.labelled_splits import LabelledTexts, split_texts

FIELDS = ("text", "label")
_KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_LONGEST = 10_000_000  # characters of a field; the csv module's own limit is 131,072


def load_labelled_file(
    path: Path | str, *, test_share: float = 0.2, validation_share: float = 0.1
) -> LabelledTexts:
    """Read texts with labels from a file and split them by a hash of each text (see `labelled_splits`).

    A ``.csv`` file begins with a line of column names, ``text`` and ``label`` among them. Each line of a
    ``.jsonl`` file is one object with these two fields; empty lines are passed over. A label is text or a
    whole number; the classes are numbered in the order of their names (numbers by size). White space
    around a text is dropped.
    Raises: FileNotFoundError; ValueError, with the number of the line, for another ending, text that is
    not UTF-8, a line that is no row, a missing or empty field, one text with two labels; ValueError for
    fewer than two labels, or one that is missing from a part of the split.
    """
    path = Path(path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name} ends in {path.suffix!r}; labelled texts are read from .csv or .jsonl")
    content = _decoded(path)
    first_line: dict[str, tuple[int, str]] = {}
    rows = []
    for line, row in _csv_rows(path, content) if kind == "csv" else _json_rows(path, content):
        text, label = (_field(path, line, row, name) for name in FIELDS)
        other_line, other_label = first_line.setdefault(text, (line, label))
        if other_label != label:
            raise ValueError(
                f"{path.name}, line {line}: the text has the label {label!r}, but {other_label!r} in line "
                f"{other_line}; keep one of them"
            )
        rows.append((text, label))
    names = sorted({label for _, label in rows}, key=_by_size)
    if len(names) < 2:
        raise ValueError(
            f"{path.name} has {len(rows)} rows with {len(names)} label(s) ({', '.join(names) or 'none'}); at "
            "least two labels are needed to tell texts apart"
        )
    number = {name: i for i, name in enumerate(names)}
    return split_texts(
        path.name,
        names,
        [(text, number[label]) for text, label in rows],
        test_share=test_share,
        validation_share=validation_share,
        salt="labelled file",  # so that a file may be renamed
    )


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _csv_rows(path: Path, content: str) -> Iterator[tuple[int, dict]]:
    before = csv.field_size_limit(_LONGEST)
    try:
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        missing = [name for name in FIELDS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path.name}, line 1: no column is named {missing[0]!r}; the first line must name the "
                f"columns, with {' and '.join(FIELDS)} among them"
            )
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path.name}, line {reader.line_num}: {len(reader.fieldnames) + len(row[None])} fields, "
                    f"but {len(reader.fieldnames)} columns; put a text with commas between quotation marks"
                )
            yield reader.line_num, row
    except csv.Error as error:
        line = reader.line_num + 1  # the first after the last good row
        raise ValueError(
            f"{path.name}, line {line}: here begins what is no row of a table ({error})"
        ) from None
    finally:
        csv.field_size_limit(before)


def _json_rows(path: Path, content: str) -> Iterator[tuple[int, dict]]:
    for line, written in enumerate(content.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path.name}, line {line}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, line {line}: {type(row).__name__}, expected an object {{...}}")
        yield line, row


def _field(path: Path, line: int, row: dict, name: str) -> str:
    value = row.get(name)
    if name == "label" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        raise ValueError(f"{path.name}, line {line}: no {name}; each row needs text and label")
    if not isinstance(value, str):
        raise ValueError(f"{path.name}, line {line}: the {name} is {value!r}, expected text")
    if not value.strip():
        raise ValueError(f"{path.name}, line {line}: the {name} is empty")
    return value.strip()


def _by_size(label: str) -> tuple[int, int, str]:
    """Sort numbers by size before all other labels."""
    try:
        return 0, int(label), label
    except ValueError:
        return 1, 0, label
