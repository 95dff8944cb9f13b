"""The n-gram model: its counts, its vocabulary, its scores and its samples."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.models.ngram import (
    Interpolated,
    KneserNey,
    MaximumLikelihood,
    NGramCounts,
    NGramModel,
    OpenVocabularyModel,
    Vocabulary,
    sentences,
    words,
)

MAT = ["the", "cat", "sat", "on", "the", "mat"]
CAT = [MAT, ["the", "cat", "ate"], ["a", "dog", "sat", "on", "the", "cat"]]
corpora = st.lists(st.lists(st.sampled_from("abcde"), max_size=7), max_size=11)


@settings(deadline=None)
@given(st.text())
def test_cutting_a_text_loses_nothing(text):
    assert "".join(words(text)) == text
    assert "".join(word for sentence in sentences(text) for word in sentence) == text


def test_sentences_end_at_full_stops_and_paragraphs():
    text = "It ended. Did it?\n\nNo 3.5 of them. Don't."
    cut = ["".join(sentence) for sentence in sentences(text)]
    assert cut == ["It ended.", " Did it?\n\n", "No 3.5 of them.", " Don't."]
    assert words(" didn't; 1,000") == [" didn't", ";", " 1", ",", "000"]


def test_vocabulary_numbers_frequent_words_first_and_drops_rare_ones():
    vocabulary = Vocabulary.from_sentences(CAT, min_count=2)
    assert vocabulary.words == ("</s>", "<unk>", "the", "cat", "sat", "on")
    assert vocabulary.encode(["the", "zebra"]) == [2, 1]
    assert "the" in vocabulary
    assert "mat" not in vocabulary
    assert "<s>" not in vocabulary
    assert vocabulary.start_id == len(vocabulary) == 6


def test_vocabulary_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="'zebra' is not among the 3 words"):
        Vocabulary(["a", "b"], unknown=False).encode(["a", "zebra"])
    with pytest.raises(ValueError, match="added by the model"):
        Vocabulary(["a"]).encode(["a", "</s>"])
    with pytest.raises(ValueError, match="added by the model"):
        Vocabulary(["a"]).encode(["<s>", "a"])
    with pytest.raises(ValueError, match="marks the start"):
        Vocabulary(["<s>"])
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        Vocabulary.from_sentences(CAT, min_count=0)


@settings(deadline=None)
@given(corpora, st.integers(1, 5))
def test_counts_equal_a_counter(corpus, order):
    vocabulary = Vocabulary("abcde")
    counts = NGramCounts(corpus, order=order, vocabulary=vocabulary)
    for n in range(1, order + 1):
        grams, left = Counter(), {}
        for sentence in corpus:
            padded = ["<s>"] * order + sentence + ["</s>"]
            for i in range(order, len(padded)):
                gram = tuple(padded[i - n + 1 : i + 1])
                grams[gram] += 1
                left.setdefault(gram, set()).add(padded[i - n])
        assert counts.num_grams(n) == len(grams)
        for gram, count in grams.items():
            context = vocabulary.encode_context(gram[:-1], n - 1)
            word = vocabulary.ids[gram[-1]]
            *_, seen = counts.look_up(np.array([word]), np.array([context], dtype=np.int64).reshape(1, -1))
            assert seen.count_N[0] == count
            assert seen.total_N[0] == sum(c for g, c in grams.items() if g[:-1] == gram[:-1])
            assert seen.types_N[0] == sum(g[:-1] == gram[:-1] for g in grams)
            if n < order:
                assert seen.left_N[0] == (count if gram[0] == "<s>" else len(left[gram]))
        once = sum(count == 1 for count in grams.values())
        twice = sum(count == 2 for count in grams.values())
        assert counts.levels[n - 1].count_once_twice == (once, twice)


@settings(deadline=None)
@given(corpora, st.integers(1, 4))
def test_a_smaller_order_may_share_the_counts(corpus, order):
    vocabulary = Vocabulary("abcde")
    shared = NGramModel.from_counts(NGramCounts(corpus, order=5, vocabulary=vocabulary), order=order)
    own = NGramModel(order=order).fit(corpus, vocabulary=vocabulary)
    for context in ([], ["a"], ["b", "a", "c"]):
        np.testing.assert_allclose(shared.distribution(context), own.distribution(context), rtol=1e-12)


def test_the_cat_by_hand():
    model = NGramModel(order=2, smoothing=MaximumLikelihood()).fit(CAT)
    # the|<s>, cat|the, sat|cat, on|sat, the|on, mat|the, </s>|mat, read off the three sentences above.
    expected = [Fraction(2, 3), Fraction(3, 4), Fraction(1, 3), 1, 1, Fraction(1, 4), 1]
    got = np.exp(model.log_probabilities(MAT))
    np.testing.assert_allclose(got, [float(p) for p in expected], rtol=1e-12)


def test_scores_follow_the_chain_rule():
    model = NGramModel(order=3).fit(CAT)
    sentence = ["a", "cat", "sat"]
    steps = [model.probability(word, sentence[:i]) for i, word in enumerate([*sentence, "</s>"])]
    np.testing.assert_allclose(model.log_probabilities(sentence), np.log(steps), rtol=1e-12)
    both = model.score([sentence, CAT[0]])
    np.testing.assert_allclose(both[: len(sentence) + 1], np.log(steps), rtol=1e-12)
    np.testing.assert_allclose(both[len(sentence) + 1 :], model.log_probabilities(CAT[0]), rtol=1e-12)


def test_probability_and_distribution_agree_and_read_only_the_last_words():
    model = NGramModel(order=3).fit(CAT)
    row = model.distribution(["sat", "on", "the"])
    for word, p in zip(model.vocabulary.words, row, strict=True):
        assert model.probability(word, ["on", "the"]) == pytest.approx(p, rel=1e-12)
    np.testing.assert_array_equal(row, model.distribution(["dog", "on", "the"]))
    np.testing.assert_array_equal(model.distribution([]), model.distribution(["<s>", "<s>"]))


def test_probabilities_of_all_short_sentences_sum_to_one():
    """The chain rule with </s> makes one distribution over sentences of every length."""
    model = NGramModel(order=2, smoothing=MaximumLikelihood()).fit([["a", "b"], ["a"], ["b", "b", "a"]])
    total, frontier = 0.0, [([], 1.0)]
    for _ in range(60):
        longer = []
        for sentence, p in frontier:
            total += p * model.probability("</s>", sentence)
            longer += [([*sentence[-1:], w], p * model.probability(w, sentence)) for w in "ab"]
        merged: dict = {}
        for sentence, p in longer:  # a bigram model needs the last word only
            merged[sentence[-1]] = merged.get(sentence[-1], 0.0) + p
        frontier = [([w], p) for w, p in merged.items()]
    assert total == pytest.approx(1.0, abs=1e-9)


def test_samples_come_as_often_as_their_probabilities():
    model = NGramModel(order=2).fit(CAT)
    rng = np.random.default_rng(7)
    drawn = Counter(tuple(model.sample(rng, context=["the"], max_words=1)) for _ in range(4000))
    row = model.distribution(["the"])
    for word, p in zip(model.vocabulary.words, row, strict=True):
        seen = drawn[() if word == "</s>" else (word,)] / 4000
        assert abs(seen - p) < 4 * np.sqrt(p * (1 - p) / 4000) + 1e-9


def test_sampling_stops_at_the_end_of_a_sentence_or_at_the_limit():
    model = NGramModel(order=2, smoothing=MaximumLikelihood()).fit([["a", "b"]])
    rng = np.random.default_rng(0)
    assert model.sample(rng) == ["a", "b"]
    assert model.sample(rng, max_words=1) == ["a"]
    assert model.sample(rng, max_words=0) == []
    assert model.sample(rng, context=["b"]) == []
    with pytest.raises(ValueError, match="no word ever followed"):
        model.sample(rng, context=["zebra"])


@settings(deadline=None)
@given(corpora, st.integers(1, 4), st.lists(st.sampled_from("abcdez"), max_size=4))
def test_one_row_equals_many_single_questions(corpus, order, context):
    counts = NGramCounts(corpus, order=order, vocabulary=Vocabulary("abcde"))
    for smoothing in (MaximumLikelihood(), KneserNey(), Interpolated(weights=((0.9, 0.5), (0.3,)) * 2)):
        model = NGramModel.from_counts(counts, smoothing=smoothing)
        single = [model.probability(word, context) for word in [*"abcde", "</s>", "z"]]
        row = model.distribution(context)[[*range(2, 7), 0, 1]]
        np.testing.assert_allclose(row, single, rtol=1e-12)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=5), st.integers(1, 4))
def test_words_may_be_numbers(corpus, order):
    model = NGramModel(order=order).fit(corpus)
    assert model.score(corpus).shape == (sum(len(sentence) + 1 for sentence in corpus),)
    assert np.isfinite(model.score(corpus)).all()


def test_empty_texts():
    model = NGramModel(order=3).fit([])
    assert model.vocabulary.words == ("</s>", "<unk>")
    np.testing.assert_allclose(model.distribution(["x"]), [0.5, 0.5])
    assert model.score([]).shape == (0,)
    one = NGramModel(order=3).fit([[]])  # one empty sentence: </s> at once
    assert one.probability("</s>") == pytest.approx(15 / 16)  # 1/2 is kept at each of 4 levels
    alone = NGramModel(order=2).fit([[]], vocabulary=Vocabulary([], unknown=False))
    np.testing.assert_allclose(alone.distribution(), [1.0])  # a vocabulary of </s> alone


def test_mistakes_name_the_value_and_the_way_out():
    with pytest.raises(ValueError, match=r"order must be at least 1 .* got 0"):
        NGramModel(order=0)
    with pytest.raises(ValueError, match=r"order must be at least 1 .* got -1"):
        NGramCounts([], order=-1, vocabulary=Vocabulary([]))
    with pytest.raises(ValueError, match="call fit"):
        NGramModel(order=2).probability("a")
    with pytest.raises(ValueError, match=r"words\(text\)"):
        NGramModel(order=2).fit(["the cat sat"])
    counts = NGramCounts(CAT, order=2, vocabulary=Vocabulary.from_sentences(CAT))
    with pytest.raises(ValueError, match="order 3 needs counts of that order, got 2"):
        NGramModel.from_counts(counts, order=3)
    with pytest.raises(ValueError, match="count again with order=4"):
        counts.look_up(np.array([0]), np.zeros((1, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="count again with order=4"):
        counts.look_up_row(np.zeros(3, dtype=np.int64))


TRAIN = sentences("The cat sat. The cat ran. A dog sat on the cat. The dog ran.")


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_an_open_vocabulary_gives_every_text_a_probability(text):
    model = OpenVocabularyModel(order=3).fit(TRAIN)
    cut = sentences(text)
    scores = model.score(cut)
    assert scores.shape == (sum(len(sentence) + 1 for sentence in cut),)
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()


def test_an_unknown_word_costs_its_spelling():
    model = OpenVocabularyModel(order=2).fit(TRAIN)
    sentence = ["The", " zebra", " ran", ".", " 貓"]
    expected = model.words.log_probabilities(sentence)
    expected[0] += model.speller.log_probabilities(b"The").sum()  # once in the text: too rare
    expected[1] += model.speller.log_probabilities(b" zebra").sum()
    expected[4] += model.speller.log_probabilities(" 貓".encode()).sum()
    np.testing.assert_allclose(model.score([sentence]), expected, rtol=1e-12)
    same = model.with_smoothing(order=2, smoothing=KneserNey())
    np.testing.assert_allclose(same.score([sentence]), expected, rtol=1e-12)


def test_open_vocabulary_samples_are_text_without_unk():
    model = OpenVocabularyModel(order=2).fit(TRAIN)
    rng = np.random.default_rng(3)
    texts = [model.sample(rng) for _ in range(40)]
    assert any(texts)
    assert not any("<unk>" in text for text in texts)
