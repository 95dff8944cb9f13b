r"""Sets of Unicode characters, and the bytes that UTF-8 writes them with.

A set is a sorted tuple of ranges ``(first, last)`` of code points, both included. The surrogates
U+D800 to U+DFFF are no characters and are in no set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from llm_from_scratch.decoding.grammar import EMPTY, Branch, Node

Ranges = tuple[tuple[int, int], ...]
EVERY: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)  # the last character that takes 1, 2, 3, 4 bytes


def united(*sets: Iterable[tuple[int, int]]) -> Ranges:
    """Return the characters that are in any of the sets.

    >>> united([(97, 99)], [(98, 102), (48, 57)])
    ((48, 57), (97, 102))
    """
    merged: list[list[int]] = []
    for first, last in sorted(pair for one in sets for pair in one):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return tuple((first, last) for first, last in merged)


def without(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters of ``one`` that are not in ``other``.

    >>> without(((97, 122),), ((100, 101),))
    ((97, 99), (102, 122))
    """
    kept, other = [], united(other)
    for first, last in one:
        for out_first, out_last in other:
            if out_last < first or out_first > last:
                continue
            if first < out_first:
                kept.append((first, out_first - 1))
            first = out_last + 1
        if first <= last:
            kept.append((first, last))
    return tuple(kept)


def shared(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters that are in both sets."""
    return without(one, without(EVERY, other))


def characters(text: str) -> Ranges:
    """Return the set of the characters of a text.

    >>> characters("abx")
    ((97, 98), (120, 120))
    """
    return united([(ord(character), ord(character)) for character in text])


@lru_cache(maxsize=8)
def category(escape: str) -> Ranges:
    r"""Return what ``\d``, ``\s`` or ``\w`` matches in Python's `re`, as found by asking it."""
    every = "".join(map(chr, range(0x110000)))
    return shared(EVERY, tuple((m.start(), m.end() - 1) for m in re.finditer(f"{escape}+", every)))


@lru_cache(maxsize=512)
def utf8_branch(ranges: Ranges) -> Branch:
    r"""Return the node that reads one character of the set, byte by byte.

    Arms that lead on alike are one arm, so the node is small even for a set of many ranges.

    >>> node = utf8_branch(characters("abé"))
    >>> [(arm.hex(), following is EMPTY) for arm, following in node.arms]
    [('6162', True), ('c3', False)]
    """
    rows = [row for first, last in shared(EVERY, ranges) for row in _byte_rows(first, last)]
    return _branch(tuple(rows), {})


def _byte_rows(first: int, last: int) -> Iterable[tuple[tuple[int, int], ...]]:
    """Cut a range of characters into rows of byte ranges, such as (0xC3, 0xC4), (0x80, 0xBF)."""
    for end in _LAST_OF_LENGTH:
        if first <= end < last:
            yield from _byte_rows(first, end)
            yield from _byte_rows(end + 1, last)
            return
    length = 1 + sum(first > end for end in _LAST_OF_LENGTH)
    for shift in range(6, 6 * length, 6):  # bits of the last one, two, three continuation bytes
        low = (1 << shift) - 1
        if first >> shift == last >> shift:
            break
        if first & low:
            yield from _byte_rows(first, first | low)
            yield from _byte_rows((first | low) + 1, last)
            return
        if last & low != low:
            yield from _byte_rows(first, (last & ~low) - 1)
            yield from _byte_rows(last & ~low, last)
            return
    yield tuple(zip(chr(first).encode(), chr(last).encode(), strict=True))


def _branch(rows: tuple, made: dict[tuple, Node]) -> Node:
    """The branch of rows of byte ranges; equal rests share one node."""
    if rows == ((),):
        return EMPTY
    if rows not in made:
        rests: dict[int, list] = {}
        for (first, last), *rest in rows:
            for byte in range(first, last + 1):
                rests.setdefault(byte, []).append(tuple(rest))
        arms: dict[tuple, list[int]] = {}
        for byte, rest in sorted(rests.items()):
            arms.setdefault(tuple(rest), []).append(byte)
        made[rows] = Branch(tuple((bytes(group), _branch(rest, made)) for rest, group in arms.items()))
    return made[rows]
