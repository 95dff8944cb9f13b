"""The scrubber in Chromium: the slider, its words, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest
from playwright.sync_api import expect

from llm_from_scratch.widgets import Scrubber
from tests.browser.views import HOSTILE, wait_until

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
STEPS = [0, 10, 100, 1700]


def view(**options):
    given = {
        "series": {"validation": [8.0, 6.5, 5.25, 4.2], "training": [None, 6.4, 5.0, 4.3]},
        "bars": {"name": [9.0, 7.0, 6.0, 5.0], "number": [8.0, 4.0, 3.0, 2.0]},
        "samples": {"The people": [" x", " of", " of the", " of the States"]},
        "references": {"5-gram": 3.8, "LSTM": 3.9},
        "at": 1,
    }
    return Scrubber(STEPS, **{**given, **options})


def hostile():
    names = {name: [1.0, 2.0, None, 4.0] for name in HOSTILE[:4]}
    samples = {name: HOSTILE[n : n + 4] for n, name in enumerate(HOSTILE[4:8])}
    words = {"title": HOSTILE[0], "caption": HOSTILE[1], "alt": HOSTILE[6], "unit": HOSTILE[0]}
    references = {HOSTILE[0]: 2.0}
    return Scrubber(
        STEPS, series=names, bars=names, samples=samples, x_name=HOSTILE[6], references=references, **words
    )


def test_keyboard_moves_the_marker_the_bars_and_the_text(open_widgets):
    page = open_widgets(view())
    slider = page.get_by_role("slider", name="Checkpoint")
    expect(page.locator(".sample")).to_have_text("The people of")
    at = page.locator(".now").get_attribute("d")
    wide = page.locator("rect.bar").first.get_attribute("width")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{API}.state.at") == 2
    assert slider.get_attribute("aria-valuetext") == "step 100"
    expect(page.locator(".sample")).to_have_text("The people of the")
    expect(page.locator(".words")).to_have_text("step 100: validation 5.25, training 5.00 nats a token.")
    expect(page.locator("[aria-live=polite]")).to_contain_text("step 100: validation 5.25")
    assert page.locator(".now").get_attribute("d") != at
    assert float(page.locator("rect.bar").first.get_attribute("width")) < float(wide)
    page.keyboard.press("End")
    assert page.get_by_role("button", name="One checkpoint forward").is_disabled()
    page.get_by_role("button", name="One checkpoint back").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(f"{API}.state.at") == 2


def test_gaps_and_values(open_widgets):
    page = open_widgets(view(at=0))
    expect(page.locator(".words")).to_have_text("step 0: validation 8.00 nats a token.")
    assert page.locator("circle.d").count() == 1
    label = page.locator(".main svg").nth(1).get_attribute("aria-label")
    assert label == "Bars at step 0: name 9.00, number 8.00"


def test_a_click_in_the_curves_chooses_the_nearest(open_widgets):
    page = open_widgets(view())
    box = page.locator(".main svg").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 20, box["y"] + 60)
    assert page.evaluate(f"{API}.state.at") == 3


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view(series=None, references=None))
    page.get_by_role("slider").nth(1).press("End")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state.at)"
    )
    assert states == [1, 3]


@pytest.mark.parametrize("make", [view, hostile])
def test_files(open_widgets, make):
    made = make()
    page = open_widgets(made)
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [float(row[0]) for row in rows[1:]] == STEPS
    assert [row[1] for row in rows[1:]] == [
        "" if v is None else f"{v:g}" for v in next(iter(made.series.values()))
    ]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    drawn = ElementTree.tostring(root, encoding="unicode")
    assert "var(" not in drawn
    assert "NaN" not in drawn
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() == len(STEPS)


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
