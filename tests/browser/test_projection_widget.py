"""The projection explorer in Chromium: its search, its keyboard, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from llm_from_scratch.widgets import ProjectionExplorer

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
WORDS = ["war", "peace", "postwar", "month", "treaty", "warm"]
AT = [[0.0, 0.0], [1.0, 0.2], [-2.0, -0.5], [0.1, 2.0], [0.3, -1.0], [3.0, 0.0]]
HOSTILE = [
    "</script><img src=x onerror=window.hacked=1>",
    "<!--<script>",
    "\u202eevil",
    "=SUM(A1)",
    "x" * 300,
    "שלום",
    "",
    "\ud800&amp;",
]


def nearest(at):
    """Neighbours and similarities by distance, 2 each."""
    away = np.linalg.norm(np.asarray(at)[:, None] - np.asarray(at), axis=-1)
    np.fill_diagonal(away, np.inf)
    near = away.argsort(1, kind="stable")[:, :2]
    return near, -np.take_along_axis(away, near, 1)


def view(**options):
    return ProjectionExplorer(WORDS, AT, *nearest(AT), title="A <plane>", **options)


def many(count=240):
    at = np.random.default_rng(0).normal(size=(count, 2))
    return ProjectionExplorer([f"word{i}" for i in range(count)], at, *nearest(at))


def hostile():
    at = np.random.default_rng(1).normal(size=(len(HOSTILE), 2))
    return ProjectionExplorer(HOSTILE, at, *nearest(at))


def chosen(page):
    return page.evaluate(f"{API}.state.chosen")


def spoken(page):
    page.wait_for_timeout(300)
    return page.locator("[aria-live=polite]").text_content()


def test_search_chooses_and_the_table_follows(open_widgets):
    page = open_widgets(view())
    box = page.get_by_label("Search")
    box.fill("WAR")
    assert chosen(page) == 0  # the same word before beginnings, and those before parts
    assert page.evaluate(f"{API}.state.found") == [0, 5, 2]
    assert spoken(page) == "3 found. war. Nearest: peace, treaty."
    assert page.locator("circle.found").count() == 3
    near, away = nearest(AT)
    rows = page.locator(".side tbody tr")
    assert rows.locator("td:first-child").all_text_contents() == [WORDS[k] for k in near[0]]
    assert rows.locator("td:last-child").all_text_contents() == [
        f"{v:.2f}".replace("-", "−") for v in away[0]
    ]
    box.fill("zzz")
    assert chosen(page) == 0  # nothing found: nothing changes
    assert spoken(page).startswith("No word found.")
    assert page.get_by_text("no word found", exact=True).is_visible()
    box.fill("")
    assert page.get_by_text("6 words", exact=True).is_visible()
    assert page.evaluate(f"{API}.search('  ')") == []


def test_keyboard(open_widgets):
    page = open_widgets(view())
    box = page.get_by_label("Search")
    box.fill("war")
    for expected in (5, 2, 0):  # round the end
        page.keyboard.press("ArrowDown")
        assert chosen(page) == expected
    page.keyboard.press("ArrowUp")
    assert chosen(page) == 2
    page.evaluate(f"{API}.choose(0)")
    page.get_by_role("region", name="Picture").focus()
    for key, expected in (("ArrowRight", 1), ("ArrowRight", 5), ("ArrowRight", 5), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert chosen(page) == expected, key
    page.evaluate(f"{API}.choose(0)")
    page.keyboard.press("ArrowUp")
    assert chosen(page) == 3
    page.keyboard.press("ArrowDown")
    assert chosen(page) == 0
    page.keyboard.press("ArrowDown")
    assert chosen(page) == 4
    page.get_by_role("button", name="war", exact=True).focus()
    page.keyboard.press("Enter")
    assert chosen(page) == 0
    assert (
        page.evaluate(
            f"{API}; document.querySelector('[data-lm-suppress-shortcuts]').shadowRoot.activeElement.tagName"
        )
        == "BUTTON"
    )


def test_a_click_chooses_the_point(open_widgets):
    page = open_widgets(view())
    for i in (4, 2, 5):
        circles = page.locator("circle").all()
        boxes = [circle.bounding_box() for circle in circles]
        at = page.evaluate(f"{API}.fit({i})")
        picture = page.locator("svg").bounding_box()
        page.mouse.click(picture["x"] + at[0], picture["y"] + at[1])
        assert chosen(page) == i
        assert len(boxes) == len(WORDS)
    page.mouse.click(picture["x"] + 5, picture["y"] + 5)  # far from every point
    assert chosen(page) == 5


def test_lines_lead_to_the_neighbours(open_widgets):
    page = open_widgets(view(chosen="month"))
    assert page.locator("circle.now").count() == 1
    assert page.locator("circle.near").count() == page.locator("path.l").count() == 2
    assert page.locator("text.now").text_content() == "month"


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view())
    page.get_by_label("Search").nth(1).fill("treaty")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state.chosen)"
    )
    assert states == [0, 4]


def test_files(open_widgets):
    page = open_widgets(hostile())
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    rows = list(
        csv.reader(io.StringIO(download.value.path().read_bytes().decode("utf-8"), newline=""), strict=True)
    )
    assert rows[0] == [
        "word",
        "component 1",
        "component 2",
        "neighbour 1",
        "cosine 1",
        "neighbour 2",
        "cosine 2",
    ]
    assert [row[0] for row in rows[1:7]] == [*HOSTILE[:3], "'=SUM(A1)", *HOSTILE[4:6]]
    data = hostile()
    for row, at, near in zip(rows[1:], data.positions_N2, data.neighbours_NK, strict=True):
        assert [float(row[1]), float(row[2])] == pytest.approx(at, rel=1e-3)
        assert row[3].lstrip("'") == HOSTILE[near[0]].replace("\ud800", "\ufffd")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert len(root.findall(".//{*}circle")) == len(HOSTILE)
    text = ElementTree.tostring(root, encoding="unicode")
    assert "var(" not in text
    assert "#1b5fae" in text
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.get_attribute("alt").startswith("Scatter of")
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() >= 6


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@pytest.mark.parametrize("make", [many, hostile])
def test_axe_and_no_overflow(open_widgets, axe_faults, make, theme, width):
    page = open_widgets(make(), theme=theme, width=width)
    assert not page.locator(".llm-widget-fallback").is_visible()
    page.get_by_label("Search").fill("1")
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("svg text").evaluate_all("list => list.map((t) => t.getBoundingClientRect().height)")
    assert min(sizes) >= 12  # names are not shrunk with the picture


def test_names_do_not_touch(open_widgets):
    page = open_widgets(many())
    boxes = page.locator("svg text").evaluate_all(
        "list => list.map((t) => t.getBoundingClientRect()).map((b) => [b.left, b.top, b.right, b.bottom])"
    )
    assert len(boxes) > 25
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] + 3 >= b[3] or b[1] + 3 >= a[3]


def test_the_picture_follows_the_width(open_widgets):
    page = open_widgets(many(), width=1000)
    before = page.locator("svg").get_attribute("viewBox")
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(200)
    assert page.locator("svg").get_attribute("viewBox") != before


def test_forced_colours_large_text_print_and_theme(open_widgets):
    from playwright.sync_api import expect

    page = open_widgets(view(), forced_colors="active", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    fill = "(n) => getComputedStyle(n).fill"
    assert page.locator("circle.now").evaluate(fill) != page.locator("circle.p").first.evaluate(fill)
    page = open_widgets(view(), theme="dark")
    paper = "(n) => getComputedStyle(n).backgroundColor"
    dark = page.locator(".widget").evaluate(paper)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(page.locator(".widget")).to_have_css("background-color", "rgb(255, 255, 255)")
    assert dark != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Export as CSV").is_visible()


def test_keys_are_no_shortcuts_of_jupyterlab(open_widgets):
    page = open_widgets(view())
    page.evaluate(
        """window.marked = [];
        document.addEventListener("keydown", (event) =>
          marked.push(event.target.hasAttribute("data-lm-suppress-shortcuts")), true);"""
    )
    page.get_by_label("Search").focus()
    page.keyboard.press("d")
    assert page.evaluate("marked") == [True]
