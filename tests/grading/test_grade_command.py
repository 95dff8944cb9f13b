import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import typer
from typer.testing import CliRunner

from llm_from_scratch.grading import check_rng
from llm_from_scratch.grading.command import grade

from .conftest import COURSE

app = typer.Typer()
app.command()(grade)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in (*arguments, "--solutions", COURSE)])

    return call


def test_full_marks(run, handed, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    table, xml = tmp_path / "out" / "grade.md", tmp_path / "out" / "grade.xml"
    path = handed.solve(1, 2, 3).save()
    result = run(path, "--seed", 5, "--report", table, "--junit", xml)
    assert result.exit_code == 0, result.output
    assert "6 of 6 points, seed 5" in result.output
    text = table.read_text(encoding="utf-8")
    assert "| 90.2 spread | 2 / 2 | correct |  |" in text
    assert "is not the grade" in text
    assert summary.read_text(encoding="utf-8") == "before\n" + text
    suite = ElementTree.parse(xml).getroot().find("testsuite")
    assert [case.get("name") for case in suite.findall("testcase")] == [
        "90.1 centre",
        "90.2 spread",
        "90.3 counts",
    ]
    assert suite.find("properties/property[@name='scored']").get("value") == "6"


def test_less_than_full_marks(run, handed, tmp_path):
    handed["small-1-answer"] = "def centre(x):\n    return x | 1"
    table = tmp_path / "grade.md"
    result = run(handed.solve(3).save(), "--report", table)
    assert result.exit_code == 1
    assert "3 of 6 points, seed " in result.output
    assert "Traceback" not in result.output
    assert "TypeError" in table.read_text(encoding="utf-8")


def test_usage_errors(run, handed, tmp_path):
    path = handed.save()
    for arguments, words in [
        ((tmp_path / "none.ipynb",), "there is no notebook at"),
        ((tmp_path,), "there is no notebook at"),
        ((), "Missing argument"),
        ((path, "--seed", "-1"), "or equal to 0"),
        ((path, "--seed", "many"), "valid int"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert words in result.output
    result = CliRunner().invoke(app, [str(path), "--solutions", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "--solutions" in result.output


def test_a_report_that_cannot_be_written(run, handed, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run(handed.save(), "--report", tmp_path / "file" / "grade.md")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_as_a_module_and_light_to_import(handed):
    """`check_rng` must come without the heavy parts: a notebook on another host imports it."""
    heavy = "torch", "nbformat", "pytest", "IPython", "typer", "rich", "psutil"
    code = f"import sys, llm_from_scratch.grading; print([m for m in {heavy} if m in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"
    command = [sys.executable, "-m", "llm_from_scratch.grading", handed.save(), "--solutions", COURSE]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 1
    assert "0 of 6 points" in made.stdout


def test_check_rng():
    assert check_rng("3.1").integers(1000) == check_rng("3.1").integers(1000)
    drawn = {int(check_rng(label).integers(2**40)) for label in ("3.1", "1.3", "31.1", "3.11")}
    assert len(drawn) == 4
    for wrong in ("", "3", "3.1.1", "a.b", 3.1, None, "3.1 "):
        with pytest.raises(ValueError, match="exercise must look like"):
            check_rng(wrong)
