"""Find texts that repeat others: exact overlap of word n-grams, and MinHash for what is nearly the same.

A text is seen as the set of its *shingles*, its runs of n words. Two texts are near duplicates if their sets
have a large Jaccard similarity. Comparing every pair of many texts is too much work, so each set is first
shrunk to a signature, and only texts whose signatures agree in a whole band are compared.

Legend: D texts, H hash functions (the length of a signature), S shingles of a text.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, UInt64

_WORD = re.compile(r"\w+")
_NOTHING = np.uint64(2**64 - 1)  # the signature of a text without shingles


def words(text: str) -> list[str]:
    """Cut a text into words in small letters, without punctuation: what a duplicate may differ in.

    >>> words("The Union's state: STRONG.")
    ['the', 'union', 's', 'state', 'strong']
    """
    return _WORD.findall(text.lower())


def shingles(text: str, n: int) -> UInt64[np.ndarray, " S"]:
    """Return the distinct runs of ``n`` words of a text, each as a number of 64 bits, in ascending order.

    The numbers are the same in every process (Python's own ``hash`` of text is not). A text of fewer than
    n words, but at least one, has one shingle: all of it.
    Raises: ValueError if n is below 1.

    >>> len(shingles("to be or not to be", 2)), len(shingles("to be", 3)), len(shingles("", 3))
    (4, 1, 0)
    """
    found = {_number(run) for run in _runs(text, n)}
    return np.array(sorted(found), dtype=np.uint64)


def jaccard(a: UInt64[np.ndarray, " S"], b: UInt64[np.ndarray, " R"]) -> float:
    """Return the share of the shingles of both texts that both have: ``|a & b| / |a | b|``.

    Two empty sets have similarity 0: texts without a word repeat nothing.

    >>> jaccard(shingles("a b c d", 2), shingles("a b c e", 2))
    0.5
    """
    common = len(np.intersect1d(a, b, assume_unique=True))
    together = len(a) + len(b) - common
    return common / together if together else 0.0


def minhash(
    shingle_sets: Sequence[UInt64[np.ndarray, " S"]], *, num_hashes: int = 128, seed: int = 0
) -> UInt64[np.ndarray, "D H"]:
    """Shrink each set to ``num_hashes`` numbers, which agree in two sets about as often as Jaccard says.

    Formula: ``signature[d, h] = min over s in set d of hash_h(s)``. The smallest hash of the union of two
    sets is equally likely to be that of any member, so the probability that both signatures have the same
    entry is the share of members that lie in both: the Jaccard similarity. Its estimate from H entries has
    a standard error of ``sqrt(J (1 - J) / H)``.

    The hash is ``(a s + b) mod 2^64`` with odd random a, its lower half dropped. An empty set gives 2^64 - 1
    everywhere.
    Raises: ValueError if ``num_hashes`` is below 1.
    Source: Broder 1997, section 3.
    Departure: the family is only nearly min-wise independent, which the tests bound.

    >>> minhash([shingles("a b c", 1), shingles("c b a", 1)], num_hashes=4).tolist()[0] == \
        minhash([shingles("c a b", 1)], num_hashes=4).tolist()[0]
    True
    """
    if num_hashes < 1:
        raise ValueError(f"num_hashes must be at least 1, got {num_hashes}")
    rng = np.random.default_rng(seed)
    a_H = rng.integers(0, 2**63, size=num_hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    b_H = rng.integers(0, 2**63, size=num_hashes, dtype=np.uint64)
    signatures_DH = np.full((len(shingle_sets), num_hashes), _NOTHING)
    for d, set_S in enumerate(shingle_sets):
        if len(set_S):
            signatures_DH[d] = ((set_S[:, None] * a_H + b_H) >> np.uint64(32)).min(axis=0)
    return signatures_DH


def candidate_pairs(signatures_DH: UInt64[np.ndarray, "D H"], *, bands: int = 32) -> set[tuple[int, int]]:
    """Return the pairs of texts whose signatures agree in every entry of at least one band.

    Of two texts with similarity J, and bands of r = H / ``bands`` entries, this happens with probability
    ``1 - (1 - J^r)^bands``: a step that rises around ``(1 / bands)^(1 / r)``. Texts without shingles form no
    pair.
    Raises: ValueError if the signature does not divide into ``bands``.
    Source: Leskovec, Rajaraman and Ullman 2014 (Mining of Massive Datasets), section 3.4.

    >>> rows = np.array([[1, 2, 3, 4], [9, 9, 3, 4], [5, 6, 7, 8]], dtype=np.uint64)
    >>> candidate_pairs(rows, bands=2)
    {(0, 1)}
    """
    H = signatures_DH.shape[1]
    if bands < 1 or H % bands:
        raise ValueError(f"a signature of {H} entries does not divide into {bands} bands")
    pairs: set[tuple[int, int]] = set()
    for band in range(bands):
        part_DR = np.ascontiguousarray(signatures_DH[:, band * H // bands : (band + 1) * H // bands])
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for d, row in enumerate(part_DR):
            if (row != _NOTHING).any():
                buckets[row.tobytes()].append(d)
        for members in buckets.values():
            pairs.update(combinations(members, 2))
    return pairs


def near_duplicates(
    texts: Sequence[str],
    *,
    n: int = 5,
    threshold: float = 0.7,
    num_hashes: int = 128,
    bands: int = 32,
    seed: int = 0,
) -> list[tuple[int, int, float]]:
    """Find the pairs of texts whose shingles of ``n`` words have a Jaccard similarity of ``threshold``.

    MinHash proposes the pairs, and each is then compared exactly: no pair below the threshold is returned,
    but one above it may be missed, with the probability that `candidate_pairs` names. Returns
    ``(i, j, similarity)`` with ``i < j``, the most similar first.
    Raises: ValueError if the threshold lies outside (0, 1], or as `shingles`, `minhash`, `candidate_pairs`.
    Source: Lee et al. 2022 (Deduplicating Training Data Makes Language Models Better), section 4.2.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    sets = [shingles(text, n) for text in texts]
    pairs = candidate_pairs(minhash(sets, num_hashes=num_hashes, seed=seed), bands=bands)
    found = [(i, j, jaccard(sets[i], sets[j])) for i, j in sorted(pairs)]
    return sorted((pair for pair in found if pair[2] >= threshold), key=lambda pair: -pair[2])


def deduplicate(texts: Sequence[str], **settings: float) -> list[int]:
    """Return the places of the texts that stay: of near duplicates the earliest, in the given order.

    A text goes if it is a near duplicate of an earlier one that stays. The settings are those of
    `near_duplicates`.

    >>> deduplicate(["we the people of the union", "peace at home", "We, the people of the Union!"])
    [0, 1]
    """
    earlier: dict[int, list[int]] = defaultdict(list)
    for i, j, _ in near_duplicates(texts, **settings):
        earlier[j].append(i)
    kept: set[int] = set()
    for d in range(len(texts)):
        if not kept.intersection(earlier[d]):
            kept.add(d)
    return sorted(kept)


def seen_words(text: str, others: Iterable[str], *, n: int = 13) -> Bool[np.ndarray, " W"]:
    """Mark the words of ``text`` that lie in a run of ``n`` words which occurs in ``others`` too.

    The mean of the marks is the share of the text that a model may have read in training.
    Raises: ValueError if n is below 1.
    Source: Brown et al. 2020 (GPT-3), appendix C, which uses runs of 13 words for long texts.

    >>> seen_words("a b c d e", ["x b c d y"], n=3).tolist()
    [False, True, True, True, False]
    """
    known = {run for other in others for run in _runs(other, n)}
    marks_W = np.zeros(len(words(text)), dtype=bool)
    for start, run in enumerate(_runs(text, n)):
        if run in known:
            marks_W[start : start + n] = True
    return marks_W


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n must be at least 1 word, got {n}")
    found = words(text)
    if 0 < len(found) < n:
        return [tuple(found)]
    return [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]


def _number(run: tuple[str, ...]) -> int:
    text = " ".join(run).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
