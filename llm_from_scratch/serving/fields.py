"""The fields of a request's JSON body, with their types and ranges, as the OpenAI API has them.

Source: OpenAI's API reference, "Create completion" and "Create chat completion". ``top_k``, ``min_p`` and the
response format ``regex`` are additions, which clients send as extra fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from llm_from_scratch.serving.errors import ApiError

Rule = Callable[[str, Any], Any]  # name and value -> the value to use; raises ApiError

# Fields of the API that change nothing here, and may be sent.
IGNORED = frozenset(
    [
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "parallel_tool_calls", "reasoning_effort", "verbosity",
    ]
)  # fmt: skip
# Fields that ask for what there is not here: refused, unless the value asks for nothing.
UNSUPPORTED = {
    "tools": [], "functions": [], "tool_choice": "none", "function_call": "none", "audio": None,
    "prediction": None, "web_search_options": None, "suffix": None, "best_of": 1, "modalities": ["text"],
}  # fmt: skip


def wrong(name: str, message: str, code: str | None = None) -> ApiError:
    """The answer to a field that cannot be."""
    return ApiError(400, f"{name} {message}", param=name, code=code)


def text(name: str, value: Any) -> str:
    """A text that UTF-8 can write."""
    if not isinstance(value, str):
        raise wrong(name, f"must be a string, got {_shown(value)}")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise wrong(name, "holds half of a UTF-16 pair, which is no character")
    return value


def boolean(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(name, f"must be true or false, got {_shown(value)}")
    return value


def whole(least: int, most: int) -> Rule:
    """A rule for whole numbers from ``least`` to ``most``."""

    def rule(name: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise wrong(name, f"must be a whole number from {least} to {most}, got {_shown(value)}")
        return value

    return rule


def number(least: float, most: float) -> Rule:
    """A rule for numbers from ``least`` to ``most``."""

    def rule(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not least <= value <= most:
            raise wrong(name, f"must be a number from {least} to {most}, got {_shown(value)}")
        return value

    return rule


def prompts(name: str, value: Any) -> list[str | list[int]]:
    """A text, several, a list of token ids, or several: returned as several."""
    several = value if isinstance(value, list) and value and type(value[0]) is not int else [value]
    for one in several:
        if isinstance(one, str):
            text(name, one)
        elif not (isinstance(one, list) and one and all(type(i) is int for i in one)):
            raise wrong(name, f"must be a string, token ids, or a list of these, got {_shown(one)}")
    return several


def stops(name: str, value: Any) -> list[str]:
    """A text, or up to four."""
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or len(several) > 4 or "" in several:
        raise wrong(name, f"must be a non-empty string, or a list of up to 4, got {_shown(value)}")
    return [text(name, one) for one in several]


def messages(name: str, value: Any) -> list[dict[str, Any]]:
    """A non-empty list of objects; `prompts.plain_messages` looks into them."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise wrong(name, f"must be a non-empty list of objects with role and content, got {_shown(value)}")
    return value


def token_numbers(name: str, value: Any) -> dict[int, float]:
    """Numbers from -100 to 100 by token id, which JSON can only write as texts."""
    if not isinstance(value, dict) or not all(key.isdecimal() and len(key) < 10 for key in value):
        raise wrong(name, f"must be an object from token ids to numbers, got {_shown(value)}")
    bias = number(-100, 100)
    return {int(key): bias(f"{name}.{key}", one) for key, one in value.items()}


def one_object(name: str, value: Any) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(name, f"must be an object, got {_shown(value)}")
    return value


COMMON: dict[str, Rule] = {
    "model": text,
    "max_tokens": whole(0, 10**9),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": whole(-1, 10**9),  # -1 and 0: off
    "min_p": number(0, 1),
    "n": whole(1, 128),
    "stop": stops,
    "stream": boolean,
    "stream_options": one_object,
    "seed": whole(-(2**63), 2**63 - 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "logit_bias": token_numbers,
    "response_format": one_object,
}
COMPLETION = {**COMMON, "prompt": prompts, "echo": boolean, "logprobs": whole(0, 5)}
CHAT = {
    **COMMON,
    "messages": messages,
    "max_completion_tokens": whole(1, 10**9),
    "logprobs": boolean,
    "top_logprobs": whole(0, 20),
}


def read_fields(rules: dict[str, Rule], body: bytes) -> dict[str, Any]:
    """Return the fields of a JSON body that have a value. Raises: ApiError 400 that names the field.

    >>> read_fields(COMPLETION, b'{"model": "tiny", "prompt": "Hello", "seed": null}')
    {'model': 'tiny', 'prompt': ['Hello']}
    >>> read_fields(COMPLETION, b'{"model": "tiny", "temperature": 9}')
    Traceback (most recent call last):
    llm_from_scratch.serving.errors.ApiError: temperature must be a number from 0 to 2, got 9
    """
    fields = _parse(body)
    for name, value in fields.items():
        if name in UNSUPPORTED and value not in (None, UNSUPPORTED[name]):
            raise ApiError(400, f"{name} is not supported by this server; leave it out", param=name)
        if name not in rules and name not in IGNORED and name not in UNSUPPORTED:
            shown = name.encode("utf-8", "replace").decode()[:100]
            raise ApiError(400, f"Unrecognized request argument supplied: {shown}", param=shown)
    found = {
        name: rules[name](name, value)
        for name, value in fields.items()
        if name in rules and value is not None
    }
    if "model" not in found:
        raise ApiError(400, "you must provide a model parameter", param="model")
    if "stream_options" in found and not found.get("stream"):
        raise wrong("stream_options", "needs stream to be true")
    return found


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, and endless digits
        reason = "it nests too deep" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the body is no JSON: {reason[:200]}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, f"the body must be a JSON object, got {_shown(fields)}")
    return fields


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _shown(value: Any) -> str:
    """A value in an error, cut to one line."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number too large"
    shown = json.dumps(value) if value is None or isinstance(value, (str, bool, int, float)) else None
    return shown[:80] if shown is not None else {list: "a list", dict: "an object"}[type(value)]
