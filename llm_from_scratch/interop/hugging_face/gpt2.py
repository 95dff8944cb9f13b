"""GPT-2: learned positions, layer norms, one matrix for queries, keys and values, as in our decoder.

Its linear layers are stored [in, out], where torch's are [out, in].
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llm_from_scratch.interop.hugging_face.family import (
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Family,
)
from llm_from_scratch.interop.hugging_face.json_files import Fields
from llm_from_scratch.interop.hugging_face.weights import Mapping, Move, with_prefix
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}
PREFIX = "transformer."


def read_config(fields: Fields, names: Collection[str], context_length: int | None) -> DecoderConfig:
    """Our config from GPT-2's. Raises: ValueError naming the field that does not fit."""
    fields.only("activation_function", *ACTIVATIONS)
    fields.only("scale_attn_weights", True)
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention", "reorder_and_upcast_attn"):
        fields.only(name, False)
    d_model = fields.size("n_embd", MAX_WIDTH)
    return DecoderConfig.gpt2(
        vocab_size=fields.size("vocab_size", MAX_VOCABULARY),
        context_length=fields.size("n_positions", MAX_VOCABULARY),
        d_model=d_model,
        num_layers=fields.size("n_layer", MAX_LAYERS),
        num_heads=fields.size("n_head", MAX_HEADS),
        d_ff=fields.size("n_inner", MAX_WIDTH, 4 * d_model),
        feedforward=ACTIVATIONS[fields.text("activation_function", "gelu_new")],
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """GPT-2's config from ours, for `Decoder`s whose choices are GPT-2's."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_ff,
        "activation_function": "gelu" if config.feedforward == "gelu_exact" else "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def mapping(config: DecoderConfig, names: Collection[str] = ()) -> Mapping:
    """Where each weight stands. The first published files lack the prefix "transformer."."""
    moves = [
        Move("token_embedding.weight", (f"{PREFIX}wte.weight",)),
        Move("position_embedding.weight", (f"{PREFIX}wpe.weight",)),
        Move("norm.weight", (f"{PREFIX}ln_f.weight",)),
        Move("norm.bias", (f"{PREFIX}ln_f.bias",)),
    ]
    modules = {
        "norm_1": "ln_1",
        "norm_2": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.output": "attn.c_proj",
        "feedforward.up": "mlp.c_fc",
        "feedforward.down": "mlp.c_proj",
    }
    for layer in range(config.num_layers):
        for ours, theirs in modules.items():
            for kind in ("weight", "bias"):
                turned = kind == "weight" and not ours.startswith("norm")
                name = f"{PREFIX}h.{layer}.{theirs}.{kind}"
                moves.append(Move(f"blocks.{layer}.{ours}.{kind}", (name,), transpose=turned))
    copies: tuple[tuple[str, str], ...] = (("lm_head.weight", f"{PREFIX}wte.weight"),)
    if not config.tie_embeddings:
        moves.append(Move("head.weight", ("lm_head.weight",)))
        copies = ()
    found = Mapping(moves=tuple(moves), copies=copies, passed_over=(".attn.bias", ".attn.masked_bias"))
    return found if not names or f"{PREFIX}wte.weight" in names else with_prefix(found, PREFIX, "")


FAMILY = Family(
    model_types=("gpt2",),
    read_config=read_config,
    write_config=write_config,
    mapping=mapping,
    build=Decoder,
)
