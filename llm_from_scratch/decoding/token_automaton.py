"""Which tokens a constraint allows: the vocabulary's bytes walked through the automaton of a grammar.

A token is allowed in a state if its bytes lead to a state from which a text can still be finished, in
the tokens that are left. All tokens are walked at once: the vocabulary is a tree of byte strings, and
level by level one look-up in the automaton's table moves every node of the tree. What a state allows
is kept, so that the next visit costs one look-up more. Source: Willard and Louf 2023, "Efficient guided
generation for large language models", which walks each token alone, and ahead of time.

Legend: V vocabulary entries, N nodes of the tree, S states, U different states that tokens lead to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llm_from_scratch.decoding.byte_automaton import DEAD, MAX_STATES, START, UNKNOWN, ByteAutomaton
from llm_from_scratch.decoding.grammar import Node

NEVER = 1 << 30  # tokens: more than any budget
MAX_KEPT = 512  # states whose tokens are kept, about 100 kB each at 49,152 entries


class VocabularyTree:
    """The byte strings of a vocabulary as a tree, the same for every constraint.

    ``tokens[i]`` are the bytes of token i, None (or empty) for a special token, which no text contains.

    >>> tree = VocabularyTree([b"a", b"ab", None])
    >>> len(tree), tree.alphabet, tree.fewest_tokens(b"aba"), tree.fewest_tokens(b"b")
    (3, b'a', 2, 1073741824)
    """

    def __init__(self, tokens: Sequence[bytes | None]):
        self.tokens = list(tokens)
        self.alphabet = bytes(sorted({token[0] for token in self.tokens if token and len(token) == 1}))
        levels: list[list[tuple[int, int, bytes]]] = [[(0, 0, b"")]]  # node's parent, last byte, text
        numbers, total = {b"": 0}, 1
        self._is_token = {token for token in self.tokens if token}
        texts = {token[:end] for token in self._is_token for end in range(1, len(token) + 1)}
        for text in sorted(texts, key=lambda text: (len(text), text)):
            if len(text) == len(levels):
                levels.append([])
            levels[len(text)].append((numbers[text[:-1]], text[-1], text))
            numbers[text], total = total, total + 1
        flat = [node for level in levels for node in level]
        self.parent_N = np.array([parent for parent, _, _ in flat])
        self.byte_N = np.array([byte for _, byte, _ in flat])
        ends = np.cumsum([len(level) for level in levels])
        self.levels = [slice(a, b) for a, b in pairwise(ends.tolist())]
        self.node_V = np.array([numbers[token] if token else -1 for token in self.tokens])
        self._prefixes = texts
        self._fewest: dict[bytes, int] = {b"": 0}

    def __len__(self) -> int:
        """How many tokens the vocabulary has."""
        return len(self.tokens)

    def fewest_tokens(self, text: bytes) -> int:
        """Return the least number of tokens that spell ``text``; NEVER if none do."""
        if text in self._fewest:
            return self._fewest[text]
        fewest = [NEVER] * len(text) + [0]  # of the text from each place on
        for start in range(len(text) - 1, -1, -1):
            for end in range(start + 1, len(text) + 1):
                piece = text[start:end]
                if piece not in self._prefixes:
                    break
                if piece in self._is_token:
                    fewest[start] = min(fewest[start], 1 + fewest[end])
        if len(self._fewest) > 10_000:
            self._fewest = {b"": 0}
        self._fewest[text] = fewest[0]
        return fewest[0]


@dataclass(slots=True)
class _Moves:
    """Where the tokens lead from one state: ``states_U`` are the states, ``where_V`` picks one of them.

    ``bytes_U`` are the bytes of the shortest text from each, ``tokens_U`` its tokens (-1: not yet known).
    """

    states_U: np.ndarray
    where_V: np.ndarray
    bytes_U: np.ndarray
    tokens_U: np.ndarray


class TokenAutomaton:
    """The automaton of a grammar over the tokens of a vocabulary.

    Every byte of the shortest way to finish must be a token of its own, as in byte-level byte-pair
    encoding; a state that can be finished only with other bytes counts as dead.

    Raises: ValueError as `ByteAutomaton` does.

    >>> from llm_from_scratch.decoding.regex_grammar import regex_grammar
    >>> tree = VocabularyTree([b"a", b"b", b"ab", b"bb", None])
    >>> automaton = TokenAutomaton(regex_grammar("a*bb"), tree)
    >>> automaton.allowed(START, tokens_left=9).tolist()
    [True, True, True, True, False]
    >>> automaton.allowed(START, tokens_left=1).tolist()
    [False, False, False, True, False]
    """

    def __init__(self, grammar: Node, tree: VocabularyTree, *, max_states: int = MAX_STATES):
        self.tree = tree
        self.bytes = ByteAutomaton(grammar, alphabet=tree.alphabet, max_states=max_states)
        self._moves: OrderedDict[int, _Moves] = OrderedDict()

    def fewest_tokens(self, state: int = START) -> int:
        """Return how many tokens suffice to finish from ``state``: the fewest that spell its shortest text.

        A longer text may now and then need fewer tokens; it is then not looked for.
        """
        if state == DEAD:
            return NEVER
        return self.tree.fewest_tokens(self.bytes.shortest(state))

    def accepts(self, state: int) -> bool:
        """Whether the text may end here."""
        return self.bytes.accepting[state]

    def next_state(self, state: int, token: int) -> int:
        """Return the state behind a token; DEAD for a special token and one that is not allowed."""
        data = self.tree.tokens[token] if 0 <= token < len(self.tree) else None
        return self.bytes.read(state, data) if data else DEAD

    def allowed(self, state: int, *, tokens_left: int) -> np.ndarray:
        """Return a bool for each token: may it come next, with ``tokens_left`` left, itself included.

        True exactly if the text can then be finished in the tokens that remain after it, by the count of
        `fewest_tokens`. End-of-text is not among them: ask `accepts`.
        """
        moves = self._moves_from(state)
        after = tokens_left - 1
        allowed_U = moves.bytes_U <= after  # as many tokens as bytes always suffice
        unsure = np.flatnonzero(~allowed_U & (moves.states_U != DEAD))
        if after >= 0:
            for place in unsure:
                if moves.tokens_U[place] < 0:
                    moves.tokens_U[place] = self.fewest_tokens(int(moves.states_U[place]))
                allowed_U[place] = moves.tokens_U[place] <= after
        return allowed_U[moves.where_V]

    def _moves_from(self, state: int) -> _Moves:
        if state in self._moves:
            self._moves.move_to_end(state)
            return self._moves[state]
        next_V = self._walk(state)
        states_U, where_V = np.unique(next_V, return_inverse=True)
        lengths = [NEVER if s == DEAD else self.bytes.lengths[s] for s in states_U.tolist()]
        moves = _Moves(states_U, where_V.astype(np.int32), np.array(lengths), np.full(len(states_U), -1))
        self._moves[state] = moves
        if len(self._moves) > MAX_KEPT:
            self._moves.popitem(last=False)
        return moves

    def _walk(self, state: int) -> np.ndarray:
        """The state behind each token, by one pass over the levels of the tree."""
        tree, automaton = self.tree, self.bytes
        state_N = np.zeros(len(tree.parent_N) + 1, dtype=np.int32)  # the last place: no token, DEAD
        state_N[0] = state
        for level in tree.levels:
            before_N, byte_N = state_N[tree.parent_N[level]], tree.byte_N[level]
            after_N = automaton.table_S256[before_N, byte_N]
            missing_N = after_N == UNKNOWN
            if missing_N.any():
                for unknown in np.unique(before_N[missing_N]):
                    automaton.fill(int(unknown))
                after_N = automaton.table_S256[before_N, byte_N]
            state_N[level] = after_N
        return state_N[tree.node_V]


def tree_of(tokenizer) -> VocabularyTree:
    """Return the tree of a byte-level tokenizer's tokens, made once for each tokenizer.

    Raises: ValueError for a tokenizer whose tokens are not byte strings (it needs ``decode_bytes`` and
    ``special_ids``), such as one of whole characters.
    """
    tree = getattr(tokenizer, "_vocabulary_tree", None)
    if tree is None:
        if not hasattr(tokenizer, "decode_bytes") or not hasattr(tokenizer, "special_ids"):
            raise ValueError(
                f"a constraint needs a byte-level tokenizer such as BytePairTokenizer, got {tokenizer!r:.80}"
            )
        special: Iterable[int] = set(tokenizer.special_ids.values())
        tree = VocabularyTree(
            [None if i in special else tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        )
        tokenizer._vocabulary_tree = tree
    return tree
