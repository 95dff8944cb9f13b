"""Beam search on a table in place of a model: what the beam tree draws.

The rules are those of `llm_from_scratch.decoding.beam_search`; a test holds the two equal. A widget takes
arrays and strings, never models, so it has its own search, which is short because the table is sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Table = dict[tuple[int, ...], tuple[list[int], list[float]]]


@dataclass(frozen=True)
class Node:
    """One candidate: its parent's number, its token, its step, the sum so far in nats, and its fate."""

    parent: int | None
    token: int | None
    step: int
    total: float
    state: str  # "kept", "ended" or "dropped"


@dataclass(frozen=True)
class Finished:
    """A text that ended: all its new tokens, its node, its log-probability in nats, and its score."""

    ids: tuple[int, ...]
    node: int
    total: float
    score: float


def replay(
    table: Table,
    *,
    max_new_tokens: int,
    num_beams: int,
    stop_ids: frozenset[int] = frozenset(),
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
) -> tuple[list[Node], list[Finished]]:
    """Run beam search on the table; return the tree and the finished texts, best first.

    Raises: ValueError if the table lacks a text that the search continues.

    >>> table = {(): ([1, 2], [-0.5, -0.9]), (1,): ([3, 4], [-0.7, -0.7]), (2,): ([3], [-0.1])}
    >>> [one.ids for one in replay(table, max_new_tokens=2, num_beams=2)[1]]
    [(2, 3), (1, 3)]
    """
    nodes = [Node(None, None, 0, 0.0, "kept")]
    beams: list[tuple[tuple[int, ...], int]] = [((), 0)]
    finished: list[Finished] = []
    width = num_beams * max(2, 1 + len(stop_ids))
    for step in range(1, max_new_tokens + 1):
        candidates = []
        for order, (ids, parent) in enumerate(beams):
            if ids not in table:
                raise ValueError(f"the table lacks the text {ids}, which {num_beams} beams continue")
            for token, log_probability in zip(*table[ids], strict=True):
                total = nodes[parent].total + log_probability
                candidates.append((-total, order, token, total, parent, (*ids, token)))
        beams = []
        for rank, (_, _, token, total, parent, ids) in enumerate(sorted(candidates)[:width]):
            state = "dropped"
            if token in stop_ids or step == max_new_tokens:
                if rank < num_beams:
                    state = "ended"
                    finished.append(Finished(ids, len(nodes), total, total / step**length_penalty))
            elif len(beams) < num_beams:
                state = "kept"
                beams.append((ids, len(nodes)))
            nodes.append(Node(parent, token, step, total, state))
        finished = sorted(finished, key=lambda one: -one.score)[:num_beams]
        if not beams:
            break
        if len(finished) == num_beams:
            length = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step
            bound = nodes[beams[0][1]].total / length**length_penalty
            if early_stopping is True or bound <= finished[-1].score:
                break
    return nodes, finished
