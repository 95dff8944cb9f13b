"""tools/make_env.py, build_book.py and summary.py: what they say when something is wrong."""

import doctest
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["make_env", "build_book", "notebooks", "address"])
def test_examples_in_docstrings(tool, name):
    assert doctest.testmod(tool(name)).failed == 0


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "Retrying: NewConnectionError\nERROR: No matching distribution found for torch==2.13.0",
            "cannot be reached",
        ),
        ("ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "certificate"),
        ("ERROR: Package 'x' requires a different Python: 3.9.1 not in '>=3.11'", "does not support Python"),
        ("something\nunheard of", "unheard of"),
    ],
)
def test_pip_failures_in_words(tool, log, said):
    assert said in tool("make_env").explain(log)


def test_old_python_is_told_which_one_to_name(tool, monkeypatch):
    make_env = tool("make_env")
    old = SimpleNamespace(
        version_info=(3, 9, 2), version="3.9.2 (main)", executable="/usr/bin/python3", exit=sys.exit
    )
    monkeypatch.setattr(make_env, "sys", old)
    with pytest.raises(SystemExit, match=r"3\.11 or newer.*3\.9\.2.*make PYTHON=python3\.11"):
        make_env.check_python()


def test_a_folder_that_is_no_environment_is_left_alone(tool, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="no Python environment"):
        tool("make_env").create(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_missing_ensurepip_names_the_debian_package(tool, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv"):
        tool("make_env").create(tmp_path / "new")


@pytest.mark.parametrize(
    ("log", "calls", "said"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0", [True, False], "do not fit"),
        ("NewConnectionError\nERROR: No matching distribution found for torch==2.13.0", [True], None),
        ("[Errno 28] No space left on device", [True], None),
    ],
)
def test_pins_give_way_only_where_they_are_the_cause(tool, tmp_path, monkeypatch, capsys, log, calls, said):
    make_env, made = tool("make_env"), []

    def install(venv, path, *, pinned):
        made.append(pinned)
        path.write_text(log)
        return not pinned

    monkeypatch.setattr(make_env, "is_usable", lambda venv: True)
    monkeypatch.setattr(make_env, "install", install)
    if said is None:
        with pytest.raises(SystemExit, match="was not created"):
            make_env.main(str(tmp_path))
    else:
        make_env.main(str(tmp_path))
        assert said in capsys.readouterr().out
    assert made == calls


JUNIT = """<testsuites><testsuite tests="{tests}" failures="{failures}" errors="0" skipped="{skipped}">
{cases}</testsuite></testsuites>"""


@pytest.fixture
def summary(tool, monkeypatch, tmp_path):
    module = tool("summary")
    monkeypatch.setattr(module, "REPORTS", tmp_path)
    return module


def fake_stage(tmp_path, name, code, tests=0, failures=0, skipped=0, reason="x"):
    """A command that writes a JUnit file and ends with ``code``."""
    cases = "".join(f'<testcase><skipped message="{reason}"/></testcase>' for _ in range(skipped))
    junit = JUNIT.format(tests=tests, failures=failures, skipped=skipped, cases=cases)
    write = f"open({str(tmp_path / name) + '.xml'!r}, 'w').write({junit!r});" if tests else ""
    return [sys.executable, "-c", f"import sys;{write}sys.exit({code})"]


@pytest.mark.parametrize(
    ("arguments", "result", "said"),
    [
        ({"code": 0, "tests": 5, "skipped": 1}, "passed", "4 passed, 1 skipped"),
        ({"code": 1, "tests": 5, "failures": 2}, "FAILED", "3 passed, 2 failed"),
        ({"code": 0}, "passed", ""),
        ({"code": 2}, "FAILED", "exit code 2"),
        (
            {"code": 0, "tests": 3, "skipped": 3, "reason": "Chromium is missing"},
            "not run",
            "Chromium is missing",
        ),
    ],
)
def test_outcome_of_a_stage(summary, tmp_path, arguments, result, said):
    outcome = summary.run_stage("unit", fake_stage(tmp_path, "unit", **arguments))
    assert outcome.result == result
    assert said in outcome.row()


def test_an_old_report_is_not_read(summary, tmp_path):
    summary.run_stage("unit", fake_stage(tmp_path, "unit", 0, tests=5))
    assert summary.run_stage("unit", fake_stage(tmp_path, "unit", 1)).passed == 0


def test_summary_goes_on_after_a_failure_and_fails(summary, tmp_path, monkeypatch, capfd):
    commands = {
        "a": fake_stage(tmp_path, "a", 1, tests=3, failures=1),
        "b": fake_stage(tmp_path, "b", 0, tests=7),
    }
    monkeypatch.setattr(summary, "slow_commands", lambda: commands)
    with pytest.raises(summary.typer.Exit) as caught:
        summary.main(["slow"])
    assert caught.value.exit_code == 1
    assert capfd.readouterr().out.rstrip().endswith("9 passed, 1 failed, 0 skipped")


def test_frame_state_follows_the_configuration(tool, tmp_path):
    build = tool("build_book")
    (tmp_path / "book" / "_extensions").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml", "book/_extensions/x.py"):
        (tmp_path / name).write_text("1")
    before = build.frame_state(tmp_path)
    assert build.frame_state(tmp_path) == before
    (tmp_path / "book" / "_extensions" / "x.py").write_text("2")
    assert build.frame_state(tmp_path) != before


def folders_of(words):
    return {Path(word).parent.name for word in words if word.endswith(".ipynb")}


def test_each_chapter_and_solution_is_executed_once_and_no_blank_exercise(tool):
    """`make notebooks` runs them, with warnings as failures; the slow stage grades the solutions."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    dry = ["make", "--dry-run", "notebooks"]
    printed = subprocess.run(dry, cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if "--nbval " in line)
    assert "-p tests.book.warnings_fail" in line
    chapters = sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "book").glob("*/[0-9]*.ipynb")
        if path.parent.name != "exercises"
    )  # fmt: skip
    assert sorted(word for word in line.split() if word.endswith(".ipynb")) == chapters
    assert folders_of(chapters) >= {"foundations", "transformer", "solutions"}
    assert folders_of(tool("summary").slow_commands()["grade-run"]) == {"solutions"}


def test_a_wheel_carries_every_stored_result():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    recipes = ROOT / "llm_from_scratch" / "recipes"
    carried = {path for pattern in patterns["llm_from_scratch.recipes"] for path in recipes.glob(pattern)}
    stored = {path for path in (recipes / "results").rglob("*") if path.is_file()}
    assert len(stored) > 20
    assert stored <= carried
