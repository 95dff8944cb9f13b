"""The tokens that are allowed on SmolLM2's vocabulary, against outlines-core on random walks.

Where a text may end or go on, outlines-core 0.2.14 loses moves: of "a(,b)*" it allows nothing but the
end behind "a", though "a,b" matches. There its tokens are only required to be among ours. Likewise it
refuses, of "[^a]{1,9}", tokens that pass such a place and end inside a character, such as a space and
the first byte of "é".
"""

import numpy as np
import pytest

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.decoding.byte_automaton import START
from llm_from_scratch.decoding.regex_grammar import regex_grammar
from llm_from_scratch.decoding.token_automaton import TokenAutomaton, tree_of
from llm_from_scratch.interop.gguf import load_gguf

outlines_core = pytest.importorskip("outlines_core")
END = 2  # SmolLM2's <|im_end|>

# Classes are written out: \d and \w would be those of another version of Unicode there.
PATTERNS = [
    r"[0-9]{3}-[0-9]{4}", r"(yes|no|maybe)", r"[a-z]+(, [a-z]+)*", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?",
    r'\{"name":"[^"\\\x00-\x1f]{0,20}","age":(0|[1-9][0-9]?)\}', r"[^a]{1,9}", r"(é|日本|😀)+", r"a{5,}b?",
    r"[A-Z][a-z]* [A-Z][a-z]*\.", r"[0-9a-f]{8}-[0-9a-f]{4}", r"(ab|cd|abcd)*",
]  # fmt: skip


@pytest.fixture(scope="module")
def trees():
    tokenizer = load_gguf(fetch("smollm2")).tokenizer
    tree = tree_of(tokenizer)
    vocabulary = {}
    for i, token in enumerate(tree.tokens):
        if token:
            vocabulary[token] = [i]
    return tree, outlines_core.Vocabulary(END, vocabulary)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_tokens_are_allowed_as_by_outlines_core(pattern, trees):
    tree, vocabulary = trees
    index = outlines_core.Index(pattern, vocabulary)
    automaton, generator = TokenAutomaton(regex_grammar(pattern), tree), np.random.default_rng(0)
    compared = 0
    for _ in range(6):
        state, theirs = START, index.get_initial_state()
        for _ in range(8):
            allowed = np.flatnonzero(automaton.allowed(state, tokens_left=10_000))
            expected = set(index.get_allowed_tokens(theirs) or []) - {END}
            if automaton.accepts(state):  # see above
                assert set(allowed.tolist()) >= expected
                allowed = np.array(sorted(expected), dtype=int)
            else:
                more = set(allowed.tolist()) - expected
                assert expected <= set(allowed.tolist())
                assert all(tree.tokens[i].decode(errors="replace").endswith("\ufffd") for i in more)
                assert pattern == "[^a]{1,9}" or not more
            assert automaton.accepts(state) == index.is_final_state(theirs)
            compared += 1
            if not len(allowed):
                break
            token = int(generator.choice(allowed))
            state, theirs = automaton.next_state(state, token), index.get_next_state(theirs, token)
    assert compared >= 6
