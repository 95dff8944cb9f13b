"""What every chapter promises its readers, read from the files."""

from __future__ import annotations

import importlib.util
import itertools
import pkgutil
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from llm_from_scratch.widgets import show_source

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
PARTS = ("foundations", "transformer", "pretraining", "using", "engineering")
CHAPTERS = sorted(path for part in PARTS for path in (BOOK / part).glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((BOOK / "solutions").glob("[0-9]*.ipynb"))
PAGES = sorted(BOOK.glob("**/*.md")) + CHAPTERS + sorted((BOOK / "exercises").glob("*.ipynb"))
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|TBD)\b|@@|(?i:lorem ipsum|coming soon|to be written)")

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def tool(name: str):
    """A module of tools/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def text_of(path: Path) -> str:
    """The prose of a page: Markdown as it stands, without the code of a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def files_in_toc() -> set[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def walk(node):
        if isinstance(node, dict):
            yield from (node[key] for key in ("file", "root") if key in node)
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                yield from walk(item)

    return set(walk(toc))


def test_there_are_chapters():
    assert CHAPTERS


@each_chapter
def test_size(path):
    """About 30 to 60 cells, none of code over 20 lines, at most 500 kB."""
    cells = read(path).cells
    assert 30 <= len(cells) <= 80, f"{len(cells)} cells"
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 20, f"cell {number} has more than 20 lines"
    assert path.stat().st_size <= 500_000, f"{path.stat().st_size} bytes"


@each_chapter
def test_outputs_are_stored(path):
    """The book is built from stored outputs: a chapter that was never executed shows nothing."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) / 2
    for number, cell in enumerate(cells):
        if re.search(r"^(print|.*show_figure)\(", cell.source, re.MULTILINE):
            assert cell.outputs, f"code cell {number} prints or shows something, and has no output"


@each_chapter
def test_one_title_and_no_gaps_between_heading_levels(path):
    levels = [
        len(m[1]) for m in re.finditer(r"^(#+) \S", re.sub(r"```.*?```", "", text_of(path), flags=re.S), re.M)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


@each_chapter
def test_pictures_have_words(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                for image in re.findall(r"<img\b[^>]*>", str(output.get("data", {}).get("text/html", ""))):
                    words = re.search(r'\balt="([^"]*)"', image)
                    assert words, image[:100]
                    assert len(words[1]) > 20, f"alt text that says nothing: {words[1]!r}"
        else:
            assert not re.search(r"!\[\]\(", cell.source), "a picture without alt text"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(BOOK)))
def test_nothing_is_unfinished(path):
    match = UNFINISHED.search(text_of(path))
    assert match is None, match


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(BOOK)))
def test_page_is_in_the_table_of_contents(path):
    assert str(path.relative_to(ROOT).with_suffix("").as_posix()) in files_in_toc()


def test_table_of_contents_holds_what_exists():
    for name in files_in_toc():
        assert (ROOT / f"{name}.md").exists() or (ROOT / f"{name}.ipynb").exists(), name


@each_chapter
def test_start_page_names_the_chapter(path):
    assert f"{{doc}}`{path.parent.name}/{path.stem}`" in (BOOK / "index.md").read_text(encoding="utf-8")


def pages_by_chapter() -> dict[int, list[Path]]:
    """A chapter's number and its pages in order: 14_fine_tuning, then 14b_..."""
    pages: dict[int, list[Path]] = {}
    for path in sorted(CHAPTERS, key=lambda path: re.match(r"(\d+)([b-z]?)_", path.name).groups()):
        pages.setdefault(int(path.name[:2]), []).append(path)
    return pages


@pytest.mark.parametrize(("chapter", "pages"), pages_by_chapter().items(), ids=str)
def test_exercises_are_numbered_linked_and_solved(chapter, pages):
    """From 1 on through all pages of a chapter, in the one notebook that is named after its first page."""
    name = pages[0].stem
    on_pages = [re.findall(r"```+\{exercise\}.*?\n:label: (\S+)", text_of(path)) for path in pages]
    labels = [label for found in on_pages for label in found]
    assert labels == [f"exercise-{chapter}-{k}" for k in range(1, len(labels) + 1)]
    assert 3 <= len(labels) <= 6
    for path, found in zip(pages, on_pages, strict=True):
        assert found, f"{path.name} has no exercise"
        assert re.findall(r"```+\{worked-solution\} (\S+)", text_of(path)) == found
        assert f"exercises/{name}" in text_of(path), "no link to the exercise notebook"
    assert (BOOK / "exercises" / f"{name}.ipynb").exists()
    cells = read(BOOK / "solutions" / f"{name}.ipynb").cells
    in_solutions = {str(cell.metadata["exercise"]) for cell in cells if "exercise" in cell.metadata}
    assert in_solutions == {f"{chapter}.{k}" for k in range(1, len(labels) + 1)}


def test_terms_are_in_the_glossary():
    glossary = (BOOK / "appendix" / "glossary.md").read_text(encoding="utf-8")
    entries = {
        line
        for line in re.search(r"```\{glossary\}(.*?)```", glossary, re.S)[1].splitlines()
        if line[:1].strip()
    }
    for path in PAGES:
        for term in re.findall(r"\{term\}`([^`]+)`", text_of(path)):
            name = re.sub(r".*<(.+)>$", r"\1", " ".join(term.split()))
            assert name.lower() in {entry.lower() for entry in entries}, f"{path.name}: {name}"


def test_glossary_gives_each_term_in_chinese():
    glossary = (BOOK / "appendix" / "glossary.md").read_text(encoding="utf-8")
    body = re.search(r"```\{glossary\}\n:sorted:\n(.*?)```", glossary, re.S)[1]
    for entry in re.split(r"\n\s*\n", body.strip()):
        names = [line for line in entry.splitlines() if line[:1].strip()]
        assert any(re.search(r"[\u4e00-\u9fff]", name) for name in names), names
        assert any(re.search(r"[A-Za-z]", name) for name in names), names
        assert any(line.startswith("  ") and line.strip() for line in entry.splitlines()), names


def test_references_are_sorted_and_unique():
    bib = (BOOK / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", bib, re.M)
    assert keys == sorted(set(keys))


def test_stored_notebooks_are_clean():
    """The same as `python tools/notebooks.py check`: no traces of machine or moment, no errors, no stderr."""
    notebooks = tool("notebooks")
    for path in CHAPTERS + SOLUTIONS + sorted((BOOK / "exercises").glob("*.ipynb")):
        nb = notebooks.read(path)
        assert notebooks.problems(nb) == [], path.name
        assert notebooks.as_stored(notebooks.normalised(nb)) == path.read_bytes().decode("utf-8"), path.name


@each_chapter
def test_colab_link_and_cell(path):
    """The first code cell is the Colab cell; the link above it, if any, leads to this notebook."""
    address = tool("address")
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert code[0].source == address.colab_cell(address.repository_address())
    for target in re.findall(
        r"colab\.research\.google\.com/github/[^/]+/[^/]+/blob/main/(\S+?\.ipynb)", text_of(path)
    ):
        assert (ROOT / target).exists(), target


@each_chapter
def test_shown_source_is_the_present_source(path):
    """What show_source stored in a chapter is what the package holds today."""
    for cell in read(path).cells:
        for output in cell.get("outputs", ()):
            shown = str(output.get("data", {}).get("text/markdown", ""))
            if match := re.match(r"<details><summary>Source of <code>(llm_from_scratch\.[\w.]+)<", shown):
                thing = pkgutil.resolve_name(match[1])
                present = [show_source(thing, docstring=d)._repr_markdown_() for d in (True, False)]
                assert shown in present, f"{match[1]} has changed: execute {path.name} again"
