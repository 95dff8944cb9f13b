"""Vocabularies and padded batches of translation pairs."""

import pytest
import torch

from llm_from_scratch.data.translation import END, PAD, START, UNKNOWN, Vocabulary, padded


def test_a_vocabulary_depends_on_its_tokens_alone():
    words = "seven three eleven three two".split()  # noqa: SIM905
    first, second = Vocabulary(words), Vocabulary(reversed(words))
    assert first.tokens == second.tokens
    assert len(first) == 4 + 4
    assert first.decode(first.encode(words)) == words
    assert {first.encode([word])[0] for word in words} == {4, 5, 6, 7}


def test_specials_keep_their_places_and_unknown_words_get_theirs():
    vocabulary = Vocabulary(["b", "<end>", "a", "<pad>"])
    assert vocabulary.tokens[:4] == ("<pad>", "<start>", "<end>", "<unknown>")
    assert [PAD, START, END, UNKNOWN] == [0, 1, 2, 3]
    assert vocabulary.encode(["a", "c", "b"]) == [4, UNKNOWN, 5]


@pytest.mark.parametrize("number", [-1, 5])
def test_ids_outside_are_named(number):
    with pytest.raises(ValueError, match=rf"\[0, 5\), got {number}"):
        Vocabulary(["a"]).decode([4, number])


def test_padding():
    rows = [[5, 6, 7], [], [8]]
    assert padded(rows).tolist() == [[5, 6, 7], [PAD] * 3, [8, PAD, PAD]]
    assert padded(rows, end=True).tolist() == [[5, 6, 7, END], [END, PAD, PAD, PAD], [8, END, PAD, PAD]]
    assert rows == [[5, 6, 7], [], [8]]
    assert padded([[5]]).dtype == torch.int64
    assert padded([[]], end=True).tolist() == [[END]]
    assert padded([(5, 6), (7,)]).tolist() == [[5, 6], [7, PAD]]  # rows may be any sequences


@pytest.mark.parametrize("rows", [[], [[], []]])
def test_nothing_to_stack(rows):
    with pytest.raises(ValueError, match="without any id"):
        padded(rows)
