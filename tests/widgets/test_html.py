"""The HTML around a view: nothing that a token says may act on the page."""

import base64
import json
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.widgets import AttentionExplorer, SamplingPlayground, html

ANY_TEXT = st.text(st.characters(), max_size=12)  # lone surrogates too


@given(st.lists(ANY_TEXT, max_size=5))
def test_escaped_json_reads_back_and_holds_no_markup(texts):
    written = html.escaped_json(texts)
    assert json.loads(written) == texts
    assert not set("<>&\u2028\u2029") & set(written)
    assert written.isascii()


@given(ANY_TEXT)
def test_visible_is_one_line_that_xml_allows(text):
    shown = html.visible(text)
    assert shown
    ElementTree.fromstring(f"<t>{html.escaped(shown)}</t>")
    shown.encode("utf-8")
    assert not re.search(r"[\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff]", shown)


def test_visible_keeps_letters_apart():
    shown = [
        html.visible(text)
        for text in ("a b", "a\nb", "a\tb", "a\rb", "a\u00a0b", "a\u200bb", "a\x00b", "a\x7fb")
    ]
    assert shown == ["a␣b", "a↵b", "a⇥b", "a␍b", "a⟨U+00A0⟩b", "a⟨U+200B⟩b", "a␀b", "a␡b"]
    assert html.visible("\U0001f469\u200d\U0001f4bb") == "\U0001f469\u200d\U0001f4bb"


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_any_tokens_make_one_widget(tokens):
    size = len(tokens)
    views = [
        AttentionExplorer(tokens, np.full((1, 1, size, size), 1 / size), causal=False),
        SamplingPlayground(tokens, np.zeros(size), prompt=tokens[0]),
    ]
    for view in views:
        page = view._repr_html_()
        page.encode("utf-8")
        assert page.count("<script") == page.count("</script>") == 2
        assert page.count("<img ") == 1
        data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])
        assert data["tokens"] == [tokens[i] for i in data.get("ids", range(size))]
        address = re.search(r'<img src="data:image/svg\+xml,([^"]*)"', page)[1]
        ElementTree.fromstring(urllib.parse.unquote(address))


@pytest.mark.parametrize("name", ["attention", "sampling"])
def test_script_is_one_small_file_without_dependencies(name):
    source = html.script(name)
    assert len(source.encode("utf-8")) <= 30_000
    assert "</script" not in source.lower()
    assert "<!--" not in source
    assert not re.search(r"\b(import|require|fetch|XMLHttpRequest|eval|innerHTML)\b", source)
    assert re.findall(r"https?://[^\"'` ]+", source) == ["http://www.w3.org/2000/svg"]
    assert max(map(len, source.splitlines())) <= 260  # written by hand, not minified


def test_same_contents_same_html():
    def view():
        return AttentionExplorer(["a", "b"], [[[[1.0, 0.0], [0.5, 0.5]]]])

    assert view()._repr_html_() == view()._repr_html_()
    assert not re.search(r'\sid="', view()._repr_html_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arrays_of_every_kind(dtype):
    tensor = torch.tensor([[0.5, 0.25]], dtype=dtype, requires_grad=True)
    expected = np.array([[0.5, 0.25]])
    for value in (tensor, [tensor[0]], tensor.detach().double().numpy(), expected.tolist(), ((0.5, 0.25),)):
        found = html.to_array("weights", value)
        assert found.dtype == np.float64
        assert np.array_equal(found, expected)
    assert html.to_array("weights", torch.tensor([1, 2])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "value", [[[1], [1, 2]], "text", None, [["a"]], torch.tensor([1 + 2j]), np.array([1j])]
)
def test_no_array(value):
    with pytest.raises(ValueError, match="weights must be a rectangular array of real numbers"):
        html.to_array("weights", value)


@pytest.mark.parametrize(
    ("tokens", "words"), [([], "empty"), ("abc", "single string"), (["a", 7], r"tokens\[1\] is 7")]
)
def test_no_tokens(tokens, words):
    with pytest.raises(ValueError, match=words):
        html.read_tokens(tokens)


def test_pack_is_little_endian():
    assert base64.b64decode(html.pack(np.array([1, 256]), "i2")) == b"\x01\x00\x00\x01"
