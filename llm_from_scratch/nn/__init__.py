"""The parts a Transformer is made of, one idea a file.

Where an operation has a fast version in torch, the readable definition stands beside it and a
test holds the two equal: `attention` and `fused_attention`, `layer_norm` and `LayerNorm`,
`rms_norm` and `RMSNorm`.
"""

from llm_from_scratch.nn.alibi import alibi_bias, alibi_slopes
from llm_from_scratch.nn.attention import MultiHeadAttention, attention, attention_scores, fused_attention
from llm_from_scratch.nn.blocks import CrossBlock, DecoderBlock, TransformerBlock
from llm_from_scratch.nn.cross_attention import CrossAttention
from llm_from_scratch.nn.feedforward import GEGLU, FeedForward, SwiGLU
from llm_from_scratch.nn.masks import causal_mask, document_mask, padding_mask
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.nn.ngram_embedding import NgramEmbedding
from llm_from_scratch.nn.norms import LayerNorm, RMSNorm, layer_norm, rms_norm
from llm_from_scratch.nn.positions import (
    Rotary,
    apply_rotary,
    half_to_interleaved,
    interleaved_to_half,
    rotary_angles,
    rotary_table,
)
from llm_from_scratch.nn.relative_bias import RelativeBias, relative_position_bucket
from llm_from_scratch.nn.sinusoidal import shift_matrix, sinusoidal_positions

__all__ = [
    "GEGLU",
    "CrossAttention",
    "CrossBlock",
    "DecoderBlock",
    "FeedForward",
    "LayerNorm",
    "MultiHeadAttention",
    "NgramEmbedding",
    "RMSNorm",
    "RelativeBias",
    "Rotary",
    "SwiGLU",
    "TransformerBlock",
    "alibi_bias",
    "alibi_slopes",
    "apply_rotary",
    "attention",
    "attention_scores",
    "causal_mask",
    "document_mask",
    "evaluation_mode",
    "fused_attention",
    "half_to_interleaved",
    "interleaved_to_half",
    "layer_norm",
    "padding_mask",
    "relative_position_bucket",
    "rms_norm",
    "rotary_angles",
    "rotary_table",
    "shift_matrix",
    "sinusoidal_positions",
]
