"""The pages of the built book as a reader opens them: from the disk, with the network cut.

`make pages` builds them; `make test` runs that before this.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
PAGES = sorted(str(path.relative_to(HTML)) for path in HTML.glob("book/**/*.html"))
OTHERS = ["genindex.html", "search.html"]


@pytest.fixture(scope="module", autouse=True)
def built_book():
    """The book must have been built, without a warning."""
    if not (HTML.parent / "frame").exists() or not PAGES:
        message = "the book is not built: run make book"
        if os.environ.get("LLM_FROM_SCRATCH_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)


def ready(page):
    """Wait until formulas are set, if the page has any."""
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => null) : null")
    page.wait_for_timeout(50)


CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # all that depends on the scheme
NO_CONTRAST = {"rules": {"color-contrast": {"enabled": False}}}
# A colour of code looks the same in every block: blocks that bring no new class leave, formulas but one too.
EACH_COLOUR_ONCE = """() => {
  const seen = new Set();
  for (const block of document.querySelectorAll("div.highlight")) {
    const classes = [block, ...block.querySelectorAll("[class]")].map(
      node => [block.closest(".cell_output, .cell_input, .admonition")?.className, node.className].join(" "));
    if (classes.every(name => seen.has(name))) block.style.display = "none";
    classes.forEach(name => seen.add(name));
  }
  [...document.querySelectorAll("mjx-container")].slice(1).forEach(node => { node.style.display = "none"; });
}"""


def serious_faults(page, **options):
    """What axe finds. It must not load style sheets again: from the disk the browser refuses that."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"preload": False, **options}).response["violations"]
    return [
        (fault["id"], [node["html"][:120] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_page_reads_well(open_page, name):
    """In both schemes, on a desk and on a phone; only tables, code and formulas scroll, inside themselves.

    A page is opened once: setting its formulas takes longer than looking at them.
    """
    page = open_page(HTML / name, scheme="light", width=1200)
    ready(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert serious_faults(page, **NO_CONTRAST) == []
    holds_what_it_shows(page, described=name in PAGES)
    if "/appendix/" not in name:
        links_lead_somewhere(page)
    page.set_viewport_size({"width": 320, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert serious_faults(page, **NO_CONTRAST) == []
    page.set_viewport_size({"width": 1200, "height": 800})
    page.evaluate(EACH_COLOUR_ONCE)
    page.add_style_tag(content="* { transition: none !important; }")  # no colour on its way to another
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        assert serious_faults(page, **CONTRAST) == []


def holds_what_it_shows(page, *, described):
    """Pictures have words and load, formulas are set and can be spoken, the page says what it is."""
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("main h1").count() >= 1
    assert page.title().strip()
    assert page.locator("meta[name=description]").count() == described
    pictures = page.evaluate(
        "Promise.all([...document.images].map("
        "  image => image.decode().then(() => [image.alt, true], () => [image.alt, false])))"
    )
    assert all(alt.strip() and drawn for alt, drawn in pictures), pictures
    formulas = page.evaluate("document.querySelectorAll('article .math').length")
    typeset = page.evaluate("document.querySelectorAll('article .math mjx-assistive-mml math').length")
    assert typeset >= formulas
    assert page.evaluate("document.querySelectorAll('[data-mml-node=merror]').length") == 0


def links_lead_somewhere(page):
    """Each link to a file of the book has its file."""
    links = page.evaluate("[...document.querySelectorAll('article a[href]')].map(a => a.href)")
    for link in links:
        if link.startswith("file:"):
            target = Path(link.removeprefix("file://").split("#")[0].split("?")[0])
            assert target.is_file(), link


def test_a_worked_solution_opens_by_keyboard(open_page):
    chapters = [name for name in PAGES if "llm-solution" in (HTML / name).read_text(encoding="utf-8")]
    assert chapters
    for name in chapters:
        page = open_page(HTML / name)
        summary = page.locator("details.llm-solution > summary").first
        body = page.locator("details.llm-solution .llm-solution-body").first
        assert not body.is_visible()
        summary.focus()
        page.keyboard.press("Enter")
        assert body.is_visible()
        assert body.locator("pre").count() >= 1


def test_the_theme_switch_reaches_the_pictures(open_page):
    """A picture follows the page, not the system: its background has the page's colour in both schemes."""
    name = next((n for n in PAGES if "llm-figure" in (HTML / n).read_text(encoding="utf-8")), None)
    if name is None:
        pytest.skip("no chapter with a picture yet")
    page = open_page(HTML / name, scheme="light")
    colours = []
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        picture = page.locator("figure.llm-figure img").first
        picture.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        colours.append(corner_colour(picture.screenshot()))
    assert min(colours[0]) > 240
    assert max(colours[1]) < 40


def corner_colour(png: bytes) -> tuple[int, ...]:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB").getpixel((2, 2))


def test_search_finds_a_word(open_page):
    page = open_page(HTML / "search.html")
    page.goto((HTML / "search.html").as_uri() + "?q=perplexity")
    # Results are listed one after another; the summary tells when the last one stands there.
    page.wait_for_function(
        "/finished/.test(document.querySelector('#search-results').innerText)", timeout=20_000
    )
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Glossary" in text for text in found), found


def test_the_first_tab_stop_skips_to_the_text(open_page):
    page = open_page(HTML / "book" / "index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"


def test_without_javascript_the_text_is_there_and_readable(open_page):
    page = open_page(HTML / "book" / "index.html", javascript=False)
    paragraph = page.locator("article p").first
    assert paragraph.is_visible()
    # The page's own colours, not the browser's: without a scheme the theme would define none of them.
    assert "data-theme" not in page.content().split(">")[1]
