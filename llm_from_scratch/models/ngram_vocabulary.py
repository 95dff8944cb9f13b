"""Text for n-gram models: cutting it into words and sentences, and a closed vocabulary.

Both cuts lose nothing: gluing the pieces together gives the text back, byte for byte. That is what
makes "bits per byte" of a word model comparable with that of any other model of the same text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

START = "<s>"  # stands before a sentence; a context only, never predicted
END = "</s>"  # stands after a sentence; predicted like a word
UNKNOWN = "<unk>"  # stands for every word outside the vocabulary

# A word (apostrophes inside belong to it) or a run of punctuation, each with the blank before it,
# or white space that no word took.
_WORD = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]+|\s+")
# A sentence ends before a blank that follows . ! or ?, and after the line breaks that end a paragraph.
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])(?= )|(?<=\n)(?=[^\n])")


def words(text: str) -> list[str]:
    """Cut a text into words; each keeps the blank before it, so ``"".join(words(t)) == t``.

    >>> words("The cat sat. It didn't move.")
    ['The', ' cat', ' sat', '.', ' It', " didn't", ' move', '.']
    """
    return _WORD.findall(text)


def sentences(text: str) -> list[list[str]]:
    """Cut a text into sentences of words; joining all words of all sentences gives the text back.

    A rule of thumb, not grammar: it also cuts after "Mr." and never inside "U.S." without a blank.

    >>> sentences("The cat sat. It slept.")
    [['The', ' cat', ' sat', '.'], [' It', ' slept', '.']]
    """
    return [words(part) for part in _BETWEEN_SENTENCES.split(text) if part]


class Vocabulary:
    """A fixed list of the words that a model can predict, numbered from 0.

    Id 0 is ``</s>`` and, unless ``unknown=False``, id 1 is ``<unk>``. ``len(vocabulary)`` is V, the
    number of words that can be predicted. ``<s>`` has the id V: it appears in contexts only.

    Raises: ValueError for a word outside a vocabulary that has no ``<unk>``, and for ``<s>`` or
    ``</s>`` inside a sentence (the model adds those two itself).

    >>> vocabulary = Vocabulary(["cat", "sat"])
    >>> vocabulary.encode(["cat", "slept"])
    [2, 1]
    >>> len(vocabulary), vocabulary.start_id
    (4, 4)
    """

    def __init__(self, known: Iterable[Hashable], *, unknown: bool = True):
        specials = [END, UNKNOWN] if unknown else [END]
        self.words: tuple[Hashable, ...] = tuple(dict.fromkeys([*specials, *known]))
        self.ids = {word: i for i, word in enumerate(self.words)}
        if START in self.ids:
            raise ValueError(f"{START!r} marks the start of a sentence and cannot be a word: remove it")
        self.end_id = 0
        self.unknown_id: int | None = 1 if unknown else None
        self.start_id = self.ids[START] = len(self.words)

    @classmethod
    def from_sentences(
        cls, sentences: Iterable[Sequence[Hashable]], *, min_count: int = 1, unknown: bool = True
    ) -> Vocabulary:
        """Keep the words that occur at least ``min_count`` times, the most frequent first."""
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {min_count}")
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = (word for word, count in counts.most_common() if count >= min_count)
        return cls((word for word in kept if word != UNKNOWN), unknown=unknown)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.ids and word != START

    def encode(self, sentence: Sequence[Hashable]) -> list[int]:
        """Number the words of one sentence; words outside the vocabulary become ``<unk>``."""
        ids = [self.ids.get(word, self.unknown_id) for word in sentence]
        if None in ids:
            word = sentence[ids.index(None)]
            raise ValueError(
                f"{word!r} is not among the {len(self)} words of this vocabulary, and it has no "
                f"{UNKNOWN}; build it with unknown=True, or add the word"
            )
        if self.end_id in ids or self.start_id in ids:
            raise ValueError(f"{START!r} and {END!r} are added by the model; remove them from the sentence")
        return ids

    def encode_context(self, context: Sequence[Hashable], length: int) -> list[int]:
        """Number the last ``length`` words before a prediction, most recent first, padded with ``<s>``.

        Leading ``<s>`` in ``context`` are allowed, since that is where they stand in a sentence.
        """
        start = 0
        while start < len(context) and context[start] == START:
            start += 1
        ids = self.encode(context[start:])[::-1]
        return (ids + [self.start_id] * length)[:length]
