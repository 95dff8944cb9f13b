"""Smoothing: every distribution sums to 1, the methods equal NLTK's, and hand-worked cases decide."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import MLE, KneserNeyInterpolated, Lidstone
from nltk.lm import Vocabulary as NltkVocabulary

from llm_from_scratch.models.ngram import (
    AddK,
    Interpolated,
    KneserNey,
    MaximumLikelihood,
    NGramCounts,
    NGramModel,
    Vocabulary,
)

ALL = [
    MaximumLikelihood(),
    AddK(k=0.37),
    Interpolated(weights=((0.9,), (0.7,), (0.3,), (0.2,), (0.1,))),
    Interpolated(weights=((0.9, 0.8, 1.0), (0.7, 0.1, 0.6), (0.0, 0.2, 0.3), (0.2,), (1.0, 0.4))),
    KneserNey(),
    KneserNey(discount=0.75),
    KneserNey(discount=1.0, uniform=False),
]
corpora = st.lists(st.lists(st.sampled_from("abcde"), max_size=7), max_size=11)
contexts = st.lists(st.sampled_from("abcdez"), max_size=5)


def model_of(smoothing, corpus, order, **options):
    return NGramModel(order=order, smoothing=smoothing).fit(corpus, vocabulary=Vocabulary("abcde", **options))


@pytest.mark.parametrize("smoothing", ALL, ids=repr)
@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(1, 5), contexts, st.booleans())
def test_every_distribution_sums_to_one(smoothing, corpus, order, context, only_one_word):
    if only_one_word:
        corpus = [["a"] * len(sentence) for sentence in corpus]
    model = model_of(smoothing, corpus, order)
    row = model.distribution(context)
    assert (row >= 0).all()
    if isinstance(smoothing, MaximumLikelihood) and row.sum() == 0:
        seen = {tuple((["<s>"] * order + s)[i : i + order - 1]) for s in corpus for i in range(1, len(s) + 2)}
        padded = tuple((["<s>"] * order + ["<unk>" if w == "z" else w for w in context])[order - 1 :])
        assert padded[len(padded) - (order - 1) :] not in seen  # it never occurred
    else:
        assert row.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("smoothing", [s for s in ALL if s != ALL[0]], ids=repr)
def test_unseen_words_and_contexts(smoothing):
    corpus = [list("abcab"), list("ab")]
    model = model_of(smoothing, corpus, 3)
    if getattr(smoothing, "uniform", True) and smoothing != ALL[3]:
        assert model.probability("e", ["a", "b"]) > 0
        assert model.probability("zebra", ["zebra", "zebra"]) > 0
    fresh = model.distribution(["d", "e"])  # neither word was seen: falls to the single words
    assert fresh.sum() == pytest.approx(1.0)


def naive_kneser_ney(corpus, order, discounts, vocabulary_size):
    """The recursion straight from the definition, on dicts."""
    counts = [{} for _ in range(order)]
    preceded = [{} for _ in range(order)]
    for sentence in corpus:
        padded = ["<s>"] * order + list(sentence) + ["</s>"]
        for i in range(order, len(padded)):
            for n in range(1, order + 1):
                gram = tuple(padded[i - n + 1 : i + 1])
                counts[n - 1][gram] = counts[n - 1].get(gram, 0) + 1
                preceded[n - 1].setdefault(gram, set()).add(padded[i - n])

    def used(gram):
        n = len(gram)
        if n == order or gram[0] == "<s>":
            return counts[n - 1].get(gram, 0)
        return len(preceded[n - 1].get(gram, ()))

    def probability(word, context):
        n = len(context) + 1
        lower = probability(word, context[1:]) if context else 1 / vocabulary_size
        after = {gram: used(gram) for gram in counts[n - 1] if gram[:-1] == context}
        total = sum(after.values())
        if total == 0:
            return lower
        discount = discounts[n - 1]
        kept = max(used((*context, word)) - discount, 0)
        return (kept + discount * len(after) * lower) / total

    return probability


@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(1, 4), contexts, st.sampled_from("abcde"))
def test_kneser_ney_equals_its_definition(corpus, order, context, word):
    model = model_of(KneserNey(discount=0.6), corpus, order)
    padded = ["<s>"] * order + ["<unk>" if w == "z" else w for w in context]
    context_n = tuple(padded[len(padded) - (order - 1) :])
    expected = naive_kneser_ney(corpus, order, [0.6] * order, 7)(word, context_n)
    assert model.probability(word, context) == pytest.approx(expected, rel=1e-10)


CORPUS = [list("abcab"), list("bcad"), list("abd"), list("dabcc"), list("cab"), list("ab")]


def fit_nltk(model, order):
    """Give NLTK the same events as ours: every n-gram whose last word is predicted (never <s>)."""
    grams = []
    for sentence in CORPUS:
        padded = ["<s>"] * (order - 1) + sentence + ["</s>"]
        for i in range(order - 1, len(padded)):
            grams += [tuple(padded[i - n + 1 : i + 1]) for n in range(1, order + 1)]
    model.fit([grams], vocabulary_text=[*(w for s in CORPUS for w in s), "</s>"])
    return model


def compare_with_nltk(ours, theirs, contexts):
    for context in contexts:
        for word in [*"abcd", "</s>"]:
            expected = theirs.score(word, context)
            assert ours.probability(word, context) == pytest.approx(expected, rel=1e-10), (word, context)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_maximum_likelihood_equals_nltk(order):
    ours = NGramModel(order=order, smoothing=MaximumLikelihood()).fit(CORPUS)
    theirs = fit_nltk(MLE(order), order)
    grid = [(), ("a",), ("d",), ("a", "b"), ("b", "d"), ("d", "d"), ("<s>", "<s>"), ("<s>", "c")]
    compare_with_nltk(ours, theirs, [c for c in grid if len(c) == order - 1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_add_k_equals_nltk(order):
    # Both vocabularies hold a, b, c, d, </s> and one entry for unknown words.
    ours = NGramModel(order=order, smoothing=AddK(k=0.3)).fit(CORPUS)
    theirs = fit_nltk(Lidstone(0.3, order), order)
    assert len(theirs.vocab) == len(ours.vocabulary) == 6
    grid = [(), ("a",), ("d",), ("a", "b"), ("b", "d"), ("d", "d"), ("<s>", "<s>"), ("<s>", "c")]
    compare_with_nltk(ours, theirs, [c for c in grid if len(c) == order - 1])


@pytest.mark.parametrize("order", [2, 3])
def test_kneser_ney_equals_nltk_inside_a_sentence(order):
    """NLTK does not smooth single words, hence uniform=False; <s> is the next test's matter."""
    ours = NGramModel(order=order, smoothing=KneserNey(discount=0.6, uniform=False)).fit(CORPUS)
    theirs = fit_nltk(KneserNeyInterpolated(order, discount=0.6), order)
    grid = [("a",), ("b",), ("d",), ("a", "b"), ("b", "c"), ("c", "a"), ("b", "d"), ("d", "d"), ("c", "d")]
    compare_with_nltk(ours, theirs, [c for c in grid if len(c) == order - 1])


def test_where_nltk_differs_a_case_worked_by_hand_decides():
    """First words, order 3, D = 1/2, on the sentences "a b", "a c", "b b".

    Single words, by how many words precede them: a {<s>}, b {a, <s>, b}, c {a}, </s> {b, c}: 1, 3, 1, 2 of 7.
    All four words were seen, so the uniform share gives back what the discount took: P(a) = 1/7.
    After <s>: a twice, b once. P(a|<s>) = (2 - 1/2 + 1/2 * 2 * 1/7) / 3 = 23/42.
    After <s> <s>: the same counts. P(a|<s> <s>) = (2 - 1/2 + 1/2 * 2 * 23/42) / 3 = 43/63.
    NLTK takes left counts after <s>, 1 and 1 of 2, although <s> can only be preceded by <s>. So its
    P(a|<s>) is 9/28, and two openings with "a" weigh as much as one with "b": 17/28 instead of 43/63.
    """
    corpus = [["a", "b"], ["a", "c"], ["b", "b"]]
    vocabulary = Vocabulary("abc", unknown=False)
    model = NGramModel(order=3, smoothing=KneserNey(discount=0.5)).fit(corpus, vocabulary=vocabulary)
    assert model.probability("a") == pytest.approx(float(Fraction(43, 63)), rel=1e-12)
    np.testing.assert_allclose(model.distribution().sum(), 1.0)

    theirs = KneserNeyInterpolated(3, discount=0.5, vocabulary=NltkVocabulary(["a", "b", "c", "</s>"]))
    grams = []
    for sentence in corpus:
        padded = ["<s>", "<s>", *sentence, "</s>"]
        for i in range(2, len(padded)):
            grams += [tuple(padded[i - n + 1 : i + 1]) for n in (1, 2, 3)]
    theirs.fit([grams])
    assert theirs.score("a", ("<s>", "<s>")) == pytest.approx(float(Fraction(17, 28)), rel=1e-12)


def test_nltk_gives_no_mass_to_a_new_word_and_ours_does():
    ours = NGramModel(order=2).fit(CORPUS)
    theirs = fit_nltk(KneserNeyInterpolated(2), 2)
    assert theirs.score("zebra", ("a",)) == 0.0
    assert ours.probability("zebra", ["a"]) > 0


def test_the_discount_is_estimated_from_counts_of_one_and_two():
    # Single words: a 4 times, b twice, c, d once, </s> twice: n1 = 2, n2 = 2, D = 2 / (2 + 4).
    corpus = [list("aabc"), list("aabd")]
    counts = NGramCounts(corpus, order=1, vocabulary=Vocabulary.from_sentences(corpus))
    assert KneserNey().discount_for(counts, 0, longest=True) == pytest.approx(1 / 3)
    # All words twice, none once: the estimate would be 0 and leave nothing for new words.
    twice = NGramCounts([list("ab"), list("ab")], order=1, vocabulary=Vocabulary("ab"))
    assert KneserNey().discount_for(twice, 0, longest=True) == 0.5
    # All once: the estimate would be 1 and forget them all.
    once = NGramCounts([list("ab")], order=1, vocabulary=Vocabulary("ab"))
    assert KneserNey().discount_for(once, 0, longest=True) == 0.5


def test_interpolation_by_hand():
    """P(b|a) = 0.6 * 2/3 + 0.4 * (0.5 * 2/7 + 0.5 * 1/4), on "a b", "a b", "a"... worked below."""
    corpus = [["a", "b"], ["a", "b"], ["a"]]
    vocabulary = Vocabulary("ab")  # </s>, <unk>, a, b
    smoothing = Interpolated(weights=((0.5,), (0.6,)))
    model = NGramModel(order=2, smoothing=smoothing).fit(corpus, vocabulary=vocabulary)
    single = 0.5 * 2 / 8 + 0.5 / 4  # 8 words were predicted: a a a, b b, </s> three times
    assert model.probability("b", ["a"]) == pytest.approx(0.6 * 2 / 3 + 0.4 * single, rel=1e-12)
    assert model.probability("b", ["<unk>"]) == pytest.approx(single, rel=1e-12)


def test_buckets_follow_the_count_of_the_context():
    corpus = [["a", "b"]] * 3 + [["c", "b"]]  # after a: 3 times, after c: once
    weights = ((1.0,), (0.25, 0.75))
    model = NGramModel(order=2, smoothing=Interpolated(weights=weights)).fit(
        corpus, vocabulary=Vocabulary("abc")
    )
    single = 4 / 12
    assert model.probability("b", ["c"]) == pytest.approx(0.25 + 0.75 * single, rel=1e-12)
    assert model.probability("b", ["a"]) == pytest.approx(0.75 + 0.25 * single, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(corpora, corpora, st.integers(1, 4), st.integers(1, 3))
def test_tuning_never_lowers_the_held_out_likelihood(corpus, held_out, order, buckets):
    counts = NGramCounts(corpus, order=order, vocabulary=Vocabulary("abcde"))
    scores = []
    for rounds in range(5):
        tuned = Interpolated.tuned(counts, held_out, buckets=buckets, rounds=rounds)
        scores.append(NGramModel.from_counts(counts, smoothing=tuned).score(held_out).sum())
    assert (np.diff(scores) >= -1e-9).all()


def test_tuning_finds_the_best_weights():
    # z is unknown, so some mass must reach the uniform distribution.
    corpus = [list("abcde") for _ in range(3)] + [list("aaeaaa"), list("ca"), list("aab")]
    held_out = [list(text) for text in ("abcda", "aaz", "aba", "ezcaa", "czdb", "eaab")]
    counts = NGramCounts(corpus, order=2, vocabulary=Vocabulary("abcde"))
    (single,), (pair,) = Interpolated.tuned(counts, held_out, rounds=400).weights

    def score(single, pair):
        smoothing = Interpolated(weights=((single,), (pair,)))
        return NGramModel.from_counts(counts, smoothing=smoothing).score(held_out).sum()

    best = max(score(x, y) for x in np.linspace(0, 1, 101) for y in np.linspace(0, 1, 101))
    assert 0.05 < single < 0.95
    assert 0.05 < pair < 0.95
    assert score(single, pair) >= best - 1e-6


def test_tuning_on_the_training_text_trusts_it_blindly():
    counts = NGramCounts(CORPUS, order=3, vocabulary=Vocabulary.from_sentences(CORPUS))
    assert Interpolated.tuned(counts, CORPUS, rounds=300).weights[2][0] > 0.95


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("inf")])
def test_add_k_refuses(k):
    with pytest.raises(ValueError, match="k must be a finite number above 0"):
        AddK(k=k)


@pytest.mark.parametrize("discount", [0.0, -0.1, 1.1, float("nan")])
def test_kneser_ney_refuses(discount):
    with pytest.raises(ValueError, match="discount must be above 0 and at most 1"):
        KneserNey(discount=discount)


@pytest.mark.parametrize("row", [(), (1.2,), (-0.1,), (float("nan"),)])
def test_interpolation_refuses(row):
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        Interpolated(weights=(row,))
    with pytest.raises(ValueError, match="order 3 needs as many rows of weights, got 1"):
        NGramModel(order=3, smoothing=Interpolated(weights=((0.5,),))).fit(CORPUS).probability("a")
