"""BERT: the files of `BertModel`, `BertForMaskedLM` and `BertForPreTraining`, to and from our encoder.

Which heads a file has is told by its tensors, not by its config.json.
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
from llm_from_scratch.interop.hugging_face.weights import Mapping, Move, qkv_move, with_prefix
from llm_from_scratch.models.encoder import Encoder, EncoderConfig

ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
PREFIX = "bert."


def read_config(fields: Fields, names: Collection[str], context_length: int | None) -> EncoderConfig:
    """Our config from BERT's. Raises: ValueError naming the field that does not fit."""
    fields.only("hidden_act", *ACTIVATIONS)
    fields.only("position_embedding_type", "absolute")
    for name in ("is_decoder", "add_cross_attention"):
        fields.only(name, False)
    pooler = any(name.removeprefix(PREFIX).startswith("pooler.") for name in names)
    if "cls.seq_relationship.weight" in names and not pooler:
        raise ValueError(
            f"{fields.origin}: the files hold cls.seq_relationship, which reads the pooled vector, and lack "
            "bert.pooler"
        )
    return EncoderConfig.bert(
        vocab_size=fields.size("vocab_size", MAX_VOCABULARY),
        context_length=fields.size("max_position_embeddings", MAX_VOCABULARY),
        d_model=fields.size("hidden_size", MAX_WIDTH),
        num_layers=fields.size("num_hidden_layers", MAX_LAYERS),
        num_heads=fields.size("num_attention_heads", MAX_HEADS),
        d_ff=fields.size("intermediate_size", MAX_WIDTH),
        num_segments=fields.size("type_vocab_size", MAX_VOCABULARY, 2),
        feedforward=ACTIVATIONS[fields.text("hidden_act", "gelu")],
        norm_eps=fields.number("layer_norm_eps", 1e-12),
        pooler=pooler,
        masked_language_head=any(name.startswith("cls.predictions.") for name in names),
        next_sentence_head="cls.seq_relationship.weight" in names,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
    )


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """BERT's config from ours."""
    if config.norm_first:
        raise ValueError("norm_first=True has no field in BERT's config: its norms come after the sums")
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "model_type": "bert",
        "architectures": [_architecture(config)],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "type_vocab_size": config.num_segments,
        "hidden_act": activations[config.feedforward],
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": 0,
    }


def _architecture(config: EncoderConfig) -> str:
    heads = (config.pooler, config.masked_language_head, config.next_sentence_head)
    known = {
        (True, True, True): "BertForPreTraining",
        (False, True, False): "BertForMaskedLM",
        (True, False, True): "BertForNextSentencePrediction",
        (True, False, False): "BertModel",
        (False, False, False): "BertModel",
    }
    if heads not in known:
        raise ValueError(
            "transformers has no BERT with pooler=True, masked_language_head=True, next_sentence_head=False; "
            "leave the pooler out, or add the next-sentence head"
        )
    return known[heads]


def mapping(config: EncoderConfig, names: Collection[str] = ()) -> Mapping:
    """Where each weight stands. `BertModel` alone has no prefix; old files call norms' parts otherwise."""
    theirs = f"{PREFIX}embeddings"
    moves = [
        Move("token_embedding.weight", (f"{theirs}.word_embeddings.weight",)),
        Move("position_embedding.weight", (f"{theirs}.position_embeddings.weight",)),
        Move("segment_embedding.weight", (f"{theirs}.token_type_embeddings.weight",)),
        *_pair("embedding_norm", f"{theirs}.LayerNorm"),
    ]
    modules = {
        "attention.output": "attention.output.dense",
        "norm_1": "attention.output.LayerNorm",
        "feedforward.up": "intermediate.dense",
        "feedforward.down": "output.dense",
        "norm_2": "output.LayerNorm",
    }
    heads = {
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_heads,
        "d_head": config.d_model // config.num_heads,
    }
    for i in range(config.num_layers):
        layer = f"{PREFIX}encoder.layer.{i}"
        for ours, name in modules.items():
            moves += _pair(f"blocks.{i}.{ours}", f"{layer}.{name}")
        for part in ("weight", "bias"):
            three = [f"{layer}.attention.self.{x}.{part}" for x in ("query", "key", "value")]
            moves.append(qkv_move(f"blocks.{i}.attention.qkv.{part}", three, **heads))
    copies, unread = [], []
    if config.pooler:
        moves += _pair("pooler.linear", f"{PREFIX}pooler.dense")
    if config.next_sentence_head:
        moves += _pair("next_sentence_head", "cls.seq_relationship")
    if config.masked_language_head:
        moves += _pair("masked_language_head.linear", "cls.predictions.transform.dense")
        moves += _pair("masked_language_head.norm", "cls.predictions.transform.LayerNorm")
        bias, copy = "cls.predictions.bias", "cls.predictions.decoder.bias"
        if config.tie_embeddings:
            copies += [(copy, bias), ("cls.predictions.decoder.weight", f"{theirs}.word_embeddings.weight")]
        else:  # transformers then keeps two biases, and adds the decoder's
            bias, copy = copy, bias
            unread.append((copy, bias))
            moves.append(Move("masked_language_head.output.weight", ("cls.predictions.decoder.weight",)))
        moves.append(Move("masked_language_head.bias", (bias,)))
    found = Mapping(
        moves=tuple(moves),
        copies=tuple(copies),
        unread=tuple(unread),
        passed_over=("embeddings.position_ids",),
    )
    bare = _architecture_is_bare(config) if not names else f"{theirs}.word_embeddings.weight" not in names
    return with_prefix(found, PREFIX, "") if bare else found


def _architecture_is_bare(config: EncoderConfig) -> bool:
    return not (config.masked_language_head or config.next_sentence_head)


def _pair(ours: str, theirs: str) -> list[Move]:
    return [Move(f"{ours}.{part}", (f"{theirs}.{part}",)) for part in ("weight", "bias")]


def rename_old(name: str) -> str:
    """The present name of a tensor of a file from before 2019.

    >>> rename_old("bert.embeddings.LayerNorm.gamma")
    'bert.embeddings.LayerNorm.weight'
    """
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


FAMILY = Family(
    model_types=("bert",),
    read_config=read_config,
    write_config=write_config,
    mapping=mapping,
    build=Encoder,
)
