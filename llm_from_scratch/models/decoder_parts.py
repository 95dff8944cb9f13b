"""From a `DecoderConfig` to the parts it names: what differs between GPT-2 and Llama is chosen here."""

from torch import nn

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.models.shared_parts import build_norm
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.blocks import DecoderBlock
from llm_from_scratch.nn.feedforward import FeedForward, SwiGLU


def build_feedforward(config: DecoderConfig) -> nn.Module:
    """The config's kind of feed-forward layer."""
    sizes = {"d_model": config.d_model, "d_ff": config.d_ff, "bias": config.bias}
    if config.feedforward == "swiglu":
        return SwiGLU(**sizes)
    if config.feedforward == "relu2":
        return FeedForward(**sizes, relu=True, power=2)
    return FeedForward(**sizes, exact=config.feedforward == "gelu_exact")


def build_block(config: DecoderConfig) -> DecoderBlock:
    """One block: causal attention and a feed-forward layer, each behind its norm."""
    return DecoderBlock(
        norm_1=build_norm(config),
        attention=MultiHeadAttention(
            d_model=config.d_model,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            bias=config.bias,
            dropout=config.dropout,
            causal=True,
            d_head=config.d_head,
            qkv_bias=config.qkv_bias,
            window=config.sliding_window,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
        ),
        norm_2=build_norm(config),
        feedforward=build_feedforward(config),
        dropout=config.dropout,
    )
