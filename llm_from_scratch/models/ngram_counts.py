"""Counts of n-grams of every order, held in sorted arrays that answer many questions at once.

N: predicted words (events); K: context length; C: distinct contexts; G: distinct n-grams; V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from llm_from_scratch.models.ngram_vocabulary import Vocabulary

IntArray = np.ndarray


def encode_events(
    sentences: Iterable[Sequence[Hashable]], vocabulary: Vocabulary, context_length: int
) -> tuple[Int[IntArray, "N"], Int[IntArray, "N K"]]:
    """List every prediction of a text: the word to predict and the words before it.

    Each sentence gets ``context_length`` times ``<s>`` in front and one ``</s>`` behind, so a sentence
    of L words gives L + 1 events and no context reaches into the sentence before.

    Returns: word_N, and context_NK whose column 0 is the most recent word.

    >>> word_N, context_NK = encode_events([["a", "b"]], Vocabulary(["a", "b"]), 2)
    >>> word_N.tolist(), context_NK.tolist()
    ([2, 3, 0], [[4, 4], [2, 4], [3, 2]])
    """
    stream: list[int] = []
    for sentence in sentences:
        stream += [vocabulary.start_id] * context_length
        stream += vocabulary.encode(sentence)
        stream.append(vocabulary.end_id)
    ids = np.array(stream, dtype=np.int64)
    (at_N,) = np.nonzero(ids != vocabulary.start_id)
    back_K = np.arange(1, context_length + 1)
    return ids[at_N], ids[at_N[:, None] - back_K]


@dataclass(frozen=True, kw_only=True)
class Level:
    """All n-grams with contexts of one length. Keys are sorted, so a search finds a row.

    A context's key is (row of the context without its oldest word) * (V + 1) + oldest word; an n-gram's
    key is (row of its context) * (V + 1) + predicted word. This is a trie in arrays, read backwards from
    the predicted word: the parent of a context is the context to back off to.
    """

    context_keys_C: IntArray
    gram_keys_G: IntArray
    count_G: IntArray  # how often the n-gram occurs
    left_G: IntArray  # how many different words precede it (its count, where it starts with <s>)
    total_C: IntArray  # sum of count_G over the context's n-grams
    left_total_C: IntArray  # sum of left_G over the context's n-grams
    types_C: IntArray  # how many different words follow the context
    count_once_twice: tuple[int, int]  # how many n-grams have count_G 1 and 2
    left_once_twice: tuple[int, int]  # how many n-grams have left_G 1 and 2


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the counts know about N predictions from contexts of one length (zeros: nothing).

    Where all predictions share their context, the totals and types hold one entry for all.
    """

    count_N: IntArray
    left_N: IntArray
    total_N: IntArray
    left_total_N: IntArray
    types_N: IntArray


class NGramCounts:
    """Counts of all n-grams up to ``order`` in a text. Smoothing methods read them, none changes them.

    Source: the left counts are N1+(. w) of Kneser & Ney 1995. An n-gram that starts with ``<s>`` has
    nothing different before it, so its left count would always be 1; like SRILM and KenLM we take its
    plain count instead.

    >>> counts = NGramCounts([["a", "b"], ["a", "c"]], order=2, vocabulary=Vocabulary("abc"))
    >>> counts.num_grams(1), counts.num_grams(2)
    (4, 5)
    """

    def __init__(self, sentences: Iterable[Sequence[Hashable]], *, order: int, vocabulary: Vocabulary):
        if order < 1:
            raise ValueError(f"order must be at least 1 (single words), got {order}")
        self.order = order
        self.vocabulary = vocabulary
        self.base = len(vocabulary) + 1
        word_N, context_NK = encode_events(sentences, vocabulary, order - 1)
        self.num_events = len(word_N)
        self.levels = self._count(word_N, context_NK)

    def _count(self, word_N: IntArray, context_NK: IntArray) -> list[Level]:
        row_N = np.zeros_like(word_N)  # the empty context is the only one of its level
        context_keys_C = np.zeros(1, dtype=np.int64)
        tables = []
        for k in range(self.order):
            if k > 0:
                context_keys_C, row_N = np.unique(
                    row_N * self.base + context_NK[:, k - 1], return_inverse=True
                )
            keys_G, first_G, gram_N, count_G = np.unique(
                row_N * self.base + word_N, return_index=True, return_inverse=True, return_counts=True
            )
            tables.append((context_keys_C, keys_G, first_G, gram_N, count_G))

        levels = []
        for k, (context_keys_C, keys_G, first_G, _, count_G) in enumerate(tables):
            left_G = count_G.copy()
            if k + 1 < self.order:
                # Each longer n-gram gives one to the n-gram it ends with.
                first_longer, gram_N = tables[k + 1][2], tables[k][3]
                left_G = np.bincount(gram_N[first_longer], minlength=len(keys_G))
                if k > 0:
                    starts = context_NK[first_G, k - 1] == self.vocabulary.start_id
                    left_G = np.where(starts, count_G, left_G)
            row_G, size = keys_G // self.base, len(context_keys_C)
            levels.append(
                Level(
                    context_keys_C=context_keys_C,
                    gram_keys_G=keys_G,
                    count_G=count_G,
                    left_G=left_G,
                    total_C=_sums(row_G, count_G, size),
                    left_total_C=_sums(row_G, left_G, size),
                    types_C=np.bincount(row_G, minlength=size),
                    count_once_twice=(int((count_G == 1).sum()), int((count_G == 2).sum())),
                    left_once_twice=(int((left_G == 1).sum()), int((left_G == 2).sum())),
                )
            )
        return levels

    def look_up(self, word_N: Int[IntArray, "N"], context_NK: Int[IntArray, "N K"]) -> list[Evidence]:
        """Return the evidence for each prediction, from the empty context to the longest one given.

        Raises: ValueError if the contexts are longer than the counts reach.
        """
        evidence, row_N = [], np.zeros_like(word_N)
        for k, level in enumerate(self._levels_for(context_NK.shape[1])):
            if k > 0:
                keys_N = np.where(row_N >= 0, row_N * self.base + context_NK[:, k - 1], -1)
                row_N = _find(level.context_keys_C, keys_N)
            gram_N = _find(level.gram_keys_G, np.where(row_N >= 0, row_N * self.base + word_N, -1))
            evidence.append(
                Evidence(
                    count_N=_take(level.count_G, gram_N),
                    left_N=_take(level.left_G, gram_N),
                    total_N=_take(level.total_C, row_N),
                    left_total_N=_take(level.left_total_C, row_N),
                    types_N=_take(level.types_C, row_N),
                )
            )
        return evidence

    def look_up_row(self, context_K: Int[IntArray, "K"]) -> list[Evidence]:
        """Return the evidence for every word of the vocabulary after one context.

        The n-grams of a context lie side by side, so this reads a slice a level and searches nothing else.
        Raises: ValueError if the context is longer than the counts reach.
        """
        evidence, row = [], np.zeros(1, dtype=np.int64)
        for k, level in enumerate(self._levels_for(len(context_K))):
            if k > 0:
                key = np.where(row >= 0, row * self.base + context_K[k - 1], -1)
                row = _find(level.context_keys_C, key)
            start, stop = np.searchsorted(level.gram_keys_G, [row[0] * self.base, (row[0] + 1) * self.base])
            word = level.gram_keys_G[start:stop] - row[0] * self.base
            count_V, left_V = np.zeros((2, len(self.vocabulary)), dtype=np.int64)
            count_V[word], left_V[word] = level.count_G[start:stop], level.left_G[start:stop]
            evidence.append(
                Evidence(
                    count_N=count_V,
                    left_N=left_V,
                    total_N=_take(level.total_C, row),
                    left_total_N=_take(level.left_total_C, row),
                    types_N=_take(level.types_C, row),
                )
            )
        return evidence

    def _levels_for(self, context_length: int) -> list[Level]:
        if context_length >= self.order:
            raise ValueError(
                f"contexts of {context_length} words need counts of order {context_length + 1}, "
                f"these have order {self.order}; count again with order={context_length + 1}"
            )
        return self.levels[: context_length + 1]

    def num_grams(self, order: int) -> int:
        """How many different n-grams of this order the text holds."""
        return len(self.levels[order - 1].gram_keys_G)

    def num_bytes(self, order: int) -> int:
        """Bytes that the tables up to this order take in memory."""
        tables = (table for level in self.levels[:order] for table in vars(level).values())
        return sum(table.nbytes for table in tables if isinstance(table, np.ndarray))


def _sums(row_G: IntArray, value_G: IntArray, size: int) -> IntArray:
    # bincount adds in float64, exact up to 2**53.
    return np.bincount(row_G, weights=value_G, minlength=size).astype(np.int64)


def _find(sorted_keys: IntArray, wanted_N: IntArray) -> IntArray:
    """Row of each wanted key, -1 where it is absent."""
    if len(sorted_keys) == 0:
        return np.full_like(wanted_N, -1)
    at_N = np.minimum(np.searchsorted(sorted_keys, wanted_N), len(sorted_keys) - 1)
    return np.where(sorted_keys[at_N] == wanted_N, at_N, -1)


def _take(values: IntArray, row_N: IntArray) -> IntArray:
    """The value of each row, 0 where the row is -1."""
    if len(values) == 0:
        return np.zeros_like(row_N)
    return np.where(row_N >= 0, values[row_N], 0)
