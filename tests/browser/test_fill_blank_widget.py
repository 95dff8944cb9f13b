"""Fill in the blank in Chromium: its keyboard, its words, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from playwright.sync_api import expect

from llm_from_scratch.widgets import FillBlank
from tests.browser.views import HOSTILE, wait_until

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
WORDS = ["the", "##s", "people", "of", "states", "union", "congress", "year", "must", "and", "law", "."]


def view(seed=1, words=WORDS, **options):
    rng = np.random.default_rng(seed)
    sentences = [[words[i] for i in rng.integers(len(words), size=n)] for n in (7, 5)]
    rows = [rng.dirichlet(np.full(len(words), 0.5), size=n) for n in (7, 5)]
    return FillBlank(sentences, rows, words, **{"title": "A <blank>", **options})


def hostile():
    return view(words=HOSTILE, title=HOSTILE[0], alt=HOSTILE[7])


def test_keyboard_and_speech(open_widgets):
    made = view(place=2)
    page = open_widgets(made)
    tokens = page.get_by_role("radio")
    expect(tokens).to_have_count(7)
    assert tokens.nth(2).get_attribute("aria-checked") == "true"
    assert [one.get_attribute("tabindex") for one in tokens.all()].count("0") == 1
    expect(tokens.nth(2)).to_have_text("____")
    tokens.nth(2).press("ArrowRight")
    assert page.evaluate(f"{API}.state.place") == 3
    expect(tokens.nth(3)).to_be_focused()
    p, rank = made.blanks[0][3]["answer"]
    expect(page.locator("[aria-live=polite]")).to_contain_text(f"probability {p:.3f}, rank {rank}.")
    page.keyboard.press("End")
    assert page.evaluate(f"{API}.state.place") == 6
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{API}.state.place") == 0
    tokens.nth(4).click()
    assert page.evaluate(f"{API}.state.place") == 4


def test_another_sentence(open_widgets):
    made = view()
    page = open_widgets(made)
    page.get_by_label("Sentence", exact=True).select_option("1")
    expect(page.get_by_role("radio")).to_have_count(5)
    best, p = made.blanks[1][0]["top"][0]
    expect(page.locator(".words")).to_contain_text(f"Place 1 of 5. The model puts “{best}” {p:.2f}")
    assert page.locator("rect.bar").count() == 10


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view(place=5))
    page.get_by_role("radio").nth(0).press("End")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state.place)"
    )
    assert states == [6, 5]


@pytest.mark.parametrize("make", [view, hostile])
def test_files(open_widgets, make):
    made = make()
    page = open_widgets(made)
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    expected = [p for sentence in made.blanks for one in sentence for _, p in one["top"]]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-6)
    assert not any(row["token"].startswith(("=", "+", "-", "@")) for row in rows)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    drawn = ElementTree.tostring(ElementTree.parse(download.value.path()).getroot(), encoding="unicode")
    assert "var(" not in drawn
    assert "NaN" not in drawn


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() == 7


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@pytest.mark.parametrize("make", [view, hostile])
def test_axe_and_no_overflow(open_widgets, axe_faults, make, theme, width):
    page = open_widgets(make(), theme=theme, width=width)
    assert not page.locator(".llm-widget-fallback").is_visible()
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_forced_colours_large_text_print_and_theme(open_widgets):
    page = open_widgets(view(), forced_colors="active", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    wait_until(page, "document.documentElement.scrollWidth <= 640")
    page = open_widgets(view(), theme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(page.locator(".widget")).to_have_css("background-color", "rgb(255, 255, 255)")
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Export as CSV").is_visible()
