"""Pairs of sentences as padded batches of ids, for the translators of `models.seq2seq`.

Legend: B pairs in a batch, T positions of the longest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>")
PAD, START, END, UNKNOWN = range(len(SPECIALS))


class Vocabulary:
    """Tokens with their ids: the four specials first, then the tokens in sorted order.

    >>> vocabulary = Vocabulary(["two", "one", "two"])
    >>> vocabulary.encode(["one", "three"]), vocabulary.decode([4, 5]), len(vocabulary)
    ([4, 3], ['one', 'two'], 6)
    """

    def __init__(self, tokens: Iterable[str]):
        self.tokens = (*SPECIALS, *sorted(set(tokens) - set(SPECIALS)))
        self._ids = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids; a token that is not in the vocabulary becomes ``UNKNOWN``."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens. Raises: ValueError naming an id that is outside the vocabulary."""
        ids = list(ids)
        for number in ids:
            if not 0 <= number < len(self.tokens):
                raise ValueError(f"ids must be in [0, {len(self.tokens)}), got {number}")
        return [self.tokens[number] for number in ids]


def padded(rows: Sequence[Sequence[int]], *, end: bool = False) -> Int[Tensor, "B T"]:
    """Stack rows of ids into one tensor, short rows filled up with ``PAD``.

    ``end`` appends ``END`` to each row, as the targets of a translator need it.
    Raises: ValueError if there is no row, or nothing in any of them.

    >>> padded([[5], [6, 7]], end=True)
    tensor([[5, 2, 0],
            [6, 7, 2]])
    """
    rows = [[*row, END] if end else list(row) for row in rows]
    longest = max(map(len, rows), default=0)
    if longest == 0:
        raise ValueError(f"got {len(rows)} rows without any id; a batch needs at least one id")
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
