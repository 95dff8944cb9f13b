"""The report in its three forms: a table for the terminal, Markdown, and JUnit XML.

Titles, file names and reasons can hold whatever a student wrote, so each form escapes them its own way.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

from .grade import Report, Row

if TYPE_CHECKING:
    from rich.table import Table

MAX_CHARACTERS = 300  # of a reason, in every form
NOTE = (
    "The grade comes from inputs that this run drew from its own seed. "
    "A check cell that looks right in the notebook uses the public seed, and is not the grade."
)
# Control characters, and those that XML or a terminal cannot take.
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """One printable line of at most ``MAX_CHARACTERS`` characters.

    >>> clean("two" + chr(10) + "lines" + chr(27) + "[31m")
    'two lines?[31m'
    """
    text = UNPRINTABLE.sub("?", " ".join(text.split()))
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 3] + "..."


def number(points: float) -> str:
    """Points without a needless fraction: 2 for 2.0."""
    return f"{points:g}"


def markdown(report: Report) -> str:
    """The report as Markdown, one table a notebook, for a file or a job summary."""
    lines = ["# Grade", ""]
    lines += [f"**{number(report.scored)} of {number(report.points)} points.** Seed {report.seed}.", ""]
    for name, rows in _by_notebook(report).items():
        lines += [f"## {_escape(name)}", "", "| exercise | points | result | why |", "|---|---|---|---|"]
        for row in rows:
            cells = [_label(row), _points(row), row.result, row.why]
            lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
        lines.append("")
    lines += [NOTE, "", f"To repeat this run, add `--seed {report.seed}`.", ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", clean(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("@", "&#64;").replace("://", "&#58;//")


def junit(report: Report) -> str:
    """The report as JUnit XML: a suite a notebook, a case an exercise, points as properties."""
    root = ElementTree.Element("testsuites", name="llm-scratch grade")
    for name, rows in _by_notebook(report).items():
        wrong = sum(row.result in ("wrong", "not answered") for row in rows)
        errors = sum(row.result in ("error", "not graded") for row in rows)
        suite = ElementTree.SubElement(
            root, "testsuite", name=clean(name), tests=str(len(rows)),
            failures=str(wrong), errors=str(errors), skipped="0", time="0",
        )  # fmt: skip
        properties = ElementTree.SubElement(suite, "properties")
        totals = {
            "points": number(sum(row.points for row in rows)),
            "scored": number(sum(row.scored for row in rows)),
            "seed": str(report.seed),
        }
        for key, value in totals.items():
            ElementTree.SubElement(properties, "property", name=key, value=value)
        for row in rows:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=clean(name.removesuffix(".ipynb")),
                name=clean(_label(row)),
                time="0",
            )
            own = ElementTree.SubElement(case, "properties")
            ElementTree.SubElement(own, "property", name="points", value=number(row.points))
            ElementTree.SubElement(own, "property", name="scored", value=number(row.scored))
            if row.result in ("wrong", "not answered"):
                ElementTree.SubElement(case, "failure", message=clean(row.why), type=row.result)
            elif row.result != "correct":
                ElementTree.SubElement(case, "error", message=clean(row.why), type=row.result or "error")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def table(report: Report, name: str) -> Table:
    """The rows of one notebook as a rich table."""
    from rich.table import Table
    from rich.text import Text

    rows = _by_notebook(report)[name]
    made = Table(title=Text(clean(name)), title_justify="left", expand=False)
    for heading, options in (("exercise", {}), ("points", {"justify": "right"}), ("result", {}), ("why", {})):
        made.add_column(heading, overflow="fold", **options)
    styles = {"correct": "green", "wrong": "red", "error": "red", "not graded": "yellow"}
    for row in rows:
        cells = [Text(clean(_label(row))), Text(_points(row))]
        made.add_row(*cells, Text(row.result, style=styles.get(row.result, "")), Text(clean(row.why)))
    return made


def notebooks(report: Report) -> list[str]:
    """The names of the notebooks, each once."""
    return list(_by_notebook(report))


def _by_notebook(report: Report) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        groups.setdefault(row.notebook, []).append(row)
    return groups


def _label(row: Row) -> str:
    return f"{row.exercise} {row.title}".strip() or "the notebook"


def _points(row: Row) -> str:
    return f"{number(row.scored)} / {number(row.points)}"
