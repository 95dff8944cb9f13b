"""Regular expressions as automata, against Python's own `re` and against enumeration of every text."""

import itertools
import re
import string
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.decoding.byte_automaton import DEAD, START, ByteAutomaton
from llm_from_scratch.decoding.characters import EVERY, category, shared, united, utf8_branch, without
from llm_from_scratch.decoding.regex_grammar import regex_grammar
from llm_from_scratch.decoding.token_automaton import NEVER, TokenAutomaton, VocabularyTree

PATTERNS = [
    "",
    "a",
    "ab|cd|",
    "a*",
    "(ab)+c?",
    "a{2,3}",
    "a{2,}?",
    "(a|b)*abb",
    "[^a]",
    "[a-cé-ü]+",
    ".",
    ".*é",
    r"\d{3}",
    r"\w+\s\W",
    r"[^\d\s]",
    r"[^\D]",
    "日本|日",
    "[一-龥]{2}",
    "😀?a",
    "[^\\x00-\\uffff]",
    "(?s).",
    "(?a)\\w",
    "(a?){3}",
    "((a*)*)*b",
    "(a|aa)+",
    r"\x41\u00e9\n",
    "(?x) a b # comment",
    "(?:a|(?P<n>b))c",
    r"-?(0|[1-9]\d*)",
]
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "abb",
    "aabb",
    "cd",
    "ababc",
    "abab",
    "aa",
    "aaa",
    "aaaa",
    "é",
    "ü",
    "è",
    "日",
    "日本",
    "漢字",
    "😀a",
    "😀",
    "\n",
    "_",
    "x y",
    "é !",
    "a -",
    "123",
    "١٢٣",
    "12",
    "7",
    "-0",
    "-12",
    "012",
    "Aé\n",
    "bc",
    "ac",
    "\u2028",
    "b" * 3,
    "\x00",
    "\U0010ffff",
    "\ud7ff",
    "\ue000",
]


def accepts(automaton: ByteAutomaton, data: bytes) -> bool:
    return automaton.accepting[automaton.read(START, data)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_texts_match_as_by_fullmatch(pattern):
    automaton = ByteAutomaton(regex_grammar(pattern))
    for text in TEXTS:
        expected = re.fullmatch(pattern, text) is not None
        assert accepts(automaton, text.encode()) == expected, (pattern, text)


regexes = st.recursive(
    st.sampled_from(["a", "b", "é", ".", "[^a]", "[bé]", r"\w", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(regexes)
def test_every_short_text_matches_as_by_fullmatch(pattern):
    automaton = ByteAutomaton(regex_grammar(pattern))
    for length in range(4):
        for letters in itertools.product("abé\n", repeat=length):
            text = "".join(letters)
            expected = re.fullmatch(pattern, text) is not None
            assert accepts(automaton, text.encode()) == expected, (pattern, text)


# The vocabulary spells every byte of "é" (C3 A9), has tokens over its middle, and one special token.
TOKENS = [b"a", b"b", b"\xc3", b"\xa9", b"ab", b"a\xc3", b"\xa9b", b"aa", None]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["a{0,3}", "(?:ab|é){1,2}", "a?é?b?", "(?:aé|b){2}", "(?:a|aa)b?", "é{2}|aab", "[abé]{0,3}"]
    ),
    st.lists(st.sampled_from(range(8)), max_size=3),
)
def test_a_token_is_allowed_exactly_if_some_continuation_matches(pattern, walk):
    # All these patterns match texts of at most six bytes over a, b and é: list them.
    words = {
        text.encode()
        for length in range(7)
        for text in map("".join, itertools.product("abé", repeat=length))
        if re.fullmatch(pattern, text)
    }
    automaton = TokenAutomaton(regex_grammar(pattern), VocabularyTree(TOKENS))
    state, written = START, b""
    for token in [None, *walk]:
        if token is not None:
            state, written = automaton.next_state(state, token), written + TOKENS[token]
        beginnings = [word for word in words if word.startswith(written)]
        assert (state != DEAD) == bool(beginnings)
        assert automaton.accepts(state) == (written in words)
        if state == DEAD:
            return
        allowed = automaton.allowed(state, tokens_left=9)
        expected = [t is not None and any(w.startswith(written + t) for w in beginnings) for t in TOKENS]
        assert allowed.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(regexes, st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_a_walk_over_allowed_tokens_always_ends_within_its_budget(pattern, seed, spare):
    tree = VocabularyTree([*TOKENS, *(bytes([b]) for b in range(256) if bytes([b]) not in TOKENS)])
    automaton, generator = TokenAutomaton(regex_grammar(pattern), tree), np.random.default_rng(seed)
    left, state, written = automaton.fewest_tokens() + spare, START, b""
    while left > 0:
        choices = np.flatnonzero(automaton.allowed(state, tokens_left=left))
        if len(choices) == 0 or (automaton.accepts(state) and generator.random() < 0.2):
            break
        token = int(generator.choice(choices))
        written, state, left = written + tree.tokens[token], automaton.next_state(state, token), left - 1
    assert automaton.accepts(state)
    assert re.fullmatch(pattern, written.decode())


def test_the_fewest_tokens_are_those_of_the_shortest_text():
    tree = VocabularyTree(TOKENS)
    assert TokenAutomaton(regex_grammar("aabb|aaabé"), tree).fewest_tokens() == 3  # aa b b, or a ab b
    assert tree.fewest_tokens("aé".encode()) == 2
    assert tree.fewest_tokens(b"z") == NEVER


def test_a_text_that_needs_a_byte_without_a_token_is_refused():
    with pytest.raises(ValueError, match="no text of finite length"):
        TokenAutomaton(regex_grammar("az"), VocabularyTree(TOKENS))
    assert TokenAutomaton(regex_grammar("az|ab"), VocabularyTree(TOKENS)).fewest_tokens() == 1


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("^a", "anchor"),
        ("a$", "anchor"),
        (r"\ba", "word boundary"),
        (r"a\Z", "anchor"),
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-reference"),
        ("(?i)a", "IGNORECASE"),
        ("(?i:a)", "inside a group"),
        ("a*+", "possessive"),
        ("(?>a)", "atomic"),
        ("(a)?(?(1)b|c)", "conditional"),
        ("(", "not a regular"),
        ("[z-a]", "not a regular"),
        ("a{99999999999}", "not a regular"),
        ("(" * 5000 + ")" * 5000, "nested"),
    ],
)
def test_what_is_not_supported_is_named(pattern, named):
    with pytest.raises(ValueError, match=named):
        regex_grammar(pattern)


@pytest.mark.parametrize(
    "pattern", ["(a|b)*a(a|b){30}c", "((a*)*)*b", "(a?){200}b", "(a|a)*b", ".{0,1000000000}x"]
)
def test_patterns_that_are_catastrophic_elsewhere_take_few_states(pattern):
    automaton = ByteAutomaton(regex_grammar(pattern))
    automaton.read(START, b"a" * 50)
    assert len(automaton) < 2000


def test_limits_are_named():
    with pytest.raises(ValueError, match="max_states=50"):
        ByteAutomaton(regex_grammar("(a|b)*a(a|b){30}"), max_states=50).read(START, b"abbabaabbbabaaba" * 4)
    with pytest.raises(ValueError, match="more than 5000 ways"):
        ByteAutomaton(regex_grammar("((a|b?){0,3000}(b|a?){0,3000}){0,9}c"))
    with pytest.raises(ValueError, match="1000000 bytes"):
        ByteAutomaton(regex_grammar("a{1000000}"))


def test_every_character_is_read_by_the_branch_of_its_set_alone():
    for ranges in (category(r"\w"), category(r"\d"), ((0x7F, 0x800),), ((0xFFFF, 0x10000),), EVERY):
        automaton = ByteAutomaton(utf8_branch(ranges))
        inside = {code for first, last in shared(EVERY, ranges) for code in range(first, last + 1)}
        for code in [*range(0, 0x900), *range(0xD000, 0x10100), *range(0x10000, 0x110000, 997), 0x10FFFF]:
            if not 0xD800 <= code <= 0xDFFF:
                assert accepts(automaton, chr(code).encode()) == (code in inside)
        assert automaton.read(START, b"\xed\xa0\x80") == DEAD  # half a surrogate pair


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda p: (p[0], sum(p)))),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda p: (p[0], sum(p)))),
)
def test_sets_of_characters_are_sets(one, other):
    def plain(ranges):
        return {code for first, last in ranges for code in range(first, last + 1)}

    assert plain(united(one, other)) == plain(one) | plain(other)
    assert plain(without(united(one), united(other))) == plain(one) - plain(other)


def test_categories_are_those_of_re():
    for escape in (r"\d", r"\w", r"\s"):
        inside = {code for first, last in category(escape) for code in range(first, last + 1)}
        expected = set(map(ord, re.findall(escape, "".join(map(chr, range(sys.maxunicode + 1))))))
        assert inside == expected
    assert set(string.printable) >= {chr(first) for first, _ in category(r"(?a:\d)")}
