"""The beam tree in Chromium: its search against Python's, its keyboard, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest
from playwright.sync_api import expect

from llm_from_scratch.decoding import beam_search
from llm_from_scratch.widgets import BeamTree
from tests.beam_tables import random_table
from tests.browser.views import HOSTILE, wait_until

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"


def view(seed=1, **options):
    _, texts, table, arguments = random_table(seed)
    return BeamTree(texts, table, **{**arguments, "title": "A <tree>", **options})


def hostile():
    _, texts, table, arguments = random_table(1, texts=HOSTILE)
    return BeamTree(
        texts, table, **{**arguments, "prompt": HOSTILE[0], "title": HOSTILE[0], "alt": HOSTILE[7]}
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stop_ids", [(), (0,), (0, 4, 7)])
def test_search_equals_pythons(open_widgets, seed, stop_ids):
    model, texts, table, arguments = random_table(seed, stop_ids=stop_ids)
    page = open_widgets(BeamTree(texts, table, **arguments))
    for beams in (1, 2, 4):
        for penalty in (-1.0, 0.0, 1.0, 2.0):
            for early in (True, False, "never"):
                found = beam_search(
                    model, [3, 1], max_new_tokens=5, num_beams=beams, num_return=beams, stop_ids=stop_ids,
                    length_penalty=penalty, early_stopping=early,
                )  # fmt: skip
                settings = {"beams": beams, "penalty": penalty, "stopping": str(early).lower()}
                result = page.evaluate(f"(settings) => {API}.search(settings)", settings)
                names = ("parent", "token", "step", "state")
                assert [[n[k] for k in names] for n in result["nodes"]] == [
                    [n[k] for k in names] for n in found.tree
                ]
                assert [one["score"] for one in result["finished"]] == pytest.approx(
                    [h.score for h in found.hypotheses], abs=1e-4
                )


def test_keyboard_steps_and_speech(open_widgets):
    page = open_widgets(view())
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".tree rect").count() == 1
    expect(page.locator(".words")).to_have_text("Step 0 of 5, 3 beams. Only the prompt is there.")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{API}.state.step") == 1
    assert slider.get_attribute("aria-valuetext") == "step 1 of 5"
    expect(page.locator("[aria-live=polite]")).to_contain_text("Step 1 of 5, 3 beams. Kept:")
    page.get_by_role("button", name="One step back").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(f"{API}.state.step") == 0
    assert page.get_by_role("button", name="One step back").is_disabled()
    page.get_by_label("Beams", exact=True).select_option("1")
    expect(page.locator("[aria-live=polite]")).to_contain_text("The search is over; the best text is")
    assert page.locator(".tree circle.dot").count() >= 1  # greedy's path, which is the beam's now
    rows = page.locator(".widget tbody tr").all_text_contents()
    assert rows[0].removeprefix("beam search") == rows[-1].removeprefix("greedy")


def test_settings_change_the_search(open_widgets):
    page = open_widgets(view(seed=2, num_beams=4))
    before = page.locator(".widget tbody").text_content()
    page.get_by_label("Length penalty", exact=True).select_option("-1")
    assert page.locator(".widget tbody").text_content() != before
    page.get_by_label("Stop when enough have ended", exact=True).select_option("true")
    assert page.evaluate(f"{API}.state.stopping") == "true"


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view(num_beams=2))
    page.get_by_role("slider").nth(1).press("Home")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert [(state["beams"], state["step"]) for state in states] == [(3, 5), (2, 0)]


@pytest.mark.parametrize("make", [view, hostile])
def test_files(open_widgets, make):
    made = make()
    page = open_widgets(made)
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["state"] for row in rows] == [node.state for node in made.nodes]
    assert [float(row["total"]) for row in rows] == pytest.approx([n.total for n in made.nodes], abs=1e-4)
    assert not any(row["token"].startswith(("=", "+", "-", "@")) for row in rows)
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
    assert page.locator("tbody tr").count() == 4


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
