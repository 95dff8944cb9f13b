"""Build the HTML book from the stored outputs, quietly, and say where it lies.

    python tools/build_book.py [--all]

Pages that did not change are not read again. Every warning is an error: a broken link, a missing citation,
an exercise without a solution. The full output is kept in _build/build.log.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
LOG = BUILD / "build.log"
# Holds the state of the frame (extension, configuration) with which the pages were last built without a
# warning. Sphinx repeats a page's warnings only when it reads the page again, so after a failed build, or
# with another frame, everything is read.
GOOD = BUILD / "frame"
_NOISE = re.compile(r"\x1b\[[0-9;]*m")


def frame_state(root: Path = ROOT) -> str:
    """A hash of what every page depends on, besides its own source."""
    files = [root / "_config.yml", root / "_toc.yml", *sorted((root / "book" / "_extensions").glob("*.py"))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def warnings_in(log: str) -> list[str]:
    r"""The lines of the log that say what is wrong, each once.

    >>> warnings_in("reading ...\n\x1b[91ma.md:3: WARNING: unknown document\x1b[0m\nfinished")
    ['a.md:3: WARNING: unknown document']
    """
    lines = [_NOISE.sub("", line).strip() for line in log.splitlines()]
    return list(dict.fromkeys(line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)))


def main(everything: bool = typer.Option(False, "--all", help="Read every page again.")) -> None:
    """Build the book and print the address to open."""
    start = time.perf_counter()
    BUILD.mkdir(exist_ok=True)
    state = frame_state()
    if not GOOD.exists() or GOOD.read_text(encoding="utf-8") != state:
        everything = True
    GOOD.unlink(missing_ok=True)
    typer.echo("Building the book ...")
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
        "build", str(ROOT), "-W", "-n", "--keep-going", *(["--all"] if everything else []),
    ]  # fmt: skip
    env = dict(os.environ, PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    with open(LOG, "w", encoding="utf-8") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=env).returncode
    text = LOG.read_text(encoding="utf-8", errors="replace")
    page = BUILD / "html" / "book" / "index.html"
    if code != 0 or not page.exists():
        found = warnings_in(text) or [_NOISE.sub("", line) for line in text.splitlines()[-20:]]
        typer.echo(f"The book was not built. The whole output is in {LOG.relative_to(ROOT)}.", err=True)
        for line in found:
            typer.echo(f"  {line}", err=True)
        raise typer.Exit(1)
    GOOD.write_text(state, encoding="utf-8")
    pages = sum(1 for _ in (BUILD / "html" / "book").glob("**/*.html"))
    seconds = time.perf_counter() - start
    typer.echo(f"{pages} pages in {seconds:.0f} s. The book lies in {BUILD / 'html'}. Open")
    typer.echo(f"  {page.as_uri()}")


if __name__ == "__main__":
    typer.run(main)
