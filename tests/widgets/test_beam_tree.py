"""The beam tree's checks, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import pytest

from llm_from_scratch.widgets import BeamTree
from llm_from_scratch.widgets.html import script
from tests.beam_tables import random_table
from tests.browser.views import HOSTILE

TABLE = {(): ([1, 2], [-0.5, -0.9]), (1,): ([3, 4], [-0.7, -0.7]), (2,): ([3], [-0.1])}
TEXTS = {1: "a", 2: " b", 3: "c", 4: "d"}


def small(**changes):
    return BeamTree(TEXTS, TABLE, **{"max_new_tokens": 2, "max_beams": 2, "num_beams": 2, **changes})


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def picture_of(view):
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view._repr_html_())[1]
    return ElementTree.fromstring(unquote(address))


def test_fallback_speaks():
    view = small()
    assert repr(view) == "BeamTree(2 beams, 2 steps, best ' bc')"
    assert "the best text is ␣bc, log-probability -1.00. Greedy search writes ac, -1.20." in view.alt
    cells = re.findall(r"<td>(.*?)</td>", view._finished_table())
    assert cells[:5] == ["beam search", "␣bc", "2", "-1.000", "-0.500"]
    assert cells[-5:] == ["greedy", "ac", "2", "-1.200", "-0.600"]
    picture = picture_of(view)
    kinds = [box.get("class") for box in picture.findall(".//{*}rect")]
    assert kinds == ["b", "kept best", "kept", "kept best", "ended best", "ended", "dropped"]


def test_data_carry_the_table():
    data = data_of(small())
    assert data["table"]["1"] == [[3, 4], [-0.7, -0.7]]
    assert data["table"][""][0] == [1, 2]
    assert data["texts"]["2"] == [" b", "␣b"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_beams": 3}, "num_beams=3 must be a whole number from 1 to 2"),
        ({"max_beams": 7}, "max_beams=7"),
        ({"max_new_tokens": 17}, "max_new_tokens=17 must be a whole number from 1 to 16"),
        ({"max_new_tokens": 3}, r"the table lacks the text \(2, 3\)"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"length_penalty": True}, "length_penalty=True"),
        ({"early_stopping": "always"}, "early_stopping='always'"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        small(**changes)


@pytest.mark.parametrize(
    ("texts", "table", "words"),
    [
        (TEXTS, {(1,): ([3], [-1.0])}, r"lacks the empty text \(\)"),
        (TEXTS, {**TABLE, (1,): ([3, 4], [-1.0])}, "as many log-probabilities as tokens"),
        ({1: "a", 2: "b", 3: "c"}, TABLE, "texts lacks token 4"),
        (TEXTS, {**TABLE, (1,): ([3], [float("nan")])}, "finite log-probabilities"),
        (TEXTS, {**TABLE, (1,): ([3], [0.5])}, "finite log-probabilities"),
        ({**TEXTS, 1: 5}, TABLE, r"tokens\[0\] is 5"),
    ],
)
def test_damaged_tables_are_named(texts, table, words):
    with pytest.raises(ValueError, match=words):
        BeamTree(texts, table, max_new_tokens=2, max_beams=2, num_beams=2)


def test_sizes_and_hostile_texts():
    _, texts, table, arguments = random_table(1, texts=HOSTILE)
    view = BeamTree(texts, table, **arguments, title="</script><b>\ud800", caption="<!--")
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    picture_of(view)
    assert len(script("beam_tree").encode("utf-8")) <= 20_000
    assert (
        BeamTree(texts, table, **arguments)._repr_html_() == BeamTree(texts, table, **arguments)._repr_html_()
    )
