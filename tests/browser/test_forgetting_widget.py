"""The explorer of forgetting in Chromium: its controls, its numbers, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from llm_from_scratch.widgets import AdaptationPath, ForgettingExplorer
from tests.browser.views import HOSTILE, wait_until

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
FULL = AdaptationPath(
    at=[0, 10, 100, 1700],
    new=[5.0, 4.5, 4.25, 4.0],
    old=[4.0, 3.998, 4.25, 4.75],
    samples={"Now": [" we", " we <b>go", " they", " all"]},
)
BETWEEN = AdaptationPath(at=[0, 0.5], new=[5.0, 5.25], old=[4.0, 3.5], at_name="share")


def view(**options):
    given = {"points": {"mixed": (4.1, 4.1)}, "at": 1, "new_name": "since 1946", "old_name": "before 1900"}
    return ForgettingExplorer({"full": FULL, "between": BETWEEN}, **{**given, **options})


def hostile():
    samples = dict(zip(HOSTILE[:2], (HOSTILE[2:6], HOSTILE[6:10]), strict=True))
    paths = {name: replace(FULL, samples=samples, at_name=HOSTILE[0]) for name in HOSTILE[:9]}
    words = {"title": HOSTILE[0], "caption": HOSTILE[1], "alt": HOSTILE[6], "unit": HOSTILE[0]}
    points = {name: (4.0, 4.0) for name in HOSTILE[:4]}
    return ForgettingExplorer(paths, points=points, new_name=HOSTILE[7], old_name=HOSTILE[0], **words)


def test_keyboard_moves_the_dot_the_numbers_and_the_texts(open_widgets):
    page = open_widgets(view())
    slider, read = page.get_by_role("slider", name="Checkpoint"), page.locator("dd")
    expect(read.nth(0)).to_have_text("+0.50 nats a token (loss 5.00 → 4.50)")
    expect(read.nth(1)).to_have_text("0.00 nats a token (loss 4.00 → 4.00)")
    expect(page.locator(".sample").nth(0)).to_have_text("Now we")
    expect(page.locator(".sample").nth(1)).to_have_text("Now we <b>go")
    at = page.locator("circle.now").get_attribute("cx")
    slider.focus()
    page.keyboard.press("End")
    expect(read.nth(1)).to_have_text("+0.75 nats a token (loss 4.00 → 4.75)")
    expect(page.locator(".sample").nth(1)).to_have_text("Now all")
    assert float(page.locator("circle.now").get_attribute("cx")) < float(at)
    assert slider.get_attribute("aria-valuetext") == "step 1,700"
    said = "full, step 1,700: since 1946 gained +1.00, before 1900 lost +0.75 nats a token. Now all"
    expect(page.locator("[aria-live=polite]")).to_have_text(said)
    page.get_by_role("radio", name="full").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(f"[{API}.state.path, {API}.state.at]") == [1, 1]  # the end stays the end
    expect(read.nth(0)).to_have_text("−0.25 nats a token (loss 5.00 → 5.25)")
    assert page.get_by_role("radio", name="between").is_checked()
    page.keyboard.press("ArrowUp")  # back to the longer path: its end, not its second checkpoint
    assert page.evaluate(f"[{API}.state.path, {API}.state.at]") == [0, 3]
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("button", name="One checkpoint forward").is_disabled()
    page.get_by_role("button", name="One checkpoint back").press("Enter")
    assert slider.get_attribute("aria-valuetext") == "share 0"


def test_a_click_in_the_plane_chooses_the_nearest_checkpoint(open_widgets):
    page = open_widgets(view(path="between"))
    box, right = page.locator(".main svg").bounding_box(), page.locator("circle.now").get_attribute("cx")
    page.mouse.click(box["x"] + 60, box["y"] + 15)  # far left, far up: the end of the full path
    assert page.evaluate(f"[{API}.state.path, {API}.state.at]") == [0, 3]
    page.mouse.click(box["x"] + float(right), box["y"] + box["height"] - 60)
    assert page.evaluate(f"[{API}.state.path, {API}.state.at]") == [1, 1]


def test_numbers_of_paths_with_one_end_stand_apart(open_widgets):
    page = open_widgets(ForgettingExplorer({"a": FULL, "b": FULL}))
    boxes = [page.locator(f".main svg text.m:text-is('{n}')").bounding_box() for n in (1, 2)]
    assert abs(boxes[0]["y"] - boxes[1]["y"]) > 8


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view())
    page.get_by_role("slider").nth(1).press("End")
    page.get_by_role("radio", name="between").nth(1).check()
    states = page.evaluate(
        "Array.from(document.querySelectorAll('.llm-widget'), ({api}) => [api.state.path, api.state.at])"
    )
    assert states == [[0, 1], [1, 1]]
    assert page.get_by_role("radio", name="full").nth(0).is_checked()


@pytest.mark.parametrize("make", [view, hostile])
def test_files(open_widgets, make):
    made = make()
    page = open_widgets(made)
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = FULL.new[0], FULL.old[0]
    wanted = [
        [at, new, old, round(start[0] - new, 6), round(old - start[1], 6)]
        for path in made.paths.values()
        for at, new, old in zip(path["at"], path["new"], path["old"], strict=True)
    ]
    assert [[float(cell) for cell in row[1:6]] for row in rows] == wanted
    assert len({len(row) for row in [head, *rows]}) == 1
    texts = [cell for row in [head, *rows] for cell in (row[0], *row[6:])]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in texts)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    drawn = ElementTree.tostring(root, encoding="unicode")
    assert "var(" not in drawn
    assert "NaN" not in drawn
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
def test_fallback(open_widgets, sanitised):
    page = open_widgets(hostile(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() == 9 * len(FULL.at)


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
