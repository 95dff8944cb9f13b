"""Rotary positions in config.json: the base, and the scaling for longer texts, read and written."""

from __future__ import annotations

import math
from typing import Any

from llm_from_scratch.interop.hugging_face.family import MAX_TOKENS
from llm_from_scratch.interop.hugging_face.json_files import Fields
from llm_from_scratch.models.decoder import DecoderConfig
from llm_from_scratch.nn.rope_scaling import KINDS, RopeScaling

TABLES = ("rope_scaling", "rope_parameters")  # the older and the newer name; either may hold everything

OWN_FIELDS = {  # of a kind, beside the factor and the original length
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "truncate"),
}


def read_rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    """The base of the rotary angles and their scaling; newer configs keep both in one table.

    Raises: ValueError for a kind of scaling that is not read here, for a field that belongs to another
    kind, and for two tables that disagree.
    """
    fields.only("partial_rotary_factor", 1.0, 1)
    base, found = fields.number("rope_theta", 10000.0), []
    for name in TABLES:
        table = fields.table(name)
        base = table.number("rope_theta", base)
        table.only("partial_rotary_factor", 1.0, 1)
        kind = table.text("rope_type", None) or table.text("type", "default")
        if table.text("type", kind) != kind:
            raise fields.wrong(name, f"asks for both {kind!r:.40} and {table.values['type']!r:.40}")
        if kind not in ("default", *KINDS):
            raise fields.wrong(name, f"asks for the kind {kind!r:.40}; read here are {', '.join(KINDS)}")
        if kind != "default":
            found.append(_read_scaling(table, kind, fields.size("max_position_embeddings", MAX_TOKENS)))
        table.check_all_read(())
    if len(set(found)) > 1:
        raise fields.wrong(TABLES[0], f"and {TABLES[1]!r} ask for different scalings: {found[0]}, {found[1]}")
    return base, found[0] if found else None


def reach(scaling: RopeScaling | None, longest: int) -> int:
    """Tokens that a caller may ask for, of a config that names ``longest``.

    Some configs name the length before scaling: Qwen2.5 with "yarn" says 32,768 and reads four times that.

    >>> reach(RopeScaling(kind="yarn", factor=4.0, original_length=32768), 32768)
    131072
    """
    if scaling is None or scaling.kind == "dynamic":
        return longest
    return min(MAX_TOKENS, max(longest, int(scaling.factor * (scaling.original_length or longest))))


def _read_scaling(table: Fields, kind: str, longest: int) -> RopeScaling:
    given: dict[str, Any] = {"kind": kind}
    if kind in OWN_FIELDS:
        given["original_length"] = table.size("original_max_position_embeddings", MAX_TOKENS, longest)
    if kind == "llama3":
        given |= {name: table.number(name) for name in OWN_FIELDS[kind]}
    if kind != "yarn":
        return _build(table, factor=table.number("factor"), **given)
    factor = table.number("factor", longest / given["original_length"])
    given |= {"beta_fast": table.number("beta_fast", 32.0), "beta_slow": table.number("beta_slow", 1.0)}
    sharper = table.number("attention_factor", None)
    parts = [table.number(name, None) for name in ("mscale", "mscale_all_dim")]
    if sharper is None and None not in parts and factor > 1.0:
        above, below = (0.1 * part * math.log(factor) + 1.0 for part in parts)
        sharper = above / below
    return _build(
        table, factor=factor, attention_factor=sharper, truncate=table.flag("truncate", True), **given
    )


def _build(table: Fields, **given: Any) -> RopeScaling:
    try:
        return RopeScaling(**given)
    except ValueError as error:
        raise ValueError(f"{table.origin}: {error}") from None


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """The fields of config.json that say how positions turn."""
    scaling = config.rope_scaling
    table: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_base}
    if scaling is not None:
        table |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind in OWN_FIELDS:
            table["original_max_position_embeddings"] = scaling.original_length
            usual = RopeScaling(
                kind=scaling.kind, factor=scaling.factor, original_length=scaling.original_length
            )
            for name in OWN_FIELDS[scaling.kind]:
                value = getattr(scaling, name)
                if scaling.kind == "llama3" or value != getattr(usual, name):  # Llama's have no defaults
                    table[name] = value
    return {"rope_parameters": table, "rope_theta": config.rope_base}
