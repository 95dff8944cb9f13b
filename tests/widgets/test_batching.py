"""The batching timeline's checks, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pytest

from llm_from_scratch.widgets import BatchingTimeline
from llm_from_scratch.widgets.html import script

REQUESTS = [(0, 5, 2), (0, 3, 1), (1, 1, 1)]


def small(requests=REQUESTS, **changes):
    return BatchingTimeline(requests, **{"slots": 2, "prefill_chunk": 4, **changes})


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def picture_of(view):
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view._repr_html_())[1]
    return ElementTree.fromstring(unquote(address))


def test_fallback_speaks():
    view = small()
    assert repr(view) == "BatchingTimeline(3 requests, 2 slots, static 4 steps, continuous 3 steps)"
    assert view.alt == (
        "3 requests on 2 slots: static batching takes 4 steps, 50% of the slots of all steps draw a token, "
        "and a request waits 0.7 steps on average; continuous batching takes 3 steps, 67% of the slots of "
        "all steps draw a token, and a request waits 0.3 steps on average."
    )
    page = view._repr_html_()
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    rows = [row for row in rows if row]
    assert [row[1:] for row in rows[:5]] == [
        ["4", "3"], ["50.0 %", "66.7 %"], ["1.00", "1.33"], ["0.67", "0.33"], ["2", "1"]
    ]  # fmt: skip
    assert rows[5:] == [
        ["A", "0", "5", "2", "1", "3", "0", "1", "3", "0"],
        ["B", "0", "3", "1", "1", "2", "0", "1", "2", "0"],
        ["C", "1", "1", "1", "4", "4", "2", "3", "3", "1"],
    ]


def test_picture_shows_both_schedules():
    picture = picture_of(small())
    kinds = [box.get("class") for box in picture.findall(".//{*}rect")[1:]]
    continuous = ["p0", "h1", "e0", "e1", "f0", "e2"]
    assert kinds == [*continuous[:-1], "e2", *continuous]
    letters = "".join(text.text for text in picture.findall(".//{*}text") if len(text.text) == 1)
    assert letters == "ABABABC" + "ABABAC" + "1"
    hatches = [path.get("d").count("M") // 3 for path in picture.findall(".//{*}path")]
    assert hatches == [2, 0]  # B's padding and the empty slot beside C


def test_one_request_of_one_token():
    view = small([(0, 1, 1)], slots=1)
    assert view.alt.startswith("1 request on 1 slot: static batching takes 1 step, 100%")
    assert [counts.used for counts in view.counts.values()] == [1.0, 1.0]


def test_data_carry_the_requests():
    data = data_of(small(np.array(REQUESTS)))
    assert data["requests"] == [list(request) for request in REQUESTS]
    assert (data["slots"], data["prefill_chunk"], data["batching"]) == (2, 4, "continuous")


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "requests is empty"),
        (5, "requests=5 must be a list of triples"),
        ([5], "must be a list of triples"),
        ([(0, 1)], r"requests\[0\]=\(0, 1\) must be three whole numbers"),
        ([(0, 1, 1), (-1, 1, 1)], r"requests\[1\], arrival=-1 must be a whole number from 0 to 60"),
        ([(0, 0, 1)], r"requests\[0\], prompt=0 must be a whole number from 1 to 64"),
        ([(0, 1, -3)], r"requests\[0\], answer=-3 must be a whole number from 1 to 32"),
        ([(0, 1, 33)], "answer=33"),
        ([(0, 1.0, 1)], "prompt=1.0"),
        ([(0, 1, True)], "answer=True"),
        (["abc"], "arrival='a'"),
    ],
)
def test_wrong_requests_are_named(requests, words):
    with pytest.raises(ValueError, match=words):
        small(requests)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slots": 0}, "slots=0 must be a whole number from 1 to 8"),
        ({"slots": 9}, "slots=9"),
        ({"slots": True}, "slots=True"),
        ({"prefill_chunk": 0}, "prefill_chunk=0 must be a whole number from 1 to 512"),
        ({"batching": "dynamic"}, "batching='dynamic'"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        small(**changes)


def test_too_many_requests_are_cut():
    with pytest.warns(UserWarning, match="13 requests are more than a timeline shows; the first 12") as told:
        view = small([(n, 2, 3) for n in range(13)])
    assert told[0].filename == __file__
    assert len(data_of(view)["requests"]) == 12


def test_the_largest_stays_small():
    view = BatchingTimeline([(60, 64, 32)] * 12, slots=8, prefill_chunk=1)
    assert "(the first 120 of 880 steps)" in "".join(picture_of(view).itertext())
    assert len(view._repr_html_()) <= 300_000


def test_hostile_words_and_same_html():
    view = small(title="</script><b>\ud800", caption="<!--", alt='"><b>')
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert small()._repr_html_() == small()._repr_html_()
    assert not re.search(r'\sid="', page)


def test_script_is_small_and_alone():
    source = script("batching")
    assert len(source.encode("utf-8")) <= 30_000
    assert "</script" not in source.lower()
    assert "<!--" not in source
    assert not re.search(r"\b(import|require|fetch|XMLHttpRequest|eval)\b", source)
    assert set(re.findall(r"https?://[^\"'` ]+", source)) == {"http://www.w3.org/2000/svg"}
