"""The tokenizer explorer's data: its encoding, what is checked, and what its fallback says."""

import base64
import json
import re
import warnings
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer
from llm_from_scratch.tokenizers.byte_pair import ALPHABET, PIECE
from llm_from_scratch.widgets import TokenizerExplorer, tokenizer_codec
from llm_from_scratch.widgets.tokenizer import DRAWN, MAX_CHARACTERS, shown

HOSTILE = "</script><b onclick=x>\u202e\"'&\x00<!--<script>"
# "abc" is made of "ab" + "c", and again, after "abc" + "a", of "a" + "bc": one join opens an earlier one.
TWO_WAYS = [(65, 66), (64, 65), (257, 66), (258, 64), (64, 256)]


@pytest.fixture(scope="module")
def tokenizer():
    return BytePairTokenizer.load(RESULTS / "laptop" / "tokenizer.json")


@pytest.fixture(scope="module")
def view(tokenizer):
    return TokenizerExplorer.of(tokenizer)


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def picture_of(view):
    svg = unquote(re.search(r'src="data:image/svg\+xml,(.*?)"', view._repr_html_())[1])
    return ElementTree.fromstring(svg)


def test_the_alphabet_and_the_pattern_are_the_tokenizer_s():
    assert [bytes([byte]) for byte in tokenizer_codec.BYTES] == list(ALPHABET)
    assert tokenizer_codec.PIECE.pattern == PIECE.pattern


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("the  's\n"), max_size=80))
def test_ids_are_the_tokenizer_s(tokenizer, view, text):
    ids, begins = view.vocabulary.encode(text)
    assert ids == tokenizer.encode(text)
    pieces, at = PIECE.findall(text), 0
    for piece in pieces:
        assert at in begins
        at += len(tokenizer.encode(piece))
    assert len(begins) == len(pieces)


@settings(max_examples=200, deadline=None)
@given(st.text("abc d", max_size=40))
def test_merges_that_make_one_token_share_its_id(text):
    tokenizer = BytePairTokenizer(TWO_WAYS, ["<s>"])
    view = TokenizerExplorer.of(tokenizer, text)
    assert view.vocabulary.made == [256, 257, 258, 259, 258]
    assert view.ids == tokenizer.encode(text)
    assert data_of(view)["special"] == [["<s>", 260]]


def test_merges_travel_whole(tokenizer, view):
    packed = data_of(view)["merges"]
    assert packed["count"] == len(tokenizer.merges)
    digits = "".join(f"{byte:08b}" for byte in base64.b64decode(packed["packed"]))
    found, at = [], 0
    for rank in range(packed["count"]):
        bits = (255 + rank).bit_length()
        found.append((int(digits[at : at + bits], 2), int(digits[at + bits : at + 2 * bits], 2)))
        at += 2 * bits
    assert tuple(found) == tokenizer.merges
    assert tokenizer_codec.pack_merges([]) == {"count": 0, "packed": ""}


@pytest.mark.parametrize(("name", "pattern"), [("L", r"\p{L}"), ("N", r"\p{N}"), ("S", r"\s")])
def test_the_classes_are_the_pattern_s(view, name, pattern):
    inside, at = set(), 0
    for n, step in enumerate(data_of(view)["classes"][name].split(",")):
        if n % 2:
            inside.update(range(at, at + int(step, 36)))
        at += int(step, 36)
    matches = regex.compile(pattern).match
    assert inside == {code for code in range(0x110000) if matches(chr(code))}


def test_a_whole_cell_is_small(view):
    assert len(view._repr_html_().encode()) < 60_000
    assert len(data_of(view)["merges"]["packed"]) < 15_000


def test_fallback_speaks(tokenizer):
    view = TokenizerExplorer.of(tokenizer, "The theatre 語", title="T<1>", caption="C&2")
    page = view._repr_html_()
    assert "T&lt;1&gt;" in page
    assert "C&amp;2" in page
    assert view.alt.startswith(f"13 characters, 15 UTF-8 bytes, {len(view.ids)} tokens. The tokens with")
    assert f"The ({view.ids[0]})" in view.alt
    assert page.count("<tr>") == 1 + len(view.ids)
    assert "<td>20 74 68 65</td>" in page
    words = [text.text for text in picture_of(view).findall(".//{*}text")]
    assert words == [*map(shown, view.tokens), *map(str, view.ids)]
    assert "⟨E8⟩" in words
    assert repr(view) == f"TokenizerExplorer(4096 tokens, 'The theatre 語' is {len(view.ids)} tokens)"


def test_a_long_text_is_cut_and_its_fallback_too(tokenizer):
    with pytest.warns(UserWarning, match="2500 characters are more than the 2000"):
        view = TokenizerExplorer.of(tokenizer, "ab 語" * 625)
    assert view.text == ("ab 語" * 625)[:MAX_CHARACTERS]
    assert view.ids == tokenizer.encode(view.text)
    assert view._repr_html_().count("<tr>") == 1 + DRAWN
    more = f"and {len(view.ids) - DRAWN:,} tokens more"
    assert more in [text.text for text in picture_of(view).findall(".//{*}text")]
    assert len(view._repr_html_()) < 80_000


def test_empty_text(tokenizer):
    view = TokenizerExplorer.of(tokenizer, "")
    assert view.ids == []
    assert "0 tokens. The tokens with their ids: none." in view.alt
    picture_of(view)


def test_hostile_text_stays_text(tokenizer):
    view = TokenizerExplorer([], {HOSTILE: 256}, HOSTILE, title=HOSTILE, caption=HOSTILE)
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert "⟨U+202E⟩" in "".join(shown(view.text.encode()))
    assert data_of(view)["text"] == HOSTILE
    picture_of(view)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (b" the\n\t", "␣the↵⇥"),
        ("語".encode()[:2], "⟨E8 AA⟩"),
        ("語".encode()[1:] + b"!" + "é".encode()[:1], "⟨AA 9E⟩!⟨C3⟩"),
        ("\u0301".encode(), "◌\u0301"),
        ("e\u0301".encode(), "e\u0301"),
        ("\u200d\u202e".encode(), "⟨U+200D⟩⟨U+202E⟩"),
        (b"\x00\x7f", "␀␡"),
    ],
)
def test_shown(token, text):
    assert shown(token) == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([(1, 256)],), r"merges\[0\] joins 1 and 256; only 256 ids exist then"),
        (([(-1, 2)],), r"merges\[0\] joins -1 and 2"),
        (([(1, 2), (1, 2)],), r"merges\[1\] joins 1 and 2, which an earlier merge joined"),
        (([(1, 2, 3)],), r"merges\[0\] is \(1, 2, 3\): every merge is a pair"),
        ((["ab"],), r"merges\[0\] is 'ab': every merge is a pair"),
        (([(0, 1)] + [(255 + n, 255 + n) for n in range(1, 40)],), "are more than a page should hold"),
        (([], "<s>"), r"got one string: \['<s>'\]"),
        (([], [""]), "must be non-empty text, got ''"),
        (([], ["<s>", "<s>"]), "must differ"),
        (([], {"<s>": 255}), "'<s>' has the id 255; ids below 256 belong"),
        (([], {"<s>": 256, "<t>": 256}), "must differ"),
        (([], {"<s>": True}), "has the id True"),
        (([], ["\ud800"]), r"the special token holds the lone surrogate U\+D800 at position 0"),
        (([], (), "a\udfff"), r"text holds the lone surrogate U\+DFFF at position 1"),
        (([], (), 7), "text must be a str, got int"),
        (([], (), "a", "gpt4"), "pieces is 'gpt4'; the only pattern is 'gpt2'"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        TokenizerExplorer(*arguments)


def test_of_takes_what_is_a_byte_pair_tokenizer():
    with pytest.raises(ValueError, match="CharacterTokenizer without merges and encode"):
        TokenizerExplorer.of(CharacterTokenizer.train("abc"))

    class Other:
        merges, special_tokens = [(64, 65)], ["<s>"]

        def encode(self, text):
            return [64, 65]

    with pytest.raises(ValueError, match=r"Other.encode cuts the text in another way .*\[64, 65\] against"):
        TokenizerExplorer.of(Other(), "ab")
    assert data_of(TokenizerExplorer([(64, 65)], Other.special_tokens, "ab"))["special"] == [["<s>", 257]]


def test_a_heavy_view_warns(monkeypatch):
    monkeypatch.setattr("llm_from_scratch.widgets.tokenizer.MAX_BYTES", 1000)
    with pytest.warns(UserWarning, match="pass fewer merges"):
        TokenizerExplorer([], (), "a")
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TokenizerExplorer([], (), "a")
