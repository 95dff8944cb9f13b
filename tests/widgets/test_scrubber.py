"""The scrubber's checks, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import pytest

from llm_from_scratch.widgets import Scrubber
from llm_from_scratch.widgets.html import script
from tests.browser.views import HOSTILE

STEPS = [0, 10, 100]
GIVEN = {
    "series": {"validation": [8.0, 6.5, 5.25], "training": [None, 6.4, 5.0]},
    "bars": {"name": [9.0, 7.0, 6.0], "number": [8.0, 4.0, 3.0]},
    "samples": {"The people": [" x", " of", " of the States"]},
    "references": {"5-gram": 5.5},
}


def view(**changes):
    return Scrubber(STEPS, **{**GIVEN, **changes})


def data_of(made):
    return json.loads(re.search(r'application/json">(.*?)</script>', made._repr_html_(), re.S)[1])


def test_data_and_words():
    made = view(at=1)
    assert repr(made) == "Scrubber(3 checkpoints, step 10: validation 6.50, training 6.40)"
    data = data_of(made)
    assert data["at"] == 1
    assert data["steps"] == STEPS
    assert data["series"][1] == ["training", [None, 6.4, 5.0]]
    assert data["samples"] == [["The people", [" x", " of", " of the States"]]]
    assert "validation: 8.00 at first, 5.25 at the end." in made.alt
    assert "training: 6.40 at first" in made.alt
    assert data_of(view())["at"] == 2


def test_fallback_has_a_row_for_each_checkpoint_and_a_line_for_each_series():
    made = view()
    rows = re.findall(r"<tr>(.*?)</tr>", made._table())
    assert len(rows) == 1 + len(STEPS)
    assert re.findall(r"<td>(.*?)</td>", rows[1]) == ["0", "8.00", "–", "9.00", "8.00", " x"]
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', made._repr_html_())[1]
    picture = ElementTree.fromstring(unquote(address))
    lines = [path.get("d") for path in picture.findall(".//{*}path") if path.get("fill") == "none"]
    assert [line.count("L") for line in lines] == [2, 1]  # the gap has no point
    heights = [float(point.split()[1]) for point in lines[0][1:].split("L")]
    assert heights == sorted(heights)  # a falling loss goes down the page


@pytest.mark.parametrize(
    "changes",
    [
        {"series": None, "references": None},
        {"bars": None},
        {"samples": None},
        {"series": {"a": [1.0, 1.0, 1.0]}},
        {"series": {"a": [None, None, None]}, "references": None},
        {"log_x": False, "digits": 0},
    ],
)
def test_parts_may_be_left_out(changes):
    page = view(**changes)._repr_html_()
    assert "nan" not in re.sub(r"<script.*", "", page, flags=re.S).lower()


def test_one_checkpoint():
    assert data_of(Scrubber([5], series={"a": [1.0]}))["at"] == 0


@pytest.mark.parametrize(
    ("steps", "changes", "words"),
    [
        ([], {}, "steps must name 1 to 60"),
        ([0, 10, 10], {}, "ascend"),
        ([0, 10, float("inf")], {}, "no|finite|infinity|integer"),
        (STEPS, {"series": {"a": [1.0, 2.0]}}, "has 2 values for 3 checkpoints"),
        (STEPS, {"series": {"a": [1.0, 2.0, float("nan")]}}, "holds nan"),
        (STEPS, {"series": {"a": [1.0, 2.0, True]}}, "holds True"),
        (STEPS, {"series": {str(n): [1.0] * 3 for n in range(5)}}, "series may hold up to 4, got 5"),
        (STEPS, {"bars": {"a": [1.0, -1.0, 0.0]}}, "below 0"),
        (STEPS, {"samples": {"a": "abc"}}, "one text for each of 3"),
        (STEPS, {"samples": {"a": ["x", 3, "y"]}}, "got 3"),
        (STEPS, {"samples": {"a": ["x", "z" * 2001, "y"]}}, "got 2001"),
        (STEPS, {"series": None}, "give series too"),
        (STEPS, {"at": 3}, "at=3"),
        (STEPS, {"digits": 9}, "digits=9"),
    ],
)
def test_mistakes_are_named(steps, changes, words):
    with pytest.raises(ValueError, match=words):
        Scrubber(steps, **{**GIVEN, **changes})


def test_nothing_to_show():
    with pytest.raises(ValueError, match="nothing to show"):
        Scrubber([0])


def test_sizes_and_hostile_texts():
    names = {name: [1.0, 2.0, 3.0] for name in HOSTILE[:4]}
    samples = dict(zip(HOSTILE[4:8], (HOSTILE[8:11], HOSTILE[:3], HOSTILE[3:6], HOSTILE[6:9]), strict=True))
    made = view(series=names, bars=names, samples=samples, title="</script><b>\ud800")
    page = made._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert len(script("scrubber").encode("utf-8")) <= 20_000
    assert view()._repr_html_() == view()._repr_html_()
