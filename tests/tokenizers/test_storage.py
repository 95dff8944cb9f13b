"""Damaged and hostile tokenizer files: each refused by the name of its field."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer, load_tokenizer

TEXT = "the cat sat on the mat; the cat sat"


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a good file with some fields changed."""

    def change(of=BytePairTokenizer, remove=(), **fields):
        path = tmp_path / "tokenizer.json"
        if of is CharacterTokenizer:
            CharacterTokenizer.train(TEXT).save(path)
        else:
            BytePairTokenizer.train(TEXT, vocab_size=263, special_tokens=["<|end|>"]).save(path)
        whole = json.loads(path.read_text(encoding="utf-8")) | fields
        path.write_text(json.dumps({k: v for k, v in whole.items() if k not in remove}), encoding="utf-8")
        return path

    return change


def test_a_good_file_loads(saved, tmp_path):
    loaded = load_tokenizer(saved())
    again = BytePairTokenizer.train(TEXT, vocab_size=263, special_tokens=["<|end|>"])
    assert (loaded.merges, loaded.special_ids) == (again.merges, again.special_ids)
    assert loaded.encode(TEXT) == again.encode(TEXT)
    assert load_tokenizer(tmp_path).vocab_size == 263
    loaded.save(tmp_path)  # a folder: the file in it
    assert BytePairTokenizer.load(tmp_path).merges == loaded.merges
    assert load_tokenizer(saved(future_field=1)).vocab_size == 263


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "unigram"},
            "'kind' is 'unigram'; there are 'character', 'byte_pair', 'published_byte_pair', ",
        ),
        ({"kind": 3}, "'kind' is 3, expected text"),
        ({"kind": None}, "'kind' is None, expected text"),
        ({"format": 2}, "'format' is 2, and this version of the package reads 1"),
        ({"format": True}, "'format' is True, expected an integer"),
        ({"format": "1"}, "'format' is '1', expected an integer"),
        ({"pieces": "(a+)+$"}, r"'pieces' is '\(a\+\)\+\$', expected 'gpt2'"),
        ({"merges": {}}, "'merges' is {}, expected a list"),
        ({"merges": [[0, 1], [2]]}, r"'merges' holds \[2\] at position 1, expected two ids"),
        ({"merges": [[0, 1.0]]}, "'merges' holds .* expected two ids"),
        ({"merges": [[0, True]]}, "'merges' holds .* expected two ids"),
        ({"merges": ["ab"]}, "'merges' holds 'ab' at position 0"),
        ({"merges": [[0, 256]]}, "'merges' is damaged: merge 0 joins 0 and 256; only 256 ids exist"),
        ({"merges": [[-1, 0]]}, "'merges' is damaged: merge 0 joins -1 and 0"),
        ({"merges": [[0, 1], [0, 1]]}, "'merges' is damaged: merge 1 .* earlier merge"),
        ({"merges": [[0, 0], *[[255 + i, 255 + i] for i in range(1, 64)]]}, "'merges' is damaged: .* bytes"),
        ({"special_tokens": [""]}, "'special_tokens' holds '' at position 0"),
        ({"special_tokens": ["a", "a"]}, "'special_tokens' holds 'a' twice"),
        ({"special_tokens": "<end>"}, "'special_tokens' is '<end>', expected a list"),
        ({"special_tokens": ["\ud800"]}, "'special_tokens' is damaged: .* lone surrogate"),
        ({"vocab_size": 999}, "'vocab_size' is 999, but the merges make 263 tokens"),
        ({"vocab_size": 263.0}, "'vocab_size' is 263.0, expected an integer"),
        *(
            ({"remove": [name]}, f"'{name}' is missing")
            for name in ("kind", "format", "pieces", "merges", "special_tokens", "vocab_size")
        ),
    ],
)
def test_each_field_is_checked_by_name(saved, fields, message):
    with pytest.raises(ValueError, match=f"tokenizer.json: the field {message}"):
        load_tokenizer(saved(**fields))


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("abc", "is 'abc', expected a list"),
        ([], "is damaged: the vocabulary is empty"),
        (["ab"], "is damaged: each entry .* one character, got 'ab'"),
        (["a", 3], "holds 3 at position 1"),
        (["a", "a"], "holds 'a' twice"),
    ],
)
def test_the_field_of_the_character_tokenizer_is_checked(saved, characters, message):
    with pytest.raises(ValueError, match=f"the field 'characters' {message}"):
        load_tokenizer(saved(of=CharacterTokenizer, characters=characters))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"kind": "byte_pair"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": NaN}',
        b"1" * 5_000,
        b"\x00",
    ],
)
def test_what_is_not_json_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json (is not whole JSON|holds)"):
        load_tokenizer(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"'])
def test_what_is_not_an_object_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="expected an object with a field 'kind'"):
        load_tokenizer(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*none\.json"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_another_kind_is_not_loaded_by_the_class(saved):
    with pytest.raises(ValueError, match="'kind' is 'byte_pair', expected 'character'"):
        CharacterTokenizer.load(saved())


def test_a_file_cut_anywhere_is_refused(saved):
    path = saved()
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            load_tokenizer(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(
        ["kind", "format", "pieces", "merges", "special_tokens", "vocab_size", "characters"]
    ),
    value=JSON,
    kind=st.sampled_from(["byte_pair", "character", "sentencepiece"]),
)
def test_any_value_in_any_field_loads_or_is_a_value_error(tmp_path_factory, name, value, kind):
    path = tmp_path_factory.getbasetemp() / "any.json"
    fields = {
        "kind": kind,
        "format": 1,
        "pieces": "gpt2",
        "merges": [[0, 1]],
        "special_tokens": [],
        "vocab_size": 257,
        "characters": ["a"],
        "model": "AAAA",
    }
    path.write_text(json.dumps(fields | {name: value}), encoding="utf-8")
    try:
        load_tokenizer(path)
    except ValueError as error:
        assert "any.json" in str(error)  # noqa: PT017
