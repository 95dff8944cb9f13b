"""A key-value cache for texts of different lengths: a fixed number of slots, one text in each.

`KVCache` holds texts that have all read the same number of tokens. Here every slot counts for itself,
so that one text can end and another begin in its place while the rest go on.

Legend: L layers, B slots, G of them, K key/value heads, S positions, N new tokens, D width of a head.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder_config import DecoderConfig


class SlotCache:
    """Room for ``num_slots`` texts of up to ``max_length`` tokens each, taken once.

    Sizes: ``2 * L * B * K * S * D`` numbers, which is ``num_bytes`` bytes. Position s of a slot holds
    the key and value of token s of its text; what lies behind ``lengths[slot]`` is zero, always. That
    matters: attention gives hidden positions the weight 0, and 0 times an infinite number that a text
    before left there would be NaN.

    A sliding window is a matter of the mask here: the whole text stays stored.

    Arguments: ``max_length`` in tokens, by default the model's context_length. ``dtype`` and ``device``
    are those of the model (`for_model`).
    Raises: ValueError for sizes out of range.
    Source: Yu et al. 2022 (Orca), section 4, for slots that requests enter and leave at any step.
    Departure: each slot has the room of the longest text; Kwon et al. 2023 (vLLM) give out pages.

    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> cache = SlotCache(config, num_slots=5)
    >>> cache.lengths, cache.num_bytes  # 2 * 2 layers * 5 * 3 heads * 7 tokens * 2 columns * 4 bytes
    ([0, 0, 0, 0, 0], 3360)
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        num_slots: int,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        max_length = config.context_length if max_length is None else max_length
        for name, value in (("num_slots", num_slots), ("max_length", max_length)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if max_length > config.context_length:
            raise ValueError(
                f"max_length={max_length} is more than the model reads, context_length="
                f"{config.context_length}; take at most that"
            )
        if config.ngram_rows:
            raise ValueError(
                f"the slots keep no tokens, which a model with ngram_rows={config.ngram_rows} looks back at; "
                "generate one text at a time (inference.generate)"
            )
        self.num_slots, self.max_length = num_slots, max_length
        self.made_for = config.num_layers, config.num_kv_heads, config.d_head
        shape_LBKSD = (config.num_layers, num_slots, config.num_kv_heads, max_length, config.d_head)
        with torch.inference_mode(False):  # so that it can be written to in and out of that mode
            self.keys_LBKSD = torch.zeros(shape_LBKSD, dtype=dtype, device=device)
            self.values_LBKSD = torch.zeros(shape_LBKSD, dtype=dtype, device=device)
        self.lengths = [0] * num_slots  # tokens that each slot's text has
        self._touched = [0] * num_slots  # positions of each slot that may not be zero

    @classmethod
    def for_model(cls, model: nn.Module, **sizes) -> "SlotCache":
        """A cache of the model's own number format, on its device; takes the sizes that `SlotCache` takes."""
        weight = next(p for p in model.parameters() if p.is_floating_point())
        return cls(model.config, dtype=weight.dtype, device=weight.device, **sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes that the keys and values have been given, used or not."""
        return 2 * self.keys_LBKSD.numel() * self.keys_LBKSD.element_size()

    def check_room(self, slot: int, new_tokens: int) -> None:
        """Raise ValueError unless the slot exists and has room for so many tokens more."""
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot {slot} is none of the {self.num_slots} slots (0 to {self.num_slots - 1})")
        if self.lengths[slot] + new_tokens > self.max_length:
            raise ValueError(
                f"slot {slot} holds {self.lengths[slot]} tokens, and {new_tokens} more exceed "
                f"max_length={self.max_length}; clear the slot, or build a longer cache"
            )

    def begin(self, slot: int, new_tokens: int) -> None:
        """Announce a pass that will `write` so many tokens to the slot. Raises: as `check_room`."""
        self.check_room(slot, new_tokens)
        self._touched[slot] = max(self._touched[slot], self.lengths[slot] + new_tokens)

    def write(
        self,
        layer: int,
        slots_N: Int[Tensor, "N"],
        positions_N: Int[Tensor, "N"],
        k_NKD: Float[Tensor, "N K D"],
        v_NKD: Float[Tensor, "N K D"],
    ) -> None:
        """Store one layer's keys and values of N tokens, each in its slot at its position."""
        self.keys_LBKSD[layer][slots_N, :, positions_N] = k_NKD.detach()
        self.values_LBKSD[layer][slots_N, :, positions_N] = v_NKD.detach()

    def read(
        self, layer: int, slots: Sequence[int], S: int
    ) -> tuple[Float[Tensor, "G K S D"], Float[Tensor, "G K S D"]]:
        """The first S positions of some slots: without a copy where these lie side by side, in order."""
        first, side_by_side = slots[0], list(slots) == list(range(slots[0], slots[0] + len(slots)))
        which = slice(first, first + len(slots)) if side_by_side else list(slots)
        return self.keys_LBKSD[layer, which, :, :S], self.values_LBKSD[layer, which, :, :S]

    def clear(self, slot: int) -> None:
        """Forget the slot's text, also what a failed pass may have left behind its end."""
        self.check_room(slot, 0)
        for buffer in (self.keys_LBKSD, self.values_LBKSD):
            buffer[:, slot, :, : self._touched[slot]] = 0
        self.lengths[slot] = self._touched[slot] = 0

    def move(self, source: int, target: int) -> None:
        """Move a text to an empty slot, and leave its own slot empty."""
        self.check_room(source, 0)
        self.check_room(target, 0)
        if self._touched[target]:
            raise ValueError(f"slot {target} holds {self.lengths[target]} tokens; clear it first")
        length = self.lengths[source]
        for buffer in (self.keys_LBKSD, self.values_LBKSD):
            buffer[:, target, :, :length] = buffer[:, source, :, :length]
        self.clear(source)
        self.lengths[target] = self._touched[target] = length
