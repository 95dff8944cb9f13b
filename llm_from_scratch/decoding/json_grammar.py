r"""The grammars of JSON's values: strings, numbers, literals, lists and maps of anything.

JSON is written compactly: no white space but at most one space behind a comma and behind a colon.

Source: RFC 8259. Narrower than it where a reader of JSON would stumble: an integer has at most 15
digits, so that double precision holds it exactly, a fraction at most 15, an exponent at most two; and a
string holds no half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

from llm_from_scratch.decoding.characters import EVERY, Ranges, shared, utf8_branch, without
from llm_from_scratch.decoding.grammar import (
    EMPTY,
    NOTHING,
    Choice,
    Node,
    Reference,
    Repeat,
    literal,
    one_of,
    optional,
    sequence,
)
from llm_from_scratch.decoding.regex_grammar import regex_grammar

LARGEST = 10**15 - 1  # of integers that no bound limits
_ESCAPED = (*((code, code) for code in range(0x20)), (0x22, 0x22), (0x5C, 0x5C))
_SHORT = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}

QUOTE = literal('"')
COMMA = sequence(literal(","), optional(literal(" ")))
COLON = sequence(literal(":"), optional(literal(" ")))
NULL, TRUE, FALSE = literal("null"), literal("true"), literal("false")
BOOLEAN = Choice((TRUE, FALSE))
NUMBER = regex_grammar(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?")
# One character of a string: as it is, as a short escape, as \uXXXX, or as two of these (a pair).
CHARACTER = Choice(
    (
        utf8_branch(without(EVERY, _ESCAPED)),
        regex_grammar(r'\\["\\/bfnrt]'),
        regex_grammar(r"\\u([0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2})"),
        regex_grammar(r"\\u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}"),
    )
)

_DAY = r"(((0[13578]|1[02])-(0[1-9]|[12]\d|3[01]))|((0[469]|11)-(0[1-9]|[12]\d|30))|(02-(0[1-9]|1\d|2[0-8])))"
_DATE = rf"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d\d\d)-{_DAY}"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_NAME = "[a-zA-Z0-9_+-]{1,20}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
FORMATS = {
    "date": _DATE,  # 29 February is left out
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": rf"{_NAME}(\.{_NAME}){{0,3}}@{_LABEL}(\.{_LABEL}){{0,3}}\.[a-z]{{2,10}}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,3}}",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
}


def string(least: int = 0, most: int | None = None) -> Node:
    """Return the JSON strings of ``least`` to ``most`` characters; an escape counts as its character."""
    return sequence(QUOTE, Repeat(CHARACTER, least, most), QUOTE)


def written_in_json(ranges: Ranges) -> Node:
    """Return the node of one character of a set, as JSON writes it in a string."""
    plain, escaped = without(ranges, _ESCAPED), shared(ranges, _ESCAPED)
    codes = [code for first, last in escaped for code in range(first, last + 1)]
    escapes = one_of(_SHORT.get(code, f"\\u{code:04x}") for code in codes)
    return Choice((utf8_branch(plain), escapes)) if plain else escapes


def string_matching(pattern: str) -> Node:
    """Return the JSON strings in which ``pattern`` is found, as by ``re.search``."""
    return sequence(QUOTE, regex_grammar(pattern, write=written_in_json, around=CHARACTER), QUOTE)


def string_of_format(name: str) -> Node:
    """Return the JSON strings of a format of `FORMATS`."""
    pattern = FORMATS[name].replace(r"\d", "[0-9]")
    return sequence(QUOTE, regex_grammar(pattern), QUOTE)


def value_text(value: Any) -> str:
    """Return the compact JSON of a value. Raises: ValueError for what JSON cannot write, such as NaN.

    >>> value_text({"a": [1, "é"]})
    '{"a":[1,"é"]}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("a string holds half a surrogate pair, which UTF-8 cannot write")
    return text


def integer(least: float = -math.inf, most: float = math.inf) -> Node:
    """Return the whole numbers from ``least`` to ``most``; without a bound they have at most 15 digits.

    >>> from llm_from_scratch.decoding.grammar import shortest_texts
    >>> node = integer(118, 1305)
    >>> shortest_texts(node)[node]
    (3, b'118')
    """
    low = math.ceil(least) if least > -math.inf else min(-LARGEST, math.floor(most) if most < math.inf else 0)
    high = math.floor(most) if most < math.inf else max(LARGEST, low)
    options = []
    if low < 0 and low <= high:
        options.append(sequence(literal("-"), _digits(max(1, -high), -low)))
    if high >= 0 and low <= high:
        options.append(_digits(max(0, low), high))
    return Choice(tuple(options)) if options else NOTHING


def number_between(least: float, most: float, *, open_below: bool, open_above: bool) -> Node:
    """Return numbers between two bounds, each itself allowed unless it is open.

    They are every whole number and, between two neighbouring whole numbers inside the bounds, the
    fractions of at most six digits that do not end in 0; those between a bound and the next whole
    number are left out.
    """
    low, high = math.ceil(max(least, -(10**9))), math.floor(min(most, 10**9))
    fraction = regex_grammar(r"\.[0-9]{0,5}[1-9]")
    options = [
        integer(next_whole(least, 1) if open_below else least, next_whole(most, -1) if open_above else most)
    ]
    if high > max(low, 0):
        options.append(sequence(_digits(max(low, 0), high - 1), fraction))
    if low < min(high, 0):
        options.append(sequence(literal("-"), _digits(max(-high, 0), -low - 1), fraction))
    found = tuple(option for option in options if option is not NOTHING)
    return Choice(found) if found else NOTHING


def next_whole(bound: float, step: int) -> float:
    """Return the first whole number strictly above (step 1) or below (step -1) a bound.

    >>> next_whole(2, 1), next_whole(2.5, 1), next_whole(2.5, -1)
    (3, 3, 2)
    """
    if bound in (math.inf, -math.inf):
        return bound
    return math.floor(bound) + 1 if step == 1 else math.ceil(bound) - 1


def _digits(low: int, high: int) -> Node:
    """The whole numbers from low to high, 0 <= low <= high, in decimal without leading zeros."""
    first, last = str(low), str(high)
    options = []
    for length in range(len(first), len(last) + 1):
        a = first if length == len(first) else "1" + "0" * (length - 1)
        b = last if length == len(last) else "9" * length
        options.append(_same_length(a, b))
    return Choice(tuple(options))


@cache
def _same_length(a: str, b: str) -> Node:
    """The numbers from a to b, written with the same number of digits."""
    if not a:
        return EMPTY
    if set(a) == {"0"} and set(b) == {"9"}:
        return Repeat(_any_of("0", "9"), len(a), len(a))
    if a[0] == b[0]:
        return sequence(literal(a[0]), _same_length(a[1:], b[1:]))
    rest = len(a) - 1
    options = [
        sequence(literal(a[0]), _same_length(a[1:], "9" * rest)),
        sequence(literal(b[0]), _same_length("0" * rest, b[1:])),
    ]
    if int(b[0]) - int(a[0]) > 1:
        middle = _any_of(str(int(a[0]) + 1), str(int(b[0]) - 1))
        options.append(sequence(middle, _same_length("0" * rest, "9" * rest)))
    return Choice(tuple(options))


def _any_of(first: str, last: str) -> Node:
    return utf8_branch(((ord(first), ord(last)),))


def array(items: list[Node], further: Node | None, least: int, most: int | None) -> Node:
    """Return lists that begin with ``items`` and go on with ``further``, of ``least`` to ``most`` elements.

    ``further`` is None where nothing may follow the ``items``.
    """
    if most is not None:
        items = items[:most]
    tail = EMPTY
    if further is not None and (most is None or most > len(items)):
        room = None if most is None else most - len(items)
        needed = max(0, least - len(items))
        if items:
            tail = Repeat(sequence(COMMA, further), needed, room)
        else:  # the first element has no comma before it
            rest = Repeat(sequence(COMMA, further), max(0, needed - 1), None if room is None else room - 1)
            some = sequence(further, rest)
            tail = some if needed else optional(some)
    elif least > len(items):
        return NOTHING
    for place in range(len(items) - 1, -1, -1):  # from the last item to the first
        here = sequence(COMMA, items[place], tail) if place else sequence(items[place], tail)
        tail = here if place < least else optional(here)
    return sequence(literal("["), tail, literal("]"))


def table(members: list[tuple[str, Node, bool]]) -> Node:
    """Return objects with these members, in this order: name, grammar of the value, whether required."""
    first = behind = EMPTY  # what may follow when no member, or some member, has been written
    for name, value, required in reversed(members):
        member = sequence(literal(value_text(name)), COLON, value)
        with_first, with_behind = sequence(member, behind), sequence(COMMA, member, behind)
        first = with_first if required else Choice((with_first, first))
        behind = with_behind if required else Choice((with_behind, behind))
    return sequence(literal("{"), first, literal("}"))


def mapping(value: Node) -> Node:
    """Return objects with members of any name, whose values are all alike."""
    member = sequence(string(), COLON, value)
    members = sequence(member, Repeat(sequence(COMMA, member), 0, None))
    return sequence(literal("{"), optional(members), literal("}"))


@cache
def anything() -> Node:
    """Return every JSON value, of any depth."""
    value = Reference()
    value.target = Choice((string(), NUMBER, BOOLEAN, NULL, array([], value, 0, None), mapping(value)))
    return value


def by_type(name: str) -> Node:
    """Return every value of one of JSON schema's seven types."""
    return {
        "string": string, "number": lambda: NUMBER, "integer": integer, "boolean": lambda: BOOLEAN,
        "null": lambda: NULL, "array": lambda: array([], anything(), 0, None),
        "object": lambda: mapping(anything()),
    }[name]()  # fmt: skip
