r"""Grammars over bytes: the common form of what a regular expression and a JSON schema allow.

Five kinds of node are enough:

- ``Branch``: one byte, and what follows it by which byte it was. A Unicode character is a branch whose
  arms lead to branches of its further bytes.
- ``Sequence``: one node after the other; the empty sequence is the empty text.
- ``Choice``: one of several nodes.
- ``Repeat``: a node between ``least`` and ``most`` times (None: any number of times).
- ``Reference``: another node by name, set later, so that a grammar may contain itself.

A number of repetitions is kept as a number and never written out, so that "at most 10**9 characters"
takes as little memory as "at most 9".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_TEXT_BYTES = 1 << 16  # a text whose shortest form is longer counts as one that cannot be finished


@dataclass(frozen=True, eq=False, slots=True)
class Branch:
    """One byte: each arm is a set of first bytes, given as a bytes object, and the node that follows."""

    arms: tuple[tuple[bytes, Node], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Sequence:
    """Nodes one after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """One of several nodes; none at all matches nothing."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Repeat:
    """A node ``least`` to ``most`` times (None: without limit)."""

    node: Node
    least: int
    most: int | None


@dataclass(eq=False, slots=True)
class Reference:
    """A node that is set after it has been used."""

    target: Node | None = field(default=None, repr=False)


Node: TypeAlias = Branch | Sequence | Choice | Repeat | Reference
EMPTY = Sequence(())
NOTHING = Choice(())


def literal(text: str | bytes) -> Node:
    """Return the node that matches this text only."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return Sequence(tuple(Branch(((bytes([byte]), EMPTY),)) for byte in data))


def one_of(texts: Iterable[str]) -> Node:
    """Return the node that matches any of the texts."""
    return Choice(tuple(literal(text) for text in texts))


def sequence(*nodes: Node) -> Node:
    """Return the nodes one after the other, as a single node."""
    return nodes[0] if len(nodes) == 1 else Sequence(nodes)


def optional(node: Node) -> Node:
    """Return the node that matches what ``node`` does, or nothing."""
    return Repeat(node, 0, 1)


# A length in bytes and the text itself; the length is None where there is no text, the text is None
# where it is longer than MAX_TEXT_BYTES.
Shortest: TypeAlias = tuple[int | None, bytes | None]
_NONE: Shortest = (None, None)


def better(one: Shortest, other: Shortest) -> Shortest:
    """Return the shorter of two texts, the first in byte order if both are as long.

    >>> better((2, b"zz"), (2, b"aa")), better((None, None), (1, b"z"))
    ((2, b'aa'), (1, b'z'))
    """
    if one[0] is None or (other[0] is not None and other[0] < one[0]):
        return other
    if other[0] == one[0] and other[1] is not None and one[1] is not None and other[1] < one[1]:
        return other
    return one


def joined(parts: Iterable[Shortest]) -> Shortest:
    """Return the shortest text of nodes one after the other, from the shortest text of each."""
    length, words = 0, []
    for part_length, word in parts:
        if part_length is None:
            return _NONE
        length += part_length
        words.append(word)
    return length, (b"".join(words) if length <= MAX_TEXT_BYTES else None)


def repeated(part: Shortest, times: int) -> Shortest:
    """Return the shortest text of a node ``times`` over."""
    length, word = part
    if times == 0 or length == 0:
        return 0, b""
    if length is None:
        return _NONE
    return length * times, (word * times if length * times <= MAX_TEXT_BYTES else None)


def shortest_texts(start: Node, alphabet: bytes = bytes(range(256))) -> dict[Node, Shortest]:
    """Return the shortest text of each node that ``start`` leads to, made of bytes of ``alphabet``.

    Of several texts of the same length it is the first in byte order. So whatever follows a beginning
    of that text is in turn the shortest text of what is left to write: a plan that stays true.

    A grammar that contains itself is solved by repetition: every node begins without a text, and takes
    the best text that its parts have by now, until nothing changes.

    >>> nested = Reference()
    >>> nested.target = Choice((sequence(literal("("), nested, literal(")")), literal("x")))
    >>> shortest_texts(sequence(literal("("), nested))[nested]
    (1, b'x')
    """
    order, found, allowed = list(_parts_first(start)), {}, frozenset(alphabet)
    changed = True
    while changed:
        changed = False
        for node in order:
            new = better(found.get(node, _NONE), _shortest(node, found, allowed))
            if new != found.get(node):
                found[node], changed = new, changed or new[0] is not None
    return found


def _shortest(node: Node, found: dict[Node, Shortest], allowed: frozenset[int]) -> Shortest:
    """The shortest text of one node, from what is known of its parts."""
    if isinstance(node, Sequence):
        return joined(found.get(part, _NONE) for part in node.nodes)
    if isinstance(node, Repeat):
        return repeated(found.get(node.node, _NONE), node.least)
    if isinstance(node, Reference):
        return found.get(node.target, _NONE)
    options = []
    if isinstance(node, Choice):
        options = [found.get(part, _NONE) for part in node.nodes]
    else:
        for first_bytes, following in node.arms:
            usable = [byte for byte in first_bytes if byte in allowed]
            if usable:
                options.append(joined([(1, bytes([min(usable)])), found.get(following, _NONE)]))
    best = _NONE
    for option in options:
        best = better(best, option)
    return best


def parts(node: Node) -> tuple[Node, ...]:
    """Return the nodes that a node is made of."""
    if isinstance(node, Branch):
        return tuple(following for _, following in node.arms)
    if isinstance(node, Repeat):
        return (node.node,)
    if isinstance(node, Reference):
        if node.target is None:
            raise ValueError("a Reference of the grammar was never given its target")
        return (node.target,)
    return node.nodes


def _parts_first(start: Node) -> Iterator[Node]:
    """Every node that ``start`` leads to, its parts before it as far as there is no circle."""
    seen, stack = {start}, [(start, iter(parts(start)))]
    while stack:
        node, remaining = stack[-1]
        for part in remaining:
            if part not in seen:
                seen.add(part)
                stack.append((part, iter(parts(part))))
                break
        else:
            stack.pop()
            yield node
