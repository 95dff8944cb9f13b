r"""Byte-pair encoding for the tokenizer explorer: what its page needs, and the encoding of its first text.

Widgets import nothing of the package, so this says again, in few lines, what ``tokenizers.byte_pair``
says: GPT-2's cut into pieces and its order of the 256 bytes. Tests hold the two together.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import regex

from llm_from_scratch.widgets import html

PIECE = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = [*_PRINTABLE, *sorted(set(range(256)) - set(_PRINTABLE))]  # the byte of each of the ids 0 to 255
MAX_ID = 1 << 24  # pairs of ids travel in one JavaScript number
MAX_MERGES = 1 << 18
MAX_TOTAL_BYTES = 1 << 24  # a hostile list can double a token's length with each merge


@dataclass(frozen=True)
class Vocabulary:
    """Merges in order, the bytes of each id, the id each merge makes, and the ids of special tokens."""

    merges: list[tuple[int, int]]
    tokens: list[bytes]
    made: list[int]
    special: dict[str, int]

    def encode(self, text: str) -> tuple[list[int], set[int]]:
        """The ids of ``text``, special tokens as ordinary text; and the places that begin a piece.

        The lowest rank is merged first, and among equals the leftmost. The whole text is one chain whose
        pieces are not linked to each other.
        """
        ids: list[int] = []
        ends: set[int] = set()  # the last byte of each piece
        id_of = {byte: i for i, byte in enumerate(BYTES)}
        for piece in PIECE.findall(text):
            ids += [id_of[byte] for byte in piece.encode("utf-8")]
            ends.add(len(ids) - 1)
        rank_of = {pair: rank for rank, pair in enumerate(self.merges)}
        after = {i: i + 1 for i in range(len(ids)) if i not in ends}
        before = {j: i for i, j in after.items()}
        heap: list[tuple[int, int]] = []

        def push(i: int | None) -> None:
            if i in after and (ids[i], ids[after[i]]) in rank_of:
                heapq.heappush(heap, (rank_of[ids[i], ids[after[i]]], i))

        for i in range(len(ids)):
            push(i)
        while heap:
            rank, i = heapq.heappop(heap)
            j = after.get(i)
            if j is None or (ids[i], ids[j]) != self.merges[rank]:
                continue  # an earlier merge took one of the two
            ids[i], ids[j] = self.made[rank], -1
            k = after.pop(j, None)
            if k is None:
                del after[i]
            else:
                after[i], before[k] = k, i
            push(i)
            push(before.get(i))
        places = [i for i, token_id in enumerate(ids) if token_id >= 0]
        begins = {n for n, i in enumerate(places) if i == 0 or i - 1 in ends}
        return [ids[i] for i in places], begins


def read_vocabulary(merges: Iterable[Any], special_tokens: Iterable[str] | Mapping[str, int]) -> Vocabulary:
    """Check the merges and the special tokens, and name what is wrong with them."""
    tokens = [bytes([byte]) for byte in BYTES]
    id_of = {token: i for i, token in enumerate(tokens)}
    pairs: list[tuple[int, int]] = []
    made: list[int] = []
    seen: set[tuple[int, int]] = set()
    total = 0
    for rank, pair in enumerate(merges):
        left, right = _pair(rank, pair)
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            raise ValueError(f"merges[{rank}] joins {left} and {right}; only {len(tokens)} ids exist then")
        if (left, right) in seen:
            raise ValueError(f"merges[{rank}] joins {left} and {right}, which an earlier merge joined")
        token = tokens[left] + tokens[right]
        total += len(token)
        if total > MAX_TOTAL_BYTES or rank >= MAX_MERGES:
            raise ValueError(
                f"the first {rank + 1} merges are more than a page should hold: at most {MAX_MERGES} merges "
                f"and {MAX_TOTAL_BYTES} bytes of tokens"
            )
        made.append(id_of.setdefault(token, len(tokens)))
        if made[-1] == len(tokens):
            tokens.append(token)
        pairs.append((left, right))
        seen.add((left, right))
    return Vocabulary(pairs, tokens, made, _special(special_tokens, len(tokens)))


def _pair(rank: int, pair: Any) -> tuple[int, int]:
    try:
        left, right = map(operator.index, pair)
    except (TypeError, ValueError):
        raise ValueError(f"merges[{rank}] is {pair!r:.60}: every merge is a pair of token ids") from None
    return left, right


def _special(special_tokens: Iterable[str] | Mapping[str, int], first: int) -> dict[str, int]:
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a list of strings, got one string: [{special_tokens!r}]?")
    given = special_tokens if isinstance(special_tokens, Mapping) else None
    names = list(special_tokens)
    ids = list(given.values()) if given is not None else list(range(first, first + len(names)))
    for name, token_id in zip(names, ids, strict=True):
        if not isinstance(name, str) or not name:
            raise ValueError(f"a special token must be non-empty text, got {name!r}")
        check_text("the special token", name)
        if type(token_id) is not int or not first <= token_id < MAX_ID:
            raise ValueError(
                f"the special token {name!r} has the id {token_id!r}; ids below {first} belong to bytes and "
                f"merges, and {MAX_ID - 1} is the largest"
            )
    if len(set(names)) != len(names) or len(set(ids)) != len(ids):
        raise ValueError(f"special tokens must differ in text and id, got {names} with the ids {ids}")
    return dict(zip(names, ids, strict=True))


def check_text(what: str, text: str) -> None:
    """Raise ValueError unless ``text`` is a string that UTF-8 can write."""
    if not isinstance(text, str):
        raise ValueError(f"{what} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds the lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, "
            "which is not a character and has no UTF-8"
        ) from None


def pack_merges(merges: list[tuple[int, int]]) -> dict[str, Any]:
    """Write both ids of each merge in as many bits as the largest id before it needs, as base64.

    >>> pack_merges([(1, 2), (255, 256)])
    {'count': 2, 'packed': 'AQJ/wAA='}
    """
    widths = ((255 + rank).bit_length() for rank in range(len(merges)))
    digits = "".join(
        f"{left:0{bits}b}{right:0{bits}b}" for bits, (left, right) in zip(widths, merges, strict=True)
    )
    bits = np.frombuffer(digits.encode("ascii"), dtype=np.uint8) == ord("1")
    return {"count": len(merges), "packed": html.pack(np.packbits(bits), "u1")}


@cache
def character_classes() -> dict[str, str]:
    r"""The code points of ``\p{L}``, ``\p{N}`` and ``\s`` as the package's regex library knows them.

    A browser may know another version of Unicode, with more letters or fewer, and its ``\s`` is another
    set (it holds U+FEFF and lacks U+0085). So the page cuts by these tables. They are numbers in base 36,
    by turns the distance from the end of the last range, and the length of the next.
    """
    everything = "".join(map(chr, range(0x110000)))
    tables = {}
    for name, pattern in (("L", r"\p{L}+"), ("N", r"\p{N}+"), ("S", r"\s+")):
        edges = [edge for match in regex.finditer(pattern, everything) for edge in match.span()]
        steps = np.diff([0, *edges]).tolist()
        tables[name] = ",".join(np.base_repr(step, 36).lower() for step in steps)
    return tables
