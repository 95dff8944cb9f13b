"""One pass of a decoder over new tokens, with the keys and values of earlier ones from a cache.

Legend: B sequences, T new positions, U of them scored (all or the last), S positions looked at, C width
of the model, V vocabulary entries, H query heads, K key/value heads, D width of a head.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.attention import fused_attention
from llm_from_scratch.nn.masks import causal_mask


@torch.no_grad()
def cached_forward(
    model: Decoder, ids_BT: Int[Tensor, "B T"], cache: KVCache, *, last_only: bool = False
) -> Float[Tensor, "B U V"]:
    """Score the next token at each new position; equal to the end of ``model(all tokens so far)``.

    ``ids_BT`` are the tokens that follow those in the cache, which then holds them too. They may come
    in pieces of any size: a whole prompt at once (prefill), then each new token by itself. With
    ``last_only`` the last position alone is scored, as generation needs it: shape ``[B, 1, V]``.

    All sequences of a batch have the same length; there is no padding. Nothing is learned through a
    cache, so no gradients are kept.

    Raises: ValueError for ids the model cannot read, a cache built for another model or batch, more
    tokens than it has room for, and a model whose dropout is on.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model, ids = Decoder(config).eval(), torch.tensor([[1, 2, 3, 4, 5]])
    >>> cache = KVCache.for_model(model)
    >>> pieces = [cached_forward(model, piece, cache) for piece in ids.split([3, 1, 1], dim=1)]
    >>> torch.allclose(torch.cat(pieces, dim=1), model(ids), atol=1e-5)
    True
    """
    model.check_ids(ids_BT)
    _check_fit(model, ids_BT, cache)
    T = ids_BT.shape[1]
    cache.begin(T)
    S = cache.visible(T)
    x_BTC, rope = model.embed(ids_BT, start=cache.length, earlier_BS=cache.earlier_BS)
    cache.note_ids(ids_BT)
    inputs = {"rope": rope, "bias": model.score_bias(T, S)}
    inputs["is_causal"], inputs["mask"] = _causality(T, S, model.config.sliding_window, ids_BT.device)
    for layer, block in enumerate(model.blocks):
        x_BTC = _read_block(block, x_BTC, cache, layer, **inputs)
    cache.commit(T)
    x_BTC = x_BTC[:, -1:] if last_only else x_BTC
    return F.linear(model.norm(x_BTC), model.output_weight)


def _read_block(
    block: nn.Module, x_BTC: Tensor, cache: KVCache, layer: int, *, rope, bias, is_causal, mask
) -> Float[Tensor, "B T C"]:
    """`TransformerBlock.forward`, with the stored keys and values between projection and attention."""
    part = block.attention
    q_BHTD, k_BKTD, v_BKTD = part.project(block.read(x_BTC, block.norm_1), rope)
    k_BKSD, v_BKSD = cache.append(layer, k_BKTD, v_BKTD)
    heads_BHTD = fused_attention(
        q_BHTD, k_BKSD, v_BKSD, mask=mask, bias=bias, is_causal=is_causal, scale=part.scale
    )
    x_BTC = block.add(x_BTC, part.output(heads_BHTD.transpose(1, 2).flatten(2)), block.norm_1)
    return block.add(x_BTC, block.feedforward(block.read(x_BTC, block.norm_2)), block.norm_2)


def _causality(T: int, S: int, window: int | None, device: torch.device) -> tuple[bool, Tensor | None]:
    """Whether the kernel shall make the causal mask, and the mask that it cannot make, once for all layers.

    One new token may see everything that the cache returns, and needs neither.
    """
    if T == 1:
        return False, None
    if T == S and (window is None or window >= S):
        return True, None
    return False, causal_mask(T, S, window=window, device=device)


def _check_fit(model: Decoder, ids_BT: Tensor, cache: KVCache) -> None:
    config, B = model.config, ids_BT.shape[0]
    made_for, needed = (*cache.rows, cache.window), (
        config.num_layers, B, config.num_kv_heads, config.d_head, config.sliding_window
    )  # fmt: skip
    if made_for != needed:
        names = ("layers", "sequences", "key/value heads", "columns a head", "tokens a window")
        wrong = [f"{n} {a} and not {b}" for n, a, b in zip(names, made_for, needed, strict=True) if a != b]
        raise ValueError(
            f"the cache was built for another model or batch ({', '.join(wrong)}); build it with "
            f"KVCache.for_model(model, batch_size={B})"
        )
    if model.training and config.dropout > 0:
        raise ValueError(
            f"the model is in training mode with dropout={config.dropout}, which would be stored in the "
            "cache; call model.eval() first"
        )
