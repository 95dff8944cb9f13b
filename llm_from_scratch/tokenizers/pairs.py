"""Byte-pair encoding in its smallest form: count neighbours, join the commonest, repeat.

These three functions are the definition. They recount everything after each merge, which is slow and
plain. ``byte_pair_training`` reaches the same merges by updating the counts instead, and the tests hold
the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def pair_counts(words: Mapping[tuple[int, ...], int]) -> Counter[Pair]:
    """Count the pairs of neighbouring tokens in ``words``.

    ``words`` maps a word, as a tuple of token ids, to how often it occurs. No pair spans two words.

    >>> pair_counts({(1, 2, 1, 2): 3, (2, 1): 10})
    Counter({(2, 1): 13, (1, 2): 6})
    """
    counts: Counter[Pair] = Counter()
    for word, occurrences in words.items():
        for pair in pairwise(word):
            counts[pair] += occurrences
    return counts


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace each occurrence of ``pair`` in ``ids`` by ``new_id``, from left to right.

    Occurrences that overlap are taken from the left: three equal tokens hold one pair, not two.

    >>> merge_pair([1, 2, 3, 1, 2], (1, 2), 256)
    [256, 3, 256]
    >>> merge_pair([7, 7, 7], (7, 7), 256)
    [256, 7]
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def merges_by_recounting(words: Iterable[Iterable[int]], num_merges: int, *, first_new_id: int) -> list[Pair]:
    """Return the first ``num_merges`` merges of ``words``, recounting all pairs after each.

    The commonest pair is merged first; among equally common pairs, the one with the smaller ids
    (compared left token first). Fewer merges are returned when no pair is left.

    Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units",
    section 3.2. Departure: the paper leaves ties open.

    >>> merges_by_recounting([b"hug", b"hug", b"pug"], 2, first_new_id=256)
    [(117, 103), (104, 256)]
    """
    counted = Counter(tuple(word) for word in words)
    merges: list[Pair] = []
    for new_id in range(first_new_id, first_new_id + num_merges):
        counts = pair_counts(counted)
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        remade: Counter[tuple[int, ...]] = Counter()
        for word, occurrences in counted.items():
            remade[tuple(merge_pair(word, best, new_id))] += occurrences
        counted = remade
    return merges
