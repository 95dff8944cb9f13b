"""WordPiece: the ids of transformers' BertTokenizer, on text of every kind and on every character."""

import random

import pytest
from transformers import BertTokenizer

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.tokenizers import WordPieceTokenizer, load_tokenizer
from tests.rotation import seed_of_the_day

EVERY = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x110000)]]
SMALL = ["[UNK]", "[CLS]", "[SEP]", "a", "##b", "##c", "ab", "!", "##"]


@pytest.fixture(scope="module")
def vocabulary():
    return fetch("minilm_vocab").read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def both(request, vocabulary):
    ids = {token: i for i, token in enumerate(vocabulary)}
    theirs = BertTokenizer(vocab=ids, do_lower_case=request.param)
    return WordPieceTokenizer.from_file(fetch("minilm_vocab"), lower_case=request.param), theirs


def texts(count, seed, words):
    rng = random.Random(seed)
    pools = [
        EVERY,
        EVERY[0x20:0x7F],
        EVERY[0x20:0x500],
        EVERY[0x300:0x370] + EVERY[0x41:0x7B],
        EVERY[0x2000:0x3100],
        list("aéÉßİıſẞΣς 法[]CLSEPMASK\t\n\r\x00\x0b\x1c\x85\u200b\xa0\u3000\ufffd"),
        [f"{word.removeprefix('##')} " for word in words],
        ["[SEP]", "[CLS]", "[MASK] ", " [mask]", "[PAD", "]", "x", " "],
    ]
    return ["".join(rng.choice(pools[i % 8]) for _ in range(rng.randrange(1, 30))) for i in range(count)]


@pytest.mark.parametrize("count", [4000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_ids_are_those_of_transformers(both, vocabulary, count):
    """The slow case draws other texts each day (`tests.rotation`); a failure shows the text."""
    ours, theirs = both
    found = texts(count, count if count == 4000 else seed_of_the_day(), vocabulary)
    expected = theirs(found, add_special_tokens=False)["input_ids"]
    for text, ids in zip(found, expected, strict=True):
        assert ours.encode(text, allowed_special="all") == ids, repr(text)


@pytest.mark.slow
def test_every_character_is_treated_as_there(both):
    ours, theirs = both
    bulk = [range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0xE000, 0xF900), range(0x20000, 0x110000)]
    some = [c for c in EVERY if ord(c) % 31 == 0 or not any(ord(c) in each for each in bulk)]
    some += [chr(c + i) for each in bulk for c in (each.start, each.stop - 9) for i in range(9)]
    some += [chr(c) for c in range(0xE0000, 0xE0200)]
    found = [f"a{c}b {c}" for c in some]
    expected = theirs(found, add_special_tokens=False)["input_ids"]
    assert [ours.encode(text) for text in found] == expected


def test_long_words_are_unknown(both):
    ours, theirs = both
    for length in (99, 100, 101, 5000):
        assert ours.encode("a" * length) == theirs.encode("a" * length, add_special_tokens=False)
    assert ours.encode("b" * 101 + " a") == [ours.special_ids["[UNK]"], *ours.encode("a")]


@pytest.mark.parametrize("second", [None, "And a second one, which is longer than the first?", " "])
@pytest.mark.parametrize("max_tokens", [None, 3, 4, 7, 11, 12, 64])
def test_the_markers_and_segments_are_those_of_transformers(both, second, max_tokens):
    ours, theirs = both
    limit = {} if max_tokens is None else {"truncation": "longest_first", "max_length": max_tokens}
    pair = ("A first sentence.",) if second is None else ("A first sentence.", second)
    expected = theirs(*pair, **limit)
    ids, segments = ours.encode_for_bert(*pair, max_tokens=max_tokens)
    assert (ids, segments) == (expected["input_ids"], expected["token_type_ids"])


def test_special_tokens_are_text_unless_they_are_allowed(both):
    ours, theirs = both
    assert ours.special_ids["[SEP]"] not in ours.encode("a [SEP] b")
    allowed = ours.encode("a [SEP] b", allowed_special=["[SEP]"])
    assert allowed == theirs.encode("a [SEP] b", add_special_tokens=False)


def test_words_and_pieces():
    tokenizer = WordPieceTokenizer(SMALL)
    assert tokenizer.tokens_as_text(tokenizer.encode("abc AB! abd")) == ["ab", "##c", "ab", "!", "[UNK]"]
    assert tokenizer.decode(tokenizer.encode("abc AB!")) == "abc ab !"
    assert tokenizer.encode("") == tokenizer.encode(" \n\x00") == []
    with pytest.raises(ValueError, match="token id 9 at position 0"):
        tokenizer.decode([9])
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenizer.encode("\ud800")
    with pytest.raises(ValueError, match="max_tokens=1 leaves no room: 2"):
        tokenizer.encode_for_bert("a", max_tokens=1)
    with pytest.raises(ValueError, match=r"lacks \[CLS\] or \[SEP\]"):
        WordPieceTokenizer(["[UNK]"]).encode_for_bert("a")


@pytest.mark.parametrize("lower_case", [True, False])
def test_it_is_saved_and_loaded(tmp_path, lower_case):
    tokenizer = WordPieceTokenizer([*SMALL, "Ab"], lower_case=lower_case)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is WordPieceTokenizer
    assert again.encode("Abc ab") == tokenizer.encode("Abc ab")
    assert (len(tokenizer.encode("Ab")), again.lower_case) == (1, lower_case)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a"], r"lacks \[UNK\]"),
        (["[UNK]", "a", "a"], "holds 'a' twice"),
        (["[UNK]", ""], "token 1 of the vocabulary is empty"),
    ],
)
def test_a_vocabulary_that_cannot_be(tmp_path, tokens, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer(tokens)
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"vocab.txt is no WordPiece vocabulary: .*{message}"):
        WordPieceTokenizer.from_file(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"lower_case":2,"vocabulary":["[UNK]"]', "'lower_case' is 2, expected 0 or 1"),
        ('"lower_case":true,"vocabulary":["[UNK]"]', "'lower_case' is True, expected an integer"),
        ('"lower_case":1,"vocabulary":["a"]', "'vocabulary' is damaged: .*lacks"),
        ('"lower_case":1,"vocabulary":[3]', "'vocabulary' holds 3 at position 0"),
        ('"lower_case":1', "'vocabulary' is missing"),
    ],
)
def test_a_damaged_file_names_the_field(tmp_path, fields, message):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"kind":"wordpiece","format":1,' + fields + "}", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(path)
