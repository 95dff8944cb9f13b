"""From an `EncoderDecoderConfig` to the parts it names: what differs between 2017 and T5 is chosen here."""

from torch import nn

from llm_from_scratch.models.encoder_decoder_config import EncoderDecoderConfig
from llm_from_scratch.models.shared_parts import build_norm
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.blocks import CrossBlock, TransformerBlock
from llm_from_scratch.nn.cross_attention import CrossAttention
from llm_from_scratch.nn.feedforward import GEGLU, FeedForward


def build_last_norm(config: EncoderDecoderConfig) -> nn.Module:
    """The norm after the last block, where the blocks themselves end in none."""
    return build_norm(config) if config.norm_first else nn.Identity()


def build_feedforward(config: EncoderDecoderConfig) -> nn.Module:
    """The config's kind of feed-forward layer."""
    sizes = {"d_model": config.d_model, "d_ff": config.d_ff, "bias": config.bias}
    if config.feedforward == "geglu":
        return GEGLU(**sizes)
    kinds = {"exact": config.feedforward == "gelu_exact", "relu": config.feedforward == "relu"}
    return FeedForward(**sizes, **kinds)


def build_encoder_block(config: EncoderDecoderConfig) -> TransformerBlock:
    """One block of the encoder: every position sees every other."""
    return TransformerBlock(**_shared_parts(config, causal=False))


def build_decoder_block(config: EncoderDecoderConfig) -> CrossBlock:
    """One block of the decoder: causal attention, then attention to the encoder's result."""
    return CrossBlock(
        norm_cross=build_norm(config),
        cross=CrossAttention(**_attention_fields(config)),
        **_shared_parts(config, causal=True),
    )


def _shared_parts(config: EncoderDecoderConfig, *, causal: bool) -> dict:
    return {
        "norm_1": build_norm(config),
        "attention": MultiHeadAttention(**_attention_fields(config), causal=causal),
        "norm_2": build_norm(config),
        "feedforward": build_feedforward(config),
        "dropout": config.dropout,
        "norm_first": config.norm_first,
    }


def _attention_fields(config: EncoderDecoderConfig) -> dict:
    return {
        "d_model": config.d_model,
        "num_heads": config.num_heads,
        "d_head": config.d_head,
        "bias": config.bias,
        "dropout": config.dropout,
        "scale": None if config.scale_scores else 1.0,
    }
