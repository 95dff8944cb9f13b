"""Batches for training from shards: every window once before any comes again, in an order that a seed sets.

Legend: B windows in a batch, T tokens in a window, N tokens, n windows.
"""

from __future__ import annotations

import numpy as np
import torch

from llm_from_scratch.data.loader import Batch, share_of
from llm_from_scratch.data.shards import TokenShards

ROUNDS = 4  # of the Feistel network


def shuffled(places: np.ndarray, n: int, key: int) -> np.ndarray:
    """Return where a permutation of 0 .. n - 1 takes each of ``places``, without storing the permutation.

    A Feistel network mixes the two halves of a number's bits and is one to one whatever its round function;
    results of n or more are sent through again until they fall below n.
    Source: Black and Rogaway 2002 (Ciphers with Arbitrary Finite Domains), section 5 (cycle walking).

    >>> sorted(shuffled(np.arange(10), 10, key=3).tolist()) == list(range(10))
    True
    """
    half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.Generator(np.random.PCG64(key)).integers(0, 2**63, size=ROUNDS, dtype=np.uint64)
    result = places.astype(np.uint64)
    walking = np.ones(len(result), dtype=bool)
    while walking.any():
        left, right = result[walking] >> half, result[walking] & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right ^ round_key) & mask)
        result[walking] = (left << half) | right
        walking = result >= n
    return result.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Mix the bits of 64-bit numbers (Steele et al. 2014, SplitMix, figure 14)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class ShardLoader:
    """Endless batches of windows that do not overlap, each seen once an epoch.

    The n = (N - 1) // T windows are shuffled anew for each epoch. Which windows a batch has depends on
    ``seed`` and on the number of batches drawn alone, so a place is one number, a run resumes at once
    however far it is, and processes that read parts of each batch never read the same window.

    Raises: ValueError if the stream is shorter than one window and its next token.
    """

    def __init__(
        self, tokens: TokenShards, *, context_length: int, batch_size: int, seed: int, fingerprint: str = ""
    ) -> None:
        for name, size in {"context_length": context_length, "batch_size": batch_size}.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.tokens, self.context_length, self.batch_size = tokens, context_length, batch_size
        self.seed, self.fingerprint = seed, fingerprint
        self.windows = (len(tokens) - 1) // context_length
        if self.windows < 1:
            raise ValueError(
                f"the data has {len(tokens)} tokens, but a window of context_length {context_length} needs "
                f"{context_length + 1} (its targets lie one further on)"
            )
        self.batches_drawn = 0
        self._rows = slice(None)

    def read_rows(self, share: int, shares: int) -> None:
        """Read from now on only part ``share`` of ``shares`` equal parts of each batch.

        Raises: ValueError if the batch does not divide.
        """
        self._rows = share_of(self.batch_size, share, shares)

    def __iter__(self) -> ShardLoader:
        return self

    def __next__(self) -> Batch:
        """Read the next batch."""
        first = self.batches_drawn * self.batch_size
        numbers = np.arange(first, first + self.batch_size)[self._rows]
        self.batches_drawn += 1
        T = self.context_length
        windows_BS = np.stack([self.tokens.window(T * w, T + 1) for w in self.places(numbers).tolist()])
        ids_BS = torch.from_numpy(windows_BS.astype(np.int64))
        return ids_BS[:, :-1].contiguous(), ids_BS[:, 1:].contiguous()

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return which windows are the ones of these numbers, counted over all epochs."""
        epochs, places = np.divmod(numbers, self.windows)
        result = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            key = (self.seed << 32) + int(epoch)
            result[chosen] = shuffled(places[chosen], self.windows, key)
        return result

    def state_dict(self) -> dict[str, object]:
        """Return the place and what it belongs to (plain numbers and text, fit for JSON)."""
        return {**self._identity(), "batches_drawn": self.batches_drawn}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from where ``state`` was taken.

        Raises: ValueError if the state belongs to other data or settings, or is damaged.
        """
        for name, value in self._identity().items():
            found = state.get(name) if isinstance(state, dict) else None
            if found != value:
                raise ValueError(
                    f"the loader's state was saved with {name} {found!r}, but this loader has {value!r}; "
                    "resume with the settings and the data of the first run"
                )
        drawn = state.get("batches_drawn")
        if not isinstance(drawn, int) or drawn < 0:
            raise ValueError(f"the loader's state is damaged: batches_drawn is {drawn!r}")
        self.batches_drawn = drawn

    def _identity(self) -> dict[str, object]:
        return {
            "num_tokens": len(self.tokens),
            "context_length": self.context_length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "data": self.fingerprint,
        }
