"""What the parts of a model count, by formula: `models.counts` adds them up.

Legend: V vocabulary entries, C width of the model, L layers, H query heads, K key/value heads,
D width of a head, F hidden width of the feed-forward layer, T tokens, S source tokens, B sequences.
"""

from typing import Any

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.models.encoder_config import EncoderConfig
from llm_from_scratch.models.encoder_decoder_config import EncoderDecoderConfig

GATED = ("swiglu", "geglu")  # three matrices instead of two


def attention_parameters(config: Any, *, num_kv_heads: int, d_head: int, qkv_bias: bool, bias: bool) -> int:
    """Queries, keys, values and output: ``C (H + 2 K) D + H D C``, and the biases."""
    C, query_columns = config.d_model, config.num_heads * d_head
    qkv_columns = query_columns + 2 * num_kv_heads * d_head
    return C * qkv_columns + query_columns * C + (qkv_columns if qkv_bias else 0) + (C if bias else 0)


def feedforward_parameters(config: Any, *, bias: bool) -> int:
    """``2 C F``, with a gate ``3 C F``, and the biases."""
    matrices = 3 if config.feedforward in GATED else 2
    return matrices * config.d_model * config.d_ff + (
        ((matrices - 1) * config.d_ff + config.d_model) if bias else 0
    )


def norm_parameters(config: Any, *, bias: bool) -> int:
    """``C``, and for a layer norm with bias another C."""
    return 2 * config.d_model if bias and getattr(config, "norm", "layer") == "layer" else config.d_model


def decoder_parameters(config: DecoderConfig) -> dict[str, int]:
    """The counts of a `Decoder`."""
    C, L, D = config.d_model, config.num_layers, config.d_head
    attention = attention_parameters(
        config, num_kv_heads=config.num_kv_heads, d_head=D, qkv_bias=config.qkv_bias, bias=config.bias
    )
    positions = {
        "learned": config.context_length * C,
        "relative": config.relative_buckets * config.num_heads,
    }
    norms = (2 * L + 1) * norm_parameters(config, bias=config.bias) + (2 * L * D if config.qk_norm else 0)
    return {
        "token embedding": (config.vocab_size + sum(config.ngram_rows)) * C,
        "positions": positions.get(config.positions, 0),
        "attention": L * attention,
        "feed-forward": L * feedforward_parameters(config, bias=config.bias),
        "norms": norms,
        "output layer": 0 if config.tie_embeddings else config.vocab_size * C,
    }


def encoder_parameters(config: EncoderConfig) -> dict[str, int]:
    """The counts of an `Encoder`, its heads included; segments count as positions."""
    C, L, V = config.d_model, config.num_layers, config.vocab_size
    shape = {"num_kv_heads": config.num_heads, "d_head": C // config.num_heads}
    masked = C * C + C + 2 * C + V + (0 if config.tie_embeddings else V * C)  # layer, norm, biases, matrix
    heads = (C * C + C if config.pooler else 0) + (masked if config.masked_language_head else 0)
    return {
        "token embedding": V * C,
        "positions": (config.context_length + config.num_segments) * C,
        "attention": L * attention_parameters(config, **shape, qkv_bias=True, bias=True),
        "feed-forward": L * feedforward_parameters(config, bias=True),
        "norms": (2 * L + 1 + config.norm_first) * 2 * C,
        "heads": heads + (2 * C + 2 if config.next_sentence_head else 0),
    }


def encoder_decoder_parameters(config: EncoderDecoderConfig) -> dict[str, int]:
    """The counts of an `EncoderDecoder`, both stacks together."""
    C, L, M, bias = config.d_model, config.num_layers, config.num_decoder_layers, config.bias
    shape = {"num_kv_heads": config.num_heads, "d_head": config.d_head}
    attention = attention_parameters(config, **shape, qkv_bias=bias, bias=bias)
    relative = 2 * config.relative_buckets * config.num_heads if config.positions == "relative" else 0
    norms = 2 * L + 3 * M + (2 if config.norm_first else 0)
    return {
        "token embedding": config.vocab_size * C,
        "positions": relative,
        "attention": (L + M) * attention,
        "cross-attention": M * attention,
        "feed-forward": (L + M) * feedforward_parameters(config, bias=bias),
        "norms": norms * norm_parameters(config, bias=bias),
        "output layer": 0 if config.tie_embeddings else config.vocab_size * C,
    }


def stack_flops(config: Any, *, num_layers: int, num_tokens: int, num_kv_heads: int, d_head: int) -> dict:
    """One sequence through a stack of blocks: ``2 m n`` a token and matrix, and ``4 H D T^2`` a layer."""
    matrices = 3 if config.feedforward in GATED else 2
    columns = config.num_heads * d_head
    projections = config.d_model * (2 * columns + 2 * num_kv_heads * d_head)
    return {
        "attention projections": 2 * num_tokens * num_layers * projections,
        "scores and means": 4 * num_tokens**2 * num_layers * columns,
        "feed-forward": 2 * num_tokens * num_layers * matrices * config.d_model * config.d_ff,
    }


def encoder_decoder_flops(config: EncoderDecoderConfig, *, num_tokens: int, num_source_tokens: int) -> dict:
    """One pair of texts through both stacks; the decoder reads the S source positions in every block."""
    shape = {"num_kv_heads": config.num_heads, "d_head": config.d_head}
    T, S, M, columns = (
        num_tokens,
        num_source_tokens,
        config.num_decoder_layers,
        config.num_heads * config.d_head,
    )
    source = stack_flops(config, num_layers=config.num_layers, num_tokens=S, **shape)
    target = stack_flops(config, num_layers=M, num_tokens=T, **shape)
    both = {part: source[part] + target[part] for part in source}
    cross = M * (2 * (2 * T + 2 * S) * config.d_model * columns + 4 * T * S * columns)
    return {**both, "cross-attention": cross, "output layer": 2 * T * config.vocab_size * config.d_model}
