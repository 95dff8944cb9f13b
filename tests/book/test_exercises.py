"""The book's exercises: derived as committed, nothing leaks, solutions get full marks, blanks none."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_from_scratch.grading import notebooks
from llm_from_scratch.grading.grade import grade_notebooks

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = sorted((ROOT / "book" / "solutions").glob("*.ipynb"))
SMALL = ROOT / "tests" / "grading" / "course" / "solutions" / "90_small.ipynb"

spec = importlib.util.spec_from_file_location("exercises_tool", ROOT / "tools" / "exercises.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def solution():
    return notebooks.read_notebook(SMALL)


def test_there_are_solutions():
    assert SOLUTIONS


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_committed_exercises_are_derived_and_leak_nothing(path):
    source = notebooks.read_notebook(path)
    committed = ROOT / "book" / "exercises" / path.name
    blank = tool.derive(source)
    assert committed.read_text(encoding="utf-8") == tool.as_stored(blank), "run `make exercises`"
    assert not tool.leaks(source, notebooks.read_notebook(committed))
    assert not tool.faults(source)
    assert len(notebooks.exercises_of(source)) >= 4


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_blank_notebooks_score_nothing(path):
    report = grade_notebooks([ROOT / "book" / "exercises" / path.name], solutions=path.parent)
    assert report.scored == 0
    assert {row.result for row in report.rows} == {"not answered"}


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_get_full_marks_for_any_seed(path):
    for seed in (0, 987_654_321):
        report = grade_notebooks([path], solutions=path.parent, seed=seed)
        assert [row for row in report.rows if row.result != "correct"] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_no_constants_pass(path, tmp_path):
    """Each check must depend on its inputs: with a seed kept from the answer, its outputs change."""
    from llm_from_scratch.grading.grade import _run_exercise, _sources
    from llm_from_scratch.grading.process import Limits

    exercises = notebooks.exercises_of(notebooks.read_notebook(path))
    answers = {e.label: e.answer.source for e in exercises}
    for exercise in exercises:
        runs = [_run_exercise(exercise, _sources(exercise, answers), seed, Limits(), []) for seed in (1, 2)]
        assert runs[0].texts != runs[1].texts, exercise.label


def test_derived_notebook(solution):
    blank = tool.derive(solution)
    text = tool.as_stored(blank)
    assert text == tool.as_stored(tool.derive(solution))
    assert "x.mean()" not in text
    assert "get returns its second argument" not in text
    answer = next(c for c in blank["cells"] if c["id"] == "small-1-answer")
    assert answer["source"].splitlines() == [
        "# Exercise 90.1",
        "def centre(x):",
        '    raise NotImplementedError("Exercise 90.1: your answer goes here")',
    ]
    expected = [c["source"] for c in blank["cells"] if "expected" in c["metadata"].get("tags", [])]
    assert "[-2.0, -1.0, 3.0]" in expected[0]
    assert not tool.leaks(solution, blank)
    assert not tool.faults(solution)


def changed(solution, **change):
    """The blank notebook, derived and then spoiled."""
    blank = tool.derive(solution)
    identity = change.pop("id", "small-2-check")
    cell = next(c for c in blank["cells"] if c["id"] == identity)
    if "line" in change:
        cell["source"] += "\n" + change.pop("line")
    cell["metadata"] |= change.pop("metadata", {})
    cell.update(change)
    return blank


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"line": "squares = centre(x) ** 2"}, "shows the solution of exercise 90.2"),
        ({"id": "small-1-task", "line": "return x - x.mean()"}, "shows the solution of exercise 90.1"),
        ({"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}, "stored outputs"),
        ({"id": "small-1-task", "attachments": {"a.png": {}}}, "attachments"),
        ({"metadata": {"solution": "return x"}}, "metadata"),
        ({"metadata": {"tags": ["explanation"]}}, "is an explanation"),
        ({"id": "small-1-answer", "source": "def centre(x):\n    return 0"}, "answer is missing"),
        ({"line": "# BEGIN SOLUTION"}, "BEGIN SOLUTION"),
        (
            {
                "id": "small-1-task",
                "line": "The mean of the result is zero, because the sum of the differences "
                "from the mean is zero.",
            },
            "explanation",
        ),
    ],
)
def test_leaks_are_found(solution, change, word):
    found = tool.leaks(solution, changed(solution, **change))
    assert any(word in line for line in found), found


def test_a_task_may_show_most_of_a_solution_but_not_all(solution):
    one_line = changed(solution, id="small-2-task", line="squares = centre(x) ** 2")
    assert not tool.leaks(solution, one_line)
    all_lines = "squares = centre(x) ** 2\nreturn float(np.sqrt(squares.mean()))"
    assert tool.leaks(solution, changed(solution, id="small-2-task", line=all_lines))


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('rng = check_rng("90.1")', "rng = np.random.default_rng(1)", "does not draw"),
        ("print(np.round", "assert np.allclose(np.round", "decides in the student's process"),
        ("print(np.round", "repr(np.round", "prints nothing"),
    ],
)
def test_faults_are_found(solution, old, new, word):
    cell = next(c for c in solution["cells"] if c["id"] == "small-1-check")
    cell["source"] = tool._text(cell["source"]).replace(old, new)
    assert any(word in fault for fault in tool.faults(solution))


def test_a_promise_that_the_solution_breaks_is_found(solution):
    cell = next(c for c in solution["cells"] if c["id"] == "small-1-try")
    for text, wrong in (("a = 1.5  expected: 1.5\n", 0), ("a = 1.5  expected: 1.6\n", 1)):
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [text]}]
        assert len(tool.faults(solution)) == wrong


def test_missing_parts_are_found(solution):
    for cell in copy.deepcopy(solution["cells"]):
        if cell["id"] in ("small-1-why", "small-1-task"):
            spoiled = copy.deepcopy(solution)
            spoiled["cells"] = [c for c in spoiled["cells"] if c["id"] != cell["id"]]
            assert tool.faults(spoiled)
    for source in ("def f(): pass", "# BEGIN SOLUTION\n1", "# END SOLUTION\n# BEGIN SOLUTION"):
        with pytest.raises(notebooks.NotebookError):
            notebooks.blank_source(source, "1.1")


def test_command(tmp_path):
    def call(*options):
        folders = ["--solutions", str(SMALL.parent), "--exercises", str(tmp_path)]
        return CliRunner().invoke(tool.app, [*folders, *options])

    missing = call("--check")
    assert missing.exit_code == 1
    assert "is missing" in missing.stderr
    assert call().exit_code == 0
    assert call("--check").exit_code == 0
    target = tmp_path / SMALL.name
    content = json.loads(target.read_text(encoding="utf-8"))
    content["cells"][2]["source"] = "changed by hand"
    target.write_text(json.dumps(content), encoding="utf-8")
    assert "differs from what" in call("--check").stderr
    call()
    (tmp_path / "99_stray.ipynb").write_text("{}", encoding="utf-8")
    assert "has no solutions notebook" in call("--check").stderr
