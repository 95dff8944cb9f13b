"""Generation with a key-value cache: the tokens of `decoding.sampling`, without reading the text anew.

The prompt is read in one pass, then each new token by itself. `decoding.sampling.sample`, which
reads the whole text for every token, stays the reference.

Legend: B sequences, T positions, V vocabulary entries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.decoding import sampling
from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.modes import evaluation_mode


class CachedModel:
    """A decoder that remembers the last text: of the next one it reads only what is new.

    It is called with whole texts, as the decoder itself, and returns the scores of the token after
    each, of shape ``[B, 1, V]``. Whatever asks for no more can be given it in place of the decoder:
    `sample`, `stream`, `greedy_search`. It compares the text with the last one, cuts the cache to
    what both begin with, and reads the rest. A text that begins otherwise, as a window that has moved
    on does, is read from its start.

    Arguments: ``room`` is how many tokens beyond its first text the cache is given place for; a text
    that outgrows it gets a new cache. None: place for context_length tokens. ``new_cache`` makes the
    cache, called as `KVCache.for_model` is: ``partial(QuantisedCache.for_model, bits=8)`` takes less memory.
    Dropout is off during a call, and put back as it was. After the weights have changed, call `reset`.
    Raises: ValueError if the model is no `Decoder`; at a call, as `cached_forward`.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = CachedModel(Decoder(config))
    >>> _ = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[1, 2, 3, 4]]))
    >>> model.tokens_read  # 3, then 1
    4
    """

    def __init__(
        self,
        model: Decoder,
        *,
        room: int | None = None,
        new_cache: Callable[..., KVCache] = KVCache.for_model,
    ):
        if not isinstance(model, Decoder):
            raise ValueError(
                f"the cache serves a Decoder, got {type(model).__name__}; decoding.sampling.sample continues "
                "texts with any model, without a cache"
            )
        if room is not None and (type(room) is not int or room < 0):
            raise ValueError(f"room must be None or a whole number of at least 0 tokens, got {room!r}")
        self.model, self.config, self.room, self.new_cache = model, model.config, room, new_cache
        self.tokens_read = 0  # in each sequence, by all calls: what the cache saves shows here
        self.reset()

    def reset(self) -> None:
        """Forget the last text, and give back the cache's memory."""
        self.cache: KVCache | None = None
        self.text_BT: Tensor | None = None
        self._parts = list(self.model.modules())

    def read(self, new_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B 1 V"]:
        """Read what follows the text in the cache; score the token after it."""
        return cached_forward(self.model, new_BT, self.cache, last_only=True)

    def __call__(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B 1 V"]:
        """Score the token after each text."""
        self.model.check_ids(ids_BT)
        is_training = any(part.training for part in self._parts)
        with torch.inference_mode(), evaluation_mode(self.model) if is_training else nullcontext():
            known = self._reuse(ids_BT)
            new_BT = ids_BT[:, known:].to(self.model.norm.weight.device)
            logits_B1V = self.read(new_BT)
        self.tokens_read += new_BT.shape[1]
        return logits_B1V.clone()  # made outside of inference mode, so that anyone may write to it

    def _reuse(self, ids_BT: Tensor) -> int:
        """Cut the cache to what this text and the last one begin with, and say how many tokens that is."""
        (B, T), cache = ids_BT.shape, self.cache
        if cache is None or cache.batch_size != B or cache.max_length < T:
            limit = self.config.context_length
            length = limit if self.room is None else min(limit, T + self.room)
            self.cache = None  # give its memory back first
            self.cache, known = self.new_cache(self.model, batch_size=B, max_length=length), 0
        else:
            known = min(_common_start(ids_BT, self.text_BT), cache.length, T - 1)  # one token must be read
            try:
                cache.truncate(known)
            except ValueError:  # a sliding window no longer holds what comes before that place
                cache.truncate(0)
                known = 0
        self.text_BT = ids_BT.clone()  # before the pass: if that fails, the cache holds this text's start
        return known


def _common_start(left_BT: Int[Tensor, "B T"], right_BS: Int[Tensor, "B S"]) -> int:
    """How many tokens all sequences of both batches begin with in common.

    >>> _common_start(torch.tensor([[1, 2, 3], [1, 2, 4]]), torch.tensor([[1, 2], [1, 5]]))
    1
    """
    shorter = min(left_BT.shape[1], right_BS.shape[1])
    same_T = (left_BT[:, :shorter] == right_BS[:, :shorter]).all(dim=0)
    return int(same_T.long().cumprod(dim=0).sum())


def generate(model: Decoder, ids: Sequence[int] | Tensor, **settings: Any) -> list[int]:
    """Continue one sequence of tokens; returns the new tokens only. Takes what `stream` takes.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = Decoder(config)
    >>> settings = {"max_new_tokens": 9, "seed": 5}
    >>> generate(model, [3], **settings) == sampling.sample(model, [3], **settings)
    True
    """
    return list(stream(model, ids, **settings))


def stream(
    model: Decoder,
    ids: Sequence[int] | Tensor,
    *,
    max_new_tokens: int,
    new_cache: Callable[..., KVCache] = KVCache.for_model,
    **settings: Any,
) -> Iterator[int]:
    """Continue one sequence of tokens, giving each new token as soon as it is drawn.

    Takes the settings of `decoding.sampling.stream` (``temperature``, 0 for greedy, ``top_k``, ``seed``,
    ``stop_ids`` ...), draws by its rules, and gives the same tokens for the same seed, unless a draw
    falls between two scores that differ by less than rounding. ``new_cache`` is that of `CachedModel`;
    a quantised cache changes the scores, and with them some tokens.

    Past the model's context_length the same rule holds too: the model reads the last tokens, its first
    one at position 0 again. All keys and values change with that, so from there on each token costs a
    whole pass, and the cache saves nothing.

    Raises: ValueError, at the call, if the model is no `Decoder`, and as `decoding.sampling.stream`.
    """
    cached = CachedModel(model, new_cache=new_cache)
    tokens = sampling.stream(cached, ids, max_new_tokens=max_new_tokens, **settings)
    cached.room = max_new_tokens  # which has been checked by now
    return tokens
