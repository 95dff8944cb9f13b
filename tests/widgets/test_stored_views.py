"""Views stored in the book's notebooks carry today's JavaScript, or readers meet yesterday's faults."""

import json
from pathlib import Path

import pytest

from llm_from_scratch.widgets import html

BOOK = Path(__file__).parents[2] / "book"
NOTEBOOKS = sorted(BOOK.rglob("*.ipynb")) if BOOK.is_dir() else []


def stored_views(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/html", ""))
            if "data-llm-widget=" in text:
                yield text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_views_are_current(path):
    for text in stored_views(path):
        kind = text.partition('data-llm-widget="')[2].partition('"')[0]
        assert html.script(kind) in text, f"{path.name} stores an older {kind} view: execute it again"
