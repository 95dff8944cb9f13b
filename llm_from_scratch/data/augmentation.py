"""More training texts from few: small changes that most probably leave the label as it is.

Three changes need no dictionary and no model. Swapping and dropping words are two of the four operations
of EDA (Wei and Zou 2019); its other two, replacing and inserting synonyms, need a thesaurus, which is not
at hand here, and are left out. Joining halves of two texts of one label is the mixing of inputs that
Guo et al. 2019 and others do in the space of vectors (mixup for sentences), done on words, where no label
has to be mixed because both texts have the same one.

Every change can do harm: *not* may be the word that is dropped. Measure whether it helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Change = Literal["drop", "swap", "join"]
CHANGES: tuple[Change, ...] = ("drop", "swap", "join")


def drop_words(text: str, rng: np.random.Generator, *, rate: float = 0.1) -> str:
    """Leave out each word with probability ``rate``; of a text that would be empty, keep one word.

    Words are what white space parts. Source: Wei and Zou 2019, random deletion.
    Raises: ValueError for a rate outside [0, 1], or a text without a word.

    >>> drop_words("one two three four", np.random.default_rng(0), rate=0.5)
    'one'
    """
    words = _words(text, rate)
    kept_N = rng.random(len(words)) >= rate
    if not kept_N.any():
        kept_N[rng.integers(len(words))] = True
    return " ".join(word for word, kept in zip(words, kept_N, strict=True) if kept)


def swap_neighbours(text: str, rng: np.random.Generator, *, rate: float = 0.1) -> str:
    """Exchange neighbouring words: going from left to right, each pair with probability ``rate``.

    A word that was exchanged is not exchanged again, so none moves by more than one place.
    Departure: Wei and Zou 2019 exchange words at any two places, which tears more of the sentence apart.
    Raises: ValueError as `drop_words`.

    >>> swap_neighbours("one two three four", np.random.default_rng(0), rate=1.0)
    'two one four three'
    """
    words = _words(text, rate)
    i = 0
    while i + 1 < len(words):
        if rng.random() < rate:
            words[i], words[i + 1] = words[i + 1], words[i]
            i += 1
        i += 1
    return " ".join(words)


def join_halves(first: str, second: str) -> str:
    """Put the first half of one text's words before the second half of another's.

    An odd word in the middle goes to the half that is left out.
    Raises: ValueError for a text without a word.

    >>> join_halves("a dull and long film", "it made me laugh")
    'a dull me laugh'
    """
    first_words, second_words = _words(first, 0), _words(second, 0)
    joined = first_words[: len(first_words) // 2] + second_words[(len(second_words) + 1) // 2 :]
    return " ".join(joined or first_words)


def augmented(
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    copies: int,
    seed: int,
    rate: float = 0.1,
    changes: Sequence[Change] = CHANGES,
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the texts and labels, and behind them ``copies`` changed ones of each, with its label.

    The changes are taken in turn. A changed text that is equal to its original, as a short one may be, is
    left out. Text number n's changes depend on ``seed``, n and the texts of its label alone.
    Raises: ValueError for texts and labels of different number, ``copies`` below 1, an unknown change.

    >>> texts, labels = augmented(["good film"], [1], copies=1, seed=0, changes=["swap"], rate=1.0)
    >>> list(zip(texts, labels, strict=True))
    [('good film', 1), ('film good', 1)]
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts have {len(labels)} labels; each needs one")
    if copies < 1:
        raise ValueError(f"copies must be at least 1, got {copies}")
    unknown = [change for change in changes if change not in CHANGES]
    if unknown or not changes:
        raise ValueError(f"changes must be among {', '.join(CHANGES)}, got {list(changes)}")
    of_label: dict[int, list[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        of_label.setdefault(label, []).append(text)
    new_texts, new_labels = list(texts), list(labels)
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        rng = np.random.default_rng((seed, number))
        for copy in range(copies):
            change = changes[copy % len(changes)]
            if change == "join":
                changed = join_halves(text, of_label[label][rng.integers(len(of_label[label]))])
            else:
                changed = {"drop": drop_words, "swap": swap_neighbours}[change](text, rng, rate=rate)
            if changed != text:
                new_texts.append(changed)
                new_labels.append(label)
    return tuple(new_texts), tuple(new_labels)


def _words(text: str, rate: float) -> list[str]:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie between 0 and 1, got {rate}")
    words = text.split()
    if not words:
        raise ValueError(f"the text {text!r} has no word to change")
    return words
