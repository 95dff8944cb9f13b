"""The key-value cache for texts that branch: beam search doubles some of its texts and drops others.

Legend: L layers, B texts, K key/value heads, S stored positions, T positions, D width of a head,
V vocabulary entries.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.modes import evaluation_mode


class CachedBeams:
    """A decoder that remembers the last texts, each of which may go on in several ways or in none.

    It is called with whole texts of one length and returns the scores of the token after each, of
    shape ``[B, 1, V]``; give it to `decoding.beam_search` in place of the decoder. Where each text is
    one of the last texts and one token more, the keys and values are copied from that text and one
    token a text is read. Otherwise all of it is read anew.

    Raises: ValueError if the model is no `Decoder`, or has a sliding window, whose cache does not
    hold the whole text; at a call, as `cached_forward`.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = CachedBeams(Decoder(config))
    >>> _ = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]))
    >>> model.tokens_read  # 3, then 1 in each of two texts
    5
    """

    def __init__(self, model: Decoder):
        if not isinstance(model, Decoder) or model.config.sliding_window is not None:
            what = "one with a sliding window" if isinstance(model, Decoder) else type(model).__name__
            raise ValueError(f"the cache serves a Decoder that attends to the whole text, got {what}")
        self.model, self.config = model, model.config
        self.tokens_read = 0  # of all texts together
        self.cache: KVCache | None = None
        self.texts: list[tuple[int, ...]] = []

    def __call__(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B 1 V"]:
        """Score the token after each text."""
        self.model.check_ids(ids_BT)
        texts = [tuple(ids_T) for ids_T in ids_BT.tolist()]
        with torch.inference_mode(), evaluation_mode(self.model):
            known = self._regroup(texts)
            self.texts = []  # if the pass fails, nothing is known of what the cache holds
            new_BT = ids_BT[:, known:].to(self.model.output_weight.device)
            logits_B1V = cached_forward(self.model, new_BT, self.cache, last_only=True)
        self.texts = texts
        self.tokens_read += new_BT.numel()
        return logits_B1V.clone()  # made outside of inference mode, so that anyone may write to it

    def _regroup(self, texts: list[tuple[int, ...]]) -> int:
        """Make a cache in which row b holds the beginning of text b; return how many tokens that is."""
        row_of = {text: row for row, text in enumerate(self.texts)}
        rows = [row_of.get(text[:-1]) for text in texts]
        old, known = self.cache, len(texts[0]) - 1
        self.cache = KVCache.for_model(self.model, batch_size=len(texts), max_length=len(texts[0]))
        if None in rows:
            return 0
        for new, stored in (
            (self.cache.keys_LBKSD, old.keys_LBKSD),
            (self.cache.values_LBKSD, old.values_LBKSD),
        ):
            new[..., :known, :] = stored[:, rows, :, :known]
        if self.cache.reach:
            self.cache.ids_BS[:, :known] = old.ids_BS[rows, :known]
        self.cache.length = self.cache.stored = known
        return known
