"""Grade notebooks: put each answer between the solution's own cells, run it, compare what it prints.

For one exercise the order is: a fresh process; the solution notebook's setup cells; the fences of
``guard.py``; the student's answer; the secret seed; the solution notebook's check cells. The process is
then ended. Only after that does another process run the solution with the same seed, so that nothing the
student's code could have read held an expected value.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from . import compare, notebooks
from .notebooks import Exercise, NotebookError
from .process import PACKAGE, CellResult, ExerciseProcess, Limits, end_all_processes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the report."""

    notebook: str
    exercise: str  # "1.3", or "" when the whole notebook could not be graded
    title: str
    points: float
    scored: float
    result: str  # "correct", "wrong", "not answered", "error", "not graded"
    why: str = ""  # one plain sentence; "" when correct


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows, in the order of the notebooks and of their exercises."""

    seed: int
    rows: tuple[Row, ...]

    @property
    def points(self) -> float:
        """What all exercises are worth."""
        return sum(row.points for row in self.rows)

    @property
    def scored(self) -> float:
        """What the answers earned."""
        return sum(row.scored for row in self.rows)

    @property
    def full_marks(self) -> bool:
        """Whether every exercise of every notebook is correct."""
        return bool(self.rows) and all(row.result == "correct" for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What became of one exercise's cells: the printed texts of the checks, or the cell that failed."""

    texts: tuple[str, ...] | None = None
    failed: CellResult | None = None
    stage: str = ""  # "setup", "fence", "answer" or "check"


def grade_notebooks(
    paths: Iterable[Path],
    *,
    solutions: Path,
    seed: int | None = None,
    limits: Limits | None = None,
    jobs: int = 2,
) -> Report:
    """Grade each notebook and return the report. Nothing that a notebook holds makes this raise.

    seed: 0 or larger; None draws a secret one. jobs: exercises that run at the same time.
    Raises: FileNotFoundError if ``solutions`` holds no solutions notebook that can be read.
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    limits = limits or Limits()
    courses = _read_solutions(solutions)
    paths = list(dict.fromkeys(paths))
    unique = len({path.name for path in paths}) == len(paths)
    plans = [(path, *_plan(path, courses, path.name if unique else str(path))) for path in paths]
    denied = [solutions]
    if (PACKAGE.parent / "pyproject.toml").is_file():  # a clone: its history and pages hold the solutions
        denied += [PACKAGE.parent / name for name in ("book", ".git", "_build")]

    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    try:
        # First every student's exercise; no solution runs before the last of them has ended.
        futures = {}
        for number, (_, _, work) in enumerate(plans):
            for label, (exercise, sources) in work.items():
                job = pool.submit(_run_exercise, exercise, sources, seed, limits, denied)
                futures[number, label] = job
        runs = {key: future.result() for key, future in futures.items()}
        # Then each solution once, where a student's check has printed something to compare with.
        references = {}
        for (number, label), run in runs.items():
            exercise = plans[number][2][label][0]
            if run.texts is not None and id(exercise) not in references:
                course = next(c for c in courses.values() if any(e is exercise for e in c))
                sources = _sources(exercise, {e.label: e.answer.source for e in course})
                job = pool.submit(_run_exercise, exercise, sources, seed, limits, denied)
                references[id(exercise)] = job
        references = {key: future.result() for key, future in references.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all_processes()

    rows = []
    for number, (_, planned, work) in enumerate(plans):
        for row in planned:
            if row.exercise in work and (number, row.exercise) in runs:
                exercise = work[row.exercise][0]
                row = _judge(row, runs[number, row.exercise], references.get(id(exercise)), limits)
            rows.append(row)
    return Report(seed=seed, rows=tuple(rows))


def _read_solutions(folder: Path) -> dict[str, list[Exercise]]:
    courses = {}
    for path in sorted(folder.glob("*.ipynb")):
        try:
            courses[path.stem] = notebooks.exercises_of(notebooks.read_notebook(path))
        except NotebookError as error:
            raise FileNotFoundError(f"the solutions notebook {path} cannot be used: {error}") from error
    if not courses:
        raise FileNotFoundError(
            f"no solutions notebook (*.ipynb) in {folder}; name their folder with --solutions"
        )
    return courses


def _plan(
    path: Path, courses: dict[str, list[Exercise]], name: str
) -> tuple[list[Row], dict[str, tuple[Exercise, list[str]]]]:
    """The rows of one notebook, and what must run for those that are not settled by reading."""
    try:
        cells = notebooks.cells_of(notebooks.read_notebook(path))
        problem = ""
    except NotebookError as error:
        cells, problem = [], str(error)
    course = _course_of(path.stem, cells, courses)
    if course is None:
        problem = problem or (
            "it holds no exercise of the solutions folder; keep the file's name, e.g. "
            f"{next(iter(courses))}.ipynb"
        )
        row = Row(notebook=name, exercise="", title="", points=0, scored=0, result="not graded", why=problem)
        return [row], {}
    rows, work = [], {}
    answers = {e.label: notebooks.find_answer(cells, e) for e in course}
    for exercise in course:
        answer = answers[exercise.label]
        row = Row(
            notebook=name,
            exercise=exercise.label,
            title=exercise.title,
            points=exercise.points,
            scored=0.0,
            result="not answered",
            why="not answered yet",
        )
        if problem:
            row = replace(row, result="not graded", why=problem)
        elif answer.source is None:
            missing = answer.note or "its answer cell is not in the notebook; copy it from a fresh notebook"
            row = replace(row, result="not graded", why=missing)
        elif not notebooks.is_blank(answer.source, exercise):
            given = {label: a.source or "" for label, a in answers.items()}
            work[exercise.label] = (exercise, _sources(exercise, given))
            row = replace(row, result="", why=answer.note)
        rows.append(row)
    return rows, work


def _course_of(stem: str, cells: list[notebooks.Cell], courses: dict[str, list[Exercise]]):
    """The solutions notebook that a student's notebook belongs to: by name, then by its cells."""
    if stem in courses:
        return courses[stem]
    ids, labels = {c.id for c in cells if c.id}, {c.exercise for c in cells if c.exercise}
    labels |= {m.group(1) for c in cells if (m := notebooks.MARKER.match(c.source.lstrip()))}
    counts = {
        name: (sum(e.answer.id in ids for e in course), sum(e.label in labels for e in course))
        for name, course in courses.items()
    }
    best = max(counts, key=lambda name: (sum(counts[name]), stem.startswith(name)))
    if sum(counts[best]):
        return courses[best]
    return next((course for name, course in courses.items() if stem.startswith(name)), None)


def _sources(exercise: Exercise, answers: dict[str, str]) -> list[str]:
    """The answers to run, those that the exercise needs first."""
    return [answers[label] for label in (*exercise.needs, exercise.label)]


def _run_exercise(
    exercise: Exercise, sources: list[str], seed: int, limits: Limits, denied: list[Path]
) -> _Run:
    """Run one exercise in its own process."""
    limits = replace(
        limits,
        cell_seconds=exercise.seconds or limits.cell_seconds,
        megabytes=exercise.megabytes or limits.megabytes,
    )
    imports = notebooks.imports_in(exercise.setup)
    secret = f"from llm_from_scratch.grading import rng as _grader\n_grader.use_seed({seed})\ndel _grader"
    texts: list[str] = []
    try:
        with ExerciseProcess(limits, denied=denied) as process:
            steps = [("setup", cell.source) for cell in exercise.setup]
            steps += (
                [("fence", "")]
                + [("answer", source) for source in sources]
                + [("seed", f"{imports}\n{secret}")]
            )
            steps += [("check", cell.source) for cell in exercise.checks]
            for stage, source in steps:
                seconds = limits.setup_seconds if stage == "setup" else limits.cell_seconds
                result = process.fence() if stage == "fence" else process.run(source, seconds=seconds)
                if not result.ok:
                    return _Run(failed=result, stage=stage)
                if stage == "check":
                    texts.append(result.text)
    except OSError as error:
        failed = CellResult(ok=False, name="not started", message=str(error))
        return _Run(failed=failed, stage="fence")
    return _Run(texts=tuple(texts))


def _judge(row: Row, run: _Run, reference: _Run | None, limits: Limits) -> Row:
    """Turn a run into a result with its reason."""
    note = f" ({row.why})" if row.why else ""
    if run.failed is not None:
        return replace(row, **_failure(run, limits, note))
    if reference is None or reference.texts is None:
        failed = reference.failed if reference else None
        why = f"the book's own solution failed here ({failed.name if failed else 'not run'}); report this"
        return replace(row, result="not graded", why=why)
    if not any(text.strip() for text in reference.texts):
        return replace(row, result="not graded", why="the book's check printed nothing; report this")
    for number, (expected, got) in enumerate(zip(reference.texts, run.texts, strict=True), start=1):
        if not compare.same_output(expected, got):
            line, want, have = compare.first_difference(expected, got)
            where = f"line {line}" if len(run.texts) == 1 else f"check {number}, line {line}"
            why = f"{where} of the check: expected {_quoted(want)}, got {_quoted(have)}{note}"
            return replace(row, result="wrong", why=why)
    return replace(row, result="correct", scored=row.points, why=row.why)


def _failure(run: _Run, limits: Limits, note: str) -> dict[str, str]:
    """Result and reason for a cell that did not end well, in words for the student."""
    failed, stage = run.failed, run.stage
    where = {"answer": "the answer cell", "check": "the check of your answer"}.get(
        stage, "what the answer left behind"
    )
    at = f", line {failed.line}" if failed.line and stage == "answer" else ""
    detail = " ".join(failed.message.split())
    if stage == "setup" or failed.name == "not started":
        why = f"the notebook's own setup cell failed ({failed.name}: {detail}); your answer was not run"
        return {"result": "not graded", "why": why}
    words = {
        "NotImplementedError": "not answered yet",
        "time limit": f"{where} ran longer than {failed.message} seconds and was stopped",
        "memory limit": f"{where} took more than {limits.megabytes} MB of memory and was stopped",
        "MemoryError": f"{where} asked for more memory than the {limits.megabytes} MB that it may use",
        "output limit": f"{where} printed more than {limits.output_bytes:,} characters and was stopped",
        "process ended": f"{where} ended the Python process" + (f" (exit code {detail})" if detail else ""),
        "SystemExit": f"{where} called exit; leave the interpreter running",
        "SyntaxError": f"Python cannot read the answer{at}: {detail}",
        "IndentationError": f"Python cannot read the answer{at}: {detail}",
        "NameError": f"{where}{at}: {detail}. Only the answer cell is graded: it must hold all it uses",
    }
    result = "not answered" if failed.name == "NotImplementedError" else "error"
    why = words.get(failed.name, f"{where}{at} raised {failed.name}: {detail}")
    if failed.name == "RuntimeError" and "allocate memory" in failed.message:
        why = words["MemoryError"]
    return {"result": result, "why": why + note}


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 80 else f'"{text[:77]}..."'
