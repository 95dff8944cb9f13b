"""The key-value cache: the keys and values of the tokens read so far, of every layer.

A causal model never changes its mind about a token: its keys and values depend on it and on what
came before. To read one more token, only that token's are computed; all others are looked up.

Legend: L layers, B sequences, K key/value heads, S stored positions, T new positions, D width of a head.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder_config import DecoderConfig


class KVCache:
    """Room for the keys and values of ``max_length`` tokens of ``batch_size`` sequences, taken at once.

    Sizes: ``2 * L * B * K * S * D`` numbers, which is ``num_bytes`` bytes. Keys are stored as
    attention takes them: normalised, and turned for their position.

    With a sliding window of W tokens, S does not grow with the text: only the last W - 1 tokens are
    ever looked at again, and ``rollback`` more are kept. There is room for twice as many; when it is
    full, the last ones move to its front. So the stored positions always lie side by side in the
    order of the text, and one token in about W pays for moving the others.

    One pass of the model is `begin`, then `append` for each layer, then `commit`. A pass that fails
    on the way leaves the cache as long as it was; the next `begin` starts over.

    Arguments: ``max_length`` in tokens, by default the model's context_length. ``rollback`` is the
    number of tokens that `truncate` can always take back from a cache with a sliding window; one
    without can be cut to any length. ``dtype`` and ``device`` are those of the model (`for_model`).
    Raises: ValueError for sizes out of range.
    Source: Shazeer 2019, section 2.3, for stored keys and values in generation; the window: Jiang
    et al. 2023, section 2. Departure: their window's buffer is a ring, whose positions are out of
    order after its first turn.

    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> cache = KVCache(config)
    >>> cache.length, cache.num_bytes  # 2 * 2 layers * 1 * 3 heads * 7 tokens * 2 columns * 4 bytes
    (0, 672)
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        batch_size: int = 1,
        max_length: int | None = None,
        rollback: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        max_length = config.context_length if max_length is None else max_length
        for name, value, least in (("batch_size", batch_size, 1), ("max_length", max_length, 1)):
            _check_whole(name, value, least)
        _check_whole("rollback", rollback, 0)
        if max_length > config.context_length:
            raise ValueError(
                f"max_length={max_length} is more than the model reads, context_length="
                f"{config.context_length}; take at most that"
            )
        self.batch_size, self.max_length, self.window = batch_size, max_length, config.sliding_window
        self.reach = len(config.ngram_rows)  # tokens before each new one that its embedding depends on
        self.rows = config.num_layers, batch_size, config.num_kv_heads, config.d_head
        self.rollback = rollback
        self._keep = max_length if self.window is None else self.window - 1 + rollback
        self.capacity = min(max_length, max(2 * self._keep, self._keep + 1))
        with torch.inference_mode(False):  # so that it can be written to in and out of that mode
            self._allocate(dtype, device)
            if self.reach:
                self.ids_BS = torch.zeros(batch_size, max_length, dtype=torch.long, device=device)
        self.reset()

    @property
    def earlier_BS(self) -> Int[Tensor, "B S"] | None:
        """The last tokens, as many as the embedding of the next one depends on; None if on none."""
        if not self.reach:
            return None
        return self.ids_BS[:, max(0, self.length - self.reach) : self.length]

    def note_ids(self, ids_BT: Int[Tensor, "B T"]) -> None:
        """Remember the ids of the new tokens, for models whose embedding looks back at them."""
        if self.reach:
            self.ids_BS[:, self.length : self.length + ids_BT.shape[1]] = ids_BT

    def _allocate(self, dtype: torch.dtype, device: torch.device | str | None) -> None:
        shape_LBKSD = (*self.rows[:3], self.capacity, self.rows[3])
        self.keys_LBKSD = torch.empty(shape_LBKSD, dtype=dtype, device=device)
        self.values_LBKSD = torch.empty(shape_LBKSD, dtype=dtype, device=device)

    @classmethod
    def for_model(cls, model: nn.Module, **sizes) -> "KVCache":
        """A cache of the model's own number format, on its device; takes the sizes that `KVCache` takes."""
        weight = model.norm.weight  # the output matrix may be quantised
        return cls(model.config, dtype=weight.dtype, device=weight.device, **sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes that the keys and values have been given, used or not."""
        return 2 * self.keys_LBKSD.numel() * self.keys_LBKSD.element_size()

    def reset(self) -> None:
        """Forget all tokens; the room stays."""
        self.length = 0  # tokens read
        self.stored = 0  # of these, tokens whose keys and values are still there: the last ones
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def truncate(self, length: int) -> None:
        """Forget the last tokens, so that ``length`` are left, as if they had never been read.

        Raises: ValueError if ``length`` is none of 0 .. the present one, or if what the window would
        look at from there has been given up already.
        """
        _check_whole("length", length, 0)
        if length > self.length:
            raise ValueError(
                f"the cache holds {self.length} tokens and cannot be cut to {length}; read the others first"
            )
        dropped = self.length - length
        past = self.window - 1 if self.window is not None else length
        if length and self.stored - dropped < min(length, past):
            raise ValueError(
                f"cannot take back {dropped} tokens: of {self.length} tokens the last {self.stored} are "
                f"stored, and the window looks at {past} before a new one; take back fewer, reset() and "
                "read the text again, or build the cache with a larger rollback"
            )
        self.length, self.stored = length, self.stored - dropped if length else 0

    def visible(self, T: int) -> int:
        """Keys that `append` returns for T new tokens: those stored and the new ones, less with a window."""
        total = self.stored + T
        return total if self.window is None else min(total, self.window - 1 + T)

    def begin(self, T: int) -> None:
        """Make room for T new tokens. Raises: ValueError if they do not fit below ``max_length``."""
        self._check_room(T)
        self._held = {}
        if self.stored + T > self.capacity:  # what the window still needs moves to the front
            kept = min(self.stored, self._keep)
            for buffer in (self.keys_LBKSD, self.values_LBKSD):
                buffer[..., :kept, :] = buffer[..., self.stored - kept : self.stored, :].clone()
            self.stored = kept

    def append(
        self, layer: int, k_BKTD: Float[Tensor, "B K T D"], v_BKTD: Float[Tensor, "B K T D"]
    ) -> tuple[Float[Tensor, "B K S D"], Float[Tensor, "B K S D"]]:
        """Store one layer's new keys and values; return them behind those that the new queries may see.

        The last of the S positions are the new ones, S is `visible`. What is returned may be part of the
        cache itself: read it before the next call, and do not write to it.

        Raises: ValueError for a layer or shapes that the cache was not built for.
        """
        self._check_shapes(layer, k_BKTD, v_BKTD)
        T, visible = k_BKTD.shape[2], self.visible(k_BKTD.shape[2])
        end, result = self.stored + T, []
        for buffer, new in ((self.keys_LBKSD[layer], k_BKTD), (self.values_LBKSD[layer], v_BKTD)):
            if end <= self.capacity:
                buffer[:, :, self.stored : end] = new.detach()
                result.append(buffer[:, :, end - visible : end])
            else:  # more new tokens than a window's buffer holds: its end is stored by commit
                result.append(torch.cat((buffer[:, :, : self.stored], new.to(buffer.dtype)), dim=2).detach())
        if end > self.capacity:
            self._held[layer] = tuple(whole[:, :, end - self._keep :] for whole in result)
            result = [whole[:, :, end - visible :] for whole in result]
        return result[0], result[1]

    def commit(self, T: int) -> None:
        """Count the T tokens that every layer has appended."""
        for layer, held in self._held.items():
            for buffer, last in zip((self.keys_LBKSD, self.values_LBKSD), held, strict=True):
                buffer[layer, :, :, : self._keep] = last
        self.stored = self._keep if self._held else self.stored + T
        self.length, self._held = self.length + T, {}

    def _check_room(self, T: int) -> None:
        _check_whole("the number of new tokens", T, 1)
        if self.length + T > self.max_length:
            raise ValueError(
                f"{self.length} tokens stored and {T} new ones exceed max_length={self.max_length}; "
                "truncate() or reset() the cache, or build a longer one (up to the model's context_length)"
            )

    def _check_shapes(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> None:
        L, B, K, D = self.rows
        T = k_BKTD.shape[2] if k_BKTD.dim() == 4 else 0
        if not 0 <= layer < L:
            raise ValueError(f"layer {layer} is none of the {L} layers (0 to {L - 1}) that the cache holds")
        if k_BKTD.shape != (B, K, T, D) or v_BKTD.shape != (B, K, T, D):
            raise ValueError(
                f"keys {tuple(k_BKTD.shape)} and values {tuple(v_BKTD.shape)} must both be of the "
                f"shape ({B} sequences, {K} heads, new tokens, {D} columns); build the cache for this model "
                "and batch"
            )
        if self.length + T > self.max_length or (self.window is None and self.stored + T > self.capacity):
            raise ValueError(
                f"{self.length} tokens stored and {T} new ones exceed max_length={self.max_length}; "
                "begin() says so before any layer has run"
            )


def _check_whole(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
