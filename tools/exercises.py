"""Derive the exercise notebooks that students get from the solutions, and check that nothing leaks.

    python tools/exercises.py            # write book/exercises/*.ipynb from book/solutions/*.ipynb
    python tools/exercises.py --check    # change nothing; exit code 1 and a list if something is wrong

A blank notebook keeps the tasks, the setup, try and check cells. Each solution becomes an error that says
"your answer goes here"; explanations, outputs, attachments and everything else in the metadata go. After a
try or check cell stands what the solution prints there, so that a student can compare without grading.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer

from llm_from_scratch.files import write_atomically
from llm_from_scratch.grading.notebooks import (
    BEGIN,
    END,
    NotebookError,
    blank_source,
    cells_of,
    exercises_of,
    read_notebook,
    solution_lines,
)

ROOT = Path(__file__).resolve().parents[1]
KEPT_TAGS = {"setup", "task", "answer", "try", "check", "expected", "colab"}
KEPT_METADATA = {"exercise", "points", "tags"}
NOTEBOOK_METADATA = {"kernelspec", "language_info"}
TELLING = 12  # characters: a shorter line of a solution, such as "return x", is no leak by itself

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def derive(solution: dict[str, Any]) -> dict[str, Any]:
    """The blank notebook of a solutions notebook.

    Raises: NotebookError if the solutions notebook breaks the rules of ``grading/notebooks.py``.
    """
    exercises_of(solution)
    cells = []
    for cell in solution["cells"]:
        metadata = cell.get("metadata", {})
        tags = [tag for tag in metadata.get("tags", []) if tag in KEPT_TAGS]
        if {"explanation", "solution"} & set(metadata.get("tags", [])):
            continue
        source = _text(cell["source"])
        label = metadata.get("exercise", "")
        if "answer" in tags:
            source = blank_source(source, label)
        kept = {key: value for key, value in metadata.items() if key in KEPT_METADATA}
        if "tags" in metadata:
            kept["tags"] = tags
        blank = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": kept, "source": source}
        if cell["cell_type"] == "code":
            blank |= {"execution_count": None, "outputs": []}
        cells.append(blank)
        printed = _printed(cell)
        if {"try", "check"} & set(tags) and printed and "expected" not in printed:
            kind = "The check" if "check" in tags else "This"
            text = f"{kind} prints, with a right answer:\n\n```text\n{printed}\n```"
            added = {"exercise": label, "tags": ["expected"]}
            made_id = f"{cell['id']}-expected"
            cells.append({"cell_type": "markdown", "id": made_id, "metadata": added, "source": text})
    metadata = {k: v for k, v in solution.get("metadata", {}).items() if k in NOTEBOOK_METADATA}
    return {"cells": cells, "metadata": copy.deepcopy(metadata), "nbformat": 4, "nbformat_minor": 5}


def as_stored(notebook: dict[str, Any]) -> str:
    """The notebook as the text of its file."""
    node = nbformat.from_dict(copy.deepcopy(notebook))
    nbformat.validate(node)
    return nbformat.writes(node, indent=1, ensure_ascii=False, sort_keys=True).rstrip("\n") + "\n"


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _printed(cell: dict[str, Any]) -> str:
    """What the stored outputs of a code cell print."""
    streams = [o for o in cell.get("outputs", []) if o.get("output_type") == "stream"]
    return "".join(_text(o.get("text", "")) for o in streams if o.get("name") == "stdout").rstrip()


def leaks(solution: dict[str, Any], blank: dict[str, Any]) -> list[str]:
    """What a blank notebook gives away or has kept that it must not.

    A task may show code that the solution repeats (an exercise that plants a bug shows all lines but
    one), so a line of a solution counts as a leak in a task only when all lines of that solution are
    there. In any other cell one telling line is enough.
    """
    found = []
    everything = as_stored(blank)
    for word in (BEGIN, END):
        if word in everything:
            found.append(f"it contains the line {word!r}")
    if extra := set(blank.get("metadata", {})) - NOTEBOOK_METADATA:
        found.append(f"the notebook's metadata has {sorted(extra)}")
    for cell in blank["cells"]:
        name, metadata = f"cell {cell.get('id')}", cell.get("metadata", {})
        tags = set(metadata.get("tags", []))
        if {"explanation", "solution"} & tags:
            found.append(f"{name} is an explanation")
        if cell.get("outputs"):
            found.append(f"{name} has stored outputs")
        if cell.get("attachments"):
            found.append(f"{name} has attachments")
        if extra := (set(metadata) - KEPT_METADATA) | (tags - KEPT_TAGS - {"explanation", "solution"}):
            found.append(f"{name} has the metadata or tags {sorted(extra)}")
        if "answer" in tags and "raise NotImplementedError" not in _text(cell["source"]):
            found.append(f"{name} does not say that the answer is missing")
    sources = {id(c): {line.strip() for line in _text(c["source"]).splitlines()} for c in blank["cells"]}
    for exercise in exercises_of(solution):
        lines = solution_lines(exercise.answer.source)
        shown = {line.strip() for cell in exercise.setup for line in cell.source.splitlines()}
        telling = {line for line in lines if len(line) >= TELLING} - shown
        for cell in blank["cells"]:
            tags, here = set(cell["metadata"].get("tags", [])), sources[id(cell)]
            where = f"cell {cell.get('id')} shows the solution of exercise {exercise.label}"
            if lines and set(lines) <= here and telling:
                found.append(where)
            elif not tags & {"task", "setup"} and tags & KEPT_TAGS and (lines_here := telling & here):
                found.append(f"{where}: {sorted(lines_here)[0]!r}")
    explanations = [c.source for c in cells_of(solution) if "explanation" in c.tags]
    explained = {p.strip() for text in explanations for p in text.split("\n") if len(p.strip()) > 40}
    for cell in blank["cells"]:
        if explained & sources[id(cell)]:
            found.append(f"cell {cell.get('id')} has a paragraph of an explanation")
    return found


def faults(solution: dict[str, Any]) -> list[str]:
    """What is wrong with a solutions notebook as an exercise, apart from leaks."""
    found = []
    cells = cells_of(solution)
    for exercise in exercises_of(solution):
        name = f"exercise {exercise.label}"
        own = [c for c in cells if c.exercise == exercise.label]
        for tag in ("task", "explanation"):
            if not any(tag in c.tags and c.kind == "markdown" for c in own):
                found.append(f"{name} has no Markdown cell tagged {tag!r}")
        if "points" not in exercise.answer.metadata:
            found.append(f"{name} does not say its points in the answer's metadata")
        code = "\n".join(check.source for check in exercise.checks)
        if f'check_rng("{exercise.label}")' not in code:
            found.append(f'the check of {name} does not draw from check_rng("{exercise.label}")')
        if "print(" not in code:
            found.append(f"the check of {name} prints nothing")
        for word in ("assert ", "allclose", "array_equal", "isclose"):
            if word in code:
                found.append(f"the check of {name} decides in the student's process ({word.strip()})")
    for raw in solution["cells"]:
        for line in _printed(raw).splitlines():
            before, said, after = line.partition("expected:")
            if said and before.strip() and not before.strip().endswith(after.strip()):
                found.append(
                    f"cell {raw.get('id')} prints {before.strip()!r}, but says {said} {after.strip()!r}"
                )
    return found


@app.command()
def main(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if something is wrong.")
    ] = False,
    solutions: Annotated[Path, typer.Option(help="Folder of the source.")] = ROOT / "book" / "solutions",
    exercises: Annotated[Path, typer.Option(help="Folder of the result.")] = ROOT / "book" / "exercises",
) -> None:
    """Derive the blank exercise notebooks from the solutions, or check them."""
    problems, names = [], set()
    for path in sorted(solutions.glob("*.ipynb")):
        names.add(path.name)
        target = exercises / path.name
        try:
            solution = read_notebook(path)
            blank = derive(solution)
            problems += [f"{path}: {fault}" for fault in faults(solution)]
            problems += [f"{path}: derived from it, {leak}" for leak in leaks(solution, blank)]
            stored = as_stored(blank)
            if not check:
                write_atomically(target, stored)
                typer.echo(f"wrote {target}")
            elif not target.is_file():
                problems.append(f"{target} is missing; run `make exercises`")
            elif target.read_text(encoding="utf-8") != stored:
                problems += [f"{target}: {leak}" for leak in leaks(solution, read_notebook(target))]
                problems.append(f"{target} differs from what {path.name} gives; run `make exercises`")
        except (NotebookError, nbformat.ValidationError, KeyError) as error:
            problems.append(f"{path}: {error}")
    for path in sorted(exercises.glob("*.ipynb")):
        if path.name not in names:
            problems.append(f"{path} has no solutions notebook of that name")
    if not names:
        problems.append(f"no solutions notebook in {solutions}")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    if check:
        typer.echo(f"{len(names)} exercise notebooks are what the solutions give, and nothing leaks")


if __name__ == "__main__":
    app()
