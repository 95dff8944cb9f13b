"""A key-value cache in 8, 4 or 2 bits a number, in place of 32 or 16.

For long texts and many of them, the cache outgrows the weights. Its numbers can be stored coarsely:
what is looked up is then an approximation, and the scores of the model change by a little.

Legend: L layers, B sequences, K key/value heads, S stored positions, T new positions, D width of a head,
N groups of G positions, R the last positions, P packed bytes of a group (G * bits / 8).
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.inference.group_rounding import (
    GROUPS,
    Rounded,
    check_bits,
    restore_groups,
    round_groups,
)
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.models.decoder_config import DecoderConfig


class QuantisedCache(KVCache):
    """A `KVCache` that rounds all but the last tokens; it takes its place everywhere.

    The last ``rollback`` tokens, and up to ``group_length - 1`` more, are kept as they are. When
    ``group_length`` tokens stand before those, they are rounded together. Within a pass the new tokens see
    each other unrounded, as in the pass over a prompt. Nothing that is looked at is computed in few
    bits: the codes of a layer are widened when it attends, which costs time in place of memory.

    Which numbers share a span is the choice that matters. Keys have columns that are large for every
    token; with a span for each column (``key_groups="channel"``) they do not spoil the others. Values
    have no such columns, and a span for each token ("token") lets an odd token spoil itself alone. The
    other ways round can be chosen for comparison: `benchmarks.quantised_cache` measures them.

    `truncate` takes back up to ``rollback`` tokens without a trace. What is rounded stays so: cut
    further back, the remaining tokens of an opened group keep their rounded values, and are rounded
    again when it is full. With a sliding window whole groups are given up, those that no query needs.

    Sizes: with N = ``max_length // group_length`` groups, ``2 * L * B * K`` times ``N * G * D * bits / 8``
    bytes of codes, 4 bytes for each span (N * D for channels, N * G for tokens), and the room of
    ``G + rollback - 1`` tokens unrounded; in all ``num_bytes``.

    Arguments: ``bits`` 8, 4 or 2; ``group_length`` in tokens; all others as `KVCache`.
    Raises: ValueError as `KVCache`, and for ``bits``, groups or a group_length that are not offered.
    Source: Liu et al. 2024 (KIVI), section 3. Departures: theirs keeps 128 tokens, and computes with
    the codes themselves.

    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=64, d_model=6, num_layers=2, num_heads=3)
    >>> KVCache(config).num_bytes, QuantisedCache(config, bits=4, group_length=16, rollback=1).num_bytes
    (6144, 4032)
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        bits: int = 8,
        group_length: int = 32,
        key_groups: str = "channel",
        value_groups: str = "token",
        **sizes: Any,
    ):
        check_bits(bits)
        if type(group_length) is not int or group_length < 1 or group_length * bits % 8:
            raise ValueError(
                f"group_length must be a whole number of tokens that fills bytes of {8 // bits} codes, "
                f"got {group_length!r}; take a multiple of {8 // bits}"
            )
        for name, value in (("key_groups", key_groups), ("value_groups", value_groups)):
            if value not in GROUPS:
                raise ValueError(f"{name} must be one of {sorted(GROUPS)}, got {value!r}")
        self.bits, self.group_length, self.groups = bits, group_length, (key_groups, value_groups)
        super().__init__(config, **sizes)

    def _allocate(self, dtype: torch.dtype, device: torch.device | str | None) -> None:
        (L, B, K, D), G = self.rows, self.group_length
        past = self.max_length if self.window is None else self.window - 1
        self._most_groups = min(self.max_length // G, math.ceil(past / G))
        self._room = min(self.max_length, G + self.rollback - 1)  # positions kept as they are
        front = (L, B, K, self._most_groups)
        self._rounded = []  # keys, values
        for groups in self.groups:
            span = (1, D) if groups == "channel" else (G, 1)
            codes = torch.empty((*front, G * self.bits // 8, D), dtype=torch.uint8, device=device)
            least, step = torch.empty((2, *front, *span), dtype=torch.bfloat16, device=device)
            self._rounded.append(Rounded(codes, least, step))
        self._recent = torch.empty((2, L, B, K, self._room, D), dtype=dtype, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes of codes, spans and unrounded tokens, used or not."""
        buffers = [self._recent, *self._rounded[0], *self._rounded[1]]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)

    @property
    def rounded(self) -> int:
        """How many of the stored tokens are rounded; the others, behind them, are as they were."""
        return self._num_groups * self.group_length

    def reset(self) -> None:
        """Forget all tokens; the room stays."""
        super().reset()
        self._num_groups = 0

    def truncate(self, length: int) -> None:
        """Forget the last tokens, so that ``length`` are left. Raises: as `KVCache.truncate`."""
        super().truncate(length)
        if self.stored < self.rounded:  # the group that the cut falls into is opened again
            self._num_groups, left = divmod(self.stored, self.group_length)
            for side in range(2 if left else 0):
                for layer in range(self.rows[0]):
                    whole = self._restore(side, layer, self._num_groups, self._num_groups + 1)
                    self._recent[side, layer, :, :, :left] = whole[:, :, :left]

    def begin(self, T: int) -> None:
        """Start a pass over T new tokens. Raises: ValueError if they do not fit below ``max_length``."""
        self._check_room(T)
        self._held = {}

    def append(
        self, layer: int, k_BKTD: Float[Tensor, "B K T D"], v_BKTD: Float[Tensor, "B K T D"]
    ) -> tuple[Float[Tensor, "B K S D"], Float[Tensor, "B K S D"]]:
        """Store one layer's new keys and values; return them behind what the new queries may see of the past.

        Raises: ValueError for a layer or shapes that the cache was not built for.
        """
        self._check_shapes(layer, k_BKTD, v_BKTD)
        T, recent, held, result = k_BKTD.shape[2], self.stored - self.rounded, [], []
        past = self.visible(T) - T
        for side, new in enumerate((k_BKTD, v_BKTD)):
            known = self._recent[side, layer, :, :, :recent]
            new = new.detach().to(known.dtype)
            parts = [known[:, :, recent - min(past, recent) :], new]
            if past > recent:
                first = self._num_groups - math.ceil((past - recent) / self.group_length)
                whole = self._restore(side, layer, first, self._num_groups)
                parts.insert(0, whole[:, :, whole.shape[2] - (past - recent) :])
            result.append(torch.cat(parts, dim=2))
            if recent + T <= self._room:
                self._recent[side, layer, :, :, recent : recent + T] = new
            else:  # a group is full: it takes its place at commit
                held.append(self._round(side, torch.cat((known, new), dim=2)))
        if held:
            self._held[layer] = held
        return result[0], result[1]

    def commit(self, T: int) -> None:
        """Count the T tokens that every layer has appended."""
        groups, left = self._num_groups, self.stored - self.rounded + T
        for layer, held in self._held.items():
            for side, (new, rest) in enumerate(held):
                count, left = new.codes.shape[2], rest.shape[2]
                kept = min(self._num_groups, self._most_groups - count)
                for buffer, codes in zip(self._rounded[side], new, strict=True):
                    if kept < self._num_groups:  # a window gives up its first groups
                        moved = buffer[layer, :, :, self._num_groups - kept : self._num_groups]
                        buffer[layer, :, :, :kept] = moved.clone()
                    buffer[layer, :, :, kept : kept + count] = codes
                self._recent[side, layer, :, :, :left] = rest
                groups = kept + count
        self._num_groups, self._held = groups, {}
        self.stored = self.rounded + left
        self.length += T

    def _round(self, side: int, x_BKSD: Float[Tensor, "B K S D"]) -> tuple[Rounded, Tensor]:
        """Round all whole groups before the last ``rollback`` positions; the rest is copied."""
        G = self.group_length
        count = (x_BKSD.shape[2] - self.rollback) // G
        stored = min(count, self._most_groups)  # a window needs no more
        groups_BKNGD = x_BKSD[:, :, (count - stored) * G : count * G].unflatten(2, (stored, G))
        rounded = round_groups(groups_BKNGD, bits=self.bits, groups=self.groups[side])
        return rounded, x_BKSD[:, :, count * G :].clone()

    def _restore(self, side: int, layer: int, start: int, end: int) -> Float[Tensor, "B K S D"]:
        """The approximate keys (side 0) or values (1) of some groups of a layer."""
        part = Rounded(*(buffer[layer, :, :, start:end] for buffer in self._rounded[side]))
        return restore_groups(part, bits=self.bits, dtype=self._recent.dtype).flatten(2, 3)
