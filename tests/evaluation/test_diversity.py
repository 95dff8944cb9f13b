"""Measures of variety against counts by hand, and what they must say of texts that are equal or unlike."""

import random

import pytest

from llm_from_scratch.evaluation.diversity import distinct, ngrams, repeated_share, self_bleu, words


def test_words_and_ngrams():
    assert words("Don't stop-it 42!") == ["Don", "'", "t", "stop", "-", "it", "42", "!"]
    assert ngrams(["a", "b"], 3) == []
    with pytest.raises(ValueError, match="n must be"):
        ngrams("abc", 0)


def test_distinct_counts_over_all_texts_together():
    texts = [["a", "b", "a", "b"], ["a", "b", "c"]]
    assert distinct(texts, 1) == 3 / 7
    assert distinct(texts, 2) == 3 / 5
    assert distinct(texts, 4) == 1.0  # the second text has none
    with pytest.raises(ValueError, match="5 tokens"):
        distinct(texts, 5)


def test_repeated_share_of_a_loop_grows_with_its_length():
    loop = ["so", "it", "goes", "on", "and"]
    shares = [repeated_share(loop * times, 4) for times in (1, 2, 4, 8)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1 - 5 / 37)


def test_self_bleu_of_equal_and_of_unlike_texts():
    equal, unlike = [list("abcdef")] * 3, [list("abcdef"), list("ghijkl"), list("mnopqr")]
    assert self_bleu(equal) == pytest.approx(1.0)
    assert self_bleu(unlike) < 0.1
    half = [list("abcdef"), list("abcxyz"), list("uvwdef")]
    assert self_bleu(unlike) < self_bleu(half) < 1.0
    with pytest.raises(ValueError, match="at least two"):
        self_bleu([list("abc")])


def test_self_bleu_is_the_geometric_mean_of_the_matches():
    """By hand: three of four words match, two of three pairs, one of two triples, none of one 4-gram."""
    texts = [["a", "b", "c", "x"], ["a", "b", "c", "y"]]
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** 0.25
    assert self_bleu(texts) == pytest.approx(expected)


def test_a_smaller_choice_of_words_is_less_distinct_and_more_alike():
    draw = random.Random(0)
    few, many = ([[draw.randrange(size) for _ in range(40)] for _ in range(6)] for size in (4, 400))
    assert distinct(few, 2) < 0.2 < 0.9 < distinct(many, 2)
    assert self_bleu(many) < self_bleu(few)
