"""The sampling playground's data: what is checked, what is shipped, and how exactly."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from llm_from_scratch.widgets import SamplingPlayground


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def unpack(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype="<" + dtype)


def playground(size=5, **options):
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return SamplingPlayground([f"t{i}" for i in range(size)], logits, **options), logits


def test_logits_travel_sorted():
    view, logits = playground(4999)
    data = data_of(view)
    ranked = logits.double().sort(descending=True, stable=True)
    assert np.array_equal(unpack(data["logits"], "f4"), ranked.values[:4096].float().numpy())
    tail = data["tailLow"] + data["tailStep"] * unpack(data["tail"], "u2")
    assert len(tail) == 4999 - 4096
    assert np.abs(tail - ranked.values[4096:].numpy()).max() <= data["tailStep"] / 2 * 1.0001
    assert data["ids"] == ranked.indices[:200].tolist()
    assert data["tokens"] == [f"t{i}" for i in data["ids"]]


def test_ties_stand_in_the_order_of_their_ids():
    view = SamplingPlayground(list("abcd"), [1.0, 2.0, 1.0 + 1e-12, 2.0])
    assert data_of(view)["ids"] == [1, 3, 0, 2]
    view = SamplingPlayground([str(i) for i in range(97)], np.arange(97) % 3)  # many: unstable sorts mix them
    assert data_of(view)["ids"] == [i for rest in (2, 1, 0) for i in range(rest, 97, 3)]


def test_gpt2_vocabulary_stays_below_the_limit():
    view, _ = playground(50_257)
    assert len(view._repr_html_()) < 220_000


def test_large_output_warns():
    with pytest.warns(UserWarning, match="because its vocabulary has 200,000 tokens"):
        playground(200_000)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)])
def test_one_position_of_logits(shape):
    SamplingPlayground(list("abcde"), torch.zeros(shape))


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.zeros(2, 5), r"got \[2, 5\]: pick one position"),
        (torch.zeros(4), "4 entries, but there are 5 tokens"),
        (torch.tensor([0, 1, torch.nan, 0, 0]), r"logits\[2\] is nan"),
        (torch.tensor([0, 1, 0, -torch.inf, 0]), r"logits\[3\] is -inf.*filtering"),
        ([1e31, 0, 0, 0, 0], "do not fit float32"),
        (torch.tensor(1.0), r"got \[\]"),
    ],
)
def test_bad_logits(logits, words):
    with pytest.raises(ValueError, match=words):
        SamplingPlayground(list("abcde"), logits)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [0, -1, 6, float("nan"), "warm", None]),
        ("top_k", [0, -1, 1.5, True]),
        ("top_p", [0, -0.1, 1.1, float("nan")]),
        ("min_p", [-0.1, 1.1, float("inf")]),
        ("draws", [-1, 100_001, 0.5, None]),
        ("seed", [-1, 2**32, 0.5]),
    ],
)
def test_bad_settings(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name} must be .*got "):
            playground(**{name: value})


def test_settings_travel():
    view, _ = playground(temperature=0.7, top_k=9, top_p=0.9, min_p=0.1, draws=10, seed=3)
    assert data_of(view)["settings"] == {
        "temperature": 0.7,
        "top_k": 5,  # no more than there are
        "top_p": 0.9,
        "min_p": 0.1,
        "draws": 10,
        "seed": 3,
    }
    assert data_of(playground()[0])["settings"] == {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "draws": 1000,
        "seed": 0,
    }


def test_fallback_holds_the_probabilities():
    view, logits = playground(31, prompt="a <b>")
    page = view._repr_html_()
    best = int(logits.argmax())
    probability = logits.double().softmax(-1)[best].item()
    assert f"<td>t{best}</td><td>{logits[best]:.3f}</td><td>{probability:.4f}</td>" in page
    assert "all other 19" in page
    assert f"t{best} {probability:.3f}" in view.alt
