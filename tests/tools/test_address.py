"""tools/address.py: one address in pyproject.toml, every other mention follows."""

import nbformat
import pytest

OLD = "https://github.com/old-owner/old.name"
NEW = "https://github.com/someone/book"


@pytest.fixture
def address(tool):
    return tool("address")


@pytest.fixture
def root(tmp_path, address):
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{NEW}"\n')
    (tmp_path / "_config.yml").write_text(
        f"title: x\nrepository:\n  url: {OLD}\n  branch: main\nother:\n  url: stays\n"
    )
    (tmp_path / "CITATION.cff").write_text(f"title: x\nrepository-code: {OLD}\n")
    (tmp_path / "README.md").write_text(
        f"[![t]({OLD}/actions/workflows/test.yml/badge.svg)]({OLD}/actions/workflows/test.yml)\n"
        "[c](https://colab.research.google.com/github/old-owner/old.name/blob/main/book/transformer/x.ipynb)\n"
        "[b](https://mybinder.org/v2/gh/old-owner/old.name/HEAD)\n"
        f"git clone {OLD} && cd x\ngit clone {OLD}.git\npip install git+{OLD}\n"
        "See https://github.com/karpathy/nanoGPT for a peer.\n"
    )
    chapter = tmp_path / "book" / "transformer" / "06_x.ipynb"
    chapter.parent.mkdir(parents=True)
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# X"), nbformat.v4.new_code_cell(address.colab_cell(OLD))]
    )
    nbformat.write(nb, chapter)
    return tmp_path


def test_write_mends_every_place_and_check_agrees(root, address):
    differ, missing = address.differences(root)
    assert len(differ) == 4
    assert missing == []
    address.differences(root, write=True)
    assert address.differences(root) == ([], [])
    readme = (root / "README.md").read_text()
    assert "old" not in readme
    assert readme.count("someone/book") == 7
    assert "https://github.com/karpathy/nanoGPT" in readme
    assert f"git clone {NEW} && cd x" in readme
    assert f"git clone {NEW}.git" in readme
    config = (root / "_config.yml").read_text()
    assert f"  url: {NEW}\n  branch: main" in config
    assert "other:\n  url: stays" in config
    nb = nbformat.read(root / "book" / "transformer" / "06_x.ipynb", as_version=4)
    assert nb.cells[1].source == address.colab_cell(NEW)


def test_check_sees_one_wrong_place(root, address):
    address.differences(root, write=True)
    path = root / "README.md"
    path.write_text(path.read_text().replace("gh/someone/book", "gh/someone/fork"))
    differ, _ = address.differences(root)
    assert [line.split(":")[0] for line in differ] == ["README.md"]


def test_chapter_without_colab_cell_is_named(root, address):
    path = root / "book" / "transformer" / "07_y.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), path)
    _, missing = address.differences(root, write=True)
    assert len(missing) == 1
    assert "07_y.ipynb" in missing[0]
    assert "Colab cell" in missing[0]


def test_colab_cell_pins_nothing_and_runs_nowhere_else(address):
    source = address.colab_cell(NEW)
    assert "==" not in source
    assert "torch" not in source
    # Without Colab the cell does nothing: the magic stands under the condition.
    plain = source.replace("%pip", "raise SystemExit  # %pip")
    exec(plain, {})


@pytest.mark.parametrize("bad", ["https://example.org/x", "git@github.com:a/b.git", "https://github.com/a"])
def test_address_that_colab_could_not_open(root, address, bad):
    (root / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{bad}"\n')
    with pytest.raises(ValueError, match="owner/name"):
        address.repository_address(root)


def test_missing_line_is_named(root, address):
    (root / "CITATION.cff").write_text("title: x\n")
    assert any("CITATION.cff" in line for line in address.differences(root)[1])


def test_the_project_itself(address):
    assert address.differences() == ([], [])
