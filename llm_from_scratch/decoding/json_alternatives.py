"""Two JSON schemas at once: their merger, and whether a value could satisfy both.

For `json_schema`, which needs the first for ``allOf`` and the second for ``oneOf``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any] | bool


def has_type(value: Any, name: str) -> bool:
    """Whether a value is of one of JSON schema's types; 1.0 is an integer, True is no number.

    >>> has_type(1.0, "integer"), has_type(True, "integer")
    (True, False)
    """
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, int | float):
        return name == "number" or (name == "integer" and float(value).is_integer())
    kinds = {"object": dict, "array": list, "string": str, "null": type(None)}
    return name in kinds and isinstance(value, kinds[name])


def merge(one: Schema, other: Schema, place: str) -> Schema:
    """Return the schema that holds where both do.

    Properties are merged one by one and required names united; any other keyword may stand in both only
    with the same value. Raises: ValueError naming the keyword that differs.

    >>> merge({"type": "string", "minLength": 1}, {"type": "string", "maxLength": 5}, "#")
    {'type': 'string', 'minLength': 1, 'maxLength': 5}
    """
    if one is False or other is False:
        return False
    if one is True or other is True:
        return other if one is True else one
    if not isinstance(one, dict) or not isinstance(other, dict):
        raise ValueError(f"{place}: a schema must be an object or a boolean, got {other!r:.60}")
    closed = [a for a, b in ((one, other), (other, one)) if _closed(a) and _speaks_of_members(b)]
    if closed:
        raise ValueError(
            f"{place}: additionalProperties cannot be merged with the properties beside it; list all the "
            "properties in one schema"
        )
    merged = dict(one)
    for keyword, value in other.items():
        if keyword not in merged or _same(merged[keyword], value):
            merged[keyword] = value
        elif keyword == "required" and isinstance(value, list) and isinstance(merged[keyword], list):
            merged[keyword] = list(dict.fromkeys(merged[keyword] + value))
        elif keyword == "properties" and isinstance(value, dict) and isinstance(merged[keyword], dict):
            both = dict(merged[keyword])
            for name, part in value.items():
                both[name] = merge(both[name], part, f"{place}/properties/{name}") if name in both else part
            merged[keyword] = both
        elif keyword not in ("title", "description", "default", "examples", "$comment", "$defs", "$id"):
            raise ValueError(
                f"{place}: {keyword!r} is set twice, to {merged[keyword]!r:.60} and {value!r:.60}"
            )
    return merged


def _closed(schema: dict) -> bool:
    return schema.get("additionalProperties", True) is not True


def _speaks_of_members(schema: dict) -> bool:
    return any(keyword in schema for keyword in ("properties", "required", "additionalProperties"))


def cannot_both_hold(one: Schema, other: Schema) -> bool:
    """Whether it is certain that no value satisfies both schemas. False means: not seen to be so.

    >>> cannot_both_hold({"type": "string"}, {"type": ["integer", "null"]})
    True
    >>> cannot_both_hold({"type": "integer"}, {"type": "number"})
    False
    """
    if one is False or other is False:
        return True
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    first, second = _values(one), _values(other)
    if first is not None and second is not None:
        return not any(_same(a, b) for a in first for b in second)
    if first is not None or second is not None:
        values, types = (first, _types(other)) if first is not None else (second, _types(one))
        if types is not None and not any(has_type(value, name) for value in values for name in types):
            return True
    else:
        types, others = _types(one), _types(other)
        if types is not None and others is not None and not _overlap(types, others):
            return True
    if _types(one) != ["object"] or _types(other) != ["object"]:
        return False
    parts, other_parts = one.get("properties", {}), other.get("properties", {})
    needed = set(one.get("required", [])) & set(other.get("required", []))
    return any(
        cannot_both_hold(parts[name], other_parts[name])
        for name in needed
        if name in parts and name in other_parts
    )


def _values(schema: dict) -> list | None:
    """The values that const or enum leave, None without these."""
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _types(schema: dict) -> list[str] | None:
    named = schema.get("type")
    return [named] if isinstance(named, str) else named if isinstance(named, list) else None


def _overlap(types: list[str], others: list[str]) -> bool:
    numeric = {"integer", "number"}
    return bool(set(types) & set(others)) or bool(numeric & set(types) and numeric & set(others))


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: True is not 1, but 1.0 is."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
