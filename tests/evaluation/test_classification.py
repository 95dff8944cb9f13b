"""Scores of classifiers beside scikit-learn's, calibration, intervals, and the bag of words."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.evaluation.bag_of_words import BagOfWordsBaseline
from llm_from_scratch.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_table,
    softmax_at,
)
from llm_from_scratch.evaluation.classification import (
    accuracy,
    brier_score,
    class_scores,
    confusion_matrix,
    negative_log_likelihood,
)
from llm_from_scratch.evaluation.uncertainty import paired_bootstrap, spread, wilson_interval

K = 3


def example(count=197, seed=0, sharpness=1.0):
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(size=(count, K)) * 2
    labels_N = np.array([rng.choice(K, p=softmax_at(row[None], 1.0)[0]) for row in logits_NK])
    return labels_N, logits_NK * sharpness


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed):
    from sklearn import metrics

    labels_N, logits_NK = example(seed=seed)
    probs_NK = softmax_at(logits_NK, 1.0)
    predicted_N = probs_NK.argmax(axis=1)
    assert accuracy(labels_N, predicted_N) == pytest.approx(metrics.accuracy_score(labels_N, predicted_N))
    expected = metrics.confusion_matrix(labels_N, predicted_N, labels=range(K))
    assert (confusion_matrix(labels_N, predicted_N, K) == expected).all()
    scores = class_scores(labels_N, predicted_N, K)
    expected = metrics.precision_recall_fscore_support(labels_N, predicted_N, labels=range(K))
    for found, each in zip(
        (scores.precision_K, scores.recall_K, scores.f1_K, scores.support_K), expected, strict=True
    ):
        np.testing.assert_allclose(found, each)
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(labels_N, predicted_N, average="macro"))
    assert negative_log_likelihood(labels_N, probs_NK) == pytest.approx(metrics.log_loss(labels_N, probs_NK))
    expected = metrics.brier_score_loss(labels_N, probs_NK, labels=range(K), scale_by_half=False)
    assert brier_score(labels_N, probs_NK) == pytest.approx(expected)


def test_the_loss_is_torch_s_cross_entropy_and_tensors_are_taken():
    labels_N, logits_NK = (torch.as_tensor(each) for each in example())
    expected = torch.nn.functional.cross_entropy(logits_NK, labels_N)
    assert negative_log_likelihood(labels_N, logits_NK.softmax(-1)) == pytest.approx(float(expected))
    assert accuracy(labels_N, logits_NK.argmax(-1)) == float(
        (labels_N == logits_NK.argmax(-1)).double().mean()
    )


def test_where_nothing_is_to_be_divided_a_score_is_zero():
    from sklearn.metrics import precision_recall_fscore_support

    labels, predicted = [0, 0, 1, 1], [0, 2, 2, 0]  # 1 is never given, 2 never right
    scores = class_scores(labels, predicted, 4)
    expected = precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    for found, each in zip(
        (scores.precision_K, scores.recall_K, scores.f1_K, scores.support_K), expected, strict=True
    ):
        np.testing.assert_allclose(found, each)


def test_certain_and_wrong_is_an_infinite_loss():
    assert negative_log_likelihood([1], [[1.0, 0.0]]) == math.inf
    assert brier_score([1], [[1.0, 0.0]]) == 2.0


def test_reliability_counts_each_text_in_one_bin():
    labels_N, logits_NK = example(sharpness=1.7)
    probs_NK = softmax_at(logits_NK, 1.0)
    table = reliability_table(labels_N, probs_NK, bins=7)
    assert sum(each.count for each in table) == len(labels_N)
    naive = 0.0
    for each in table:
        inside = [n for n in range(len(labels_N)) if each.low < max(probs_NK[n]) <= each.high]
        assert each.count == len(inside)
        if inside:
            right = np.mean([probs_NK[n].argmax() == labels_N[n] for n in inside])
            sure = np.mean([probs_NK[n].max() for n in inside])
            assert (each.accuracy, each.confidence) == pytest.approx((right, sure))
            naive += len(inside) / len(labels_N) * abs(right - sure)
    assert expected_calibration_error(labels_N, probs_NK, bins=7) == pytest.approx(naive)


def test_one_bin_compares_the_means_and_edges_belong_below():
    probs = [[0.5, 0.5], [1.0, 0.0], [0.75, 0.25], [0.25, 0.75]]
    assert [each.count for each in reliability_table([0, 0, 0, 0], probs, bins=4)] == [0, 1, 2, 1]
    assert expected_calibration_error([0, 0, 0, 0], probs, bins=1) == pytest.approx(abs(0.75 - 0.75))
    assert expected_calibration_error([0, 0, 0, 1], probs, bins=1) == pytest.approx(0.25)


def test_the_error_is_small_for_a_calibrated_classifier_and_grows_with_sharpness():
    labels_N, logits_NK = example(count=4_000)
    errors = [expected_calibration_error(labels_N, softmax_at(logits_NK * sharp, 1.0)) for sharp in (1, 2, 4)]
    assert errors[0] < 0.02
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_has_the_least_loss(sharpness):
    from scipy.optimize import minimize_scalar

    labels_N, logits_NK = example(count=600, sharpness=sharpness)

    def loss(log_temperature):
        return negative_log_likelihood(labels_N, softmax_at(logits_NK, math.exp(log_temperature)))

    expected = math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x)
    found = fit_temperature(labels_N, logits_NK)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(sharpness, rel=0.15)  # the truth, up to the sample


def test_a_temperature_at_the_end_of_its_range():
    assert fit_temperature([0, 1], [[5.0, 0.0], [0.0, 5.0]]) == pytest.approx(0.01)
    assert fit_temperature([1, 0], [[5.0, 0.0], [0.0, 5.0]]) == pytest.approx(100)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        softmax_at([[1.0, 2.0]], 0)
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature([0], [[math.inf, 0.0]])


@given(
    st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999)
)
@settings(deadline=None)
def test_wilson_s_interval_solves_its_equation(counts, level):
    from scipy.stats import norm

    right, total = counts
    low, high = wilson_interval(right, total, level=level)
    assert 0 <= low <= right / total <= high <= 1
    z = norm.ppf((1 + level) / 2)
    for end in (low, high):
        distance = abs(right / total - end)
        assert distance == pytest.approx(z * math.sqrt(end * (1 - end) / total), abs=1e-7)


def test_wilson_s_interval_is_scipy_s():
    from scipy.stats import binomtest

    for right, total in [(0, 7), (7, 7), (1_601, 2_000), (1, 3)]:
        expected = binomtest(right, total).proportion_ci(method="wilson")
        assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-9)
    for right, total in [(-1, 3), (4, 3), (0, 0)]:
        with pytest.raises(ValueError, match=f"{right} right of {total} texts is no count"):
            wilson_interval(right, total)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1"):
        wilson_interval(1, 2, level=1)


def test_the_bootstrap_has_the_deviation_of_the_mean():
    """Against the formula for the mean of paired differences, and a plain resampling of the texts."""
    rng = np.random.default_rng(4)
    first_N = rng.random(500) < 0.7
    second_N = np.where(rng.random(500) < 0.9, first_N, rng.random(500) < 0.9)
    found = paired_bootstrap(first_N, second_N, seed=0)
    difference_N = second_N.astype(float) - first_N
    assert found.mean == pytest.approx(difference_N.mean())
    deviation = difference_N.std() / math.sqrt(500)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(deviation, rel=0.06)
    plain = np.array([difference_N[rng.integers(0, 500, 500)].mean() for _ in range(4_000)])
    assert found.not_better == pytest.approx((plain <= 0).mean(), abs=0.02)
    assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.004)
    assert found == paired_bootstrap(first_N, second_N, seed=0)
    assert found != paired_bootstrap(first_N, second_N, seed=1)


def test_what_is_hard_for_both_does_not_widen_the_interval():
    same = np.arange(400) % 2
    found = paired_bootstrap(same, same, seed=0)
    assert (found.mean, found.low, found.high, found.not_better) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        paired_bootstrap([0, 1], [0, 1, 1], seed=0)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        paired_bootstrap([0], [1], seed=0, resamples=0)


def test_the_spread_over_seeds():
    found = spread([0.5, 0.7, 0.9, 0.7])
    assert (found.mean, found.deviation) == pytest.approx((0.7, np.std([0.5, 0.7, 0.9, 0.7], ddof=1)))
    assert (found.lowest, found.highest, found.count) == (0.5, 0.9, 4)
    with pytest.raises(ValueError, match=r"1 score\(s\) have no spread"):
        spread([0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([], []), r"shape \(0,\)"),
        (lambda: accuracy([0, 1], [0]), r"shape \(2,\) and predictions of shape \(1,\)"),
        (lambda: accuracy([0.0], [0]), "classes are whole numbers, got float64"),
        (lambda: confusion_matrix([0, 2], [0, 1], 2), "the labels reach from 0 to 2"),
        (lambda: confusion_matrix([0, 1], [0, -1], 2), "the predictions reach from -1 to 0"),
        (lambda: brier_score([0], [[2.0, -1.0]]), r"row 0 is no distribution"),
        (lambda: brier_score([0, 0], [[0.5, 0.5], [3.0, 1.0]]), r"row 1 is .* not logits"),
        (lambda: brier_score([2], [[0.5, 0.5]]), "from 0 to 1"),
        (lambda: brier_score([0, 1], [[0.5, 0.5]]), r"shape \(2,\) do not fit .* \(1, 2\)"),
        (lambda: reliability_table([0], [[0.5, 0.5]], bins=0), "bins must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ADJECTIVES = {1: "good fine great lovely".split(), 0: "bad dull poor awful".split()}  # noqa: SIM905


def reviews(start, step):
    nouns = "film plot cast score end scene".split()  # noqa: SIM905
    pairs = [(n, a, label) for n in nouns for label in (0, 1) for a in ADJECTIVES[label]][start::step]
    return [f"The {n} was {a}!" for n, a, _ in pairs], [label for *_, label in pairs]


def test_the_bag_of_words_is_the_pipeline_of_scikit_learn_at_the_chosen_strength():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, validation, (test_texts, test_labels) = reviews(0, 3), reviews(1, 3), reviews(2, 3)
    baseline = BagOfWordsBaseline(strengths=(0.01, 1.0, 100.0)).fit(*train, *validation)
    probs_NK = baseline.probabilities(test_texts)
    assert accuracy(test_labels, probs_NK.argmax(axis=1)) == 1
    np.testing.assert_allclose(probs_NK.sum(axis=1), 1)
    assert baseline.strength == min(baseline.losses, key=baseline.losses.get) == 100.0
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w[\w']*|[!?]+")
    train_NV = vectors.fit_transform(train[0])
    for strength, loss in baseline.losses.items():
        classifier = LogisticRegression(C=strength, max_iter=2_000, tol=1e-6).fit(train_NV, train[1])
        validation_NK = classifier.predict_proba(vectors.transform(validation[0]))
        assert loss == pytest.approx(negative_log_likelihood(validation[1], validation_NK))
    expected = classifier.predict_proba(vectors.transform(test_texts))  # of the last strength, 100
    np.testing.assert_array_equal(probs_NK, expected)
    again = BagOfWordsBaseline(strengths=(0.01, 1.0, 100.0)).fit(*train, *validation)
    np.testing.assert_array_equal(again.probabilities(test_texts), probs_NK)


def test_its_strongest_words_and_pairs():
    baseline = BagOfWordsBaseline().fit(*reviews(0, 2), *reviews(1, 2))
    for label in (0, 1):
        words = [word for word, _ in baseline.strongest(4, label)]
        assert all(
            word.split()[-1] in ADJECTIVES[label] or word.split()[0] in ADJECTIVES[label] for word in words
        )
    weights = [weight for _, weight in baseline.strongest(10)]
    assert weights == sorted(weights, reverse=True)
    assert any(" " in word for word in baseline._vectors.get_feature_names_out())


def test_pairs_of_words_tell_what_words_do_not():
    texts = ["not good but fine", "good not fine but", "not fine but good", "fine not good but"]
    texts = [" ".join(order) for order in itertools.permutations(("not", "good", "bad"))] * 2
    labels = [int("not good" in text or ("not bad" not in text and text[0] == "g")) for text in texts]
    found = BagOfWordsBaseline(strengths=(1_000.0,)).fit(texts, labels, texts, labels).probabilities(texts)
    assert accuracy(labels, found.argmax(axis=1)) == 1


def test_what_it_cannot_learn_from_is_named():
    with pytest.raises(ValueError, match="has not been fitted"):
        BagOfWordsBaseline().probabilities(["x"])
    with pytest.raises(ValueError, match="fitted baseline with two classes"):
        BagOfWordsBaseline().strongest(3)
    for labels in ([0, 0], [1, 2]):
        with pytest.raises(ValueError, match="the training texts have the classes"):
            BagOfWordsBaseline().fit(["a b", "c d"], labels, ["a"], [0])
