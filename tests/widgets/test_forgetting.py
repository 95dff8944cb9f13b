"""The explorer of forgetting: its checks, its numbers, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from urllib.parse import unquote

import pytest

from llm_from_scratch.widgets import AdaptationPath, ForgettingExplorer
from llm_from_scratch.widgets.html import script
from tests.browser.views import HOSTILE

FULL = AdaptationPath(
    at=[0, 10, 100], new=[5.0, 4.5, 4.0], old=[4.0, 3.998, 4.75], samples={"Now": [" a", " b", " c"]}
)
MIXED = AdaptationPath(at=[0, 0.5], new=[5.0, 5.25], old=[4.0, 3.5], at_name="share")
PATHS = {"full": FULL, "between": MIXED}


def view(paths=PATHS, **changes):
    return ForgettingExplorer(paths, **{"points": {"anew": (4.5, 5.0)}, **changes})


def data_of(made):
    return json.loads(re.search(r'application/json">(.*?)</script>', made._repr_html_(), re.S)[1])


def rows_of(made):
    rows = re.findall(r"<tr>(.*?)</tr>", made._repr_html_())
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_data_and_words():
    made = view(at=-1)
    assert repr(made) == "ForgettingExplorer(2 paths, full at step 100: gained +1.00, lost +0.75)"
    assert repr(view(path="between")).endswith("between at share 0.5: gained −0.25, lost −0.50)")
    data = data_of(view(path="between", at=0))
    assert (data["path"], data["at"], data["points"]) == (1, 0, [["anew", 4.5, 5.0]])
    assert data["paths"][0] == {
        "name": "full", "at_name": "step", "at": [0, 10, 100], "new": [5.0, 4.5, 4.0],
        "old": [4.0, 3.998, 4.75], "samples": [["Now", [" a", " b", " c"]]],
    }  # fmt: skip
    assert "a loss of 5.00 (new domain) and 4.00 (old domain)" in made.alt
    assert "full: at the end gained +1.00, lost +0.75." in made.alt


def test_the_table_has_a_row_a_checkpoint_and_the_texts_of_the_ends():
    head, *rows = rows_of(view(new_name="since 1946"))
    assert head == [
        "Path",
        "Checkpoint",
        "Loss, since 1946",
        "Loss, old domain",
        "Gained",
        "Lost",
        "Now",
    ]
    assert rows == [
        ["1 full", "step 0", "5.00", "4.00", "0.00", "0.00", " a"],
        ["1 full", "step 10", "4.50", "4.00", "+0.50", "0.00", ""],  # −0.002 is no loss that shows
        ["1 full", "step 100", "4.00", "4.75", "+1.00", "+0.75", " c"],
        ["2 between", "share 0", "5.00", "4.00", "0.00", "0.00", ""],
        ["2 between", "share 0.5", "5.25", "3.50", "−0.25", "−0.50", ""],
    ]
    assert rows_of(view(digits=3))[2][5] == "−0.002"


def test_the_picture_leads_left_for_a_gain_and_up_for_a_loss():
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view()._repr_html_())[1]
    picture = ElementTree.fromstring(unquote(address))
    lines = [path.get("d")[1:].split("L") for path in picture.findall(".//{*}path") if "L" in path.get("d")]
    full, between = ([tuple(map(float, point.split())) for point in line] for line in lines)
    assert full[0] == between[0]
    assert full[2][0] < full[1][0] < full[0][0] < between[1][0]
    assert full[2][1] < full[0][1] < between[1][1]  # y grows down the page
    assert "anew" in unquote(address)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"paths": {}}, "1 to 9 ways of adapting, got 0"),
        ({"paths": {str(n): FULL for n in range(10)}}, "1 to 9 ways of adapting, got 10"),
        ({"paths": {"a": {"at": [0, 1]}}}, "must be an AdaptationPath, got dict"),
        ({"paths": {"a": replace(FULL, at=[0])}}, "has one checkpoint"),
        ({"paths": {"a": replace(FULL, at=[0, 2, 2])}}, "ascend"),
        ({"paths": {"a": replace(FULL, at=range(61))}}, "1 to 60 checkpoints, got 61"),
        ({"paths": {"a": replace(FULL, new=[1.0, 2.0])}}, "has 2 values for 3 checkpoints"),
        ({"paths": {"a": replace(FULL, old=[1.0, None, 2.0])}}, "both losses at every checkpoint"),
        ({"paths": {"a": replace(FULL, old=[1.0, float("nan"), 2.0])}}, "holds nan"),
        ({"paths": {"a": replace(FULL, samples={"p": ["x"]})}}, "one text for each of 3"),
        ({"paths": {"a": replace(FULL, samples={"p": ["x", "y" * 2001, "z"]})}}, "got 2001"),
        ({"paths": {"a": FULL, "b": replace(FULL, new=[6.0, 5.0, 4.0])}}, r"paths\['b'\] begins at"),
        ({"paths": {"a": FULL, "b": replace(FULL, old=[4.01, 5.0, 4.0])}}, r"paths\['b'\] begins at"),
        ({"points": {"p": (1.0,)}}, "has 1 values for 2"),
        ({"points": {"p": (1.0, None)}}, "points must hold two numbers each"),
        ({"points": {str(n): (1.0, 2.0) for n in range(5)}}, "points may hold up to 4, got 5"),
        ({"path": "none"}, "path='none' is none of the paths, which are full, between"),
        ({"at": 3}, "at=3"),
        ({"path": "between", "at": 2}, "at=2 must be one of 2 checkpoints"),
        ({"digits": 5}, "digits=5"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        view(**changes)


def test_paths_that_do_not_move():
    still = AdaptationPath(at=[0, 1], new=[1.0, 1.0], old=[2.0, 2.0])
    page = ForgettingExplorer({"still": still})._repr_html_()
    assert "nan" not in re.sub(r"<script.*", "", page, flags=re.S).lower()


def test_numbers_of_paths_with_one_end_stand_apart():
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view({"a": FULL, "b": FULL})._repr_html_())[1]
    texts = ElementTree.fromstring(unquote(address)).findall(".//{*}text")
    first, second = (float(text.get("y")) for text in texts if text.text in ("1", "2"))
    assert second - first > 12


def test_sizes_and_hostile_texts():
    samples = dict(zip(HOSTILE[:2], (HOSTILE[2:5], HOSTILE[5:8]), strict=True))
    paths = {name: replace(FULL, samples=samples, at_name=HOSTILE[0]) for name in HOSTILE[:9]}
    words = dict.fromkeys(("title", "caption", "alt", "new_name", "old_name", "unit"), HOSTILE[0] + "\ud800")
    made = view(paths, points={name: (4.0, 4.0) for name in HOSTILE[:4]}, **words)
    page = made._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("<img") == 1
    source = script("forgetting")
    assert len(source.encode("utf-8")) <= 30_000
    assert "//= " not in source
    assert not re.search(r"\b(import|require|fetch|XMLHttpRequest|eval)\b", source)
    assert view()._repr_html_() == view()._repr_html_()
