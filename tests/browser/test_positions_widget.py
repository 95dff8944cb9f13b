"""The positions explorer in Chromium: its numbers against Python's, its keyboard, its files, its looks."""

import csv
import io
import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from llm_from_scratch.widgets import PositionExplorer
from llm_from_scratch.widgets.positions import SCHEMES, alibi_slopes, product_by_distance, wave_angles

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
HOSTILE = "</script><img src=x onerror=window.hacked=1>\u202e=SUM(A1)\ud800" + "x" * 300


def view(scheme="sinusoidal", **options):
    return PositionExplorer(scheme, **{"title": "A <view>", **options})


def hostile():
    return view(title=HOSTILE, caption=HOSTILE, alt="Sinusoids " + HOSTILE)


def choose(page, label, value):
    page.get_by_label(label, exact=True).select_option(value)


def spoken(page):
    page.wait_for_timeout(300)
    return page.locator("[aria-live=polite]").text_content()


@pytest.mark.parametrize(
    ("d_model", "base", "position"), [(32, 10000.0, 24), (6, 37.5, 0), (128, 500000, 63)]
)
def test_values_equal_pythons(open_widgets, d_model, base, position):
    page = open_widgets(view(d_model=d_model, base=base, position=position))
    angles, encoding, curve = page.evaluate(
        f"[{API}.angles({position}), {API}.encoding({position}), {API}.curve()]"
    )
    expected = wave_angles(np.array([position]), d_model, base)[0]
    np.testing.assert_allclose(angles, expected, atol=1e-6)
    waves = np.stack([np.sin(expected), np.cos(expected)], axis=-1).ravel()
    np.testing.assert_allclose(encoding, waves, atol=1e-6)
    products = product_by_distance(64, d_model, base)
    np.testing.assert_allclose(curve, products[abs(np.arange(64) - position)], atol=1e-6)
    choose(page, "Scheme", "rope")
    np.testing.assert_allclose(page.evaluate(f"{API}.curve()"), curve, atol=1e-6)


@pytest.mark.parametrize("num_heads", [1, 2, 3, 8, 11, 16])
def test_alibi_equals_pythons(open_widgets, num_heads):
    page = open_widgets(view("alibi", num_heads=num_heads, position=9, length=31))
    slopes = alibi_slopes(num_heads)
    np.testing.assert_allclose(page.evaluate(f"{API}.slopes({num_heads})"), slopes, rtol=1e-12)
    page.evaluate(f"{API}.set({{ head: {num_heads - 1} }})")
    expected = -slopes[-1] * abs(np.arange(31) - 9)
    np.testing.assert_allclose(page.evaluate(f"{API}.curve()"), expected, atol=1e-12)


def test_controls_and_speech(open_widgets):
    page = open_widgets(view())
    assert page.get_by_label("Heads", exact=True).count() == 0 or not page.get_by_label("Heads").is_visible()
    slider = page.get_by_role("slider", name="Position")
    slider.focus()
    before = page.locator("polyline.curve").get_attribute("points")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{API}.state.position") == 25
    assert slider.get_attribute("aria-valuetext") == "position 25"
    assert page.locator("polyline.curve").get_attribute("points") != before
    assert spoken(page).startswith("Position 25, 32 columns")
    page.keyboard.press("Home")
    assert page.evaluate(f"{API}.state.position") == 0
    choose(page, "Width", "8")
    choose(page, "Base", "100")
    assert "8 columns, base 100: wavelengths from 6.283 to 198.7 tokens" in spoken(page)
    choose(page, "Scheme", "rope")
    assert page.locator("circle.dial").count() == 4
    assert page.locator("th").all_text_contents()[-1] == "Turned by (degrees)"
    page.get_by_role("slider").press("End")
    hand = page.locator("path.hand").first.get_attribute("d")
    dx, dy = (float(x) for x in hand.split("l")[1].split())
    assert math.isclose(math.atan2(-dy, dx) % (2 * math.pi), 63 % (2 * math.pi), abs_tol=2e-3)
    choose(page, "Scheme", "alibi")
    assert not page.get_by_label("Base", exact=True).is_visible()
    choose(page, "Heads", "4")
    choose(page, "Head", "3")
    assert "slope 0.003906" in spoken(page)
    assert page.locator("tbody").last.locator("tr").count() == 4
    choose(page, "Heads", "2")  # the chosen head is gone: the last one takes its place
    assert page.evaluate(f"{API}.state.head") == 1
    assert page.get_by_label("Head", exact=True).input_value() == "1"


def test_moving_the_position_moves_the_curve_and_keeps_its_shape(open_widgets):
    page = open_widgets(view(position=10))
    first = page.evaluate(f"{API}.curve()")
    page.evaluate(f"{API}.set({{ position: 11 }})")
    second = page.evaluate(f"{API}.curve()")
    np.testing.assert_allclose(second[1:], first[:-1], atol=1e-12)
    assert page.get_by_role("slider").input_value() == "11"


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view("alibi"))
    page.get_by_role("slider").nth(1).press("ArrowLeft")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert [(state["scheme"], state["position"]) for state in states] == [("sinusoidal", 24), ("alibi", 23)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_files(open_widgets, scheme):
    page = open_widgets(PositionExplorer(scheme, title=HOSTILE, position=5, length=17))
    assert page.evaluate("window.hacked") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [int(row["other_position"]) for row in rows] == list(range(17))
    assert [int(row["distance"]) for row in rows] == [abs(s - 5) for s in range(17)]
    value = "added_to_score" if scheme == "alibi" else "dot_product"
    at_distance = -0.5 if scheme == "alibi" else product_by_distance(2, 32, 10000.0)[1]
    assert float(rows[6][value]) == pytest.approx(at_distance)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    drawn = ElementTree.tostring(root, encoding="unicode")
    assert "var(" not in drawn
    assert "NaN" not in drawn
    assert len(root.findall(".//{*}polyline")) >= 1
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile, lambda: view("alibi")])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert len(image.get_attribute("alt")) > 20
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() >= 8


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@pytest.mark.parametrize("make", [view, hostile])
def test_axe_and_no_overflow(open_widgets, axe_faults, make, theme, width):
    page = open_widgets(make(), theme=theme, width=width)
    assert not page.locator(".llm-widget-fallback").is_visible()
    for scheme in SCHEMES:
        choose(page, "Scheme", scheme)
        page.locator("summary").last.click()
        assert axe_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_forced_colours_large_text_print_and_theme(open_widgets):
    from playwright.sync_api import expect

    page = open_widgets(view(), forced_colors="active", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    page = open_widgets(view(), theme="dark")
    paper = "(n) => getComputedStyle(n).backgroundColor"
    dark = page.locator(".widget").evaluate(paper)
    cells = page.locator("g path").first.get_attribute("fill")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(page.locator(".widget")).to_have_css("background-color", "rgb(255, 255, 255)")
    assert dark != "rgb(255, 255, 255)"
    expect(page.locator("g path").first).not_to_have_attribute("fill", cells)  # drawn again in other shades
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Export as CSV").is_visible()


def test_labels_in_the_pictures_do_not_overlap(open_widgets):
    """Every position: the labels on one line keep apart, and none leaves its picture."""
    page = open_widgets(view("alibi"))
    for scheme, position in itertools.product(SCHEMES, (0, 1, 15, 31, 62, 63)):
        page.evaluate(f"{API}.set({{ scheme: '{scheme}', position: {position} }})")
        boxes = page.evaluate(
            """Array.from(document.querySelector('[data-llm-widget]').lastElementChild.shadowRoot
            .querySelectorAll('svg text'), (n) => { const b = n.getBBox();
              return [n.ownerSVGElement.getAttribute('aria-label'), b.x, b.y, b.width, b.height]; })"""
        )
        assert all(x >= -1 and x + w <= 301 and y >= -1 and y + h <= 245 for _, x, y, w, h in boxes)
        for a, b in itertools.combinations(boxes, 2):
            apart = a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1] or a[2] + a[4] <= b[2] or b[2] + b[4] <= a[2]
            assert a[0] != b[0] or apart, (scheme, position, a, b)
