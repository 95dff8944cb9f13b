"""Learn the merges of byte-pair encoding without recounting.

A merge changes the counts only of pairs that touch it. So the counts are kept, with the places where
each pair occurs, and a merge visits those places alone. A heap finds the commonest pair. The work of a
whole training run then grows with the number of tokens that are joined, not with merges times text.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from llm_from_scratch.tokenizers.pairs import Pair

_BORDER = -1  # stands between two words; never part of a pair
_GONE = -2  # a place whose token was joined to the one on its left


def learn_merges(
    words: Mapping[bytes, int], vocab_size: int, *, alphabet: Sequence[bytes]
) -> tuple[list[Pair], list[bytes]]:
    """Learn merges from counted words until ``vocab_size`` tokens exist or no pair is left.

    ``words`` maps each word to how often it occurs; ``alphabet`` holds the 256 single bytes in the
    order of their ids. Returns the merges in order and the bytes of every token by id.

    The commonest pair is merged first; ties go to the pair with the smaller ids. This is the order of
    Hugging Face's ``tokenizers``, and the merges equal that library's. When two merges would make the
    same bytes (from "ab" + "c" and "a" + "bc"), both lead to one token: the vocabulary has no doubles.
    """
    tokens, weights = _lay_out(words, alphabet)
    before = list(range(-1, len(tokens) - 1))  # index of the neighbour on the left, by place
    after = list(range(1, len(tokens) + 1))  # and on the right
    counts: dict[Pair, int] = defaultdict(int)
    places: dict[Pair, list[int]] = defaultdict(list)  # where a pair begins; some entries are out of date
    for i, pair in enumerate(pairwise(tokens)):
        if _BORDER not in pair:
            counts[pair] += weights[i]
            places[pair].append(i)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)

    vocabulary = list(alphabet)
    id_of = {token: i for i, token in enumerate(vocabulary)}
    merges: dict[Pair, int] = {}
    while len(vocabulary) < vocab_size and heap:
        negative_count, pair = heapq.heappop(heap)
        count = counts.get(pair, 0)
        if count != -negative_count:  # out of date: put it back where it belongs now
            if count > 0:
                heapq.heappush(heap, (-count, pair))
            continue
        token = vocabulary[pair[0]] + vocabulary[pair[1]]
        new_id = id_of.setdefault(token, len(vocabulary))
        if new_id == len(vocabulary):
            vocabulary.append(token)
        merges.setdefault(pair, new_id)
        grown = _join(pair, new_id, places.pop(pair), tokens, weights, before, after, counts, places)
        del counts[pair]
        for pair in grown:
            if counts[pair] > 0:  # zero: made at one place and joined further at once, as in a long run
                heapq.heappush(heap, (-counts[pair], pair))
    return list(merges), vocabulary


def _lay_out(words: Mapping[bytes, int], alphabet: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Put all words into one list of token ids with borders between, and each place's weight beside."""
    ids = bytes(sorted(range(256), key=lambda byte: alphabet.index(bytes([byte]))))
    to_id = bytes.maketrans(ids, bytes(range(256)))
    tokens, weights = [_BORDER], [0]
    for word, occurrences in words.items():
        tokens += word.translate(to_id)
        tokens.append(_BORDER)
        weights += [occurrences] * (len(word) + 1)
    return tokens, weights


def _join(
    pair: Pair,
    new_id: int,
    candidates: list[int],
    tokens: list[int],
    weights: list[int],
    before: list[int],
    after: list[int],
    counts: dict[Pair, int],
    places: dict[Pair, list[int]],
) -> set[Pair]:
    """Join ``pair`` at every place where it still stands; return the pairs that became commoner."""
    left, right = pair
    grown = set()
    for i in sorted(candidates):  # from left to right, as three equal tokens hold one pair
        j = after[i]
        if tokens[i] != left or tokens[j] != right:
            continue
        weight, h, k = weights[i], before[i], after[j]
        tokens[i], tokens[j] = new_id, _GONE
        after[i], before[k] = k, i
        neighbour = tokens[h]
        if neighbour != _BORDER:
            counts[neighbour, left] -= weight
            new_pair = (neighbour, new_id)
            counts[new_pair] += weight
            places[new_pair].append(h)
            grown.add(new_pair)
        neighbour = tokens[k]
        if neighbour != _BORDER:
            counts[right, neighbour] -= weight
            new_pair = (new_id, neighbour)
            counts[new_pair] += weight
            places[new_pair].append(i)
            grown.add(new_pair)
    return grown
