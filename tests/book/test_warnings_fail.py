"""The notebooks stage sees a warning in a cell whose output it does not compare."""

import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]


def test_a_warning_in_an_uncompared_cell_fails_the_notebook(tmp_path):
    uncompared = {"tags": ["nbval-ignore-output"]}
    cells = [
        nbformat.v4.new_code_cell("1 + 1", metadata=uncompared),
        nbformat.v4.new_code_cell("import warnings; warnings.warn('look here')", metadata=uncompared),
    ]
    path = tmp_path / "warns.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-p", "no:cacheprovider", str(path)]
    plugin = ["-p", "tests.book.warnings_fail"]
    bare, watched = (
        subprocess.run([*command, *extra], cwd=ROOT, capture_output=True, text=True) for extra in ([], plugin)
    )
    assert bare.returncode == 0, bare.stdout
    assert watched.returncode == 1
    assert "the cell wrote to stderr" in watched.stdout
    assert "look here" in watched.stdout
    assert "1 failed, 1 passed" in watched.stdout
