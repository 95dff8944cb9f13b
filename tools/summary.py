"""Run the stages of `make test` one after another and end with a table of what ran.

    python tools/summary.py lint unit notebooks pages browser
    python tools/summary.py slow

A stage is a target of the Makefile; `slow` stands for the commands listed below. A stage that fails does
not stop the ones after it. The exit code is 1 if any failed.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "_build" / "reports"


@dataclass(frozen=True)
class Outcome:
    """What one stage did."""

    stage: str
    result: str  # "passed", "FAILED" or "not run"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    def row(self) -> str:
        """One line of the table."""
        counts = []
        if self.passed or self.failed or self.skipped:
            counts = [f"{self.passed} passed"]
            counts += [f"{self.failed} failed"] if self.failed else []
            counts += [f"{self.skipped} skipped"] if self.skipped else []
        what = ", ".join(counts + ([self.note] if self.note else []))
        return f"  {self.stage:<22} {self.result:<9}{self.seconds:>5.0f} s  {what}".rstrip()


def slow_commands() -> dict[str, list[str]]:
    """The slower checks, by name."""
    python = sys.executable
    solutions = sorted(glob.glob("book/solutions/[0-9]*.ipynb", root_dir=ROOT))
    pytest = [python, "-m", "pytest", "-q", "--durations=15"]
    side_by_side = ["-m", "slow and not alone", "-n", "2"]
    commands = {
        "slow-tests": [*pytest, *side_by_side, "--junitxml", str(REPORTS / "slow-tests.xml")],
        # One after another: they run processes of their own and send them signals.
        "slow-alone": [*pytest, "-m", "slow and alone", "--junitxml", str(REPORTS / "slow-alone.xml")],
    }
    if solutions:
        # A student with the right answers: anything but full marks is exit code 1.
        commands["grade-run"] = [python, "-m", "llm_from_scratch.grading", *solutions]
    return commands


def counts_from_junit(path: Path) -> tuple[int, int, int, set[str]]:
    """Passed, failed, skipped, and the reasons for skipping, from a JUnit file."""
    suites = ElementTree.parse(path).getroot().iter("testsuite")
    passed = failed = skipped = 0
    reasons: set[str] = set()
    for suite in suites:
        total = int(suite.get("tests", 0))
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        out = int(suite.get("skipped", 0))
        passed, failed, skipped = passed + total - bad - out, failed + bad, skipped + out
        reasons |= {node.get("message", "") for node in suite.iter("skipped")}
    return passed, failed, skipped, reasons


def run_stage(stage: str, command: list[str]) -> Outcome:
    """Run one stage, its output on the terminal; read its counts from its JUnit file if it wrote one."""
    report = REPORTS / f"{stage}.xml"
    report.unlink(missing_ok=True)
    print(f"\n--- {stage} ---", flush=True)
    start = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT).returncode
    seconds = time.perf_counter() - start
    passed = failed = skipped = 0
    note = ""
    if report.exists():
        passed, failed, skipped, reasons = counts_from_junit(report)
        browser = [reason for reason in reasons if "chromium" in reason.lower()]
        if browser and not passed and not failed:
            return Outcome(stage, "not run", 0, 0, skipped, seconds, "Chromium is missing")
    if code != 0 and not failed:
        note = f"exit code {code}"
    return Outcome(stage, "FAILED" if code else "passed", passed, failed, skipped, seconds, note)


def main(stages: list[str]) -> None:
    """Run the stages and print the summary."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    make = os.environ.get("MAKE", "make")
    outcomes = []
    for stage in stages:
        commands = (
            slow_commands() if stage == "slow" else {stage: [make, "--silent", "--no-print-directory", stage]}
        )
        outcomes += [run_stage(name, command) for name, command in commands.items()]
    print("\nSummary")
    for outcome in outcomes:
        print(outcome.row())
    bad = [o for o in outcomes if o.result == "FAILED"]
    # A stage that counts nothing of its own (a linter, the book's build) counts as one.
    passed = sum(o.passed or (o.result == "passed") for o in outcomes)
    failed = sum(o.failed or (o.result == "FAILED") for o in outcomes)
    skipped = sum(o.skipped for o in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
