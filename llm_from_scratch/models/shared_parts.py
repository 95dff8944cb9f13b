"""Parts that decoders and encoder-decoders build alike from their configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from llm_from_scratch.nn.norms import LayerNorm, RMSNorm
from llm_from_scratch.nn.relative_bias import RelativeBias

if TYPE_CHECKING:
    from llm_from_scratch.models.decoder_config import DecoderConfig
    from llm_from_scratch.models.encoder_decoder_config import EncoderDecoderConfig


def build_norm(config: DecoderConfig | EncoderDecoderConfig) -> nn.Module:
    """The config's kind of norm, over the width of the model."""
    if config.norm == "rms":
        return RMSNorm(config.d_model, eps=config.norm_eps)
    return LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def build_relative_bias(
    config: DecoderConfig | EncoderDecoderConfig, *, bidirectional: bool
) -> RelativeBias | None:
    """The learned numbers by distance, one table for all layers of a stack, if the config wants them."""
    if config.positions != "relative":
        return None
    return RelativeBias(
        num_buckets=config.relative_buckets,
        max_distance=config.relative_max_distance,
        num_heads=config.num_heads,
        bidirectional=bidirectional,
    )
