r"""A JSON schema as a grammar over bytes.

Supported: ``type`` (one or a list), ``enum``, ``const``, ``properties``, ``required``,
``additionalProperties``, ``items``, ``prefixItems``, ``minItems``, ``maxItems``, ``minLength``,
``maxLength``, ``pattern``, ``format``, ``minimum``, ``maximum``, ``exclusiveMinimum``,
``exclusiveMaximum``, ``anyOf``, ``oneOf``, ``allOf``, ``$ref`` to a place in the same schema, and
schemas that contain themselves, to any depth. What the schema's author writes for people (``title``,
``description``, ``default``, ``examples`` ...) is passed over. Every other keyword is refused by name.

What is generated is always valid, but not every valid value is generated:

- members come in the order of ``properties``; beside named properties no others are written;
- a schema without ``type`` has the type that its other keywords speak of, or any if they speak of none;
- ``oneOf`` needs branches that cannot both hold: of other types, or with other values of a ``const`` or
  ``enum``, their own or that of a required property. Otherwise it is refused;
- ``allOf``, and keywords beside ``anyOf``, ``oneOf`` and ``$ref``, are merged where no keyword is set twice
  to other values;
- numbers with bounds are those of `json_grammar.number_between`; ``pattern`` has the meaning on which
  Python and JavaScript agree.

Source: JSON Schema 2020-12, https://json-schema.org/draft/2020-12.
"""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import unquote

from llm_from_scratch.decoding import json_grammar as grammar
from llm_from_scratch.decoding.grammar import NOTHING, Choice, Node, Reference, literal
from llm_from_scratch.decoding.json_alternatives import Schema, cannot_both_hold, has_type, merge

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
KEYWORDS_OF = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
FOR_PEOPLE = {
    "title", "description", "default", "examples", "$comment", "$schema", "$id", "deprecated", "readOnly",
    "writeOnly", "$defs", "definitions",
}  # fmt: skip
COMBINING = {"anyOf", "oneOf", "allOf", "$ref"}
SUPPORTED = {"type", "enum", "const", *COMBINING, *(k for names in KEYWORDS_OF.values() for k in names)}
MAX_DEPTH = 64  # of schemas within schemas as they are written


def schema_grammar(schema: Schema | str) -> Node:
    """Return the grammar of the JSON texts that ``schema`` (a dictionary, True, or JSON text) allows.

    Raises: ValueError that names the keyword and its place, as in ``#/properties/age/minimum``.

    >>> schema_grammar({"properties": {"age": {"multipleOf": 2}}})
    Traceback (most recent call last):
    ValueError: #/properties/age: the keyword 'multipleOf' is not supported by constrained decoding
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the schema is not JSON: {error}") from None
    return _Compiler(schema).node(schema, "#", 0)


class _Compiler:
    """Turns each schema inside ``root`` into a node; ``place`` is its JSON pointer, for messages."""

    def __init__(self, root: Schema):
        self.root = root
        self.references: dict[str, Reference] = {}

    def node(self, schema: Schema, place: str, depth: int) -> Node:
        if schema is True or schema == {}:
            return grammar.anything()
        if schema is False:
            return NOTHING
        if not isinstance(schema, dict):
            raise ValueError(f"{place}: a schema must be an object or a boolean, got {schema!r:.60}")
        if depth > MAX_DEPTH:
            raise ValueError(f"{place[:200]}: schemas are nested deeper than {MAX_DEPTH}, or never end")
        for keyword in schema:
            if keyword not in SUPPORTED and keyword not in FOR_PEOPLE:
                raise ValueError(f"{place}: the keyword {keyword!r} is not supported by constrained decoding")
        combining = [keyword for keyword in schema if keyword in COMBINING]
        if combining:
            return self.combined(schema, combining[0], place, depth)
        if "const" in schema or "enum" in schema:
            return self.listed(schema, place)
        options = [self.of_type(name, schema, place, depth) for name in self.types(schema, place)]
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def types(self, schema: dict, place: str) -> list[str]:
        """The types of the values of a schema without combining keywords."""
        named = schema.get("type")
        if named is None:
            spoken_of = [name for name, words in KEYWORDS_OF.items() if any(w in schema for w in words)]
            return spoken_of or [name for name in TYPES if name != "integer"]
        names = named if isinstance(named, list) else [named]
        for name in names:
            if name not in TYPES:
                raise ValueError(f"{place}/type: {name!r:.60} is no type; the types are {', '.join(TYPES)}")
        if not names:
            raise ValueError(f"{place}/type: the list of types is empty, so no value is allowed")
        return [name for name in dict.fromkeys(names) if name != "integer" or "number" not in names]

    def of_type(self, name: str, schema: dict, place: str, depth: int) -> Node:
        if name == "object":
            return self.object(schema, place, depth)
        if name == "array":
            return self.array(schema, place, depth)
        if name == "string":
            return self.string(schema, place)
        if name in ("integer", "number"):
            return self.number(name, schema, place)
        return grammar.by_type(name)

    def object(self, schema: dict, place: str, depth: int) -> Node:
        properties = _dictionary(schema, "properties", place)
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise ValueError(f"{place}/required: must be a list of names, got {required!r:.60}")
        further = schema.get("additionalProperties", True)
        unnamed = [name for name in dict.fromkeys(required) if name not in properties]
        if not properties and not unnamed:
            if further is False:
                return literal("{}")
            return grammar.mapping(self.node(further, f"{place}/additionalProperties", depth + 1))
        members = []
        for name, part in {**properties, **dict.fromkeys(unnamed, further)}.items():
            where = (
                f"{place}/additionalProperties" if name in unnamed else f"{place}/properties/{_escaped(name)}"
            )
            try:
                grammar.value_text(name)
            except ValueError as error:
                raise ValueError(f"{where!a}: {error}") from None
            members.append((name, self.node(part, where, depth + 1), name in required))
        if properties and isinstance(further, dict):
            self.node(further, f"{place}/additionalProperties", depth + 1)  # not written, but checked
        return grammar.table(members)

    def array(self, schema: dict, place: str, depth: int) -> Node:
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise ValueError(f"{place}/prefixItems: must be a list of schemas, got {first!r:.60}")
        items = [self.node(part, f"{place}/prefixItems/{i}", depth + 1) for i, part in enumerate(first)]
        further = schema.get("items", True)
        if isinstance(further, list):
            raise ValueError(f"{place}/items: a list of schemas is called prefixItems since 2020-12")
        rest = None if further is False else self.node(further, f"{place}/items", depth + 1)
        return grammar.array(items, rest, *_limits(schema, "minItems", "maxItems", place))

    def string(self, schema: dict, place: str) -> Node:
        least, most = _limits(schema, "minLength", "maxLength", place)
        forms = [name for name in ("pattern", "format") if name in schema]
        if forms and (len(forms) == 2 or least > 0 or most is not None):
            others = [k for k in ("format", "minLength", "maxLength") if k in schema and k != forms[0]]
            raise ValueError(
                f"{place}/{forms[0]}: beside {' and '.join(others)} it is not supported; "
                "write the length into a pattern, as in ^[a-z]{2,5}$"
            )
        if "pattern" in schema:
            try:
                return grammar.string_matching(schema["pattern"])
            except ValueError as error:
                raise ValueError(f"{place}/pattern: {error}") from None
        if "format" in schema:
            if schema["format"] not in grammar.FORMATS:
                known = ", ".join(grammar.FORMATS)
                raise ValueError(f"{place}/format: {schema['format']!r:.60} is not supported; known: {known}")
            return grammar.string_of_format(schema["format"])
        return grammar.string(least, most)

    def number(self, name: str, schema: dict, place: str) -> Node:
        bounds = {"minimum": -math.inf, "exclusiveMinimum": -math.inf}
        bounds |= {"maximum": math.inf, "exclusiveMaximum": math.inf}
        for keyword in bounds.keys() & schema.keys():
            value = bounds[keyword] = schema[keyword]
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 10**300:
                raise ValueError(f"{place}/{keyword}: must be a number up to 10**300, got {value!r:.60}")
        if not bounds.keys() & schema.keys():
            return grammar.by_type(name)
        open_below = bounds["exclusiveMinimum"] >= bounds["minimum"]
        open_above = bounds["exclusiveMaximum"] <= bounds["maximum"]
        low = max(bounds["minimum"], bounds["exclusiveMinimum"])
        high = min(bounds["maximum"], bounds["exclusiveMaximum"])
        if name == "integer":
            low = grammar.next_whole(low, 1) if open_below else low
            node = grammar.integer(low, grammar.next_whole(high, -1) if open_above else high)
        else:
            node = grammar.number_between(low, high, open_below=open_below, open_above=open_above)
        if node is NOTHING:
            raise ValueError(f"{place}: no whole number lies within the bounds of this {name}")
        return node

    def listed(self, schema: dict, place: str) -> Node:
        """The values of const or enum that the type allows."""
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else schema["enum"]
        if not isinstance(values, list) or not values:
            raise ValueError(f"{place}/enum: must be a list of at least one value, got {values!r:.60}")
        others = set(schema) & SUPPORTED - {"type", keyword}
        if others:
            raise ValueError(f"{place}/{keyword}: beside {min(others)!r} it is not supported; leave that out")
        types = self.types(schema, place) if "type" in schema else TYPES
        kept = [value for value in values if any(has_type(value, name) for name in types)]
        if not kept:
            raise ValueError(f"{place}/{keyword}: no value has the type {schema['type']!r:.60}")
        try:
            return Choice(tuple(literal(grammar.value_text(value)) for value in kept))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{place}/{keyword}: {error}") from None

    def combined(self, schema: dict, keyword: str, place: str, depth: int) -> Node:
        """One of $ref, anyOf, oneOf and allOf, merged with what stands beside it."""
        where = f"{place}/{keyword}"
        base = {k: v for k, v in schema.items() if k != keyword and k not in FOR_PEOPLE}
        if keyword == "$ref":
            if not base:
                return self.reference(schema["$ref"], where, depth)
            return self.node(merge(base, self.target(schema["$ref"], where), where), place, depth + 1)
        branches = schema[keyword]
        if not isinstance(branches, list) or not branches:
            raise ValueError(f"{where}: must be a list of at least one schema, got {branches!r:.60}")
        if keyword == "allOf":
            for number, branch in enumerate(branches):
                base = merge(base, branch, f"{where}/{number}")
            return self.node(base, place, depth + 1)
        resolved = [self.resolved(branch, where) for branch in branches]
        if keyword == "oneOf":
            for i in range(len(resolved)):
                for j in range(i):
                    if not cannot_both_hold(merge(base, resolved[i], where), merge(base, resolved[j], where)):
                        raise ValueError(
                            f"{where}: a value could satisfy both branch {j} and branch {i}; give a required "
                            "property of each another const, or use anyOf"
                        )
        chosen = [
            merge(base, part, f"{where}/{i}") if base else branches[i] for i, part in enumerate(resolved)
        ]
        return Choice(tuple(self.node(part, f"{where}/{i}", depth + 1) for i, part in enumerate(chosen)))

    def resolved(self, schema: Schema, place: str) -> Schema:
        """The schema itself, or what it refers to if it is nothing but a reference."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict) or set(schema) - FOR_PEOPLE != {"$ref"}:
                return schema
            schema = self.target(schema["$ref"], place)
        raise ValueError(f"{place}: references lead to references more than {MAX_DEPTH} times")

    def reference(self, name: str, place: str, depth: int) -> Node:
        """The node of a $ref, the same each time, so that a schema may contain itself."""
        target = self.target(name, place)
        if name not in self.references:
            self.references[name] = node = Reference()
            node.target = self.node(target, name, 0)
        return self.references[name]

    def target(self, name: Any, place: str) -> Schema:
        if not isinstance(name, str) or not (name == "#" or name.startswith("#/")):
            raise ValueError(
                f"{place}: only references inside the schema (#/...) are supported, got {name!r:.80}"
            )
        found = self.root
        for step in name.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise ValueError(f"{place}: the schema has no place {name!r:.80}")
        return found


def _limits(schema: dict, least: str, most: str, place: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    for keyword, value in ((least, low), (most, high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"{place}/{keyword}: must be a whole number of at least 0, got {value!r:.60}")
    if high is not None and low > high:
        raise ValueError(f"{place}: {least}={low} is more than {most}={high}, so no value is allowed")
    return low, high


def _dictionary(schema: dict, keyword: str, place: str) -> dict:
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise ValueError(f"{place}/{keyword}: must be an object of schemas, got {value!r:.60}")
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
