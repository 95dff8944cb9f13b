"""What the adapted layers of a model are called in files of `peft`, and adapters as those files cut them.

One matrix of ours may be three layers there (queries, keys and values of Llama and BERT), or one that ours
adapts in parts (GPT-2's c_attn). An update is a sum of thin products, so it can be cut and joined exactly:
rows of B belong to rows of the matrix, and ``B1 A1 + B2 A2 = [B1 B2] [A1; A2]``.

Legend: N rows and C columns of a matrix there, r rank.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llm_from_scratch.finetuning.lora import LoraLinear, lora_layers
from llm_from_scratch.finetuning.lora_targets import Target, all_targets
from llm_from_scratch.interop.hugging_face import bert
from llm_from_scratch.interop.hugging_face.folder import family_for
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.encoder import Encoder
from llm_from_scratch.models.encoder_decoder import EncoderDecoder

BODIES = (Decoder, Encoder, EncoderDecoder)
PREFIXES = ("model.", "transformer.", "bert.")  # of the body within a model with a head


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The update of one layer there: ``scale * B A``."""

    A: Tensor  # [r, C]
    B: Tensor  # [N, r]
    scale: float
    dropout: float

    @property
    def rank(self) -> int:
        """Of the product."""
        return self.A.shape[0]


def body_of(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The Transformer of a model that may have a head of its own around it, and its name; None if unknown.

    >>> body_of(nn.Linear(3, 2)) is None
    True
    """
    found = [(part, name) for name, part in model.named_modules() if isinstance(part, BODIES)]
    return found[0] if found else None


def their_rows(model: nn.Module) -> dict[str, Target]:
    """Each layer there with the rows of ours that it is. Models of no family keep our own names.

    >>> from llm_from_scratch.models import decoder_config, encoder_config
    >>> sizes = {"vocab_size": 11, "context_length": 7, "d_model": 6, "num_layers": 1, "num_heads": 3}
    >>> rows = their_rows(Decoder(decoder_config.DecoderConfig.llama(**sizes)))
    >>> rows["model.layers.0.self_attn.k_proj"]
    Target(layer='blocks.0.attention.qkv', part='key', start=6, rows=6)
    >>> rows = their_rows(Encoder(encoder_config.EncoderConfig.bert(**sizes)))
    >>> rows["bert.encoder.layer.0.output.dense"].name
    'blocks.0.feedforward.down'
    """
    layers = all_targets(model)
    named = {(target.layer, target.start, target.rows): target for target in layers.values()}
    rows: dict[str, Target] = {}
    body = body_of(model)
    for ours, moves in _moves(body).items() if body else ():
        if ours not in layers:
            continue
        start = 0
        for theirs, count in moves:
            count = layers[ours].rows if count is None else count
            rows[theirs] = named[ours, start, count]
            start += count
    known = {target.layer for target in rows.values()}
    return rows | {name: target for name, target in layers.items() if target.layer not in known}


def _moves(body: tuple[nn.Module, str]) -> dict[str, list[tuple[str, int | None]]]:
    """Of each matrix of ours, the layers there and their rows (None: all)."""
    module, prefix = body
    try:
        family = family_for(module)
    except ValueError:
        return {}
    inside = bool(prefix) and isinstance(module, Encoder)  # then transformers gives the body a name too
    names = (f"{bert.PREFIX}embeddings.word_embeddings.weight",) if inside else ()
    found = {}
    for move in family.mapping(module.config, names).moves:
        if move.ours.endswith(".weight"):
            ours = f"{prefix}.{move.ours}".removeprefix(".").removesuffix(".weight")
            theirs = [name.removesuffix(".weight") for name in move.theirs]
            found[ours] = list(zip(theirs, move.rows or [None], strict=True))
    return found


def bare(name: str) -> str:
    """A layer's name without that of the body, which depends on the class that loads it.

    >>> bare("model.layers.0.mlp.up_proj"), bare("layers.0.mlp.up_proj")
    ('layers.0.mlp.up_proj', 'layers.0.mlp.up_proj')
    """
    found = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(found)


def stored_updates(model: nn.Module) -> dict[str, Stored]:
    """The updates of a model's adapters, by the layers there."""
    layers, found = lora_layers(model), {}
    for theirs, rows in their_rows(model).items():
        if rows.layer in layers and (stored := _cut(layers[rows.layer], rows)) is not None:
            found[theirs] = stored
    return found


def _cut(layer: LoraLinear, rows: Target) -> Stored | None:
    """What the layer's parts add to some rows, as one product; None if they add nothing."""
    stop, pieces = rows.start + rows.rows, []
    for part in layer.parts.values():
        first, last = max(part.start, rows.start), min(part.start + part.rows, stop)
        if first >= last:
            continue
        B_Nr = torch.zeros(rows.rows, part.B.shape[1], dtype=part.B.dtype)
        B_Nr[first - rows.start : last - rows.start] = part.B.detach().cpu()[
            first - part.start : last - part.start
        ]
        pieces.append((part, part.A.detach().cpu(), B_Nr))
    if not pieces:
        return None
    scale = pieces[0][0].scale  # other scales go into their B
    return Stored(
        A=torch.cat([A for _, A, _ in pieces]).contiguous(),
        B=torch.cat([B if p.scale == scale else B * (p.scale / scale) for p, _, B in pieces], dim=1),
        scale=scale,
        dropout=pieces[0][0].config.dropout,
    )


def settings_of(updates: dict[str, Stored], *, stabilised: bool) -> dict[str, object]:
    """The fields of adapter_config.json that say rank and alpha: the commonest, and the exceptions.

    peft computes ``alpha / r``, or ``alpha / sqrt(r)`` with ``use_rslora``.
    """
    alphas = {
        name: round(one.scale * (math.sqrt(one.rank) if stabilised else one.rank), 12)
        for name, one in updates.items()
    }
    (rank, alpha), _ = Counter((one.rank, alphas[name]) for name, one in updates.items()).most_common(1)[0]
    return {
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "rank_pattern": {name: one.rank for name, one in updates.items() if one.rank != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "use_rslora": stabilised,
    }


def short_names(chosen: list[str], every: list[str]) -> list[str]:
    """The shortest ends of names that mean the ``chosen`` layers of ``every`` one, and no other.

    >>> short_names(["h.0.attn.c_proj"], ["h.0.attn.c_proj", "h.0.mlp.c_proj"])
    ['attn.c_proj']
    """
    for words in (1, 2, 3):
        ends = sorted({".".join(name.split(".")[-words:]) for name in chosen})
        meant = {name for name in every for end in ends if name == end or name.endswith(f".{end}")}
        if meant == set(chosen):
            return ends
    return sorted(chosen)
