"""Byte-pair encoding: equal to the definition and to Hugging Face's tokenizers; loses nothing."""

import json
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llm_from_scratch.data.corpora import load
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.tokenizers.byte_pair import ALPHABET, PIECE
from llm_from_scratch.tokenizers.pairs import merge_pair, merges_by_recounting, pair_counts

# Characters that the Unicode tables of both libraries know. The newest characters are in one table and
# not in the other, and are then cut differently.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn", "Co"))
TEXTS = st.one_of(
    st.text(ASSIGNED, max_size=60),
    st.text("ab", max_size=40),  # many equal pairs and runs
    st.text(" a\n\t'stlé語1", max_size=60),
)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)

SMALL = (
    "The state of the Union is strong. It's the people's; they'll say so, we've seen it, I'm sure.\n\n"
    "In 1790 there were 13 states;  in 2026 there are 50.\tL'état, c'est moi — 人民的国家 😀😀 "
    "\x00\x1f\x85 end  "
)


def theirs(documents, vocab_size):
    """Train Hugging Face's library on the same pieces, without special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def merges_of(tokenizer):
    """Return the library's merges as pairs of ids."""
    model = json.loads(tokenizer.to_str())["model"]
    return [(model["vocab"][left], model["vocab"][right]) for left, right in model["merges"]]


def plain_encode(tokenizer, text):
    """Encode by the definition: in each piece, join all places of the earliest merge, and again."""
    ids = []
    rank = {pair: i for i, pair in enumerate(tokenizer.merges)}
    for piece in PIECE.findall(text):
        part = [ALPHABET.index(bytes([byte])) for byte in piece.encode("utf-8")]
        while candidates := [pair for pair in pair_counts({tuple(part): 1}) if pair in rank]:
            first = min(candidates, key=rank.__getitem__)
            part = merge_pair(part, first, 256 + rank[first])
        ids += part
    return ids


@pytest.fixture(scope="module")
def sample():
    """Return 133 kB of real text."""
    text = load("sotu").text
    return text[3_000_000 : 3_000_000 + 133_000]


@pytest.fixture(scope="module")
def tokenizer(sample):
    return BytePairTokenizer.train(sample, vocab_size=500, special_tokens=["<|endoftext|>", "<|end|>"])


# The definition


def test_a_case_worked_by_hand():
    # hug x 10, pug x 5, pun x 12, bun x 4, hugs x 5 (bytes as ids): u+g 20, then u+n 16, then h+ug 15
    words = [b"hug"] * 10 + [b"pug"] * 5 + [b"pun"] * 12 + [b"bun"] * 4 + [b"hugs"] * 5
    u, g, n, h = b"ugnh"
    assert merges_by_recounting(words, 3, first_new_id=256) == [(u, g), (u, n), (h, 256)]
    learnt = BytePairTokenizer.train([word.decode() for word in words], vocab_size=259)
    assert [learnt._bytes[i] for i in (256, 257, 258)] == [b"ug", b"un", b"hug"]


def test_ties_go_to_the_smaller_ids():
    # "ab" and "cd" are equally common; so are ("b", "a") and ("a", "b") in "bab" + "aba"
    assert BytePairTokenizer.train(["cd", "ab"], vocab_size=257).decode([256]) == "ab"
    assert BytePairTokenizer.train(["bab", "aba"], vocab_size=257).decode([256]) == "ab"
    # in the order of ids, which is not that of the bytes: the space (byte 32) has the id 220
    assert BytePairTokenizer.train([" a", "zz"], vocab_size=257).decode([256]) == "zz"


def test_pairs_do_not_cross_words_or_documents():
    assert BytePairTokenizer.train(["a", "b", "a", "b"], vocab_size=300).vocab_size == 256
    learnt = BytePairTokenizer.train("ab cd ab cd ef", vocab_size=300)
    assert not any(b" " in learnt._bytes[i][1:] for i in range(256, learnt.vocab_size))


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(1, 40))
@example(["aaaa", "aaa"], 5)
def test_training_equals_the_definition(documents, num_merges):
    if not any(documents):
        return
    words = [piece.encode() for document in documents for piece in PIECE.findall(document)]
    to_id = bytes.maketrans(b"".join(ALPHABET), bytes(range(256)))
    expected = merges_by_recounting([word.translate(to_id) for word in words], num_merges, first_new_id=256)
    learnt = BytePairTokenizer.train(documents, vocab_size=256 + num_merges)
    assert list(learnt.merges) == expected


# The same as the library


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(256, 300), TEXTS)
def test_merges_and_ids_equal_the_library(documents, vocab_size, text):
    if not any(documents):
        return
    library = theirs(documents, vocab_size)
    ours = BytePairTokenizer.train(documents, vocab_size=vocab_size)
    assert list(ours.merges) == merges_of(library)
    assert ours.encode(text) == library.encode(text).ids
    assert ours.vocab_size == library.get_vocab_size()


@pytest.mark.parametrize("vocab_size", [256, 257, 500, 2003])
def test_real_text_equals_the_library(sample, vocab_size):
    library = theirs([sample, SMALL], vocab_size)
    ours = BytePairTokenizer.train([sample, SMALL], vocab_size=vocab_size)
    assert list(ours.merges) == merges_of(library)
    for text in (sample, SMALL, SMALL.upper()):
        assert ours.encode(text) == library.encode(text).ids
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.slow
def test_all_of_sotu_equals_the_library():
    documents = [document.text for document in load("sotu").documents]
    library = theirs(documents, 8192)
    ours = BytePairTokenizer.train(documents, vocab_size=8192)
    assert list(ours.merges) == merges_of(library)
    encoded = library.encode_batch(documents)
    assert [ours.encode(document) for document in documents] == [each.ids for each in encoded]


def test_the_pieces_equal_the_library_on_every_known_character():
    """Only characters newer than Python's own table may be cut differently."""
    cutter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    every = [*range(0x3400), *range(0x3400, 0x20000, 13), *range(0x20000, 0x110000, 997)]
    for start in range(0, len(every), 1 << 10):
        known = [chr(c) for c in every[start : start + (1 << 10)]]
        known = [c for c in known if unicodedata.category(c) not in ("Cn", "Cs")]
        text = "".join(f"{c} {c}a{c}1{c}. " for c in known)
        spans = [span for _, span in cutter.pre_tokenize_str(text)]
        assert [piece.span() for piece in PIECE.finditer(text)] == spans


def test_the_alphabet_is_that_of_gpt2(tokenizer):
    """GPT-2 writes byte b as a printable character; its ids follow these characters."""
    library = theirs(["x"], 256).get_vocab()
    characters = sorted(library, key=library.get)
    assert len(characters) == 256
    assert [ALPHABET[i] for i in range(188)] == [c.encode("latin-1") for c in characters[:188]]
    assert sorted(ALPHABET) == [bytes([b]) for b in range(256)]
    assert tokenizer.encode("!")[0] == 0
    assert ALPHABET[library["Ġ"]] == b" "


# Nothing is lost


@settings(max_examples=400, deadline=None)
@given(text=ANY_TEXT)
@example(text="")
@example(text="\x00")
@example(text="e\u0301 é 👩‍👩‍👧‍👦 \ufeff\u200d\U0010ffff")
@example(text="<|endoftext|> <|end|>")
def test_round_trip_of_any_text(tokenizer, text):
    for allowed in ((), "all"):
        ids = tokenizer.encode(text, allowed_special=allowed)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.encode(text) == plain_encode(tokenizer, text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=50))
def test_any_ids_decode(content):
    tokenizer = BytePairTokenizer([])
    ids = [ALPHABET.index(bytes([byte])) for byte in content]
    assert tokenizer.decode_bytes(ids) == content
    assert tokenizer.decode(ids) == content.decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ab\ud800", "U\\+D800 at position 2"),
        ("\udfff", "U\\+DFFF at position 0"),
        ("\ude00\ud83d", "position 0"),
    ],
)
def test_lone_surrogates_are_refused_by_name_and_place(tokenizer, text, place):
    with pytest.raises(ValueError, match=f"lone surrogate .*{place}"):
        tokenizer.encode(text)
    with pytest.raises(ValueError, match="lone surrogate"):
        BytePairTokenizer.train(text, vocab_size=300)


@pytest.mark.parametrize("bad", [b"bytes", None, 3, ["a"]])
def test_only_text_is_encoded(tokenizer, bad):
    with pytest.raises(TypeError, match="text must be str"):
        tokenizer.encode(bad)


def test_ids_of_any_integer_type_decode(tokenizer):
    ids = tokenizer.encode("the Union")
    for same in (
        np.array(ids, dtype=np.uint16),
        torch.tensor(ids),
        tuple(ids),
        iter(ids),
        list(torch.tensor(ids)),
    ):
        assert tokenizer.decode(same) == "the Union"


@pytest.mark.parametrize(("ids", "named"), [([-1], "-1 at position 0"), ([0, 502], "502 at position 1")])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, ids, named):
    with pytest.raises(ValueError, match=rf"token id {named} .*0 to {tokenizer.vocab_size - 1}"):
        tokenizer.decode(ids)
    with pytest.raises(TypeError):
        tokenizer.decode([1.5])


def test_long_pieces_cost_little(tokenizer):
    text = "ab" * 50_000  # one piece; a quadratic encoder would need minutes
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text[:2_000]) == plain_encode(tokenizer, text[:2_000])
    learnt = BytePairTokenizer.train(text + "c" * 1_000, vocab_size=270)
    assert learnt.decode(learnt.encode(text)) == text


def test_the_cache_stays_bounded(monkeypatch):
    monkeypatch.setattr("llm_from_scratch.tokenizers.byte_pair._MAX_CACHED_PIECES", 7)
    tokenizer = BytePairTokenizer.train("one two three", vocab_size=260)
    for i in range(50):
        assert tokenizer.decode(tokenizer.encode(f"word{i}")) == f"word{i}"
        assert len(tokenizer._ids_of_piece) <= 7
    tokenizer.encode("a" * 1_000)
    assert "a" * 1_000 not in tokenizer._ids_of_piece


# Special tokens


def test_special_tokens_in_text_are_text_unless_allowed(tokenizer):
    end = tokenizer.special_ids["<|endoftext|>"]
    text = "a<|endoftext|>b<|end|>"
    assert end not in tokenizer.encode(text)
    assert tokenizer.special_ids["<|end|>"] not in tokenizer.encode(text, allowed_special=["<|endoftext|>"])
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    both = [*a, end, *b, tokenizer.special_ids["<|end|>"]]
    assert tokenizer.encode(text, allowed_special="all") == both
    assert tokenizer.encode("a<|endoftext|>b", allowed_special="<|endoftext|>") == [*a, end, *b]
    assert tokenizer.decode(both) == text
    assert sorted(tokenizer.special_ids.values()) == [tokenizer.vocab_size - 2, tokenizer.vocab_size - 1]
    with pytest.raises(ValueError, match=r"'<\|pad\|>' is not a special token"):
        tokenizer.encode("a", allowed_special=["<|pad|>"])


def test_the_longer_of_two_special_tokens_wins():
    tokenizer = BytePairTokenizer([], ["<a>", "<a><b>", "(.*)"])
    assert tokenizer.encode("<a><b><a>(.*)", allowed_special="all") == [257, 256, 258]


def test_nothing_is_learnt_from_special_tokens():
    text = "<|sep|>".join(["x y"] * 50)
    learnt = BytePairTokenizer.train(text, vocab_size=270, special_tokens=["<|sep|>"])
    assert all(b"sep" not in learnt.decode_bytes([i]) for i in range(learnt.vocab_size - 1))
    assert learnt.merges == BytePairTokenizer.train(["x y"] * 50, vocab_size=269).merges


@pytest.mark.parametrize(
    ("special", "message"),
    [
        ("<|end|>", "list of strings"),
        ([""], "non-empty"),
        (["a", "a"], "differ"),
        ([3], "non-empty text, got 3"),
    ],
)
def test_bad_special_tokens_are_refused(special, message):
    with pytest.raises(ValueError, match=message):
        BytePairTokenizer.train("text", vocab_size=300, special_tokens=special)


# Sizes


@pytest.mark.parametrize("empty", ["", [], ["", ""], "<s>"])
def test_an_empty_text_is_refused(empty):
    with pytest.raises(ValueError, match="the text to train on is empty"):
        BytePairTokenizer.train(empty, vocab_size=300, special_tokens=["<s>"])


@pytest.mark.parametrize(("vocab_size", "special"), [(255, []), (257, ["<a>", "<b>"]), (0, []), (-5, [])])
def test_a_vocabulary_below_the_bytes_is_refused(vocab_size, special):
    with pytest.raises(ValueError, match=f"at least {256 + len(special)} .*got {vocab_size}"):
        BytePairTokenizer.train("text", vocab_size=vocab_size, special_tokens=special)


def test_a_small_text_gives_a_smaller_vocabulary():
    learnt = BytePairTokenizer.train("abc", vocab_size=1_000, special_tokens=["<end>"])
    assert (learnt.vocab_size, len(learnt.merges), learnt.special_ids) == (259, 2, {"<end>": 258})
    assert learnt.encode("abc") == [257]
    exact = BytePairTokenizer.train("abc", vocab_size=257, special_tokens=["<end>"])
    assert (exact.vocab_size, exact.merges) == (257, ())


def test_tokens_as_text_are_for_people():
    tokenizer = BytePairTokenizer.train(" the the", vocab_size=260, special_tokens=["<|end|>"])
    ids = tokenizer.encode(" the\n\t語\x07")
    assert tokenizer.tokens_as_text(ids) == ["␣the", "↵", "⇥", "\\xe8", "\\xaa", "\\x9e", "\\x07"]
    assert tokenizer.tokens_as_text([259]) == ["<|end|>"]
    assert repr(tokenizer) == "BytePairTokenizer(260 tokens, special: ['<|end|>'])"
