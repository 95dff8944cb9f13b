r"""A regular expression as a grammar over bytes, with the meaning of Python's ``re.fullmatch``.

The expression is read by the parser of Python's own `re` module, so that every class, escape and
error is that of `re`, and lowered to the nodes of `decoding.grammar`. Libraries that build automata
were looked at and not taken: greenery 4.2.3 and interegular 0.3.3 (pure Python) build the complete
automaton over characters before the first use, which a bounded string of a schema makes thousands
of states large, and cannot hold a grammar that contains itself; outlines-core 0.2.14 and llguidance
1.9.1 (Rust) are the whole subject of the chapter in compiled form, and the former serves the tests as
an independent implementation.

What a finite automaton cannot do, or what has no meaning for a whole text, is refused by name:
anchors, word boundaries, look-around, back-references, atomic groups, possessive repeats, IGNORECASE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import _constants as constants
from re import _parser as parser

from llm_from_scratch.decoding.characters import (
    EVERY,
    Ranges,
    category,
    characters,
    shared,
    united,
    utf8_branch,
    without,
)
from llm_from_scratch.decoding.grammar import EMPTY, Choice, Node, Repeat, Sequence, sequence

_UNSUPPORTED = {
    "AT": "an anchor or a word boundary (^, $, \\A, \\b ...); the expression always matches the whole text",
    "ASSERT": "look-around, (?=...) or (?<=...)",
    "ASSERT_NOT": "look-around, (?!...) or (?<!...)",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group, (?>...)",
    "POSSESSIVE_REPEAT": "a possessive repeat such as *+",
}
_LINE_ENDS = characters("\n\r\u2028\u2029")
_REFUSED_FLAGS = {re.IGNORECASE: "IGNORECASE", re.LOCALE: "LOCALE"}


def regex_grammar(
    pattern: str, *, write: Callable[[Ranges], Node] = utf8_branch, around: Node | None = None
) -> Node:
    r"""Return the grammar of the texts that ``re.fullmatch(pattern, text)`` accepts.

    ``write`` turns a set of characters into a node (a JSON string writes some characters as escapes).
    ``around`` gives the expression the meaning of ``re.search`` and of JSON schemas: where it does not
    begin with ``^`` or end with ``$``, repeats of ``around`` stand there; and ``\d``, ``\w``, ``\s``
    and ``.`` then match only what both Python and JavaScript mean by them.

    Raises: ValueError for no regular expression, and for a construct that is not supported.

    >>> regex_grammar(r"(a)\1")
    Traceback (most recent call last):
    ValueError: the regular expression '(a)\\1' uses a back-reference, which a constraint cannot hold
    """
    if not isinstance(pattern, str):
        raise ValueError(f"a regular expression must be a str, got {pattern!r:.60}")
    try:
        parsed = parser.parse(pattern)
        reader = _Reader(pattern, write, strict=around is not None, flags=parsed.state.flags)
        if around is None:
            return reader.node(list(parsed))
        anything = Repeat(around, 0, None)
        return reader.searched(list(parsed), anything, anything)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern!r:.80} is not a regular expression of Python: {error}") from None
    except RecursionError:
        raise ValueError(f"the regular expression {pattern!r:.40}... is nested too deeply") from None


class _Reader:
    """Lowers what the parser of `re` returns: lists of pairs (operation, argument)."""

    def __init__(self, pattern: str, write: Callable[[Ranges], Node], *, strict: bool, flags: int):
        self.pattern, self.write, self.strict = pattern, write, strict
        self.check_flags(flags)
        self.dot_matches_all, self.ascii = bool(flags & re.DOTALL), bool(flags & re.ASCII)

    def node(self, items: list) -> Node:
        return sequence(*(self.one(str(operation), argument) for operation, argument in items))

    def one(self, operation: str, argument) -> Node:
        if operation == "BRANCH":
            return Choice(tuple(self.node(list(items)) for items in argument[1]))
        if operation == "SUBPATTERN":
            _, added, removed, items = argument
            if added or removed:
                self.refuse("flags inside a group, such as (?i:...)")
            return self.node(list(items))
        if operation in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy or not: the same texts match
            least, most, items = argument
            return Repeat(self.node(list(items)), least, None if most is constants.MAXREPEAT else most)
        if operation in _UNSUPPORTED:
            self.refuse(_UNSUPPORTED[operation])
        return self.write(shared(EVERY, self.character_set(operation, argument)))

    def character_set(self, operation: str, argument) -> Ranges:
        if operation == "LITERAL":
            return ((argument, argument),)
        if operation == "NOT_LITERAL":
            return without(EVERY, ((argument, argument),))
        if operation == "ANY":
            ends = _LINE_ENDS if self.strict else characters("\n")
            return EVERY if self.dot_matches_all else without(EVERY, ends)
        if operation == "IN":
            negated = str(argument[0][0]) == "NEGATE"
            members = united(*(self.member(str(o), a, negated) for o, a in argument[negated:]))
            return without(EVERY, members) if negated else members
        self.refuse(f"the construct {operation}")

    def member(self, operation: str, argument, negated: bool) -> Ranges:
        if operation == "RANGE":
            return (tuple(argument),)
        if operation != "CATEGORY":
            return self.character_set(operation, argument)
        name = str(argument).removeprefix("CATEGORY_")
        escape = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}.get(name.removeprefix("NOT_"))
        if escape is None:
            self.refuse(f"the class {name}")
        inverted = name.startswith("NOT_")
        members = category(escape)
        if self.strict and escape == r"\s":
            members = united(members, ((0xFEFF, 0xFEFF),))  # white space to JavaScript, not to Python
        # Strict: the members that all agree on; of an inverted class, all that anybody takes for members.
        if self.ascii or (self.strict and negated == inverted):
            narrow = characters("\t\n\v\f\r ") if escape == r"\s" else category(f"(?a:{escape})")
            members = narrow
        return without(EVERY, members) if inverted else members

    def searched(self, items: list, before: Node, behind: Node) -> Node:
        """The expression with what may stand before and behind it, nothing where an anchor says so."""
        if items and items[0] == (constants.AT, constants.AT_BEGINNING):
            items, before = items[1:], EMPTY
        if items and items[-1] == (constants.AT, constants.AT_END):
            items, behind = items[:-1], EMPTY
        if len(items) == 1 and str(items[0][0]) == "BRANCH":  # each alternative has its own anchors
            return Choice(tuple(self.searched(list(one), before, behind) for one in items[0][1][1]))
        return Sequence((before, self.node(items), behind))

    def check_flags(self, flags: int) -> None:
        for flag, name in _REFUSED_FLAGS.items():
            if flags & flag:
                self.refuse(f"the flag {name}")

    def refuse(self, what: str):
        raise ValueError(
            f"the regular expression {self.pattern!r:.80} uses {what}, which a constraint cannot hold"
        )
