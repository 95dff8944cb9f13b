"""Read exercise notebooks: the solutions, which are the source, and what a student hands in.

A solutions notebook holds, for each exercise, cells whose metadata name it (``"exercise": "1.3"``) and
which carry one tag each: ``task``, ``answer``, ``try``, ``check``, ``explanation``. Code cells tagged
``setup`` come first. The metadata of the answer cell may also say:

- ``points``: what the exercise is worth (default 1, or the number in the task's heading);
- ``needs``: exercises whose answers run before this one, e.g. ``["1.1"]``;
- ``seconds`` and ``megabytes``: limits for this exercise in place of the grader's.

A student's notebook is read without trust: it may be damaged, of an old format, or stripped of its
metadata by the host that it was edited on.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 100_000_000  # a notebook file larger than this is not read
MARKER = re.compile(r"#\s*Exercise\s+(\d+\.\d+)\b", re.IGNORECASE)
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"


class NotebookError(ValueError):
    """The file is not a notebook that can be graded; the message says why, for the reader."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell, with every field checked."""

    kind: str  # "code", "markdown" or "raw"
    source: str
    id: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def exercise(self) -> str:
        """The exercise that the cell belongs to, e.g. "1.3"; "" for none."""
        value = self.metadata.get("exercise", "")
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise of a solutions notebook."""

    label: str  # "1.3"
    title: str
    points: float
    answer: Cell
    checks: tuple[Cell, ...]
    setup: tuple[Cell, ...]  # the setup cells that stand before it
    needs: tuple[str, ...] = ()
    seconds: float | None = None
    megabytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a student's notebook has for one exercise."""

    source: str | None  # None: no answer cell was found
    note: str = ""  # what the report should add: a duplicate, a cell of the wrong kind


def read_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook file. Raises: NotebookError, in words for the student, for anything else."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotebookError(f"the file cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise NotebookError(f"the file has over {MAX_BYTES // 10**6} MB; clear its outputs and save it again")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NotebookError("the file is not a notebook: it is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise NotebookError(
            f"the file is damaged or not a notebook: its JSON cannot be read{where}. "
            "Open it in JupyterLab, save it, and grade it again"
        ) from error
    if not isinstance(content, dict):
        raise NotebookError("the file is JSON, but not a notebook")
    if "worksheets" in content or content.get("nbformat", 4) in (1, 2, 3):
        raise NotebookError("the notebook is in the format of before 2015; open and save it in JupyterLab")
    if not isinstance(content.get("cells"), list):
        raise NotebookError("the file is JSON, but not a notebook: it has no list of cells")
    return content


def cells_of(notebook: dict[str, Any]) -> list[Cell]:
    """The cells with their fields checked; what is not a cell is left out."""
    cells = []
    for raw in notebook["cells"]:
        if not isinstance(raw, dict):
            continue
        source = raw.get("source", "")
        if isinstance(source, list):
            source = "".join(part for part in source if isinstance(part, str))
        if not isinstance(source, str):
            continue
        metadata = raw.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        tags = metadata.get("tags")
        cells.append(
            Cell(
                kind=str(raw.get("cell_type", "")),
                # A lone surrogate cannot be sent to another process.
                source=source.encode("utf-8", "replace").decode("utf-8"),
                id=str(raw.get("id", "")),
                tags=tuple(t for t in tags if isinstance(t, str)) if isinstance(tags, list) else (),
                metadata=metadata,
            )
        )
    return cells


def exercises_of(notebook: dict[str, Any]) -> list[Exercise]:
    """The exercises of a solutions notebook, in order.

    Raises: NotebookError if an exercise has no answer or no check, or needs one that is not there.
    """
    cells, found, setup = cells_of(notebook), {}, []
    for cell in cells:
        if "setup" in cell.tags and cell.kind == "code":
            setup.append(cell)
        if "answer" not in cell.tags or cell.kind != "code":
            continue
        label, own = cell.exercise, [c for c in cells if c.exercise == cell.exercise]
        if not re.fullmatch(r"\d+\.\d+", label) or label in found:
            raise NotebookError(f"the answer cell {cell.id!r} needs its own exercise number, has {label!r}")
        checks = tuple(c for c in own if "check" in c.tags and c.kind == "code")
        if not checks:
            raise NotebookError(f"exercise {label} has no check cell")
        task = next((c.source for c in own if "task" in c.tags), "")
        title, points = _heading(task, label)
        found[label] = Exercise(
            label=label,
            title=title,
            points=float(cell.metadata.get("points", points)),
            answer=cell,
            checks=checks,
            setup=tuple(s for s in setup if s.exercise in ("", label)),
            needs=tuple(cell.metadata.get("needs", ())),
            seconds=cell.metadata.get("seconds"),
            megabytes=cell.metadata.get("megabytes"),
        )
    for exercise in found.values():
        unknown = [need for need in exercise.needs if need not in found]
        if unknown:
            raise NotebookError(f"exercise {exercise.label} needs {unknown[0]}, which is not there")
    return list(found.values())


def _heading(task: str, label: str) -> tuple[str, float]:
    """Title and points from the task's heading, "Exercise 1.3 (2 points): Counting"."""
    lines = [line for line in task.splitlines() if line.strip()]
    heading = lines[0].lstrip("# ").strip() if lines else f"Exercise {label}"
    points = re.search(r"\((\d+(?:\.\d+)?)\s*points?\)", heading)
    title = re.sub(r"^Exercise\s+[\d.]+\s*(\([^)]*\))?\s*[:.]?\s*", "", heading)
    return title or f"Exercise {label}", float(points.group(1)) if points else 1.0


def blank_source(source: str, label: str) -> str:
    r"""The answer cell that students get: each solution replaced by an error that says so.

    >>> print(blank_source("def f(x):\n    # BEGIN SOLUTION\n    return x\n    # END SOLUTION", "1.2"))
    # Exercise 1.2
    def f(x):
        raise NotImplementedError("Exercise 1.2: your answer goes here")

    Raises: NotebookError if the two marker lines are missing or do not pair.
    """
    kept, inside, blocks = [], False, 0
    for line in source.splitlines():
        marker = line.strip()
        if marker in (BEGIN, END):
            if inside == (marker == BEGIN):
                raise NotebookError(f"exercise {label}: '{marker}' does not pair with the line before it")
            inside = not inside
            if inside:
                indent, blocks = line[: len(line) - len(line.lstrip())], blocks + 1
                kept.append(f'{indent}raise NotImplementedError("Exercise {label}: your answer goes here")')
        elif not inside:
            kept.append(line)
    if inside or not blocks:
        raise NotebookError(f"exercise {label}: the answer needs the lines '{BEGIN}' and '{END}'")
    if not (kept and (match := MARKER.match(kept[0].strip())) and match.group(1) == label):
        kept.insert(0, f"# Exercise {label}")
    return "\n".join(kept)


def solution_lines(source: str) -> list[str]:
    """The lines between the markers, stripped."""
    lines, inside = [], False
    for line in source.splitlines():
        marker = line.strip()
        if marker in (BEGIN, END):
            inside = marker == BEGIN
        elif inside and marker:
            lines.append(marker)
    return lines


def find_answer(cells: list[Cell], exercise: Exercise) -> Answer:
    """Find a student's answer: by cell id, then by tag and metadata, then by the marker comment.

    A cell that is still blank yields to one that is not: students work on copies of cells. Of several
    that are not blank, the last counts, as it would when the notebook is run from top to bottom.
    """
    label = exercise.label
    blank = _essence(blank_source(exercise.answer.source, label))
    ways = [
        [c for c in cells if c.id and c.id == exercise.answer.id],
        [c for c in cells if "answer" in c.tags and c.exercise == label],
        [c for c in cells if (match := MARKER.match(c.source.lstrip())) and match.group(1) == label],
    ]
    wrong_kind = any(c.kind != "code" for way in ways for c in way)
    ways = [[c for c in way if c.kind == "code"] for way in ways]
    for way in ways:
        filled = [c for c in way if _essence(c.source) not in ("", blank)]
        if filled:
            note = f"{len(filled)} answer cells found: the last was graded" if len(filled) > 1 else ""
            return Answer(source=filled[-1].source, note=note)
    for way in ways:
        if way:
            return Answer(source=way[-1].source)
    note = "its answer cell is not a code cell; change its type to Code" if wrong_kind else ""
    return Answer(source=None, note=note)


def is_blank(source: str, exercise: Exercise) -> bool:
    """Whether the source is still what the blank notebook has, spaces and comments aside."""
    return _essence(source) in ("", _essence(blank_source(exercise.answer.source, exercise.label)))


def _essence(source: str) -> str:
    """The source without comment lines, empty lines and trailing spaces.

    It is not parsed: a source written to exhaust Python's parser must not reach it in this process.
    """
    lines = (line.rstrip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def imports_in(cells: tuple[Cell, ...]) -> str:
    """The import statements of the setup cells; they run again before a check.

    An answer that has used ``np`` for something else, by accident, does not fail for that.
    """
    lines = []
    for cell in cells:
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:  # a cell magic; it has run in the setup
            continue
        lines += [ast.unparse(n) for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    return "\n".join(lines)
