"""T5, in its first version and in version 1.1, to and from our encoder-decoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llm_from_scratch.interop.hugging_face.family import (
    MAX_HEADS,
    MAX_LAYERS,
    MAX_TOKENS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Family,
)
from llm_from_scratch.interop.hugging_face.json_files import Fields
from llm_from_scratch.interop.hugging_face.weights import Mapping, Move, qkv_move
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

# What config.json calls a feed-forward layer -> ours, and the fields that say the same once more.
FEEDFORWARD = {
    "relu": ("relu", "relu", False),
    "gelu_new": ("gelu", "gelu_new", False),
    "gelu": ("gelu_exact", "gelu", False),
    "gated-gelu": ("geglu", "gelu_new", True),
    "gated-gelu_new": ("geglu", "gelu_new", True),
}


def read_config(fields: Fields, names: Collection[str], context_length: int | None) -> EncoderDecoderConfig:
    """Our config from T5's. Raises: ValueError naming the field that does not fit.

    Whether the output layer has a matrix of its own is told by the tensors; whether the logits are
    scaled, by config.json: version 1.1 says so with ``tie_word_embeddings: false``, newer files with
    ``scale_decoder_outputs: false``.
    """
    fields.only("feed_forward_proj", *FEEDFORWARD)
    feedforward, activation, gated = FEEDFORWARD[fields.text("feed_forward_proj", "relu")]
    fields.only("dense_act_fn", activation)
    fields.only("is_gated_act", gated)
    fields.only("is_encoder_decoder", True)
    fields.only("is_decoder", False)
    num_layers = fields.size("num_layers", MAX_LAYERS)
    vocab_size = fields.size("vocab_size", MAX_VOCABULARY)
    start_id = fields.take("decoder_start_token_id", int, "a token id", fields.values.get("pad_token_id", 0))
    if type(start_id) is not int or not 0 <= start_id < vocab_size:
        raise fields.wrong("decoder_start_token_id", f"is {start_id!r:.60}, no id below {vocab_size}")
    tied_by_config = fields.flag("tie_word_embeddings", True)
    fields.size("n_positions", MAX_TOKENS, 512)  # of training; relative positions read any length
    return EncoderDecoderConfig.t5(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=fields.size("d_model", MAX_WIDTH),
        num_layers=num_layers,
        num_decoder_layers=fields.size("num_decoder_layers", MAX_LAYERS, num_layers),
        num_heads=fields.size("num_heads", MAX_HEADS),
        d_head=fields.size("d_kv", MAX_WIDTH),
        d_ff=fields.size("d_ff", MAX_WIDTH),
        feedforward=feedforward,
        relative_buckets=fields.size("relative_attention_num_buckets", MAX_WIDTH, 32),
        relative_max_distance=fields.size("relative_attention_max_distance", MAX_TOKENS, 128),
        norm_eps=fields.number("layer_norm_epsilon", 1e-6),
        scale_logits=fields.flag("scale_decoder_outputs", tied_by_config),
        tie_embeddings="lm_head.weight" not in names,
        start_id=start_id,
    )


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """T5's config from ours, for `EncoderDecoder`s whose choices are T5's."""
    fixed = {
        "positions": "relative", "norm": "rms", "norm_first": True, "bias": False,
        "scale_embeddings": False, "scale_scores": False,
    }  # fmt: skip
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name}={getattr(config, name)!r} is not T5's {value!r}, and Hugging Face has no family of "
                "encoder-decoders for it that is written here"
            )
    projection = {ours: name for name, (ours, _, _) in reversed(FEEDFORWARD.items())}[config.feedforward]
    _, activation, gated = FEEDFORWARD[projection]
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "d_kv": config.d_head,
        "d_ff": config.d_ff,
        "feed_forward_proj": projection,
        "dense_act_fn": activation,
        "is_gated_act": gated,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.scale_logits,
        "scale_decoder_outputs": config.scale_logits,
        "decoder_start_token_id": config.start_id,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1 if config.vocab_size > 1 else 0,
    }


def mapping(config: EncoderDecoderConfig, names: Collection[str] = ()) -> Mapping:
    """Where each weight stands: the layers of a block are numbered there, attention first."""
    moves = [Move("token_embedding.weight", ("shared.weight",))]
    for stack, num_layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        moves.append(Move(f"{stack}_bias.table.weight", (bias,)))
        moves.append(Move(f"{stack}_norm.weight", (f"{stack}.final_layer_norm.weight",)))
        for i in range(num_layers):
            moves += _block(config, f"{stack}.{i}", f"{stack}.block.{i}.layer", cross=stack == "decoder")
    copies = [(f"{stack}.embed_tokens.weight", "shared.weight") for stack in ("encoder", "decoder")]
    if not config.tie_embeddings:
        moves.append(Move("head.weight", ("lm_head.weight",)))
    # The first published files hold a table for the cross-attention that no code reads.
    unread = ("layer.1.EncDecAttention.relative_attention_bias.weight",)
    return Mapping(moves=tuple(moves), copies=tuple(copies), passed_over=unread)


def _block(config: EncoderDecoderConfig, ours: str, theirs: str, *, cross: bool) -> list[Move]:
    columns = config.num_heads * config.d_head
    heads = {"num_heads": config.num_heads, "num_kv_heads": config.num_heads, "d_head": config.d_head}
    three = [f"{theirs}.0.SelfAttention.{x}.weight" for x in "qkv"]
    moves = [
        Move(f"{ours}.norm_1.weight", (f"{theirs}.0.layer_norm.weight",)),
        qkv_move(f"{ours}.attention.qkv.weight", three, **heads),
        Move(f"{ours}.attention.output.weight", (f"{theirs}.0.SelfAttention.o.weight",)),
    ]
    if cross:
        attention = f"{theirs}.1.EncDecAttention"
        key_value = (f"{attention}.k.weight", f"{attention}.v.weight")
        moves += [
            Move(f"{ours}.norm_cross.weight", (f"{theirs}.1.layer_norm.weight",)),
            Move(f"{ours}.cross.query.weight", (f"{attention}.q.weight",)),
            Move(f"{ours}.cross.key_value.weight", key_value, rows=(columns, columns)),
            Move(f"{ours}.cross.output.weight", (f"{attention}.o.weight",)),
        ]
    last = f"{theirs}.{2 if cross else 1}"
    moves.append(Move(f"{ours}.norm_2.weight", (f"{last}.layer_norm.weight",)))
    gated = config.feedforward == "geglu"
    parts = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    for part, name in parts.items():
        moves.append(Move(f"{ours}.feedforward.{part}.weight", (f"{last}.DenseReluDense.{name}.weight",)))
    return moves


FAMILY = Family(
    model_types=("t5",),
    read_config=read_config,
    write_config=write_config,
    mapping=mapping,
    build=EncoderDecoder,
)
