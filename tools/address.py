"""The public address of the repository: one place, and everything derived from it.

    python tools/address.py --write    # after changing [project.urls] Repository in pyproject.toml
    python tools/address.py --check    # exit code 1 if a derived place differs (part of `make test`)

Derived are: the repository address in _config.yml, from which the launch buttons are made; the address in
CITATION.cff; in every text file and notebook, links to Colab, Binder and the workflows' badges, `git clone`
lines and `git+https` requirements; and the Colab cell, which is the first code cell of each chapter.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parent))
import notebooks

from llm_from_scratch.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("foundations", "transformer", "pretraining", "using", "engineering")

# Each pattern finds one kind of place; its only group holds what must be the address or its "owner/name".
_SLUG = r"([\w.-]+/[\w.-]+)"
_URL = r"(https://github\.com/[\w.-]+?/[\w.-]+?)"
_PLACES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(rf"colab\.research\.google\.com/github/{_SLUG}/"), "slug"),
    (re.compile(rf"mybinder\.org/v2/gh/{_SLUG}/"), "slug"),
    (re.compile(rf"{_URL}/actions/"), "url"),
    (re.compile(rf"git clone {_URL}(?:\.git)?(?=[\s`\"\\]|$)"), "url"),
    (re.compile(rf"git\+{_URL}(?:\.git)?(?=[\s`'\"\\@]|$)"), "url"),
]
_YAML_PLACES = {
    "_config.yml": re.compile(r"^repository:\n(?:  .*\n)*?  url: (\S+)$", re.MULTILINE),
    "CITATION.cff": re.compile(r"^repository-code: (\S+)$", re.MULTILINE),
}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def repository_address(root: Path = ROOT) -> str:
    """Read the address from pyproject.toml. Raises ValueError unless it looks like https://github.com/owner/name."""
    with open(root / "pyproject.toml", "rb") as file:
        address = tomllib.load(file)["project"]["urls"]["Repository"].rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            f"[project.urls] Repository in pyproject.toml is {address!r}; Colab and Binder need an "
            "address of the form https://github.com/owner/name"
        )
    return address


def colab_cell(address: str) -> str:
    """The first code cell of each chapter. It pins nothing, because Colab ships torch, numpy and pandas."""
    return (
        "# On Colab this installs the book's package. Everywhere else it does nothing.\n"
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f'    %pip install --quiet "llm-from-scratch @ git+{address}"'
    )


def text_files(root: Path) -> Iterator[Path]:
    """The files in which addresses can stand."""
    yield from sorted(root.glob("*.md"))
    yield from (
        root / name for name in ("_config.yml", "CITATION.cff", "environment.yml") if (root / name).exists()
    )
    yield from sorted((root / ".github").glob("**/*.yml"))
    yield from sorted((root / "book").glob("**/*.md"))


def notebook_files(root: Path) -> Iterator[Path]:
    """Chapters, exercises and solutions."""
    for path in sorted((root / "book").glob("*/*.ipynb")):
        if not path.name.startswith("."):
            yield path


def with_address(text: str, address: str, *, name: str = "") -> str:
    """Put the address wherever a derived one stands in ``text``, the content of the file ``name``.

    >>> with_address("git clone https://github.com/old/name && cd name", "https://github.com/new/book")
    'git clone https://github.com/new/book && cd name'
    """
    values = {"url": address, "slug": address.removeprefix("https://github.com/")}
    for pattern, kind in _PLACES:
        text = pattern.sub(lambda m, kind=kind: _with_group(m, values[kind]), text)
    if name in _YAML_PLACES:
        text, count = _YAML_PLACES[name].subn(lambda m: _with_group(m, address), text)
        if count == 0:
            raise ValueError(f"{name}: the line that holds the repository's address is missing")
    return text


def _with_group(match: re.Match[str], value: str) -> str:
    start, end = match.span(1)
    return match.string[match.start() : start] + value + match.string[end : match.end()]


def with_colab_cell(notebook, address: str, *, path: Path, root: Path):
    """Put the Colab cell and the addresses into a notebook.

    Raises: ValueError if a chapter does not begin its code with a Colab cell.
    """
    new = notebooks.normalised(notebook)
    for cell in new.cells:
        cell.source = with_address(cell.source, address)
    code = [cell for cell in new.cells if cell.cell_type == "code"]
    holders = [cell for cell in code if "google.colab" in cell.source and "%pip" in cell.source]
    if path.parent.name in PARTS and (not code or code[0] not in holders):
        raise ValueError(
            f"{path.relative_to(root)}: its first code cell must be the Colab cell:\n{colab_cell(address)}"
        )
    for cell in holders:
        cell.source = colab_cell(address)
    return new


def differences(root: Path = ROOT, *, write: bool = False) -> tuple[list[str], list[str]]:
    """Compare every derived place with the address, and mend what differs if ``write`` says so.

    Returns what differs from what it should be, and what is missing altogether and so cannot be mended.
    """
    address = repository_address(root)
    differ, missing = [], []
    for path in text_files(root):
        old = path.read_text(encoding="utf-8")
        try:
            new = with_address(old, address, name=path.name)
        except ValueError as error:
            missing.append(str(error))
            continue
        if new != old:
            differ.append(f"{path.relative_to(root)}: another address than {address}")
            if write:
                write_atomically(path, new)
    for path in notebook_files(root):
        old_nb = notebooks.normalised(notebooks.read(path))
        try:
            new_nb = with_colab_cell(old_nb, address, path=path, root=root)
        except ValueError as error:
            missing.append(str(error))
            continue
        if new_nb != old_nb:
            differ.append(f"{path.relative_to(root)}: the Colab cell or a link is not what {address} gives")
            if write:
                notebooks.write(path, new_nb)
    return differ, missing


@app.command()
def main(
    write: Annotated[bool, typer.Option("--write", help="Mend what differs.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say what differs.")] = False,
) -> None:
    """Derive every mention of the repository's address from pyproject.toml, or check that it is derived."""
    if write == check:
        raise typer.BadParameter("give one of --write and --check")
    try:
        differ, missing = differences(write=write)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for line in differ:
        typer.echo(f"mended: {line}" if write else line, err=not write)
    for line in missing:
        typer.echo(line, err=True)
    if check and differ:
        typer.echo("Run python tools/address.py --write", err=True)
    if missing or (check and differ):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
