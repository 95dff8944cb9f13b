"""Llama and its relatives: Mistral (a window), Qwen2 (biases), Qwen3 (norms of queries and keys).

The four share names and layout. They differ in a few fields, and in what an absent field means.
"""

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
    context,
)
from llm_from_scratch.interop.hugging_face.json_files import Fields
from llm_from_scratch.interop.hugging_face.rope import reach, read_rope, write_rope
from llm_from_scratch.interop.hugging_face.weights import Mapping, Move, qkv_move, with_prefix
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

PREFIX = "model."
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def read_config(fields: Fields, names: Collection[str], context_length: int | None) -> DecoderConfig:
    """Our config from that of one of the four. Raises: ValueError naming the field that does not fit."""
    kind = fields.text("model_type")
    fields.only("hidden_act", "silu")
    d_model = fields.size("hidden_size", MAX_WIDTH)
    num_heads = fields.size("num_attention_heads", MAX_HEADS)
    num_layers = fields.size("num_hidden_layers", MAX_LAYERS)
    d_head = fields.size("head_dim", MAX_WIDTH, 128 if kind == "qwen3" else None)
    if d_head is None and d_model % num_heads == 0:
        d_head = d_model // num_heads
    base, scaling = read_rope(fields)
    return DecoderConfig.llama(
        vocab_size=fields.size("vocab_size", MAX_VOCABULARY),
        context_length=context(
            fields, "max_position_embeddings", context_length, d_head or 1, lambda n: reach(scaling, n)
        ),
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.size("num_key_value_heads", MAX_HEADS, num_heads),
        d_head=d_head,
        d_ff=fields.size("intermediate_size", MAX_WIDTH),
        rope_base=base,
        rope_scaling=scaling,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=_window(fields, kind, num_layers),
        qk_norm=kind == "qwen3",
        **_biases(fields, kind),
    )


def _biases(fields: Fields, kind: str) -> dict[str, bool]:
    """Qwen2 has biases of queries, keys and values; the others none, or Llama, if it says so, everywhere."""
    if kind == "qwen2":
        return {"bias": False, "qkv_bias": True}
    attention, feedforward = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    if kind == "llama" and attention and feedforward:
        return {"bias": True}
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    return {"bias": False}


def _window(fields: Fields, kind: str, num_layers: int) -> int | None:
    """The tokens that each position sees, or None for all. All layers must agree."""
    window = fields.size("sliding_window", MAX_TOKENS, None)
    if kind != "llama" and "sliding_window" not in fields.values:
        window = 4096  # what transformers takes it to be
    if kind.startswith("qwen") and not fields.flag("use_sliding_window", False):
        window = None
    full = fields.take("max_window_layers", int, "a whole number", 28 if kind.startswith("qwen") else 0)
    kinds = [
        "full_attention" if i < full or window is None else "sliding_attention" for i in range(num_layers)
    ]
    kinds = fields.take("layer_types", list, "a list", kinds)
    if len(kinds) != num_layers or not all(k in ("full_attention", "sliding_attention") for k in kinds):
        raise fields.wrong("layer_types", f"is {kinds!r:.60}, expected {num_layers} kinds of attention")
    if len(set(kinds)) > 1:
        raise fields.wrong(
            "layer_types" if "layer_types" in fields.values else "max_window_layers",
            "gives some layers a window and others none; here all layers are alike",
        )
    if kinds[0] == "sliding_attention" and window is None:
        raise fields.wrong("layer_types", "asks for sliding_attention, and no sliding_window is set")
    return window if kinds[0] == "sliding_attention" else None


def model_type(config: DecoderConfig) -> str:
    """Which of the four has the choices of ``config``. Raises: ValueError if none has."""
    if config.qk_norm and not config.bias and not config.qkv_bias:
        return "qwen3"
    if config.qkv_bias and not config.bias and not config.qk_norm:
        return "qwen2"
    if not config.qk_norm and config.bias == config.qkv_bias:
        if config.sliding_window is None:
            return "llama"
        if not config.bias:
            return "mistral"
    raise ValueError(
        f"no family of Hugging Face's that is written here has bias={config.bias}, "
        f"qkv_bias={config.qkv_bias}, qk_norm={config.qk_norm} and "
        f"sliding_window={config.sliding_window} together"
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The config of one of the four from ours, for `Decoder`s whose choices are theirs."""
    kind = model_type(config)
    if config.rotary_fraction != 1.0:
        raise ValueError(
            f"rotary_fraction={config.rotary_fraction} has no field in the configs that are written here"
        )
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    fields = {
        "model_type": kind,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.d_head,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        **write_rope(config),
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if kind == "llama":
        fields |= {"attention_bias": config.bias, "mlp_bias": config.bias}
    else:
        fields["sliding_window"] = config.sliding_window
    if kind.startswith("qwen"):
        windowed = config.sliding_window is not None
        layer = "sliding_attention" if windowed else "full_attention"
        fields |= {
            "use_sliding_window": windowed,
            "max_window_layers": 0 if windowed else config.num_layers,
            "layer_types": [layer] * config.num_layers,
        }
    return fields


def mapping(config: DecoderConfig, names: Collection[str] = ()) -> Mapping:
    """Where each weight stands."""
    moves = [
        Move("token_embedding.weight", (f"{PREFIX}embed_tokens.weight",)),
        Move("norm.weight", (f"{PREFIX}norm.weight",)),
    ]
    heads = {"num_heads": config.num_heads, "num_kv_heads": config.num_kv_heads, "d_head": config.d_head}
    linear = {
        "attention.output": "self_attn.o_proj",
        "feedforward.gate": "mlp.gate_proj",
        "feedforward.up": "mlp.up_proj",
        "feedforward.down": "mlp.down_proj",
    }
    norms = {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
    for layer in range(config.num_layers):
        theirs = f"{PREFIX}layers.{layer}"
        for ours, name in {**norms, **linear}.items():
            moves.append(Move(f"blocks.{layer}.{ours}.weight", (f"{theirs}.{name}.weight",)))
            if config.bias and ours in linear:
                moves.append(Move(f"blocks.{layer}.{ours}.bias", (f"{theirs}.{name}.bias",)))
        for part in ("weight", "bias") if config.qkv_bias else ("weight",):
            three = [f"{theirs}.self_attn.{x}_proj.{part}" for x in "qkv"]
            moves.append(qkv_move(f"blocks.{layer}.attention.qkv.{part}", three, **heads))
    copies: tuple[tuple[str, str], ...] = (("lm_head.weight", f"{PREFIX}embed_tokens.weight"),)
    if not config.tie_embeddings:
        moves.append(Move("head.weight", ("lm_head.weight",)))
        copies = ()
    found = Mapping(moves=tuple(moves), copies=copies, passed_over=(".rotary_emb.inv_freq",))
    unprefixed = names and f"{PREFIX}embed_tokens.weight" not in names
    return with_prefix(found, PREFIX, "") if unprefixed else found


FAMILY = Family(
    model_types=MODEL_TYPES,
    read_config=read_config,
    write_config=write_config,
    mapping=mapping,
    build=Decoder,
)
