"""Pairs of texts for next-sentence prediction, drawn from documents that are cut into sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FOLLOWS, RANDOM = 0, 1  # the labels, numbered as the head of `models.encoder` numbers them

# A sentence ends at a mark that a space and a capital follow, or at a blank line. The abbreviations are
# those that are common in speeches.
_END = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bMessrs\.)(?<!\bNo\.)(?<!\bU\.)(?<!\bSt\.)"
    r"\s+(?=[\"'“‘(]?[A-Z])|\n\s*\n"
)


def split_sentences(text: str) -> list[str]:
    r"""Cut a text into sentences, white space at their ends dropped. A rule, not a model: it errs.

    >>> split_sentences("Mr. Speaker, we met. Why? We\nagreed (No. 4).  The end.")
    ['Mr. Speaker, we met.', 'Why?', 'We\nagreed (No. 4).', 'The end.']
    """
    return [part.strip() for part in _END.split(text) if part.strip()]


def encode_documents(texts: Sequence[str], encode: Callable[[str], list[int]]) -> list[list[list[int]]]:
    """Encode each sentence of each text; sentences without a token are left out."""
    return [[ids for s in split_sentences(text) if (ids := encode(s))] for text in texts]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One example: the ids with their [CLS] and [SEP], and where its two texts came from."""

    ids: list[int]
    label: int  # FOLLOWS or RANDOM
    first: tuple[int, int]  # document, number of its first sentence
    second: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SentencePairs:
    """Draw ``[CLS] A [SEP] B [SEP]``: B goes on where A ends, or comes from another document.

    A is as many whole sentences as fit into half of the room, at least one, cut if it alone is too long.
    B fills what is left; its end is cut. With probability ``random_share`` B begins at a random sentence
    of a random *other* document.

    Raises: ValueError if no document has two sentences, if random pairs are asked for and there is only
    one document, or if ``max_tokens`` is below 5.
    Source: Devlin et al. 2019, section 3.1, task 2, and its code.

    >>> pairs = SentencePairs(documents=[[[5], [6]], [[7], [8]]], cls_id=1, sep_id=2, max_tokens=9,
    ...                       random_share=0.0)
    >>> pairs.draw(np.random.default_rng(0)).ids
    [1, 7, 2, 8, 2]
    """

    documents: list[list[list[int]]]  # document, sentence, token
    cls_id: int
    sep_id: int
    max_tokens: int  # of a pair, [CLS] and two [SEP] included
    random_share: float = 0.5  # of pairs whose second text is random

    def __post_init__(self):
        if self.max_tokens < 5:
            raise ValueError(
                f"max_tokens must be 5 or more, two texts and three marks, got {self.max_tokens}"
            )
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share must lie in [0, 1], got {self.random_share}")
        usable = [i for i, document in enumerate(self.documents) if len(document) > 1]
        if not usable:
            raise ValueError("no document has two sentences, so none follows another")
        if self.random_share and len(self.documents) < 2:
            raise ValueError("random pairs need a second document; give more, or set random_share=0")
        weights = np.array([len(document) - 1 for document in self.documents], dtype=float).clip(min=0)
        object.__setattr__(self, "_weights", weights.cumsum() / weights.sum())

    def draw(self, rng: np.random.Generator) -> Pair:
        """Draw one pair. Each sentence that has one after it is equally likely to begin A."""
        document = int(np.searchsorted(self._weights, rng.random(), side="right"))
        sentences = self.documents[document]
        start = int(rng.integers(len(sentences) - 1))
        room = self.max_tokens - 3
        first, after = list(sentences[start][: room // 2]), start + 1
        while after < len(sentences) - 1 and len(first) + len(sentences[after]) <= room // 2:
            first += sentences[after]
            after += 1
        source, place, label = document, after, FOLLOWS
        if rng.random() < self.random_share:
            source = int(rng.integers(len(self.documents) - 1))
            source += source >= document
            place, label = int(rng.integers(len(self.documents[source]))), RANDOM
        second = self._fill(source, place, room - len(first))
        ids = [self.cls_id, *first, self.sep_id, *second, self.sep_id]
        return Pair(ids=ids, label=label, first=(document, start), second=(source, place))

    def _fill(self, document: int, place: int, room: int) -> list[int]:
        ids: list[int] = []
        for sentence in self.documents[document][place:]:
            ids += sentence
            if len(ids) >= room:
                break
        return ids[:room]
