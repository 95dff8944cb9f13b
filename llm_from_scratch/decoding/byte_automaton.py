"""The automaton of a grammar over bytes: from each state and byte to the next state, found when asked.

A state says what may still be written. It is a set of stacks, one for each way of reading the text so
far: on top lies the byte that comes next, below it what follows. Reading a byte keeps the stacks whose
top allows it. For a regular expression these are the states of the subset construction; for a grammar
that contains itself the stacks grow with the nesting, and so there is no deepest level.

States are numbered as they are met: 0 is the dead state, from which no text can be finished, 1 the start.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from llm_from_scratch.decoding.grammar import (
    EMPTY,
    MAX_TEXT_BYTES,
    Branch,
    Choice,
    Node,
    Reference,
    Repeat,
    Sequence,
    Shortest,
    better,
    joined,
    repeated,
    shortest_texts,
)

DEAD, START = 0, 1
UNKNOWN = -1
MAX_STATES = 100_000  # each takes about 1 kB
MAX_READINGS = 5_000  # stacks of one state


class Stack:
    """A node to match, on top of the rest; ``length`` is that of its shortest text, None without one."""

    __slots__ = ("length", "node", "rest")

    def __init__(self, node: Node, rest: Stack | None, length: int | None):
        self.node, self.rest, self.length = node, rest, length


class ByteAutomaton:
    """States and moves of a grammar.

    ``alphabet`` are the bytes that a shortest text may be made of. ``table_S256[state, byte]`` is the
    next state; UNKNOWN until ``fill(state)`` has worked out the row.

    Raises: ValueError if no text matches at all, if none within 65,536 bytes does, and, when more than
    ``max_states`` states are met or one text has more than 5,000 readings, naming the limit.

    >>> from llm_from_scratch.decoding.regex_grammar import regex_grammar
    >>> automaton = ByteAutomaton(regex_grammar("ab*"))
    >>> state = automaton.read(START, b"abb")
    >>> bool(automaton.accepting[state]), automaton.read(START, b"ba") == DEAD, automaton.shortest(START)
    (True, True, b'a')
    """

    def __init__(self, grammar: Node, *, alphabet: bytes = bytes(range(256)), max_states: int = MAX_STATES):
        self.max_states = max_states
        self._texts = shortest_texts(grammar, alphabet)
        self._texts[EMPTY] = (0, b"")
        self._repeats: dict[tuple[Node, int, int | None], Node] = {}
        self._stacks: dict[tuple[Node, Stack], Stack] = {}
        self._bottom = Stack(EMPTY, None, 0)
        length = self._texts[grammar][0]
        if length is None:
            raise ValueError("the constraint allows no text of finite length; nothing could be generated")
        if length > MAX_TEXT_BYTES:
            raise ValueError(
                f"the shortest text that the constraint allows has {length} bytes; "
                f"the limit is {MAX_TEXT_BYTES}, so ask for less"
            )
        self.table_S256 = np.full((64, 256), UNKNOWN, dtype=np.int32)
        self.table_S256[DEAD] = DEAD
        self._numbers: dict[frozenset[Stack], int] = {frozenset(): DEAD}
        self._states: list[frozenset[Stack]] = [frozenset()]
        self.accepting: list[bool] = [False]
        self.lengths: list[int] = [MAX_TEXT_BYTES + 1]  # bytes of the shortest text from each state
        self._number([self._push(grammar, self._bottom)])

    def __len__(self) -> int:
        """How many states have been met."""
        return len(self._states)

    def read(self, state: int, data: bytes) -> int:
        """Return the state behind these bytes."""
        for byte in data:
            if self.table_S256[state, byte] == UNKNOWN:
                self.fill(state)
            state = int(self.table_S256[state, byte])
        return state

    def fill(self, state: int) -> None:
        """Work out the next state for each byte."""
        row = np.zeros(256, dtype=np.int32)  # DEAD
        after: dict[int, list[Stack]] = defaultdict(list)
        for stack in self._states[state]:
            if stack is not self._bottom:
                for first_bytes, following in stack.node.arms:
                    target = self._push(following, stack.rest)
                    for byte in first_bytes:
                        after[byte].append(target)
        numbers: dict[tuple[Stack, ...], int] = {}
        for byte, stacks in after.items():
            key = tuple(stacks)
            if key not in numbers:
                numbers[key] = self._number(stacks)
            row[byte] = numbers[key]
        self.table_S256[state] = row

    def shortest(self, state: int) -> bytes:
        """Return the shortest text that finishes from a state, of several the first in byte order."""
        best: Shortest = (None, None)
        for stack in self._states[state]:
            if stack.length == self.lengths[state]:
                pieces, level = [], stack
                while level is not self._bottom:
                    pieces.append(self._text(level.node))
                    level = level.rest
                best = better(best, joined(pieces))
        return best[1] if best[1] is not None else b""

    def _number(self, stacks: list[Stack]) -> int:
        """The number of the state of these stacks, a new one if it is met for the first time."""
        ready = self._ready(stacks)
        if ready not in self._numbers:
            if len(self._states) >= self.max_states:
                raise ValueError(
                    f"the constraint needs more than max_states={self.max_states} states; "
                    "simplify it, shorten its repeats, or raise max_states"
                )
            number = self._numbers[ready] = len(self._states)
            self._states.append(ready)
            self.accepting.append(self._bottom in ready)
            self.lengths.append(min(stack.length for stack in ready))
            if number >= len(self.table_S256):
                more = np.full_like(self.table_S256, UNKNOWN)
                self.table_S256 = np.concatenate([self.table_S256, more])
        return self._numbers[ready]

    def _ready(self, stacks: list[Stack]) -> frozenset[Stack]:
        """Unfold the tops until each is a byte to read, or nothing is left."""
        work, seen, ready = list(stacks), set(), []
        while work:
            stack = work.pop()
            if stack in seen or stack.length is None or stack.length > MAX_TEXT_BYTES:
                continue  # known, or impossible to finish
            seen.add(stack)
            if len(seen) > MAX_READINGS:
                raise ValueError(
                    f"the constraint reads one text in more than {MAX_READINGS} ways; "
                    "simplify its nested repeats"
                )
            node, rest = stack.node, stack.rest
            if stack is self._bottom or isinstance(node, Branch):
                ready.append(stack)
            elif isinstance(node, Sequence):
                for part in reversed(node.nodes):
                    rest = self._push(part, rest)
                work.append(rest)
            elif isinstance(node, Choice):
                work += [self._push(part, rest) for part in node.nodes]
            elif isinstance(node, Reference):
                work.append(self._push(node.target, rest))
            else:
                work += self._repeat(node, rest)
        return frozenset(ready)

    def _repeat(self, node: Repeat, rest: Stack) -> list[Stack]:
        """A repeat is over, or begins with its node once and goes on with one repetition less."""
        over = [rest] if node.least == 0 else []
        if node.most == 0:
            return [rest] if node.least == 0 else []
        least, most = max(node.least - 1, 0), None if node.most is None else node.most - 1
        if (least, most) != (node.least, node.most):
            key = (node.node, least, most)
            if key not in self._repeats:
                self._repeats[key] = EMPTY if most == 0 else Repeat(*key)
            following = self._repeats[key]
        else:
            following = node
        return [*over, self._push(node.node, self._push(following, rest))]

    def _push(self, node: Node, rest: Stack) -> Stack:
        """The one stack object with this node on top of this rest."""
        if node is EMPTY:
            return rest
        stack = self._stacks.get((node, rest))
        if stack is None:
            length = self._text(node)[0]
            total = None if length is None or rest.length is None else length + rest.length
            stack = self._stacks[node, rest] = Stack(node, rest, total)
        return stack

    def _text(self, node: Node) -> Shortest:
        """The shortest text of a node; that of a repeat begun already follows from its part."""
        if node not in self._texts:
            return repeated(self._texts[node.node], node.least)
        return self._texts[node]
