"""The field ``response_format``: an answer that is JSON, JSON of a schema, or a match of a pattern."""

from __future__ import annotations

from typing import Any

from llm_from_scratch.decoding.pipeline import LogitFunction
from llm_from_scratch.serving.fields import text, wrong
from llm_from_scratch.serving.served_model import ServedModel

NAME = "response_format"
KINDS = ("text", "json_object", "json_schema", "regex")


def format_steps(
    served: ServedModel, response_format: dict[str, Any] | None, *, prompt_length: int, max_new_tokens: int
) -> list[LogitFunction]:
    """The step that holds an answer to its format; none for free text.

    One step serves all answers to a prompt. The answer is whole after ``max_new_tokens`` at the latest.
    Raises: ApiError 400 for a format that is none, that the decoder does not support, or that needs more
    tokens.
    """
    asked = _as_constraint(response_format or {"type": "text"})
    if not asked:
        return []
    from llm_from_scratch.decoding.constrained import constrain

    try:
        step = constrain(
            served.loaded.tokenizer,
            **asked,
            prompt_length=prompt_length,
            max_new_tokens=max_new_tokens,
            stop_ids=served.stop_ids,
        )
    except (ValueError, RecursionError) as error:
        reason = "nests too deep" if isinstance(error, RecursionError) else f"cannot be kept to: {error}"
        raise wrong(NAME, reason) from None
    return [step]


def _as_constraint(asked: dict[str, Any]) -> dict[str, Any]:
    """What `constrain` is to be given; nothing for free text."""
    kind = asked.get("type")
    if kind not in KINDS:
        raise wrong(f"{NAME}.type", f"must be one of {', '.join(KINDS)}")
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    if kind == "regex":
        return {"regex": text(f"{NAME}.regex", asked.get("regex"))}
    if kind == "json_schema":
        inner = asked.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if not isinstance(schema, (dict, bool)):
            raise wrong(f"{NAME}.json_schema", "must be an object whose field schema is a JSON schema")
        return {"json_schema": schema}
    return {}
