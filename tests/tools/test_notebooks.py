"""tools/notebooks.py: what changes in a notebook, what stays, and what is reported."""

import copy
import json

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.tools.conftest import load_tool

TEXT = """# %% [markdown]
# # Title
#
# Text with $x$.

# %% tags=["setup"] exercise="1.1" points=3
a = 1
print(a)

# %%
b = a + 1
b
"""


@pytest.fixture
def notebooks(tool):
    return tool("notebooks")


@pytest.fixture
def run(notebooks):
    return lambda *words: CliRunner().invoke(notebooks.app, [str(word) for word in words])


@pytest.fixture
def chapter(tmp_path, run):
    (tmp_path / "draft.py").write_text(TEXT, encoding="utf-8")
    assert run("from-text", tmp_path / "draft.py", tmp_path / "n.ipynb").exit_code == 0
    return tmp_path / "n.ipynb"


def code(source, *outputs, **metadata):
    cell = nbformat.v4.new_code_cell(source, metadata=metadata)
    cell.outputs = list(outputs)
    return cell


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", text=text, name=name)


def shown(**data):
    return nbformat.v4.new_output(
        "display_data", data={key.replace("__", "/"): value for key, value in data.items()}
    )


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_text_there_and_back(notebooks, run, chapter, tmp_path):
    nb = notebooks.read(chapter)
    assert [cell.cell_type for cell in nb.cells] == ["markdown", "code", "code"]
    assert dict(nb.cells[1].metadata) == {"tags": ["setup"], "exercise": "1.1", "points": 3}
    assert run("to-text", chapter, tmp_path / "back.py").exit_code == 0
    before = chapter.read_bytes()
    assert run("from-text", tmp_path / "back.py", chapter).exit_code == 0
    assert chapter.read_bytes() == before


def test_unchanged_cells_keep_id_and_outputs_until_code_above_changes(notebooks, run, chapter, tmp_path):
    nb = notebooks.read(chapter)
    nb.cells[1].outputs, nb.cells[2].outputs = [stream("1\n")], [stream("2\n")]
    notebooks.write(chapter, nb)
    ids = [cell.id for cell in nb.cells]
    draft = tmp_path / "draft.py"

    draft.write_text(TEXT.replace("Text with", "Other text with"), encoding="utf-8")
    run("from-text", draft, chapter)
    new = notebooks.read(chapter)
    assert [cell.id for cell in new.cells] == ids
    assert [out.text for cell in new.cells[1:] for out in cell.outputs] == ["1\n", "2\n"]

    draft.write_text(TEXT.replace("a = 1", "a = 5"), encoding="utf-8")
    run("from-text", draft, chapter)
    new = notebooks.read(chapter)
    assert [cell.id for cell in new.cells] == ids
    assert new.cells[1].outputs == []
    assert new.cells[2].outputs == []  # b was computed from the old a


def test_inserted_cell_gets_a_new_id(notebooks, run, chapter, tmp_path):
    ids = [cell.id for cell in notebooks.read(chapter).cells]
    (tmp_path / "draft.py").write_text(TEXT.replace("# %%\nb", "# %%\nprint(a)\n\n# %%\nb"), encoding="utf-8")
    run("from-text", tmp_path / "draft.py", chapter)
    new = [cell.id for cell in notebooks.read(chapter).cells]
    assert [identity for identity in new if identity in ids] == ids
    assert len(set(new)) == 4


def test_execute_stores_outputs_and_nothing_of_the_machine(notebooks, run, chapter):
    result = run("execute", chapter)
    assert result.exit_code == 0, result.output
    text = chapter.read_text(encoding="utf-8")
    nb = json.loads(text)
    assert nb["cells"][1]["outputs"][0]["text"] == ["1\n"]
    assert nb["cells"][2]["outputs"][0]["data"]["text/plain"] == ["2"]
    assert [cell["execution_count"] for cell in nb["cells"][1:]] == [1, 2]
    assert "timestamp" not in text
    assert "iopub" not in text
    assert "version" not in nb["metadata"]["language_info"]
    assert run("check", chapter).exit_code == 0
    assert run("execute", chapter).exit_code == 0
    assert chapter.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('noise', file=sys.stderr)", "stderr"),
        ("print(object())", "memory address"),
        ("import matplotlib.pyplot as plt; _ = plt.plot([1, 2])", "alt text"),
    ],
)
def test_execute_leaves_the_file_when_something_is_wrong(notebooks, run, chapter, line, said):
    nb = notebooks.read(chapter)
    nb.cells[2].source = line
    notebooks.write(chapter, nb)
    before = chapter.read_bytes()
    result = run("execute", chapter)
    assert result.exit_code == 1
    assert said in result.output
    assert chapter.read_bytes() == before


def test_execute_discard_changes_nothing(run, chapter):
    before = chapter.read_bytes()
    assert run("execute", "--discard", chapter).exit_code == 0
    assert chapter.read_bytes() == before


def test_normalise_takes_out_editors_and_machines(notebooks):
    view = "application/vnd.jupyter.widget-view+json"
    dirty = notebook(
        code(
            "x\n",
            stream("a"),
            stream("b"),
            nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7),
            shown(**{"text__plain": "VBox()", view.replace("/", "__"): {"model_id": "1"}}),
            scrolled=True,
            execution={"iopub.execute_input": "2026-01-01"},
            tags=[],
            exercise="1.1",
        )
    )
    dirty.metadata = nbformat.from_dict(
        {"widgets": {"state": {}}, "kernelspec": {"name": "my-env", "display_name": "/home/me"}, "vscode": {}}
    )
    dirty.nbformat_minor = 4
    del dirty.cells[0]["id"]
    clean = notebooks.normalised(dirty)
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert clean.metadata.kernelspec.name == "python3"
    cell = clean.cells[0]
    assert cell.source == "x"
    assert dict(cell.metadata) == {"exercise": "1.1"}
    assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.outputs[0].text == "ab"
    assert cell.outputs[1].execution_count is None
    nbformat.validate(clean)


@settings(max_examples=50, deadline=None)
@given(sources=st.lists(st.text(max_size=20), max_size=6), keep=st.booleans())
def test_normalising_twice_is_normalising_once(sources, keep):
    notebooks = load_tool("notebooks")
    nb = notebook(*[code(source) if keep else nbformat.v4.new_markdown_cell(source) for source in sources])
    for cell in nb.cells[::2]:
        del cell["id"]
    once = notebooks.normalised(nb)
    twice = notebooks.normalised(copy.deepcopy(once))
    assert notebooks.as_stored(once) == notebooks.as_stored(twice)
    ids = [cell.id for cell in once.cells]
    assert len(set(ids)) == len(ids)
    nbformat.validate(once)


def test_new_ids_come_from_the_content(notebooks):
    def ids(sources):
        nb = notebook(*map(code, sources))
        for cell in nb.cells:
            del cell["id"]
        return [cell.id for cell in notebooks.normalised(nb).cells]

    assert ids(["a", "b"]) == ids(["a", "b"])
    assert ids(["a", "b"])[1] == ids(["b", "c"])[0]
    assert len(set(ids(["a", "a", "a"]))) == 3


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (stream("warning\n", "stderr"), "stderr"),
        (stream("10%|#    | 1/10\r20%|##   | 2/10\r"), "progress bar"),
        (stream("<function f at 0x7f3c2a1b4d30>\n"), "memory address"),
        (stream("saved to /home/me/x\n"), "path of this machine"),
        (nbformat.v4.new_output("error", ename="KeyError", evalue="1", traceback=[]), "KeyError"),
        (shown(image__png="AAAA"), "alt text"),
    ],
)
def test_check_reports(notebooks, run, tmp_path, output, said):
    path = tmp_path / "n.ipynb"
    notebooks.write(path, notebooks.normalised(notebook(code("x", output))))
    result = run("check", path)
    assert result.exit_code == 1
    assert said in result.output
    notebooks.write(path, notebooks.normalised(notebook(code("x", stream("fine\n")))))
    assert run("check", path).exit_code == 0


def test_check_reports_what_is_not_normalised_or_no_notebook(run, chapter, tmp_path):
    chapter.write_text(chapter.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "normalise" in run("check", chapter).output
    (tmp_path / "broken.ipynb").write_text('{"cells": [', encoding="utf-8")
    result = run("check", tmp_path / "broken.ipynb", tmp_path / "missing.ipynb")
    assert result.exit_code == 1
    assert "not a notebook" in result.output
    assert "missing.ipynb" in result.output


def test_normalise_command_says_whether_it_changed_a_file(run, chapter):
    assert run("normalise", chapter).exit_code == 0
    chapter.write_text(
        chapter.read_text(encoding="utf-8").replace('"metadata": {},', '"metadata": {"collapsed": true},', 1)
    )
    assert run("normalise", chapter).exit_code == 1
    assert run("normalise", chapter).exit_code == 0
