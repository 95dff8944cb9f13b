"""Requests that share the slots of one model, step by step: what the batching timeline draws.

The rules are those of `llm_from_scratch.inference.Scheduler`; a test holds the two equal, step by step. A
widget takes numbers and strings, never models, so the rules stand here once more, on lengths alone.

A step is one pass of the model. Before it, free slots are given to those who wait, in the order of
arrival. In it, each text reads one of these:

- its newest token, if that is the only one it has not read;
- else the next tokens of its prompt. All prompts together read at most ``prefill_chunk`` tokens a step, in
  the order in which their texts run; what is left of a prompt waits in its slot.

A text whose last unread token was read draws its next token in the same step. So the step that ends a
prompt also gives the first token of the answer, and an answer of n tokens needs n - 1 steps more.

Static batching differs in one line: it gives slots away only when all of them are free.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

DRAWING = ("first", "decode")  # the kinds of cells in which a token is drawn


class Lengths(NamedTuple):
    """A request: the steps that have run when it arrives, the tokens of its prompt and of its answer."""

    arrival: int
    prompt: int
    answer: int


@dataclass(frozen=True)
class Cell:
    """What one text did in one step.

    ``request`` counts from 0 in the order given, ``slot`` from 0; ``read`` is a number of tokens. ``kind``:
    "prefill" read prompt, "first" ended it and drew a token, "decode" drew a token, "held" had to wait
    because other prompts were read, "padding" had ended while its static batch went on.
    """

    request: int
    slot: int
    kind: str
    read: int


@dataclass(frozen=True)
class Span:
    """The steps, counted from 1, in which a request got its slot, drew its first and its last token."""

    slot: int
    start: int
    first: int
    end: int
    waited: int  # steps between its arrival and its start


@dataclass(frozen=True)
class Schedule:
    """Every step, as cells in the order in which the model reads them, and every request."""

    steps: list[list[Cell]]
    waiting: list[list[int]]  # the requests that wait in each step
    spans: list[Span]
    ends: list[int]  # the requests in the order of their ends


@dataclass(frozen=True)
class Counts:
    """What a schedule costs and how long its requests wait."""

    steps: int  # until the last answer has ended
    tokens: int  # of all answers
    used: float  # share of all slots of all steps that drew a token
    mean_wait: float  # steps
    worst_wait: int  # steps
    tokens_per_step: float


class _Text:
    def __init__(self, request: int, lengths: Lengths, slot: int, step: int):
        self.request, self.slot, self.start = request, slot, step
        self.unread, self.left, self.first, self.end = lengths.prompt, lengths.answer, 0, 0


def replay(
    requests: list[Lengths], *, slots: int, prefill_chunk: int, static: bool = False
) -> tuple[Schedule, Counts]:
    """Run the requests; prompts and answers have at least one token.

    The scheduler moves the last text into the slot of one that ended, so that the running texts lie side by
    side. Here a text keeps the slot that it got, the first free one, which is easier to follow; the
    order in which texts are read is the scheduler's.

    >>> requests = [Lengths(0, 1, 3), Lengths(0, 1, 1), Lengths(0, 1, 2)]
    >>> [replay(requests, slots=2, prefill_chunk=8, static=static)[1].steps for static in (True, False)]
    [5, 3]
    """
    order = sorted(range(len(requests)), key=lambda number: requests[number].arrival)
    coming, waiting = deque(order), deque[int]()
    running: list[_Text] = []
    texts: dict[int, _Text] = {}
    schedule = Schedule([], [], [], [])
    while coming or waiting or running:
        step = len(schedule.steps) + 1
        while coming and requests[coming[0]].arrival < step:
            waiting.append(coming.popleft())
        if not static or not running:
            while waiting and len(running) < slots:
                taken = {text.slot for text in running}
                slot = next(number for number in range(slots) if number not in taken)
                number = waiting.popleft()
                texts[number] = _Text(number, requests[number], slot, step)
                running.append(texts[number])
        schedule.waiting.append(list(waiting))
        schedule.steps.append(_step(running, prefill_chunk, step))
        for text in [each for each in running if each.end == step]:
            schedule.ends.append(text.request)
            if not static:
                _free(running, text)
        if static and all(text.end for text in running):
            running.clear()
    for number, lengths in enumerate(requests):
        text = texts[number]
        waited = text.start - 1 - lengths.arrival
        schedule.spans.append(Span(text.slot, text.start, text.first, text.end, waited))
    return schedule, _counts(requests, schedule, slots)


def _step(running: list[_Text], prefill_chunk: int, step: int) -> list[Cell]:
    """One pass: each text reads, and draws if nothing is left to read."""
    cells, room = [], prefill_chunk
    for text in running:
        if text.end:
            cells.append(Cell(text.request, text.slot, "padding", 0))
            continue
        read = 1 if text.unread == 1 else min(text.unread, room)
        if text.unread > 1:
            room -= read
        text.unread -= read
        kind = "prefill" if read else "held"
        if text.unread == 0:
            kind = "decode" if text.first else "first"
            text.first = text.first or step
            text.unread, text.left = 1, text.left - 1
            if text.left == 0:
                text.end = step
        cells.append(Cell(text.request, text.slot, kind, read))
    return cells


def _free(running: list[_Text], text: _Text) -> None:
    """Let the last text take the place of one that ended, as the scheduler does."""
    place = running.index(text)
    last = running.pop()
    if last is not text:
        running[place] = last


def _counts(requests: list[Lengths], schedule: Schedule, slots: int) -> Counts:
    steps, tokens = len(schedule.steps), sum(lengths.answer for lengths in requests)
    waits = [span.waited for span in schedule.spans]
    return Counts(
        steps, tokens, tokens / (slots * steps), sum(waits) / len(waits), max(waits), tokens / steps
    )
