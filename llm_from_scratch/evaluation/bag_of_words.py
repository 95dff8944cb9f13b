"""The baseline that a fine-tuned model has to beat: logistic regression on words and pairs of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

STRENGTHS = (
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
    300.0,
    1_000.0,
)  # scikit-learn's C: the larger, the less decay


class BagOfWordsBaseline:
    """Probabilities of classes from the words and pairs of words of a text, without regard to their order.

    A text becomes a vector with an entry for each word and each pair of neighbours, weighed by
    ``tf idf``: how often it occurs in the text, and how few texts of the training part have it. Logistic
    regression on these vectors has one setting, the strength C of its decay, chosen by the loss on the
    validation part. Nothing is random: the same texts give the same probabilities.
    Needs scikit-learn. Raises: ValueError before `fit`, or for training texts of a single class.

    >>> texts, labels = ["good film", "very good", "bad film", "very bad"] * 3, [1, 1, 0, 0] * 3
    >>> baseline = BagOfWordsBaseline().fit(texts, labels, ["a good one", "a bad one"], [1, 0])
    >>> baseline.probabilities(["good", "bad"]).argmax(axis=1).tolist()
    [1, 0]
    """

    def __init__(self, strengths: Sequence[float] = STRENGTHS):
        self.strengths = tuple(strengths)
        self.strength: float | None = None  # the chosen C
        self.losses: dict[float, float] = {}  # validation loss of each C, nats a text
        self._vectors = self._classifier = None

    def fit(
        self,
        train_texts: Sequence[str],
        train_labels: Sequence[int],
        validation_texts: Sequence[str],
        validation_labels: Sequence[int],
    ) -> BagOfWordsBaseline:
        """Fit a classifier for each strength on the training texts; keep the one with the least loss."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        from llm_from_scratch.evaluation.classification import negative_log_likelihood

        classes = sorted(set(train_labels))
        if classes != list(range(len(classes))) or len(classes) < 2:
            raise ValueError(f"the training texts have the classes {classes}; give texts of each, from 0 on")
        # A word is a run of letters, digits or apostrophes, also one of a single letter ("I", "u").
        self._vectors = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w[\w']*|[!?]+"
        )
        train_NV = self._vectors.fit_transform(train_texts)
        validation_NV = self._vectors.transform(validation_texts)
        self.losses, best = {}, None
        for strength in self.strengths:
            classifier = LogisticRegression(C=strength, max_iter=2_000, tol=1e-6).fit(train_NV, train_labels)
            probs_NK = classifier.predict_proba(validation_NV)
            self.losses[strength] = negative_log_likelihood(list(validation_labels), probs_NK)
            if best is None or self.losses[strength] < self.losses[best]:
                best, self._classifier = strength, classifier
        self.strength = best
        return self

    def probabilities(self, texts: Sequence[str]) -> Float[np.ndarray, "N K"]:
        """Return the probability of each class for each text."""
        if self._classifier is None:
            raise ValueError("the baseline has not been fitted; call fit first")
        return self._classifier.predict_proba(self._vectors.transform(texts))

    def strongest(self, number: int, label: int = 1) -> list[tuple[str, float]]:
        """Return the words and pairs that speak most for ``label``, with their weights, of two classes."""
        if self._classifier is None or len(self._classifier.classes_) != 2:
            raise ValueError("the weights of words are read from a fitted baseline with two classes")
        weights_V = self._classifier.coef_[0] * (1 if label == 1 else -1)
        words = self._vectors.get_feature_names_out()
        return [(str(words[i]), float(weights_V[i])) for i in np.argsort(-weights_V, kind="stable")[:number]]
