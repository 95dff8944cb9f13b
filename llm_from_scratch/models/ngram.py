"""The n-gram language model: P(word | the n - 1 words before it), from counts.

N: predictions; V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from llm_from_scratch.models.ngram_counts import NGramCounts, encode_events
from llm_from_scratch.models.ngram_smoothing import (
    AddK,
    Interpolated,
    KneserNey,
    MaximumLikelihood,
    Smoothing,
)
from llm_from_scratch.models.ngram_vocabulary import END, UNKNOWN, Vocabulary, sentences, words

__all__ = [
    "AddK",
    "Interpolated",
    "KneserNey",
    "MaximumLikelihood",
    "NGramCounts",
    "NGramModel",
    "OpenVocabularyModel",
    "Vocabulary",
    "sentences",
    "words",
]


class NGramModel:
    """Predict a word from the ``order - 1`` words before it.

    ``fit`` counts a text. ``from_counts`` shares counts between models of different order or smoothing,
    which costs nothing. A text is a list of sentences, a sentence a list of words; a stream of tokens
    without sentences is a list of one. Words may be any hashable values.

    Raises: ValueError if the order is below 1 or above that of the counts, and before ``fit``.

    >>> model = NGramModel(order=2, smoothing=MaximumLikelihood())
    >>> model = model.fit([["the", "cat", "sat"], ["the", "dog", "sat"]])
    >>> model.probability("cat", ["the"])
    0.5
    >>> np.exp(model.log_probabilities(["the", "cat", "sat"])).tolist()  # the, cat, sat, </s>
    [1.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, *, order: int, smoothing: Smoothing | None = None):
        if order < 1:
            raise ValueError(f"order must be at least 1 (single words), got {order}")
        self.order = order
        self.smoothing: Smoothing = KneserNey() if smoothing is None else smoothing
        self._counts: NGramCounts | None = None

    def fit(
        self, sentences: Iterable[Sequence[Hashable]], *, vocabulary: Vocabulary | None = None
    ) -> NGramModel:
        """Count the sentences. Without a vocabulary, every word of the text and ``<unk>`` is in it."""
        sentences = list(sentences)
        if any(isinstance(sentence, str) for sentence in sentences):
            raise ValueError("a sentence is a list of words, got a string; cut it first: words(text)")
        vocabulary = Vocabulary.from_sentences(sentences) if vocabulary is None else vocabulary
        self._counts = NGramCounts(sentences, order=self.order, vocabulary=vocabulary)
        return self

    @classmethod
    def from_counts(
        cls, counts: NGramCounts, *, order: int | None = None, smoothing: Smoothing | None = None
    ) -> NGramModel:
        """Make a model of counts that exist; its order may be smaller than theirs."""
        model = cls(order=counts.order if order is None else order, smoothing=smoothing)
        if model.order > counts.order:
            raise ValueError(
                f"order {model.order} needs counts of that order, got {counts.order}; count again"
            )
        model._counts = counts
        return model

    @property
    def counts(self) -> NGramCounts:
        """The counts behind the model."""
        if self._counts is None:
            raise ValueError("this model has counted nothing yet; call fit(sentences) first")
        return self._counts

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that the model can predict."""
        return self.counts.vocabulary

    def distribution(self, context: Sequence[Hashable] = ()) -> Float[np.ndarray, "V"]:
        """P(word | context) for every word of the vocabulary, in the order of ``vocabulary.words``.

        Words before the last ``order - 1`` are not read; a shorter context stands at the start of a sentence.
        """
        ids = self.vocabulary.encode_context(context, self.order - 1)
        evidence = self.counts.look_up_row(np.array(ids, dtype=np.int64))
        return self.smoothing.probabilities(self.counts, evidence)

    def probability(self, word: Hashable, context: Sequence[Hashable] = ()) -> float:
        """P(word | context); the word may be ``</s>``, and an unknown one is read as ``<unk>``."""
        word_id = self.vocabulary.end_id if word == END else self.vocabulary.encode([word])[0]
        ids = self.vocabulary.encode_context(context, self.order - 1)
        context_1K = np.array([ids], dtype=np.int64).reshape(1, -1)
        evidence = self.counts.look_up(np.array([word_id]), context_1K)
        return float(self.smoothing.probabilities(self.counts, evidence)[0])

    def log_probabilities(self, sentence: Sequence[Hashable]) -> Float[np.ndarray, "N"]:
        """Natural logarithm of P(word | words before) for each word of a sentence and its ``</s>``."""
        return self.score([sentence])

    def score(self, sentences: Iterable[Sequence[Hashable]]) -> Float[np.ndarray, "N"]:
        """``log_probabilities`` of many sentences, one after the other. Units: nats; -inf for P = 0."""
        word_N, context_NK = encode_events(sentences, self.vocabulary, self.order - 1)
        with np.errstate(divide="ignore"):
            return np.log(self.smoothing.probabilities(self.counts, self.counts.look_up(word_N, context_NK)))

    def sample(
        self, rng: np.random.Generator, *, context: Sequence[Hashable] = (), max_words: int = 50
    ) -> list[Hashable]:
        """Draw words one after the other until ``</s>`` or ``max_words``.

        Returns: the words drawn, without the context and without ``</s>``.
        Raises: ValueError after a context that maximum likelihood has never seen.
        """
        drawn: list[Hashable] = []
        while len(drawn) < max_words:
            cumulative_V = np.cumsum(self.distribution([*context, *drawn]))
            if not cumulative_V[-1] > 0:
                raise ValueError(f"no word ever followed {[*context, *drawn]!r}; choose a smoothed model")
            at = np.searchsorted(cumulative_V, rng.random() * cumulative_V[-1], side="right")
            word = self.vocabulary.words[min(int(at), len(cumulative_V) - 1)]
            if word == END:
                break
            drawn.append(word)
        return drawn


class OpenVocabularyModel:
    """A word model that spells what it does not know, so that every text has a probability.

    P(word | h) is the word model's for a known word, and P(<unk> | h) * P(its bytes) for another one. The
    bytes come from a second n-gram model, trained on the words too rare for the vocabulary.

    The result counts every byte of the text, so it may be compared with any other model of that text.
    It is pessimistic by a little: the speller may also spell words that the vocabulary holds.

    Raises: ValueError if a word is not a str.
    """

    def __init__(
        self, *, order: int, smoothing: Smoothing | None = None, min_count: int = 2, spelling_order: int = 5
    ):
        self.words = NGramModel(order=order, smoothing=smoothing)
        self.speller = NGramModel(order=spelling_order, smoothing=KneserNey())
        self.min_count = min_count

    def fit(self, sentences: Iterable[Sequence[str]]) -> OpenVocabularyModel:
        """Count the words, and the bytes of those that occur less than ``min_count`` times."""
        sentences = list(sentences)
        vocabulary = Vocabulary.from_sentences(sentences, min_count=self.min_count)
        self.words.fit(sentences, vocabulary=vocabulary)
        rare = dict.fromkeys(word for sentence in sentences for word in sentence if word not in vocabulary)
        all_bytes = Vocabulary(range(256), unknown=False)
        self.speller.fit([word.encode(errors="surrogatepass") for word in rare], vocabulary=all_bytes)
        return self

    def with_smoothing(self, *, order: int, smoothing: Smoothing) -> OpenVocabularyModel:
        """The same counts and speller under another order and smoothing of the words."""
        model = OpenVocabularyModel(order=order, smoothing=smoothing, min_count=self.min_count)
        model.words = NGramModel.from_counts(self.words.counts, order=order, smoothing=smoothing)
        model.speller = self.speller
        return model

    def score(self, sentences: Iterable[Sequence[str]]) -> Float[np.ndarray, "N"]:
        """Natural logarithm of the probability of each word and ``</s>``, spelling included. Units: nats."""
        sentences = list(sentences)
        log_p_N = self.words.score(sentences)
        flat = [word for sentence in sentences for word in (*sentence, END)]
        is_new = [word not in self.words.vocabulary for word in flat]
        new_words = [word for word, new in zip(flat, is_new, strict=True) if new]
        spelled = self.speller.score([word.encode(errors="surrogatepass") for word in new_words])
        ends = np.cumsum(
            [len(word.encode(errors="surrogatepass")) + 1 for word in new_words], dtype=np.int64
        )  # +1 for </s>
        if len(ends):
            log_p_N[np.array(is_new)] += np.add.reduceat(spelled, np.concatenate([[0], ends[:-1]]))
        return log_p_N

    def sample(self, rng: np.random.Generator, *, context: Sequence[str] = (), max_words: int = 50) -> str:
        """Draw a sentence as text; an unknown word is spelled byte by byte."""
        drawn = self.words.sample(rng, context=context, max_words=max_words)
        spelled = [
            bytes(self.speller.sample(rng, max_words=20)).decode(errors="replace")
            if word == UNKNOWN
            else word
            for word in drawn
        ]
        return "".join(spelled)
