"""A small course without torch, and ways to hand in notebooks for it."""

import copy
import json
from pathlib import Path

import pytest

from llm_from_scratch.grading import notebooks
from llm_from_scratch.grading.grade import grade_notebooks
from llm_from_scratch.grading.process import Limits

COURSE = Path(__file__).parent / "course" / "solutions"
QUICK = Limits(cell_seconds=5.0, setup_seconds=60.0, megabytes=400)


class Handed:
    """A student's copy of the small course's notebook, changed cell by cell."""

    def __init__(self, folder):
        self.path = folder / "90_small.ipynb"
        self.notebook = json.loads((COURSE / "90_small.ipynb").read_text(encoding="utf-8"))
        self.solutions = copy.deepcopy(self.notebook)
        for exercise in notebooks.exercises_of(self.solutions):
            self[exercise.answer.id] = notebooks.blank_source(exercise.answer.source, exercise.label)

    def cell(self, identity):
        return next(c for c in self.notebook["cells"] if c.get("id") == identity)

    def __setitem__(self, identity, source):
        self.cell(identity)["source"] = source

    def solve(self, *numbers):
        """Put the right answers in."""
        for number in numbers:
            identity = f"small-{number}-answer"
            right = next(c for c in self.solutions["cells"] if c["id"] == identity)
            self[identity] = right["source"]
        return self

    def save(self, name=None):
        path = self.path.with_name(name) if name else self.path
        path.write_text(json.dumps(self.notebook), encoding="utf-8")
        return path

    def grade(self, **options):
        """The rows of the report by exercise."""
        return by_exercise(grade_notebooks([self.save()], solutions=COURSE, limits=QUICK, **options))


def by_exercise(report):
    return {row.exercise: row for row in report.rows}


@pytest.fixture
def handed(tmp_path):
    return Handed(tmp_path)
