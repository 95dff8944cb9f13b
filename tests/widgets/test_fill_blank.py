"""Fill in the blank: what travels, what the fallback says, what is refused."""

import json
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from llm_from_scratch.widgets import FillBlank
from llm_from_scratch.widgets.html import script
from tests.browser.views import HOSTILE

VOCABULARY = ["the", "##s", "cat", "sat", "mat"]
TOKENS = ["the", "cat", "##s", "sat"]
ROWS = [
    [0.5, 0.125, 0.125, 0.125, 0.125],
    [0.2, 0.1, 0.3, 0.0, 0.4],
    [0.0, 1.0, 0.0, 0.0, 0.0],
    [0.3, 0.3, 0.1, 0.3, 0.0],
]


def small(**changes):
    return FillBlank([TOKENS], [ROWS], VOCABULARY, **changes)


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def test_what_travels():
    blanks = data_of(small(place=1))["sentences"][0]["blanks"]
    assert [token for token, _, _ in blanks[1]["top"]] == ["mat", "cat", "the", "##s", "sat"]
    assert blanks[1]["answer"] == [0.3, 2]
    assert [one["entropy"] for one in blanks] == [2.0, 1.85, 0.0, 1.9]
    assert blanks[3]["answer"] == [0.3, 1]  # ties share the better rank


def test_fallback_speaks():
    view = small(place=1)
    assert repr(view) == "FillBlank(1 sentence, place 1: 'cat' has probability 0.30, rank 2)"
    assert view.alt.startswith("the ____ ##s sat The likeliest tokens for the blank: mat 0.40, cat 0.30, the")
    assert "has probability 0.30 and rank 2." in view.alt
    cells = re.findall(r"<td>(.*?)</td>", view._table())
    assert cells[5:9] == ["cat", "0.300", "2", "1.9"]
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view._repr_html_())[1]
    bars = ElementTree.fromstring(unquote(address)).findall(".//{*}rect")[1:]
    assert [bar.get("class") for bar in bars] == ["c", "a", "c", "c", "c"]
    assert float(bars[0].get("width")) == 280.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FillBlank([], [], VOCABULARY), "0 sentences were given"),
        (lambda: FillBlank([TOKENS], [], VOCABULARY), "1 sentences need as many arrays, got 0"),
        (lambda: FillBlank([TOKENS], [ROWS[:3]], VOCABULARY), r"shape \[4, 5\]"),
        (lambda: FillBlank([TOKENS], [np.array(ROWS) * 2], VOCABULARY), "sum to 1"),
        (lambda: FillBlank([TOKENS], [np.full((4, 5), np.nan)], VOCABULARY), "sum to 1"),
        (lambda: FillBlank([["dog", *TOKENS[1:]]], [ROWS], VOCABULARY), "lacks 'dog', a token of sentence 0"),
        (lambda: FillBlank([["the"] * 65], [[ROWS[0]] * 65], VOCABULARY), "65 tokens"),
        (lambda: small(place=4), "place=4 must be a whole number from 0 to 3"),
        (lambda: small(sentence=True), "sentence=True"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_sizes_and_hostile_texts():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(len(HOSTILE)), size=len(HOSTILE))
    view = FillBlank([HOSTILE], [rows], HOSTILE, title="</script><b>\ud800", caption="<!--")
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert len(script("fill_blank").encode("utf-8")) <= 30_000
    assert (
        page
        == FillBlank([HOSTILE], [rows], HOSTILE, title="</script><b>\ud800", caption="<!--")._repr_html_()
    )


class Letters:
    vocab_size = 5

    def encode(self, text):
        return [VOCABULARY.index(word) for word in text.split()]

    def tokens_as_text(self, ids):
        return [VOCABULARY[i] for i in ids]


class Model:
    def blank_probabilities(self, ids):
        return torch.tensor([ROWS[i % 4] for i in range(len(ids))])


def test_live_asks_the_model():
    box = FillBlank.live(Model(), Letters(), "cat sat", title="T")
    assert box.view.sentences == [["cat", "sat"]]
    assert box.view.title == "T"
    box.text.value = "mat the cat"
    box.run.click()
    assert len(box.view.blanks[0]) == 3
    box.text.value = ""
    box.run.click()
    assert "the text is empty" in box.status.value
    with pytest.raises(ValueError, match="blank_probabilities"):
        FillBlank.live(Letters(), Letters(), "cat")
