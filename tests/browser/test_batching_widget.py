"""The batching timeline in Chromium: its schedules against Python's, its keyboard, its files, its looks."""

import csv
import io
import random
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import pytest
from playwright.sync_api import expect

from llm_from_scratch.widgets import BatchingTimeline
from llm_from_scratch.widgets.batching_replay import DRAWING, Lengths, replay
from tests.browser.views import HOSTILE, wait_until

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
REQUESTS = [(0, 6, 14), (0, 3, 4), (0, 9, 6), (1, 4, 3), (2, 5, 10), (4, 12, 5), (6, 2, 8), (9, 7, 3)]


def view(requests=REQUESTS, **options):
    return BatchingTimeline(requests, **options)


def hostile():
    return view(title=HOSTILE[0], caption=HOSTILE[1], alt=HOSTILE[8] + HOSTILE[9], batching="static")


def random_settings(count, seed=0):
    """Ties of arrival, long gaps, prompts of one token and of many chunks, few and many slots."""
    draw = random.Random(seed)
    for _ in range(count):
        gap, longest = draw.choice([0, 3, 60]), draw.choice([1, 5, 64])
        yield {
            "requests": [
                [draw.randint(0, gap), draw.randint(1, longest), draw.randint(1, draw.choice([1, 6, 32]))]
                for _ in range(draw.randint(1, 12))
            ],
            "slots": draw.randint(1, 8),
            "chunk": draw.choice([1, 2, 3, 7, 8, 64, 128]),
            "batching": draw.choice(["static", "continuous"]),
        }


def test_schedules_equal_pythons(open_widgets):
    page = open_widgets(view())
    cases = list(random_settings(400))
    found = page.evaluate(f"(cases) => cases.map((settings) => {API}.replay(settings))", cases)
    for settings, result in zip(cases, found, strict=True):
        schedule, counts = replay(
            [Lengths(*lengths) for lengths in settings["requests"]],
            slots=settings["slots"],
            prefill_chunk=settings["chunk"],
            static=settings["batching"] == "static",
        )
        assert result.pop("counts") == pytest.approx(asdict(counts), rel=1e-12)
        assert result == asdict(schedule), settings


def test_keyboard_steps_and_speech(open_widgets):
    page = open_widgets(view())
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".grid rect").count() == 0
    expect(page.locator(".words")).to_have_text("Step 0 of 16, continuous batching. Nothing has run yet.")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "step 1 of 16"
    said = (
        "Step 1 of 16, continuous batching. End of the prompt and first token: A. Tokens of a prompt: B (2). "
        "Held back by other prompts: C. 1 slot is empty."
    )
    expect(page.locator(".words")).to_have_text(said)
    expect(page.locator("[aria-live=polite]")).to_have_text(said)
    page.get_by_role("button", name="One step forward").focus()
    for _ in range(4):
        page.keyboard.press("Enter")
    expect(page.locator(".words")).to_have_text(
        "Step 5 of 16, continuous batching. Next token: A, B, C, D. Waiting: E, F. B, D end here."
    )
    page.get_by_role("button", name="One step back").focus()
    page.keyboard.press("Space")
    assert page.evaluate(f"{API}.state.step") == 4
    slider.focus()
    page.keyboard.press("End")
    assert page.get_by_role("button", name="One step forward").is_disabled()


def test_play_runs_to_the_end_and_pauses(open_widgets):
    page = open_widgets(view([(0, 1, 4)], slots=1))
    page.get_by_role("button", name="Play").click()  # from the end it begins anew
    wait_until(page, f"{API}.state.step >= 2")
    page.get_by_role("button", name="Pause").click()
    assert not page.evaluate(f"{API}.playing()")
    paused = page.evaluate(f"{API}.state.step")
    if paused < 4:
        expect(page.locator("[aria-live=polite]")).to_contain_text(f"Step {paused} of 4")
    page.get_by_role("button", name="Play").click()
    wait_until(page, f"!{API}.playing()")
    assert page.evaluate(f"{API}.state.step") == 4
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page.locator("[aria-live=polite]")).to_contain_text("Step 4 of 4")


def test_settings_change_the_schedule(open_widgets):
    page = open_widgets(view())
    steps = page.locator(".widget tbody tr").filter(has_text="Steps until").locator("td")
    assert steps.all_text_contents() == ["28", "16"]
    page.get_by_label("Batching", exact=True).select_option("static")
    assert page.locator(".on").first.text_content() == "static"
    expect(page.locator(".words")).to_contain_text("Step 28 of 28, static batching.")
    page.get_by_label("Slots", exact=True).select_option("1")
    assert steps.all_text_contents()[0] == steps.all_text_contents()[1]  # one slot: no difference
    page.get_by_label("Slots", exact=True).select_option("8")
    page.get_by_label("Prompt tokens a step", exact=True).select_option("128")
    assert steps.all_text_contents() == ["24", "14"]
    assert page.evaluate(f"[{API}.state.slots, {API}.state.chunk]") == [8, 128]
    page.get_by_role("button", name="Reset all settings").click()
    assert steps.all_text_contents() == ["28", "16"]
    assert page.get_by_label("Batching", exact=True).input_value() == "continuous"


def test_requests_are_edited_within_their_limits(open_widgets):
    page = open_widgets(view())
    for typed, taken in (("5", 5), ("-3", 1), ("99", 32), ("2.6", 3), ("", 3)):
        box = page.get_by_label("Request A: answer")
        box.fill(typed)
        page.keyboard.press("Tab")
        assert box.input_value() == str(taken)
        assert page.evaluate(f"{API}.state.requests[0][2]") == taken
    box = page.get_by_label("Request H: arrival")
    box.focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate(f"{API}.state.requests[7][0]") == 10
    times = page.locator(".widget tbody tr").last.locator("td").all_text_contents()[-4:]
    span = page.evaluate(f"{API}.replay({{}}).spans[7]")
    assert times == [str(span[key]) for key in ("start", "first", "end", "waited")]


def test_counts_are_those_of_the_fallback(open_widgets):
    """Both round alike, ties too (a mean wait of 1.125 steps)."""
    made = view()
    page = open_widgets(made)
    shown = page.locator(".widget table").first.locator("td").all_text_contents()
    kept = page.locator(".llm-widget-fallback table").first.locator("tbody tr")
    assert shown == [cell for row in kept.all() for cell in row.locator("td").all_text_contents()[1:]]
    assert "1.13" in shown


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view(slots=2))
    page.get_by_role("slider").nth(1).press("Home")
    page.get_by_label("Request A: prompt").nth(1).fill("1")
    page.keyboard.press("Tab")
    page.get_by_role("slider").nth(1).press("Home")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert [(s["slots"], s["step"], s["requests"][0][1]) for s in states] == [(4, 16, 6), (2, 0, 1)]


@pytest.mark.parametrize("make", [view, hostile])
def test_files(open_widgets, make):
    made = make()
    page = open_widgets(made)
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    cells = [
        (number, cell)
        for number, step in enumerate(made.schedules[made.batching].steps, start=1)
        for cell in step
    ]
    assert [tuple(row.values()) for row in rows] == [
        (
            str(number),
            str(cell.slot + 1),
            "ABCDEFGH"[cell.request],
            cell.kind,
            str(cell.read),
            str(int(cell.kind in DRAWING)),
        )
        for number, cell in cells
    ]
    assert sum(int(row["tokens_drawn"]) for row in rows) == 53
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    drawn = ElementTree.tostring(root, encoding="unicode")
    assert "var(" not in drawn
    assert "NaN" not in drawn
    assert "undefined" not in drawn
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() == 5 + len(REQUESTS)


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 1000), ("light", 320), ("dark", 320)])
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
