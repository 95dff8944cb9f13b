"""A real Chromium with the network cut, for the widgets' pages and for pages of the built book.

`open_page(path)` opens a file from file://. When the test ends, it fails if the page asked for anything
outside its own files, raised an exception or wrote an error to the console.
"""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
LOCAL = ("file:", "data:", "blob:", "about:")
PAGE = """<!doctype html>
<html lang="en"{theme}><head><meta charset="utf-8"><title>Widgets</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ margin: 16px; max-width: 760px; background: {paper}; color: {ink}; }}</style></head>
<body><main><h1>Widgets</h1>{body}</main></body></html>
"""


def chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return named or next((path for path in found if path), None)


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    required = os.environ.get("LLM_FROM_SCRATCH_REQUIRE_BROWSER") == "1"
    if path is None:
        if required:
            pytest.fail("Chromium is missing, and LLM_FROM_SCRATCH_REQUIRE_BROWSER=1 requires it")
        pytest.skip("Chromium is missing")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        if required:
            raise
        pytest.skip("Playwright for Python is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """`open_page(path, width=, height=, scheme=, javascript=)` returns a Playwright page."""
    contexts, outside, faults = [], [], []

    def answer(route):
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    def open_page(path, *, width=1000, height=800, scheme="light", javascript=True, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=javascript,
            accept_downloads=True,
            **options,
        )
        contexts.append(context)
        context.route("**/*", answer)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(Path(path).resolve().as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not outside, f"the page asked for {outside}"
    assert not faults, f"the page reported {faults}"


@pytest.fixture
def open_widgets(open_page, tmp_path):
    """`open_widgets(view, ...)` writes the views into one page, as a static book would, and opens it."""
    count = 0

    def open_widgets(*views, theme=None, sanitised=False, **options):
        nonlocal count
        count += 1
        body = "\n<p>Between.</p>\n".join(view._repr_html_() for view in views)
        body = sanitise(body) if sanitised else body
        dark = (theme or options.get("scheme")) == "dark"
        page = PAGE.format(
            theme=f' data-theme="{theme}"' if theme else "",
            paper="#121212" if dark else "#ffffff",
            ink="#e6e6e6" if dark else "#1a1a1a",
            body=body,
        )
        path = tmp_path / f"page{count}.html"
        path.write_text(page, encoding="utf-8")
        return open_page(path, **options)

    return open_widgets


@pytest.fixture
def axe_faults():
    """`axe_faults(page)` lists the serious and critical findings of axe."""
    from axe_playwright_python.sync_playwright import Axe

    def axe_faults(page):
        found = Axe().run(page).response["violations"]
        return [
            (fault["id"], fault["help"], [node["target"] for node in fault["nodes"]][:5])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    return axe_faults


class _Sanitiser(HTMLParser):
    """What JupyterLab does to the HTML of a notebook it does not trust, on the strict side."""

    DROPPED = (
        "script",
        "style",
        "svg",
        "iframe",
        "object",
        "embed",
        "form",
        "input",
        "button",
        "link",
        "meta",
    )

    def __init__(self):
        super().__init__(convert_charrefs=False)
        self.parts, self.inside = [], []

    def handle_starttag(self, tag, attributes):
        if tag in self.DROPPED:
            self.inside.append(tag)
        elif not self.inside:
            kept = [
                (name, value)
                for name, value in attributes
                if not re.match(r"role$|aria-|on|data-|style$", name)
            ]
            text = "".join(f' {name}="{_attribute(value or "")}"' for name, value in kept)
            self.parts.append(f"<{tag}{text}>")

    def handle_endtag(self, tag):
        if self.inside:
            if tag == self.inside[-1]:
                self.inside.pop()
        else:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data):
        if not self.inside:
            self.parts.append(data)

    def handle_entityref(self, name):
        self.handle_data(f"&{name};")

    def handle_charref(self, name):
        self.handle_data(f"&#{name};")


def _attribute(value):
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def sanitise(text: str) -> str:
    parser = _Sanitiser()
    parser.feed(text)
    parser.close()
    return "".join(parser.parts)
