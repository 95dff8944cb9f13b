"""Notebooks as students hand them in: blank, partly done, damaged, stripped, edited."""

import json

import pytest

from llm_from_scratch.grading import notebooks
from llm_from_scratch.grading.grade import grade_notebooks
from llm_from_scratch.grading.process import ExerciseProcess

from .conftest import COURSE, QUICK, by_exercise


def scores(rows):
    return {label: row.scored for label, row in rows.items()}


NONE = {"90.1": 0.0, "90.2": 0.0, "90.3": 0.0}
FULL = {"90.1": 1.0, "90.2": 2.0, "90.3": 3.0}


def test_the_solution_gets_full_marks_and_partial_work_its_part(handed):
    assert scores(handed.solve(3).grade()) == NONE | {"90.3": 3.0}
    report = grade_notebooks([handed.solve(1, 2, 3).save()], solutions=COURSE, limits=QUICK)
    assert scores(by_exercise(report)) == FULL
    assert report.full_marks
    assert (report.scored, report.points) == (6.0, 6.0)


def test_blank_scores_nothing_and_starts_no_process(handed, monkeypatch):
    monkeypatch.setattr(ExerciseProcess, "__enter__", lambda self: pytest.fail("started a process"))
    rows = handed.grade()
    assert scores(rows) == NONE
    assert {row.why for row in rows.values()} == {"not answered yet"}


def test_a_needed_answer_runs_first(handed):
    handed.solve(2)
    rows = handed.grade()
    assert rows["90.2"].result == "not answered"  # centre still raises
    handed["small-1-answer"] = "def centre(x):\n    return x - np.mean(x)"
    assert handed.grade()["90.2"].result == "correct"


def test_the_same_seed_gives_the_same_report_and_another_seed_other_inputs(handed):
    handed["small-1-answer"] = "def centre(x):\n    return x"
    first, second, third = (handed.grade(seed=seed, jobs=jobs) for seed, jobs in ((3, 1), (3, 2), (4, 2)))
    assert first == second
    assert first["90.1"].why != third["90.1"].why


def test_edited_checks_outputs_and_setup_do_not_count(handed):
    handed["small-1-answer"] = "def centre(x):\n    return 2 * x"
    handed["small-1-check"] = "print('[0.0]')"
    handed.cell("small-1-check")["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "[0.0]"}]
    handed["small-setup"] = "raise SystemExit"
    handed.solve(3)
    assert scores(handed.grade()) == NONE | {"90.3": 3.0}


def test_a_deleted_answer_cell_says_so(handed):
    handed.solve(3)
    handed.notebook["cells"] = [c for c in handed.notebook["cells"] if c["id"] != "small-1-answer"]
    rows = handed.grade()
    assert rows["90.1"].result == "not graded"
    assert "its answer cell is not in the notebook" in rows["90.1"].why
    assert rows["90.3"].result == "correct"


def test_deleted_check_and_setup_cells_do_not_matter(handed):
    handed.solve(1, 2, 3)
    handed.notebook["cells"] = [c for c in handed.notebook["cells"] if "answer" in c["id"]][::-1]
    assert scores(handed.grade()) == FULL


@pytest.mark.parametrize("lost", ["ids", "metadata", "both"])
def test_answers_are_found_after_a_host_has_stripped_them(handed, lost):
    handed.solve(1, 2, 3)
    for cell in handed.notebook["cells"]:
        if lost in ("ids", "both"):
            del cell["id"]
        cell["source"] = "".join(cell["source"])
        if lost in ("metadata", "both"):
            cell["metadata"] = {"colab": {"base_uri": "x"}}
        if lost == "both" and "BEGIN" in cell["source"]:
            names = {"centre": "90.1", "spread": "90.2", "counts": "90.3"}
            label = next(label for name, label in names.items() if f"def {name}" in cell["source"])
            cell["source"] = f"#exercise {label} by me\n" + cell["source"]
    handed.notebook["nbformat_minor"] = 0
    assert scores(handed.grade()) == FULL


def test_of_two_answers_the_last_that_is_not_blank_counts(handed):
    cells = handed.notebook["cells"]
    right = dict(handed.cell("small-1-answer"), id="copy", source="def centre(x):\n    return x - x.mean()")
    wrong = dict(right, id="copy2", source="def centre(x):\n    return x")
    cells.append(right)  # the original is still blank
    assert handed.grade()["90.1"].result == "correct"
    cells.append(wrong)
    row = handed.grade()["90.1"]
    assert row.result == "wrong"
    assert "2 answer cells found: the last was graded" in row.why


def test_an_answer_in_a_markdown_cell_says_so(handed):
    cell = handed.cell("small-1-answer")
    cell["cell_type"], cell["source"] = "markdown", "def centre(x): ..."
    assert "not a code cell" in handed.grade()["90.1"].why


def test_another_kernel_is_graded_as_python(handed):
    handed.notebook["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}
    handed["small-1-answer"] = "centre <- function(x) x - mean(x)"
    handed.solve(3)
    rows = handed.grade()
    assert rows["90.1"].result == "error"
    assert rows["90.3"].result == "correct"


def test_wild_fields_crash_nothing(handed):
    handed.solve(3)
    handed.notebook["cells"] += [
        None, 3, [], {}, {"cell_type": 5, "source": {"a": 1}},
        {"cell_type": "code", "source": [1, None, "x"]},
        {"cell_type": "code", "metadata": [], "source": "x", "id": {}},
        {"cell_type": "code", "metadata": {"tags": "answer", "exercise": ["90.1"]}, "source": "x", "id": 7},
    ]  # fmt: skip
    handed.notebook["metadata"] = None
    assert scores(handed.grade()) == NONE | {"90.3": 3.0}


DAMAGED = {
    "cut in half": (lambda text: text[: len(text) // 2], "JSON cannot be read"),
    "empty": (lambda text: "", "JSON cannot be read"),
    "a list": (lambda text: "[]", "not a notebook"),
    "no cells": (lambda text: "{}", "not a notebook"),
    "cells of a wrong type": (lambda text: '{"cells": 3}', "not a notebook"),
    "nested too deep": (lambda text: "[" * 200_000, "JSON cannot be read"),
    "a number too long": (lambda text: '{"cells": ' + "9" * 10_000 + "}", "damaged or not a notebook"),
    "format 3": (lambda text: '{"nbformat": 3, "worksheets": []}', "format of before 2015"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_gets_a_row_for_each_exercise(handed, kind):
    path = handed.save()
    change, reason = DAMAGED[kind]
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    rows = by_exercise(grade_notebooks([path], solutions=COURSE, limits=QUICK))
    assert scores(rows) == NONE
    assert all(row.result == "not graded" and reason in row.why for row in rows.values())


def test_other_files_get_a_row(tmp_path):
    binary, strange = tmp_path / "90_small.ipynb", tmp_path / "essay.ipynb"
    binary.write_bytes(bytes(range(256)))
    strange.write_text('{"cells": [], "nbformat": 4}', encoding="utf-8")
    report = grade_notebooks([binary, strange], solutions=COURSE, limits=QUICK)
    assert "not UTF-8" in report.rows[0].why
    assert report.rows[-1].exercise == ""
    assert "keep the file's name" in report.rows[-1].why
    assert not report.full_marks


def test_a_huge_file_is_not_read(handed, monkeypatch):
    path = handed.save()
    path.write_text(path.read_text(encoding="utf-8") + " " * 20_000, encoding="utf-8")
    monkeypatch.setattr(notebooks, "MAX_BYTES", 20_000)
    report = grade_notebooks([path], solutions=COURSE)
    assert "clear its outputs" in report.rows[0].why


def test_a_byte_order_mark_and_a_new_name_are_forgiven(handed):
    handed.solve(3)
    path = handed.save("homework of Ann (1).ipynb")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    rows = by_exercise(grade_notebooks([path], solutions=COURSE, limits=QUICK))
    assert rows["90.3"].result == "correct"


def test_two_students_with_one_file_name_are_kept_apart(handed, tmp_path):
    paths = []
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        paths.append(handed.save().rename(tmp_path / name / "90_small.ipynb"))
        handed.solve(3)
    report = grade_notebooks([*paths, paths[0]], solutions=COURSE, limits=QUICK)
    assert [row.notebook for row in report.rows] == [str(paths[0])] * 3 + [str(paths[1])] * 3
    assert report.scored == 3.0


def test_the_reference_runs_only_after_every_student_process_has_ended(handed, monkeypatch):
    alive, order = set(), []
    enter, leave = ExerciseProcess.__enter__, ExerciseProcess.__exit__
    run = ExerciseProcess.run

    def noting_run(self, source, **options):
        if "BEGIN SOLUTION" in source:
            order.append("solution")
            assert not [p for p in alive if getattr(p, "students", False)]
        elif "mine" in source:
            order.append("student")
            self.students = True
        return run(self, source, **options)

    monkeypatch.setattr(ExerciseProcess, "__enter__", lambda self: alive.add(self) or enter(self))
    monkeypatch.setattr(ExerciseProcess, "__exit__", lambda self, *e: alive.discard(self) or leave(self, *e))
    monkeypatch.setattr(ExerciseProcess, "run", noting_run)
    handed["small-1-answer"] = "def centre(x):  # mine\n    return x - x.mean()"
    handed["small-3-answer"] = "def counts(x):  # mine\n    return {c: x.count(c) for c in x}"
    assert scores(handed.grade()) == {"90.1": 1.0, "90.2": 0.0, "90.3": 3.0}
    assert order == ["student", "student", "solution", "solution"]


def test_faults_of_the_course_are_not_the_students(handed, tmp_path):
    """A setup or a solution that fails gives 'not graded', and a broken solutions notebook an error."""
    broken = tmp_path / "solutions"
    broken.mkdir()
    text = (COURSE / "90_small.ipynb").read_text(encoding="utf-8")
    handed.solve(1, 3)
    handed["small-3-answer"] = "def counts(x):\n    return {c: x.count(c) for c in x}"
    handed["small-1-answer"] = "def centre(x):\n    return x - np.mean(x)"
    path = handed.save()

    def grade_against(changed):
        (broken / "90_small.ipynb").write_text(changed, encoding="utf-8")
        return by_exercise(grade_notebooks([path], solutions=broken, limits=QUICK))

    rows = grade_against(text.replace("return x - x.mean()", "return 1 / 0"))
    assert rows["90.1"].result == "not graded"
    assert "own solution failed" in rows["90.1"].why
    assert rows["90.3"].result == "correct"
    rows = grade_against(text.replace("import numpy as np", "import no_such_package"))
    assert "own setup cell failed" in rows["90.3"].why
    with pytest.raises(FileNotFoundError, match="no check cell"):
        grade_against(text.replace('"check"', '"chock"'))
    with pytest.raises(FileNotFoundError, match="no solutions notebook"):
        grade_notebooks([path], solutions=tmp_path / "nowhere")


def test_limits_in_the_solution_notebook_replace_the_graders(handed, tmp_path):
    course = json.loads((COURSE / "90_small.ipynb").read_text(encoding="utf-8"))
    answer = next(c for c in course["cells"] if c["id"] == "small-1-answer")
    answer["metadata"]["seconds"] = 0.3
    answer["metadata"]["megabytes"] = 50
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "90_small.ipynb").write_text(json.dumps(course), encoding="utf-8")
    handed["small-1-answer"] = "import time\ntime.sleep(60)"
    path = handed.save()
    row = grade_notebooks([path], solutions=tmp_path / "solutions").rows[0]
    assert "longer than 0.3 seconds" in row.why
