"""Both widgets as pages: without JavaScript, sanitised, light, dark, narrow, printed, and under axe."""

import pytest

from tests.browser.views import HOSTILE, SENTENCE, attention_view, sampling_view, wait_until

pytestmark = pytest.mark.browser
VIEWS = {
    "attention": lambda: attention_view(
        title="Attention", caption="A caption & more <b>.", alt="What it shows"
    )[0],
    "attention, long": lambda: attention_view([f" token{i}" for i in range(40)], layers=4, heads=4)[0],
    "attention, hostile": lambda: attention_view(HOSTILE)[0],
    "sampling": lambda: sampling_view(top_p=0.9)[0],
}
SHADOW = "document.querySelector('[data-llm-widget] > div:last-child').shadowRoot"
each = pytest.mark.parametrize("name", VIEWS)


@pytest.mark.parametrize("sanitised", [False, True])
@each
def test_fallback(open_widgets, name, sanitised):
    page = open_widgets(VIEWS[name](), javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert image.is_visible()
    assert image.get_attribute("alt")
    assert image.bounding_box()["width"] > 80  # the browser could draw it
    summary = page.locator("summary")
    assert not page.locator("table").is_visible()
    summary.click()
    assert page.locator("table").is_visible()
    assert page.locator("tbody tr").count() >= 7
    assert page.locator("main img[src=x], main [onerror]").count() == 0
    if sanitised:
        assert page.locator("main script, main style, main [role]").count() == 0


def test_fallback_says_title_caption_and_alt(open_widgets):
    page = open_widgets(VIEWS["attention"](), javascript=False)
    assert page.get_by_text("A caption & more <b>.").is_visible()
    assert page.get_by_alt_text("What it shows").is_visible()
    assert page.get_by_text("Attention", exact=True).is_visible()


@each
def test_view_replaces_the_fallback(open_widgets, name):
    page = open_widgets(VIEWS[name]())
    assert page.locator(".widget").is_visible()
    assert not page.locator(".llm-widget-fallback").is_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@each
def test_axe_and_no_overflow(open_widgets, axe_faults, name, theme, width):
    page = open_widgets(VIEWS[name](), theme=theme, width=width)
    if "attention" in name:
        page.locator("td.cell").nth(3).click()
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@each
def test_follows_the_theme(open_widgets, name):
    paper = f"getComputedStyle({SHADOW}.querySelector('.widget')).backgroundColor"
    page = open_widgets(VIEWS[name](), scheme="dark")
    dark = page.evaluate(paper)
    changes = [
        ("document.documentElement.dataset.theme = 'light'", False),  # the book
        ("document.documentElement.dataset.theme = 'dark'", True),
        ("delete document.documentElement.dataset.theme; document.body.dataset.jpThemeLight = 'true'", False),
        ("document.body.dataset.jpThemeLight = 'false'", True),  # JupyterLab
        ("document.documentElement.setAttribute('theme', 'light')", False),  # Colab
    ]
    for change, is_dark in changes:
        page.evaluate(change)
        wait_until(page, f"{paper} {'===' if is_dark else '!=='} '{dark}'")


def test_cells_are_painted_again_in_the_other_theme(open_widgets):
    page = open_widgets(VIEWS["attention"](), theme="light")
    colour = f"{SHADOW}.querySelectorAll('td.cell')[0].style.backgroundColor"
    assert page.evaluate(colour) == "rgb(8, 48, 107)"  # the first row's weight is 1: the end of the scale
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    wait_until(page, f"{colour} === 'rgb(222, 238, 255)'")
    page.emulate_media(media="print")
    wait_until(page, f"{colour} === 'rgb(8, 48, 107)'")


@each
def test_print(open_widgets, name):
    page = open_widgets(VIEWS[name](), theme="dark")
    page.emulate_media(media="print")
    page.wait_for_timeout(20)
    assert page.locator(".widget").is_visible()
    assert page.locator(".title").is_visible()
    assert not page.get_by_role("button", name="CSV").is_visible()
    assert len(page.pdf()) > 5_000


@each
def test_forced_colours_and_large_text(open_widgets, name):
    page = open_widgets(VIEWS[name](), forced_colors="active", reduced_motion="reduce", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")  # 200 %
    page.wait_for_timeout(50)
    assert page.locator(".widget").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    if "attention" in name:
        cells = f"{SHADOW}.querySelectorAll('td.cell')"
        colours = f"Array.from({cells}, (cell) => getComputedStyle(cell).backgroundColor)"
        assert len(set(page.evaluate(colours))) > 3


def test_scripts_run_late_as_in_jupyterlab(open_page, tmp_path):
    """JupyterLab sets innerHTML, then makes each script anew, perhaps in a host that joins the page later."""
    views = [VIEWS["attention"](), VIEWS["sampling"](), VIEWS["attention"]()]
    path = tmp_path / "late.html"
    path.write_text("<!doctype html><title>Late</title><body>", encoding="utf-8")
    page = open_page(path)
    render = """([html, attached]) => {
      const host = document.createElement("div");
      if (attached) document.body.append(host);
      host.innerHTML = html;
      for (const script of host.querySelectorAll("script")) {
        const copy = document.createElement("script");
        for (const { name, value } of script.attributes) copy.setAttribute(name, value);
        copy.textContent = script.textContent;
        script.replaceWith(copy);
      }
      if (!attached) document.body.append(host);
    }"""
    for view, attached in zip(views, (True, False, True), strict=True):
        page.evaluate(render, [view._repr_html_(), attached])
    assert page.locator(".widget").count() == 3
    # jQuery's way: the script runs in the head, where no root is near it.
    page.evaluate(
        """(html) => {
          const host = document.createElement("div");
          document.body.append(host);
          host.innerHTML = html;
          const script = document.createElement("script");
          script.textContent = host.querySelector("script:not([type])").textContent;
          document.head.append(script);
          script.remove();
        }""",
        views[0]._repr_html_(),
    )
    assert page.locator(".widget").count() == 4
    assert page.locator(".text button").count() == 3 * len(SENTENCE)


def test_damaged_data_leaves_the_fallback(open_page, tmp_path):
    good = VIEWS["attention"]()._repr_html_()
    pages = {
        "format": good.replace('"format":1', '"format":2'),
        "no data": good.replace("application/json", "text/plain", 1),
    }
    for name, body in pages.items():
        path = tmp_path / f"{name}.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title>{body}", encoding="utf-8")
        page = open_page(path)
        assert page.locator("img").is_visible()
        assert page.locator(".widget").count() == 0


@pytest.mark.parametrize(
    ("name", "place"), [("attention", "td.cell[tabindex='0']"), ("sampling", "input[type=number]")]
)
def test_keys_are_no_shortcuts_of_jupyterlab(open_widgets, name, place):
    """JupyterLab asks the event's target, here the shadow host, and its ancestors whether keys are theirs.

    Without the mark, `d d` with a cell of the matrix focused deletes the notebook's cell.
    """
    page = open_widgets(VIEWS[name]())
    page.evaluate(
        """window.suppressed = [];
        document.addEventListener("keydown", ({ target }) => {
          suppressed.push(target.hasAttribute("data-lm-suppress-shortcuts"));
        }, true);"""
    )
    page.locator(place).first.focus()
    page.keyboard.press("d")
    page.keyboard.press("1")
    assert page.evaluate("suppressed") == [True, True]
