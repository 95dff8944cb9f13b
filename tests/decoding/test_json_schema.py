"""JSON schemas as grammars: against the jsonschema library, on random walks and on given texts."""

import json
from collections.abc import Iterator

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.decoding.byte_automaton import START, ByteAutomaton
from llm_from_scratch.decoding.json_schema import schema_grammar
from llm_from_scratch.decoding.token_automaton import TokenAutomaton, VocabularyTree

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
BYTES = VocabularyTree([bytes([byte]) for byte in range(256)])
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


def walks(schema, *, count: int, budget: int = 60) -> Iterator[str]:
    """Texts of a uniformly random choice among the allowed bytes, at most ``budget`` beyond the fewest."""
    automaton, generator = TokenAutomaton(schema_grammar(schema), BYTES), np.random.default_rng(0)
    for _ in range(count):
        left, state, written = automaton.fewest_tokens() + budget, START, []
        while left:
            choices = np.flatnonzero(automaton.allowed(state, tokens_left=left))
            if not len(choices) or (automaton.accepts(state) and generator.random() < 0.3):
                break
            # Half the time structure, so that walks do not spend themselves on one long string.
            printable = [byte for byte in choices if byte in b'"{}[],:-0123456789tfn']
            pool = printable if printable and generator.random() < 0.5 else choices
            written.append(int(generator.choice(pool)))
            state, left = automaton.next_state(state, written[-1]), left - 1
        assert automaton.accepts(state)
        yield bytes(written).decode()


def allows(schema, text: str) -> bool:
    automaton = ByteAutomaton(schema_grammar(schema))
    return automaton.accepting[automaton.read(START, text.encode())]


SCHEMAS = [
    True,
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": ["string", "null", "boolean"], "maxLength": 3},
    {"type": "integer", "minimum": -7, "maximum": 1305},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
    {"type": "integer", "maximum": -3},
    {"type": "integer", "minimum": 10**17},
    {"type": "number", "minimum": -1.5, "maximum": 12.25},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "exclusiveMaximum": -2},
    {"type": "number"},
    {"enum": ['a"b', "é", 1, None, {"x": [1.5]}]},
    {"type": "string", "enum": ["red", "green", 3]},
    {"const": "</script>"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False, "minItems": 1},
    {"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "maxItems": 3},
    {"type": "array", "maxItems": 0},
    {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
    {"type": "object", "additionalProperties": False},
    {"type": "object", "required": ["a"], "additionalProperties": {"type": "null"}},
    {"properties": {"a": {"type": "null"}, "b": {"const": 1}, "c": {"const": 2}}, "required": ["b"]},
    {
        "properties": {"a": {"const": 0}, "b": {"const": 1}, "c": {"const": 2}},
        "additionalProperties": {"type": "null"},
    },
    {
        "properties": {'q"uote': {"const": 1}, "日本\n": {"const": 2}, "<b>": {"const": 3}},
        "required": ["<b>"],
    },
    {"type": "string", "pattern": "^[a-z]{2,5}$"},
    {"type": "string", "pattern": "b+"},
    {"type": "string", "pattern": r"^\d\D\w\W\s\S.[^\d][^\s]$"},
    {"type": "string", "pattern": '^["\\\\\\n]+$|^x'},
    {"type": "string", "pattern": "^a|b$"},
    {"type": "string", "pattern": "^(a|b)$|^c"},
    {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string", "maxLength": 1}]},
    {
        "oneOf": [
            {"type": "integer"},
            {"type": "string"},
            {"type": "object", "properties": {"a": {"type": "null"}}},
        ]
    },
    {
        "type": "object",
        "oneOf": [
            {"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
            {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ],
    },
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}},
            {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}, "required": ["a"]},
        ]
    },
    TREE,
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "array", "items": {"$ref": "#"}}}, "maxItems": 2},
    {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    },
    *(
        {"type": "string", "format": name}
        for name in ("date", "time", "date-time", "uuid", "email", "ipv4", "hostname")
    ),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_every_walk_gives_json_that_the_schema_accepts(schema):
    validator = jsonschema.Draft202012Validator(schema, format_checker=CHECKER)
    texts = set()
    for text in walks(schema, count=40):
        validator.validate(json.loads(text))
        texts.add(text)
    assert texts


@pytest.mark.parametrize(
    ("schema", "text", "allowed"),
    [
        ({"type": "string"}, '"\\ud83d\\ude00 \\u00e9 \\" \\/ é 😀"', True),
        ({"type": "string"}, '"\\ud83d"', False),
        ({"type": "string"}, '"\\ud83d\\u0041"', False),
        ({"type": "string"}, '"\n"', False),
        ({"type": "string", "maxLength": 1}, '"\\ud83d\\ude00"', True),
        ({"type": "string", "maxLength": 1}, '"😀"', True),
        ({"type": "string", "minLength": 2}, '"😀"', False),
        ({"type": "integer"}, "-0", False),
        ({"type": "integer"}, "01", False),
        ({"type": "integer"}, "1.0", False),
        ({"type": "number"}, "-1.5e-07", True),
        ({"type": "number"}, "1.", False),
        (True, '{"a": [1, {"b":null}], "":""}', True),
        (True, '{"a" :1}', False),
        (True, "[1,]", False),
        (True, "[1,  2]", False),
        (True, "NaN", False),
        (TREE, '{"value":1,"children":[{"value":2},{"value":3,"children":[]}]}', True),
        (TREE, '{"children":[]}', False),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, "{}", True),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, '{"b":2}', True),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, '{"a":1, "b": 2}', True),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, '{"b":2,"a":1}', False),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, '{,"b":2}', False),
        ({"type": "string", "format": "date"}, '"2024-02-30"', False),
        ({"type": "string", "format": "ipv4"}, '"255.0.10.199"', True),
    ],
)
def test_given_texts(schema, text, allowed):
    assert allows(schema, text) == allowed


@pytest.mark.parametrize("kind", ["integer", "number"])
@settings(max_examples=60, deadline=None)
@given(st.integers(-1200, 1200), st.integers(0, 1500))
def test_whole_numbers_within_bounds_and_no_others(kind, least, width):
    automaton = ByteAutomaton(schema_grammar({"type": kind, "minimum": least, "maximum": least + width}))
    for number in {
        *range(least - 12, least + 13),
        *range(least + width - 12, least + width + 13),
        0,
        5,
        -99,
        1000,
    }:
        accepted = automaton.accepting[automaton.read(START, str(number).encode())]
        assert accepted == (least <= number <= least + width)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.text(max_size=5).filter(lambda t: t.isprintable()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('abé"<\n', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def describing(value):
    """A schema that a value satisfies."""
    if isinstance(value, dict):
        parts = {name: describing(part) for name, part in value.items()}
        return {
            "type": "object",
            "properties": parts,
            "required": list(parts)[::2],
            "additionalProperties": False,
        }
    if isinstance(value, list):
        parts = [describing(part) for part in value]
        if not parts:
            return {"type": "array", "maxItems": 0}
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "items": False}
    if isinstance(value, str):
        return {"type": "string", "minLength": max(0, len(value) - 1), "maxLength": len(value) + 1}
    if isinstance(value, bool) or value is None:
        return {"enum": [value, "other"]}
    return {"type": "integer", "minimum": value - 3, "maximum": value + 20}


@settings(max_examples=60, deadline=None)
@given(values)
def test_the_value_that_a_schema_describes_is_allowed_and_what_is_drawn_is_valid(value):
    schema = describing(value)
    assert allows(schema, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    assert allows(schema, json.dumps(value, ensure_ascii=False))  # with spaces
    assert allows(True, json.dumps(value))  # with escapes
    for text in walks(schema, count=2):
        jsonschema.validate(json.loads(text), schema)


@settings(max_examples=60, deadline=None)
@given(values, values)
def test_what_is_allowed_is_valid(described, value):
    schema = describing(described)
    valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    if allows(schema, json.dumps(value)):
        assert valid


HOSTILE = [
    (
        {"type": "object", "properties": {"age": {"type": "integer", "multipleOf": 3}}},
        "#/properties/age.*multipleOf",
    ),
    ({"not": {"type": "null"}}, "'not'"),
    ({"type": "array", "items": {"if": {}, "then": {}}}, "#/items.*'if'"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"properties": {"a/b": {"patternProperties": {}}}}, "#/properties/a~1b.*patternProperties"),
    ({"additionalProperties": {"contains": {}}, "properties": {"a": {}}}, "additionalProperties.*contains"),
    ({"enum": []}, "at least one value"),
    ({"anyOf": []}, "at least one schema"),
    ({"type": []}, "list of types is empty"),
    ({"type": "strnig"}, "'strnig' is no type"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "within the bounds"),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "within the bounds"),
    ({"type": "number", "minimum": 0.2, "maximum": 0.5}, "within the bounds"),
    ({"type": "integer", "minimum": "3"}, "must be a number"),
    ({"type": "integer", "minimum": 10**400}, "must be a number up to"),
    ({"type": "integer", "minimum": float("nan")}, "must be a number"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength=3 is more than maxLength=2"),
    ({"type": "string", "minLength": -1}, "at least 0"),
    ({"type": "string", "minLength": 10**9}, "1000000002 bytes"),
    ({"type": "string", "pattern": "("}, "#/pattern"),
    ({"type": "string", "pattern": "(?=a)"}, "#/pattern.*look-around"),
    ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "#/pattern: beside maxLength"),
    ({"type": "string", "format": "uri"}, "#/format: 'uri'"),
    ({"$ref": "#"}, "no text of finite length"),
    ({"$ref": "other.json"}, "only references inside"),
    ({"$ref": "#/nowhere"}, "no place"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "finite length",
    ),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no text of finite length"),
    ({"$ref": "#", "type": "object"}, "deeper than 64|never end"),
    ({"type": "string", "enum": [1, 2]}, "no value has the type"),
    ({"enum": [1, 2], "minimum": 2}, "beside 'minimum'"),
    ({"const": float("inf")}, "#/const"),
    ({"const": "\ud800"}, "surrogate"),
    ({"properties": {"\ud800": {}}}, "surrogate"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "both branch 0 and branch 1"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "'type' is set twice"),
    (
        {"allOf": [{"properties": {"a": {}}, "additionalProperties": False}, {"required": ["b"]}]},
        "additionalProp",
    ),
    ({"items": [{}]}, "prefixItems"),
    ({"type": "array", "prefixItems": [True], "items": False, "minItems": 2}, "no text of finite length"),
    (False, "no text of finite length"),
    (3, "an object or a boolean"),
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ({"required": "a"}, "list of names"),
    ({"properties": []}, "object of schemas"),
]


@pytest.mark.parametrize(("schema", "named"), HOSTILE, ids=[named[:40] for _, named in HOSTILE])
def test_what_cannot_be_held_is_an_error_that_says_so(schema, named):
    with pytest.raises(ValueError, match=named):
        TokenAutomaton(schema_grammar(schema), BYTES)


def test_deep_schemas_are_refused_and_huge_limits_cost_nothing():
    schema: dict = {"type": "null"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ValueError, match="deeper than 64"):
        schema_grammar(schema)
    huge = {"type": "array", "maxItems": 10**9, "items": {"type": "string", "maxLength": 10**9}}
    automaton = ByteAutomaton(schema_grammar(huge))
    automaton.read(START, ('["' + "é" * 100 + '","').encode())
    assert len(automaton) < 1000
