"""The graph stepper in Chromium: its numbers against the engine, its keyboard, its files, its looks."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest

from llm_from_scratch.autograd import Tensor, graph_of
from llm_from_scratch.widgets import GraphStepper

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
HOSTILE = [
    "</script><img src=x onerror=window.hacked=1>",
    "<!--<script>",
    "\u202eevil",
    "=SUM(A1)",
    "x" * 300,
]


def tensors(a=0.7, b=-1.3):
    """Every operation; a is used three times, b twice, both once in a product with itself."""
    a, b = Tensor(a), Tensor(b)
    c = (a * b).tanh() + a.exp()
    y = (c**3 + a.log() + (b * b).relu() + c**-1).exp() * 0.1
    y.backward()
    return y, {"a": a, "b": b, "c": c, "y": y}


def view(**options):
    y, names = tensors()
    return GraphStepper(**graph_of(y, names), title="A <graph>", **options)


def hostile():
    nodes = [{"name": name, "op": "", "value": 1.0} for name in HOSTILE]
    return GraphStepper(
        [*nodes, {"name": "\ud800&amp;", "op": "+"}], [(name, "\ud800&amp;") for name in HOSTILE]
    )


def spoken(page):
    page.wait_for_timeout(250)
    return page.locator("[aria-live=polite]").text_content()


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click(
        force=True
    )  # aria-disabled: it stays in the tab order


@pytest.mark.parametrize(("a", "b"), [(0.7, -1.3), (1.1, 0.9), (0.2, 0.0)])
def test_values_and_gradients_equal_the_engine(open_widgets, a, b):
    page = open_widgets(view())
    page.get_by_label("Value of a").fill(str(a))
    page.get_by_label("Value of b").fill(str(b))
    names = [node["name"] for node in graph_of(*tensors())["nodes"]]
    values, gradients = page.evaluate(f"[{API}.values(), {API}.grads()]")
    for name, tensor in tensors(a, b)[1].items():
        place = names.index(name)
        assert values[place] == pytest.approx(float(tensor.data), rel=1e-9, abs=1e-9)
        assert gradients[place] == pytest.approx(float(tensor.grad), rel=1e-9, abs=1e-9)
    click(page, "Reset the inputs")
    assert page.evaluate(f"{API}.values()[{names.index('a')}]") == 0.7
    assert page.get_by_label("Value of a").input_value() == "0.7"


def test_steps_by_buttons(open_widgets):
    page = open_widgets(view())
    steps = page.evaluate(f"{API}.steps.length")
    assert page.locator("text.v").count() == 2  # the inputs
    assert page.locator("text.g").count() == 0
    click(page, "Back one step")  # nothing before the start
    assert page.evaluate(f"{API}.state.step") == 0
    click(page, "Next step")
    assert page.locator("text.v").count() == 3
    assert page.locator(".a.f").count() in (1, 2)
    click(page, "To the end")
    assert page.locator("text.g").count() == page.locator("rect.n").count()
    assert page.evaluate(f"{API}.state.step") == steps
    click(page, "Next step")
    assert page.evaluate(f"{API}.state.step") == steps
    title = page.locator(".step b").text_content()
    assert title.startswith("∂y/∂")
    click(page, "To the start")
    assert page.locator("text.g").count() == 0


def test_a_value_that_is_used_several_times_adds_up(open_widgets):
    page = open_widgets(view())
    steps = page.evaluate(f"{API}.steps.length")
    titles = [page.evaluate(f"{API}.describe({n})") for n in range(steps + 1)]
    a = next(step for step in titles if step["title"].startswith("∂y/∂a ="))
    assert "a is used 3 times" in a["words"]
    assert a["lines"][0].count(" · ") == 3
    assert a["lines"][1].count(" + ") == 2
    b = next(step for step in titles if step["title"].startswith("∂y/∂b ="))
    assert "b is used 3 times" in b["words"]
    gradient = float(tensors()[1]["a"].grad)
    assert a["title"].endswith(f"{gradient:.4g}".replace("-", "−"))
    # The terms of the second line, as numbers, give the third.
    terms = a["lines"][1].removeprefix("= ").replace("−", "-").replace("×", "*")
    assert sum(eval(term) for term in terms.split(" + ")) == pytest.approx(gradient, rel=2e-3)


def test_keyboard_and_speech(open_widgets):
    page = open_widgets(view())
    page.get_by_role("button", name="Next step").focus()
    page.keyboard.press("ArrowRight")
    said = spoken(page)
    assert said.startswith("Forward 1 of")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{API}.state.step") == 1
    page.keyboard.press("End")
    assert "slope of y in" in spoken(page)
    page.keyboard.press("Home")
    assert page.evaluate(f"{API}.state.step") == 0
    page.get_by_role("region", name="Graph").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{API}.state.step") == 1
    box = page.get_by_label("Value of b")
    box.focus()
    page.keyboard.press("ArrowRight")  # moves in the text, not in the steps
    assert page.evaluate(f"{API}.state.step") == 1
    box.fill("2")
    assert spoken(page).startswith("b is now 2.")


def test_undefined_values_are_said(open_widgets):
    page = open_widgets(view())
    page.get_by_label("Value of a").fill("-1")
    page.evaluate(f"{API}.go({API}.steps.length)")
    assert page.locator("text.v", has_text="undefined").count() >= 1
    page.get_by_label("Value of a").fill("")  # an empty box keeps the last number
    assert page.evaluate(f"{API}.state.leaves").count(-1) == 1
    page.get_by_label("Value of a").fill("0.7")
    assert page.locator("text", has_text="undefined").count() == 0


def test_two_on_a_page_are_independent(open_widgets):
    page = open_widgets(view(), view())
    page.get_by_role("button", name="To the end").nth(1).click()
    page.get_by_label("Value of a").nth(1).fill("2")
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert states[0]["step"] == 0
    assert 2 in states[1]["leaves"]
    assert 2 not in states[0]["leaves"]


def test_files(open_widgets):
    page = open_widgets(hostile())
    assert page.evaluate("window.hacked") is None
    click(page, "To the end")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    rows = list(
        csv.reader(io.StringIO(download.value.path().read_bytes().decode("utf-8"), newline=""), strict=True)
    )
    assert rows[0] == ["node", "made_by", "value", "gradient"]
    assert [row[0] for row in rows[1:5]] == [*HOSTILE[:3], "'=SUM(A1)"]
    assert [row[2:] for row in rows[1:]] == [["1", "1"]] * 5 + [["5", "1"]]
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert len(root.findall(".//{*}rect")) == 7
    assert "var(" not in ElementTree.tostring(root, encoding="unicode")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
@pytest.mark.parametrize("make", [view, hostile])
def test_fallback(open_widgets, make, sanitised):
    page = open_widgets(make(), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.get_attribute("alt").startswith("Computation graph of")
    assert image.evaluate("i => i.naturalWidth") > 100
    page.locator("summary").click()
    assert page.locator("tbody tr").count() >= 6


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@pytest.mark.parametrize("make", [view, hostile])
def test_axe_and_no_overflow(open_widgets, axe_faults, make, theme, width):
    page = open_widgets(make(), theme=theme, width=width)
    assert not page.locator(".llm-widget-fallback").is_visible()
    page.evaluate(f"{API}.go({API}.steps.length - 1)")
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_forced_colours_large_text_print_and_theme(open_widgets):
    from playwright.sync_api import expect

    page = open_widgets(view(), forced_colors="active", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    click(page, "Next step")
    strokes = "(n) => getComputedStyle(n).stroke"
    assert page.locator("rect.now").evaluate(strokes) != page.locator("rect.n").last.evaluate(strokes)
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
    page.get_by_label("Value of a").focus()
    page.keyboard.press("d")
    assert page.evaluate("marked") == [True]
