"""The projection explorer's data: what is checked, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from llm_from_scratch.widgets import ProjectionExplorer, html
from llm_from_scratch.widgets.projection import MAX_WORDS, _fit, _hundredths

WORDS = ["war", "peace", "year", "month", "treaty"]
AT = [[0.0, 1.0], [0.5, 1.5], [-2.0, -1.0], [-2.5, 0.25], [3.0, 0.0]]
NEAR = [[1, 4], [0, 4], [3, 0], [2, 1], [1, 0]]
SIMILAR = [[0.9, 0.5], [0.9, 0.6], [0.8, -0.1], [0.8, 0.0], [0.6, 0.5]]


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def picture_of(view):
    return ElementTree.fromstring(view._picture())


def test_data_travels_unchanged():
    view = ProjectionExplorer(WORDS, torch.tensor(AT), torch.tensor(NEAR), SIMILAR, chosen="year")
    data = data_of(view)
    assert (data["words"], data["at"], data["near"], data["similar"]) == (WORDS, AT, NEAR, SIMILAR)
    assert data["chosen"] == 2
    assert view.alt.endswith("Nearest to year: month, war.")
    assert repr(view) == "ProjectionExplorer(5 words, 2 neighbours each)"


def test_javascript_is_small():
    source = html.script("projection")
    assert len(source.encode()) <= 15_000
    assert "</script" not in source.lower()
    assert "<!--" not in source


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"words": []}, "tokens is empty"),
        ({"words": "abcde"}, "single string"),
        ({"words": ["w"] * (MAX_WORDS + 1)}, f"401 words are more than the {MAX_WORDS}"),
        ({"positions": AT[:4]}, r"shape \(5, 2\), a row a word, got \(4, 2\)"),
        ({"positions": [[*row, 0.0] for row in AT]}, r"got \(5, 3\)"),
        ({"positions": [*AT[:3], [np.nan, 0.0], AT[4]]}, r"positions\[3\] is \[nan, 0.0\]"),
        ({"positions": [*AT[:3], [1e200, 0.0], AT[4]]}, "positions reach 1e\\+200"),
        ({"neighbours": NEAR[:3]}, r"shape \(5, K\)"),
        ({"neighbours": [[] for _ in WORDS], "similarities": [[] for _ in WORDS]}, "K from 1 to 20"),
        ({"similarities": [row[:1] for row in SIMILAR]}, r"similarities must have the shape"),
        ({"neighbours": [*NEAR[:4], [5, 0]]}, r"neighbours\[4\] holds 5: places are whole, 0 to 4"),
        ({"neighbours": [*NEAR[:4], [-1, 0]]}, r"neighbours\[4\] holds -1"),
        ({"neighbours": [*NEAR[:4], [0.5, 0]]}, r"neighbours\[4\] holds 0.5"),
        ({"neighbours": [*NEAR[:4], [4, 0]]}, r"neighbours\[4\] holds 4 itself"),
        ({"neighbours": [*NEAR[:4], [1, 1]]}, r"neighbours\[4\] names a word twice: \[1, 1\]"),
        ({"similarities": [*SIMILAR[:4], [np.inf, 0]]}, r"similarities\[4\] is \[inf, 0.0\]"),
        ({"similarities": [*SIMILAR[:4], [0.1, 0.2]]}, r"similarities\[4\] rises"),
        ({"chosen": "cat"}, "chosen is 'cat', which is not among the 5 words"),
    ],
)
def test_bad_data_is_named(change, words):
    given = {"words": WORDS, "positions": AT, "neighbours": NEAR, "similarities": SIMILAR, **change}
    with pytest.raises(ValueError, match=words):
        ProjectionExplorer(**given)


def test_picture_keeps_shape_and_direction():
    at = _fit(np.array(AT), 640, 460, 28)
    assert at.min() >= 28 - 1e-9
    assert (at <= [612 + 1e-9, 432 + 1e-9]).all()
    given = np.linalg.norm(np.diff(AT, axis=0), axis=1)
    drawn = np.linalg.norm(np.diff(at, axis=0), axis=1)
    assert np.allclose(drawn / given, drawn[0] / given[0])  # one scale
    assert at[1, 1] < at[0, 1]  # up is up
    assert at[4, 0] > at[0, 0]
    assert np.allclose(_fit(np.zeros((3, 2)), 640, 460, 28), [320, 230])  # all in one place


def test_names_in_the_picture_do_not_touch():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(101)]
    near = [[(i + 1) % 101] for i in range(101)]
    places = rng.normal(size=(101, 2)) * [3, 1]
    view = ProjectionExplorer(words, places, near, np.ones((101, 1)), chosen="word57")
    texts = picture_of(view).findall("{*}text")[:-1]
    ends = [7 * len(t.text) * (t.get("text-anchor") == "end") for t in texts]
    boxes = [
        (float(t.get("x")) - e, float(t.get("y")), len(t.text)) for t, e in zip(texts, ends, strict=True)
    ]
    assert texts[0].text == "word57"
    assert any(ends)
    assert 10 < len(boxes) < 101
    for i, (x, y, n) in enumerate(boxes):
        assert x + 7 * n < 645
        for u, v, m in boxes[:i]:
            assert abs(y - v) >= 13 or x >= u + 7 * m - 2 or u >= x + 7 * n - 2


def test_fallback_speaks():
    view = ProjectionExplorer(WORDS, AT, NEAR, SIMILAR, title="T<1>", caption="C&2", measure="cos<ine")
    page = view._repr_html_()
    assert "T&lt;1&gt;" in page
    assert "C&amp;2" in page
    assert page.count("<tr>") == 1 + len(WORDS)
    assert "<td>year</td><td>month 0.80, war −0.10</td>" in page
    assert len(picture_of(view).findall(".//{*}circle")) == len(WORDS)


def test_hostile_words_stay_text():
    words = ["</script><b onclick=x>", 'q"\u202e\ud800', "", "<!--"]
    view = ProjectionExplorer(words, np.eye(4)[:, :2], [[1], [0], [0], [0]], [[1.0]] * 4)
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert data_of(view)["words"] == words
    assert "".join(picture_of(view).itertext()).count("</script><b␣oncli…") == 1


@pytest.mark.parametrize(("x", "text"), [(0.125, "0.12"), (-0.5, "−0.50"), (-0.001, "0.00"), (1, "1.00")])
def test_numbers(x, text):
    assert _hundredths(x) == text
