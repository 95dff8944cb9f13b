"""The command ``llm-scratch grade``; the same as ``python -m llm_from_scratch.grading``."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer


def grade(
    notebooks: Annotated[
        list[Path],
        typer.Argument(help="Exercise notebooks to grade.", show_default=False, metavar="NOTEBOOK"),
    ],
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draw the inputs from this seed, to repeat a run. Default: a secret one."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown to this file.", show_default=False)
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the results as JUnit XML to this file.", show_default=False)
    ] = None,
    solutions: Annotated[
        Path | None, typer.Option(help="Folder of the solutions notebooks. Default: the book's.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Exercises to run at the same time.")] = 2,
    cell_seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a cell, in seconds.")] = 30.0,
    megabytes: Annotated[int, typer.Option(min=50, help="Memory an answer may take, in MB.")] = 800,
) -> None:
    """Grade exercise notebooks on this machine, offline.

    Only the answer cells are taken from a notebook. The exit code is 0 at full marks, 1 otherwise, and
    2 if the command itself cannot be carried out.
    """
    from rich.console import Console

    needed = ("IPython", "nbformat", "nbval", "psutil", "pytest")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise _usage(f"grading needs {', '.join(missing)}: pip install 'llm-from-scratch[book]'")
    for path in notebooks:
        if not path.is_file():
            raise _usage(f"there is no notebook at {path}")
    folder = solutions or find_solutions()
    if folder is None or not folder.is_dir():
        raise _usage(
            f"no folder of solutions at {folder or 'book/solutions'}. "
            "Run the command inside a clone of the book, or name the folder with --solutions"
        )

    from . import report as forms
    from .grade import grade_notebooks
    from .process import Limits

    limits = Limits(cell_seconds=cell_seconds, megabytes=megabytes)
    console = Console()
    try:
        with console.status("Grading ...") if console.is_terminal else _Quiet():
            graded = grade_notebooks(notebooks, solutions=folder, seed=seed, limits=limits, jobs=jobs)
    except FileNotFoundError as error:
        raise _usage(str(error)) from error
    for name in forms.notebooks(graded):
        console.print(forms.table(graded, name))
    console.print(
        f"{forms.number(graded.scored)} of {forms.number(graded.points)} points, seed {graded.seed}.",
        highlight=False,
    )
    console.print(forms.NOTE, highlight=False)
    try:
        _write(graded, report, junit)
    except OSError as error:
        raise _usage(f"the report cannot be written: {error}") from error
    raise typer.Exit(0 if graded.full_marks else 1)


def find_solutions() -> Path | None:
    """The book's solutions: beside the installed package in a clone, else upward from here."""
    here = Path.cwd()
    for root in (Path(__file__).resolve().parents[2], here, *here.parents):
        if any((root / "book" / "solutions").glob("*.ipynb")):
            return root / "book" / "solutions"
    return None


def _write(graded, report: Path | None, junit: Path | None) -> None:
    from ..files import write_atomically
    from . import report as forms

    if report:
        write_atomically(report, forms.markdown(graded))
    if junit:
        write_atomically(junit, forms.junit(graded))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(forms.markdown(graded))


def _usage(message: str) -> typer.Exit:
    typer.echo(f"llm-scratch grade: {message}", err=True)
    return typer.Exit(2)


class _Quiet:
    """A status line for where there is no terminal: none."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
