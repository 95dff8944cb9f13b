"""Convert, execute, clean and check notebooks.

    python tools/notebooks.py to-text    CHAPTER.ipynb DRAFT.py    # edit as text (jupytext, py:percent)
    python tools/notebooks.py from-text  DRAFT.py CHAPTER.ipynb    # keeps ids and outputs of unchanged cells
    python tools/notebooks.py execute    NOTEBOOK...               # fresh kernel, outputs stored
    python tools/notebooks.py normalise  NOTEBOOK...               # what differs between machines goes
    python tools/notebooks.py check      NOTEBOOK...               # exit code 1 and a list of what is wrong

A stored notebook holds its cells and outputs and nothing about the machine, the moment or the editor.
Execution counts are null: they would change in every cell below an inserted one.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import nbformat
import typer

from llm_from_scratch.files import write_atomically

app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0], rich_markup_mode=None)
Paths = Annotated[list[Path], typer.Argument(help="Notebooks.", show_default=False)]

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
# What editors and hosts leave behind: their own state, the moment, the machine.
_EDITOR_METADATA = {
    "accelerator", "celltoolbar", "colab", "execution", "gpuClass", "interpreter", "jupytext",
    "orig_nbformat", "papermill", "signature", "toc", "toc-autonumbering", "varInspector", "vscode",
    "widgets",
}  # fmt: skip
_EDITOR_CELL_METADATA = {
    "ExecuteTime", "collapsed", "colab", "colab_type", "execution", "executionInfo", "heading_collapsed",
    "hidden", "id", "jupyter", "lines_to_next_cell", "outputId", "papermill", "pycharm", "scrolled",
    "trusted", "vscode",
}  # fmt: skip
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_MACHINE_PATH = re.compile(r"(?<![\w/.:])(?:/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\?Users\\\\?)[\w.@-]*")
_PROGRESS = re.compile(r"\r(?!\n)|\d+%\|")


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of any 4.x format. Raises ValueError if the file is not a notebook."""
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except FileNotFoundError:
        raise
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"{path} is not a notebook that can be read: {error}") from error


def write(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    write_atomically(path, as_stored(notebook))


def as_stored(notebook: nbformat.NotebookNode) -> str:
    """The notebook as the text of its file, the same on every machine."""
    return nbformat.writes(notebook, indent=1, ensure_ascii=False, sort_keys=True).rstrip("\n") + "\n"


def cell_id(cell_type: str, source: str, taken: set[str]) -> str:
    """An id made from the cell's content: the same cell gets the same id everywhere; never one in ``taken``.

    >>> cell_id("code", "x = 1", set()) == cell_id("code", "x = 1", set())
    True
    >>> cell_id("code", "x = 1", {cell_id("code", "x = 1", set())}) == cell_id("code", "x = 1", set())
    False
    """
    for copy in range(10_000):
        digest = hashlib.sha256(f"{cell_type}\n{copy}\n{source}".encode()).hexdigest()[:8]
        if digest not in taken:
            return digest
    raise AssertionError("10,000 cells with one content")


def normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without what differs between machines, moments and editors. Doing it twice changes nothing."""
    nb = nbformat.from_dict(notebook)
    new = nbformat.v4.new_notebook()
    new.nbformat, new.nbformat_minor = 4, 5
    new.metadata.update({k: v for k, v in nb.metadata.items() if k not in _EDITOR_METADATA})
    new.metadata.update(kernelspec=KERNELSPEC, language_info=LANGUAGE)
    taken: set[str] = set()
    existing = {cell.get("id") for cell in nb.cells if _valid_id(cell.get("id"))}
    # Counts are places among the code cells: nbval takes a cell without one for a cell that was not run.
    was_run = any(cell.get("outputs") or cell.get("execution_count") for cell in nb.cells)
    place = 0
    for cell in nb.cells:
        source = cell.source.replace("\r\n", "\n").rstrip()
        identity = cell.get("id")
        if not _valid_id(identity) or identity in taken:
            identity = cell_id(cell.cell_type, source, taken | existing)
        taken.add(identity)
        clean = nbformat.from_dict(
            {
                "cell_type": cell.cell_type,
                "id": identity,
                "metadata": {k: v for k, v in cell.metadata.items() if k not in _EDITOR_CELL_METADATA},
                "source": source,
            }
        )
        if clean.metadata.get("tags") == []:
            del clean.metadata["tags"]
        if cell.cell_type == "code":
            place += 1
            clean.execution_count = place if was_run else None
            clean.outputs = _normalised_outputs(cell.get("outputs", []))
        elif cell.get("attachments"):
            clean.attachments = cell.attachments
        new.cells.append(clean)
    return new


def _valid_id(identity: object) -> bool:
    return isinstance(identity, str) and bool(re.fullmatch(r"[\w-]{1,64}", identity, re.ASCII))


def _normalised_outputs(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join pieces of one stream; drop counts and live widgets' views, which mean nothing without a kernel."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        out = nbformat.from_dict(output)
        if out.output_type == "stream":
            if kept and kept[-1].output_type == "stream" and kept[-1].name == out.name:
                kept[-1].text += out.text
                continue
        elif out.output_type in ("execute_result", "display_data"):
            if out.data.pop(_WIDGET_VIEW, None) is not None and not set(out.data) - {"text/plain"}:
                continue
            out.metadata = {k: v for k, v in out.metadata.items() if k in out.data and v}
            if out.output_type == "execute_result":
                out.execution_count = None
        kept.append(out)
    return kept


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What must not be in a stored notebook, one sentence each, with the number of the cell (from 1)."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        expected_error = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "error" and not expected_error:
                found.append(f"cell {number}: ended in {output.ename}: {output.evalue[:200]}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {number}: wrote to stderr: {output.text.strip()[:200]!r}")
            text = _text_of(output)
            if _PROGRESS.search(text):
                found.append(f"cell {number}: the output holds a progress bar; switch it off in chapters")
            for pattern, name in (
                (_MEMORY_ADDRESS, "a memory address"),
                (_MACHINE_PATH, "a path of this machine"),
            ):
                if match := pattern.search(text):
                    found.append(f"cell {number}: the output holds {name}: {match[0]!r}")
            images = {kind for kind in output.get("data", {}) if kind.startswith("image/")}
            if images:
                found.append(
                    f"cell {number}: a picture without alt text; show it with show_figure(fig, alt=...)"
                )
    return found


def _text_of(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    return str(output.get("data", {}).get("text/plain", ""))


@app.command("to-text")
def to_text(notebook: Path, text: Path) -> None:
    """Write a notebook as a Python file with ``# %%`` cells, to edit and bring back by from-text."""
    import jupytext

    nb = normalised(read(notebook))
    for cell in nb.cells:
        cell.pop("id")
    write_atomically(text, jupytext.writes(nb, fmt="py:percent"))
    typer.echo(f"{text}: {len(nb.cells)} cells")


@app.command("from-text")
def from_text(text: Path, notebook: Path) -> None:
    """Make a notebook from a Python file with ``# %%`` cells; unchanged cells keep their ids and outputs."""
    import jupytext

    new = jupytext.reads(text.read_text(encoding="utf-8"), fmt="py:percent")
    for cell in new.cells:
        cell.pop("id", None)
    old = read(notebook) if notebook.exists() else nbformat.v4.new_notebook()
    if notebook.exists():
        new.metadata = nbformat.from_dict({**old.metadata, **new.metadata})
    kept = carry_over(normalised(old) if old.cells else old, new)
    write(notebook, normalised(new))
    typer.echo(f"{notebook}: {len(new.cells)} cells, {kept} unchanged")


def carry_over(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> int:
    """Give cells of ``new`` the ids and outputs of the same cells in ``old``; return how many are the same.

    A code cell keeps its outputs only while every code cell above it is unchanged too: an output below a
    changed cell may no longer be what the notebook prints. A cell edited in place keeps its id alone.
    """
    key = [(c.cell_type, c.source.replace("\r\n", "\n").rstrip()) for c in old.cells]
    new_key = [(c.cell_type, c.source.replace("\r\n", "\n").rstrip()) for c in new.cells]
    same, fresh = 0, True
    matcher = difflib.SequenceMatcher(a=key, b=new_key, autojunk=False)
    for action, a0, a1, b0, b1 in matcher.get_opcodes():
        if action == "equal":
            for source, target in zip(old.cells[a0:a1], new.cells[b0:b1], strict=True):
                target.id = source.id
                same += 1
                if target.cell_type == "code" and fresh:
                    target.outputs = source.outputs
            continue
        if action == "replace" and a1 - a0 == b1 - b0:
            for source, target in zip(old.cells[a0:a1], new.cells[b0:b1], strict=True):
                if source.cell_type == target.cell_type:
                    target.id = source.id
        changed = [*old.cells[a0:a1], *new.cells[b0:b1]]
        fresh = fresh and not any(c.cell_type == "code" for c in changed)
    return same


@app.command()
def execute(
    paths: Paths,
    timeout: Annotated[int, typer.Option(help="Seconds that one cell may take.")] = 300,
    discard: Annotated[bool, typer.Option(help="Run only; leave the files as they are.")] = False,
) -> None:
    """Run each notebook from top to bottom in a fresh kernel and store the outputs.

    A notebook that fails, or that writes to stderr, keeps its file as it was.
    """
    failed = 0
    for path in paths:
        start = time.perf_counter()
        nb, trouble = executed(path, timeout=timeout)
        seconds = time.perf_counter() - start
        if trouble:
            failed += 1
            typer.echo(
                f"{path}: failed after {seconds:.0f} s" + ("" if discard else "; the file is unchanged"),
                err=True,
            )
            for line in trouble:
                typer.echo(f"  {line}", err=True)
        else:
            if not discard:
                write(path, nb)
            typer.echo(f"{path}: {seconds:.0f} s")
    raise typer.Exit(1 if failed else 0)


def executed(path: Path, *, timeout: int) -> tuple[nbformat.NotebookNode, list[str]]:
    """Run one notebook; return it normalised, with what went wrong (empty if nothing did)."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = normalised(read(path))
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        nb,
        kernel_name="python3",
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: its notes are not the notebook's
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    trouble = []
    try:
        client.execute()
    except CellTimeoutError:
        trouble.append(f"a cell took more than {timeout} s; raise the limit with --timeout")
    except DeadKernelError:
        trouble.append("the kernel died: out of memory, or a crash in a library")
    except CellExecutionError as error:
        trouble.extend(_last_lines(error.traceback if hasattr(error, "traceback") else str(error)))
    result = normalised(nb)
    return result, trouble + problems(result)


def _last_lines(text: str, count: int = 12) -> list[str]:
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-count:]


@app.command()
def normalise(paths: Paths) -> None:
    """Remove what differs between machines, moments and editors; exit code 1 if a file changed."""
    changed = 0
    for path in paths:
        before = path.read_text(encoding="utf-8")
        after = as_stored(normalised(read(path)))
        if after != before:
            changed += 1
            write_atomically(path, after)
            typer.echo(f"{path}: normalised")
    raise typer.Exit(1 if changed else 0)


@app.command()
def check(paths: Annotated[list[Path] | None, typer.Argument(show_default=False)] = None) -> None:
    """List what is wrong with stored notebooks; exit code 1 if anything is."""
    count = 0
    for path in paths or []:
        try:
            nb = read(path)
        except (ValueError, OSError) as error:
            found = [str(error)]
        else:
            found = problems(nb)
            if as_stored(normalised(nb)) != path.read_bytes().decode("utf-8"):
                found.append("is not normalised: run python tools/notebooks.py normalise")
        count += len(found)
        for line in found:
            typer.echo(f"{path}: {line}", err=True)
    if count:
        typer.echo(f"{count} problem{'s' if count > 1 else ''} in stored notebooks", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
