"""The sampling playground in Chromium: its numbers against torch and the package's own filters."""

import csv
import io
import json
import math
import random
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from llm_from_scratch.decoding.logits import apply_temperature, keep_min_p, keep_top_k, keep_top_p
from tests.browser.views import HOSTILE, sampling_view

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"


@pytest.fixture
def page(open_widgets):
    view, logits = sampling_view()
    page = open_widgets(view)
    page.logits = logits
    return page


def reshaped(logits, settings):
    """The probabilities after the package's filters, most likely first."""
    ranked = apply_temperature(
        logits.sort(descending=True, stable=True).values, temperature=settings["temperature"]
    )
    if settings["top_k"]:
        ranked = keep_top_k(ranked, top_k=settings["top_k"])
    ranked = keep_top_p(ranked, top_p=settings["top_p"])
    return keep_min_p(ranked, min_p=settings["min_p"]).softmax(-1)


def test_temperature_equals_torch_on_the_whole_vocabulary(page):
    for temperature in (0.05, 0.7, 1.0, 2.3, 5.0):
        page.evaluate(f"(temperature) => {API}.set({{ temperature }})", temperature)
        text = page.evaluate(f"() => JSON.stringify(Array.from({API}.result().probabilities))")
        found = torch.tensor(json.loads(text), dtype=torch.float64)
        expected = (page.logits.sort(descending=True).values / temperature).softmax(-1)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
        # The tail travels as uint16: each of its probabilities is off by range / (131070 T) of itself.
        assert torch.allclose(found, expected, rtol=3e-3, atol=0)


def test_filters_equal_the_package(page):
    generator = random.Random(5)
    for _ in range(60):
        settings = {
            "temperature": round(generator.uniform(0.1, 3.0), 3),
            "top_k": generator.choice([0, 1, 2, 17, 300, 5003, 9999]),
            "top_p": generator.choice([1.0, round(generator.uniform(0.01, 1.0), 3)]),
            "min_p": generator.choice([0.0, 1.0, round(generator.uniform(0.0, 0.4), 3)]),
        }
        # As one string: Playwright takes long over lists of thousands of numbers.
        text = page.evaluate(
            f"(s) => JSON.stringify(Array.from({API}.filter({API}.logits, s).probabilities))", settings
        )
        found = torch.tensor(json.loads(text), dtype=torch.float64)
        expected = reshaped(page.logits.float().double(), settings)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5), settings
        # A cut may move by one token where the sum meets top_p within rounding of the tail.
        assert abs((found > 0).sum() - (expected > 0).sum()) <= 1, settings


def test_filters_keep_ties_by_rank(page):
    tied = "new Float64Array([2, 2, 2, 1])"
    off = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
    for change, kept in (({"top_k": 2}, 2), ({"top_p": 0.3}, 2), ({"min_p": 1.0}, 3), ({"top_p": 0.001}, 1)):
        found = page.evaluate(f"(s) => Array.from({API}.filter({tied}, s).probabilities)", {**off, **change})
        assert sum(p > 0 for p in found) == kept
        assert math.isclose(sum(found), 1)


def test_controls_change_the_view(page):
    page.get_by_label("Temperature, exact value").fill("0.5")
    page.get_by_label("Top-k, exact value").fill("7")
    expected = reshaped(page.logits, {"temperature": 0.5, "top_k": 7, "top_p": 1.0, "min_p": 0.0})
    row = page.locator(".widget tbody tr").first.locator("td")
    assert row.nth(2).text_content() == f"{expected[0].item():.4f}"
    assert page.locator(".widget tbody tr.dropped").count() == 5
    assert page.locator(".widget tbody tr").nth(7).locator("td").nth(2).text_content() == "top-k"
    entropy = -(expected[:7] * expected[:7].log2()).sum().item()
    facts = page.locator(".facts b").all_text_contents()
    assert facts[:3] == [f"{entropy:.2f}", f"{2**entropy:.1f}", "7"]
    slider = page.get_by_role("slider", name="Temperature")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"() => {API}.settings.temperature") == 0.55
    assert page.get_by_label("Temperature, exact value").input_value() == "0.55"
    page.wait_for_timeout(500)
    assert "Entropy" in page.locator("[aria-live=polite]").text_content()
    page.get_by_label("Top-k, exact value").fill("")  # while typing: nothing changes
    assert page.evaluate(f"() => {API}.settings.top_k") == 7
    page.get_by_label("Temperature, exact value").fill("-3")  # below the limit: the limit
    assert page.evaluate(f"() => {API}.settings.temperature") == 0.05
    page.get_by_role("button", name="Reset all settings").click()
    assert page.get_by_label("Temperature, exact value").input_value() == "1"
    assert page.locator(".widget tbody tr.dropped").count() == 0


def test_draws_follow_the_theory(page):
    """The p value of the chi-square test is torch's; over 200 seeds it is spread evenly, as it must be."""
    result = page.evaluate(
        f"""() => {{
          const {{ filter, draw, compare, logits }} = {API};
          const settings = {{ temperature: 0.8, top_k: 40, top_p: 1, min_p: 0 }};
          const {{ probabilities, kept }} = filter(logits, settings);
          return Array.from({{ length: 200 }}, (_, seed) => {{
            const counts = draw(probabilities, kept.min_p, 2000, seed);
            const total = counts.reduce((a, b) => a + b);
            return {{ ...compare(probabilities, kept.min_p, counts, 2000), total }};
          }});
        }}"""
    )
    values = torch.tensor([trial["p"] for trial in result], dtype=torch.float64).sort().values
    for trial in result:
        assert trial["total"] == 2000
        half = torch.tensor([trial["freedom"] / 2, trial["chi2"] / 2], dtype=torch.float64)
        assert abs(trial["p"] - torch.special.gammaincc(half[0], half[1]).item()) < 1e-9
    # Kolmogorov and Smirnov: 1.95 / sqrt(200) is exceeded once in 1,000 for fair draws; the seeds are fixed.
    even = (torch.arange(200) + 0.5) / 200
    assert (values - even).abs().max() < 1.95 / math.sqrt(200)
    # What the page calls usual is the mean of the total variation over fair draws.
    variation = sum(trial["variation"] for trial in result) / 200
    assert abs(variation / result[0]["usual"] - 1) < 0.03


def test_chi_square_by_hand(page):
    compare = f"([p, kept, counts, n]) => {API}.compare(p, kept, counts, n)"
    found = page.evaluate(compare, [[0.25, 0.25, 0.25, 0.25], 4, [30, 20, 25, 25], 100])
    assert (found["freedom"], found["chi2"]) == (3, 2.0)
    assert math.isclose(found["variation"], 0.05)
    # Half of four times E|X - 25| / 100 for binomial X(100, 1/4), which is 3.4425 (de Moivre).
    assert math.isclose(found["usual"], 2 * 3.4425 / 100, rel_tol=0.01)
    # 3.6 and 2.4 expected draws make one cell of 6; nothing is left over.
    found = page.evaluate(compare, [[0.9, 0.06, 0.04, 0.0], 3, [49, 4, 7, 0], 60])
    assert found["freedom"] == 1
    assert math.isclose(found["chi2"], 25 / 54 + 25 / 6)
    # One token kept: nothing to test.
    assert page.evaluate(compare, [[1, 0], 1, [50, 0], 50])["p"] is None


def test_same_seed_same_draws_and_another_differs(page):
    counts = f"() => Array.from({API}.counts())"
    first = page.evaluate(counts)
    assert sum(first) == 1000
    page.get_by_role("button", name="Next seed").click()
    second = page.evaluate(counts)
    page.get_by_label("Seed").fill("0")
    assert second != first
    assert page.evaluate(counts) == first
    assert page.evaluate(f"() => {{ const g = {API}.generator(1); return [g(), g()]; }}") == [
        0.6270739405881613,
        0.002735721180215478,
    ]


def test_table_adds_up(page):
    assert page.locator(".widget tbody tr").count() == 13
    counts = [
        int(text.replace(",", ""))
        for text in page.locator(".widget tbody tr td:nth-child(5)").all_text_contents()
    ]
    assert sum(counts) == 1000
    page.get_by_role("button", name="More tokens").click()
    assert page.locator(".widget tbody tr").count() == 49
    page.get_by_label("Draws").fill("0")
    assert page.locator(".verdict").text_content() == "No draws."


def test_exports(open_widgets):
    tokens = [*HOSTILE, *(f" w{i}" for i in range(400))]
    view, logits = sampling_view(tokens=tokens, temperature=0.9, top_p=0.9)
    page = open_widgets(view)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == 1 + 200 + 1
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    expected = reshaped(logits, {"temperature": 0.9, "top_k": 0, "top_p": 0.9, "min_p": 0.0})
    for rank, line in enumerate(table[:200]):
        assert abs(float(line["probability"]) - expected[rank].item()) < 1e-5
        token = tokens[int(line["id"])].replace("\ud800", "\ufffd")
        assert line["token"] == ("'" + token if token.startswith("=") else token)
    assert abs(sum(float(line["probability"]) for line in table) - 1) < 1e-5
    assert sum(int(line["draws"]) for line in table) == 1000
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert len(root.findall(".//{*}text")) >= 2 + 2 * 12
    assert page.evaluate("window.hacked") is None


def test_two_on_a_page_and_a_vocabulary_of_one(open_widgets):
    view, _ = sampling_view(size=31)
    single, _ = sampling_view(size=1)
    page = open_widgets(view, view, single)
    assert page.locator(".widget").count() == 3
    page.locator(".widget").nth(1).get_by_label("Top-k, exact value").fill("3")
    kept = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.result().kept.min_p)"
    )
    assert kept == [31, 3, 1]
    assert page.locator(".widget").nth(2).locator("tbody tr").count() == 1
