"""What the book adds to Sphinx: folded worked solutions, exercise numbers, MathJax from disk, page repairs.

Everything here changes the built pages only. The sources stay standard MyST.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

_LABEL = re.compile(r"exercise-(\d+)-(\d+)")
_SOLUTION_TAGS = {"answer", "solution", "explanation"}
_MARKER = re.compile(r"\s*# (BEGIN|END) SOLUTION\s*")
MATHJAX = "vendor/mathjax/tex-svg.js"  # below _static; the same path stands in _config.yml


class WorkedSolution(SphinxDirective):
    """``{worked-solution} exercise-1-3``: the solution cells of exercise 1.3, folded.

    They come from ``book/solutions/01_*.ipynb``: the code cells tagged ``answer`` and the Markdown cells
    tagged ``explanation`` whose metadata says ``exercise: "1.3"``. An unknown label is a warning, which the
    book's build treats as an error.
    """

    required_arguments = 1
    has_content = False
    option_spec = {"class": directives.class_option}  # noqa: RUF012 (docutils' own protocol)

    def run(self) -> list[nodes.Node]:
        """Read the cells and return the folded block."""
        label = self.arguments[0].strip()
        cells = self._cells(label)
        if not cells:
            return []
        number = ".".join(_LABEL.fullmatch(label).groups())
        body = nodes.container(classes=["llm-solution-body"])
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code":
                lines = [line for line in source.splitlines() if not _MARKER.fullmatch(line)]
                code = nodes.literal_block("\n".join(lines), "\n".join(lines), language="ipython3")
                self.set_source_info(code)
                body += code
            else:
                # A heading inside the fold would break the page's outline: it becomes a bold line.
                source = re.sub(r"^#+ +(.*)$", r"**\1**", source, flags=re.MULTILINE)
                body += self.parse_text_to_nodes(source)
        return [
            nodes.raw(
                "",
                f'<details class="llm-solution"><summary>Worked solution of exercise {html.escape(number)}'
                "</summary>",
                format="html",
            ),
            body,
            nodes.raw("", "</details>", format="html"),
        ]

    def _cells(self, label: str) -> list[dict[str, Any]]:
        match = _LABEL.fullmatch(label)
        if match is None:
            return self._warn(f"worked-solution {label!r}: the label must look like exercise-1-3")
        chapter, number = int(match[1]), int(match[2])
        folder = Path(self.env.srcdir) / "book" / "solutions"
        found = sorted(folder.glob(f"{chapter:02d}_*.ipynb"))
        if not found:
            return self._warn(f"worked-solution {label!r}: no notebook {folder.name}/{chapter:02d}_*.ipynb")
        self.env.note_dependency(str(found[0]))
        notebook = json.loads(found[0].read_text(encoding="utf-8"))
        name = f"{chapter}.{number}"
        cells = [
            cell
            for cell in notebook["cells"]
            if str(cell["metadata"].get("exercise")) == name
            and _SOLUTION_TAGS & set(cell["metadata"].get("tags", []))
        ]
        kinds = {cell["cell_type"] for cell in cells}
        if kinds != {"code", "markdown"}:
            return self._warn(
                f"worked-solution {label!r}: {found[0].name} needs for exercise {name} a code cell tagged "
                f"'answer' and a Markdown cell tagged 'explanation'; it has {sorted(kinds) or 'neither'}"
            )
        return cells

    def _warn(self, message: str) -> list[dict[str, Any]]:
        logger.warning(message, location=self.get_location(), type="worked-solution")
        return []


def number_exercises(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number each exercise by its label: exercise-6-2 is exercise 6.2, wherever it stands.

    sphinx-exercise would count over the whole book, and the numbers would not agree with the notebooks.
    """
    for by_kind in env.toc_fignumbers.values():
        for identity in by_kind.get("exercise", {}):
            if match := _LABEL.fullmatch(identity):
                by_kind["exercise"][identity] = (int(match[1]), int(match[2]))
    return []


def number_chapter(app: Sphinx, doctree: nodes.document) -> None:
    """Put a chapter's number before its title: the file 06_attention.ipynb holds "6. Attention".

    A long chapter has a second page: 14b_instructions.ipynb holds "14b. ...".
    """
    match = re.fullmatch(r"book/(?!exercises|solutions|appendix)\w+/(\d+)([b-z]?)_\w+", app.env.docname)
    title = next(doctree.findall(nodes.title), None)
    if match and title is not None and not title.astext()[:1].isdigit():
        title.insert(0, nodes.Text(f"{int(match[1])}{match[2]}. "))


def mark_chinese_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Say that a glossary term in Chinese is Chinese, so that screen readers and fonts follow."""
    for term in doctree.findall(nodes.term):
        if re.search(r"[\u4e00-\u9fff]", term.astext()):
            term["classes"].append("language-zh")


def describe_page(app: Sphinx, pagename: str, template: str, context: dict, doctree: nodes.document) -> None:
    """Give each page a description for search engines: its first paragraph, unless the page sets one."""
    tags = context.get("metatags", "")
    if doctree is None or 'name="description"' in tags:
        return
    for paragraph in doctree.findall(nodes.paragraph):
        inside = paragraph.parent
        if isinstance(inside, nodes.section) and len(text := " ".join(paragraph.astext().split())) > 40:
            text = text if len(text) <= 160 else text[:157].rsplit(" ", 1)[0] + " ..."
            context["metatags"] = f'{tags}\n<meta name="description" content="{html.escape(text)}" />'
            return


# The theme's templates give some controls no name, and ask for what a page opened from the disk cannot
# load. Each pair repairs one of these in the HTML of a page.
_REPAIRS: list[tuple[re.Pattern[str], str]] = [
    # Icons are decoration; their buttons have names.
    (re.compile(r'<(i|span) class="((?:theme-switch )?fa[ -][^"]*)"'), r'<\1 aria-hidden="true" class="\2"'),
    # A button that shows an icon alone is named by its tooltip, which not every screen reader speaks.
    (
        re.compile(r'<(button|a)\b(?![^>]*aria-label)([^>]*?)\stitle="([^"]+)"'),
        r'<\1\2 title="\3" aria-label="\3"',
    ),
    # The arrow that folds a part of the table of contents.
    (
        re.compile(r'<summary><span class="toctree-toggle"'),
        '<summary aria-label="Show or hide the pages below"><span class="toctree-toggle"',
    ),
    # The sidebar is a landmark, with its title inside.
    (
        re.compile(r'<div class="(bd-sidebar-primary[^"]*)"'),
        r'<div role="complementary" aria-label="Book" class="\1"',
    ),
    # docutils gives the entries of its lists of references a role that lists may not hold.
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # Without JavaScript "auto" matches none of the theme's colours; no scheme at all means light.
    (re.compile(r'(<html[^>]*) data-theme="auto"'), r"\1"),
    # Browsers refuse to preload fonts from the disk and report an error; the style sheet loads them anyway.
    (re.compile(r'<link rel="preload" as="font"[^>]*>\n?'), ""),
]


def repair_page(page: str) -> str:
    """Apply the repairs to the HTML of one page."""
    for pattern, replacement in _REPAIRS:
        page = pattern.sub(replacement, page)
    return page


def repair_as_written(app: Sphinx) -> None:
    """Have every page repaired between its template and its file."""
    if app.builder.format != "html":
        return
    render = app.builder.templates.render
    app.builder.templates.render = lambda template, context: repair_page(render(template, context))


def switch_off_services(app: Sphinx, config: Any) -> None:
    """Jupyter Book loads extensions for live kernels and comments; both would call other hosts."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener
            for listener in listeners
            if not listener.handler.__module__.startswith(("sphinx_thebe", "sphinx_comments"))
        ]
    app.registry.css_files[:] = [entry for entry in app.registry.css_files if "thebe" not in entry[0]]
    app.registry.js_files[:] = [entry for entry in app.registry.js_files if "thebe" not in str(entry[0])]


def add_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put MathJax beside the pages. It is fetched from a package, checked by hash, and not in git."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / MATHJAX
    if not target.exists():
        from llm_from_scratch.data import artifacts

        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifacts.fetch("mathjax"), target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_css_file("book.css", priority=900)
    app.add_js_file("book.js", loading_method="defer")
    app.add_directive("worked-solution", WorkedSolution)
    app.connect("config-inited", switch_off_services)
    app.connect("builder-inited", repair_as_written)
    app.connect("env-get-updated", number_exercises, priority=900)
    app.connect("doctree-read", number_chapter, priority=100)  # before Sphinx collects the titles
    app.connect("doctree-read", mark_chinese_terms)
    app.connect("html-page-context", describe_page)
    app.connect("build-finished", add_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
