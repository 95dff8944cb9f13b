"""The batching timeline: requests that share a model's slots, in static and in continuous batching.

The schedules are computed here for the picture and the tables without JavaScript, and in the page for
every setting that a reader chooses; a test holds both equal, and continuous batching equal to
`llm_from_scratch.inference.Scheduler`.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.batching_replay import DRAWING, Counts, Lengths, Schedule, replay

MAX_REQUESTS, MAX_SLOTS, MAX_CHUNK = 12, 8, 512  # more do not fit a page that is read
LIMITS = {"arrival": (0, 60), "prompt": (1, 64), "answer": (1, 32)}  # steps, tokens, tokens
NAMES = "ABCDEFGHIJKL"
MODES = {"static": True, "continuous": False}
_PICTURED = 120  # steps that the picture without JavaScript shows
_CELL, _ROW, _LEFT = 20, 24, 66  # SVG units: a cell's side, a row's height, the room of the slots' names
_FILLS = ("#cfe3f7", "#fbe0b5", "#c9ecd9", "#efd5eb", "#fbd3c4", "#ece5ae")
_EDGES = ("#1b5fae", "#8f5a00", "#0b7350", "#8a3d7c", "#a33f00", "#6b6400")
_STYLE = (
    "text{font:12px sans-serif;fill:#1c2430}.m{text-anchor:middle}.q,.w{fill:#566070}"
    ".g{fill:none;stroke:#b4bcc6}"
    + "".join(
        f".f{n}{{fill:{fill}}}.e{n}{{fill:{fill};stroke:{edge};stroke-width:2}}"
        f".p{n}{{fill:#fff;stroke:{edge};stroke-width:2}}"
        f".h{n}{{fill:#fff;stroke:{edge};stroke-dasharray:3 2}}"
        for n, (fill, edge) in enumerate(zip(_FILLS, _EDGES, strict=True))
    )
)
_CLASSES = {"decode": "f", "first": "e", "prefill": "p", "held": "h"}


class BatchingTimeline:
    """Which request has which slot in which step, in static and in continuous batching.

    Shown as the last line of a notebook cell. In the view: a grid of slots and steps; Back, Step, Play and a
    slider; switches for the kind of batching, the slots and the prefill chunk; the counts of both kinds
    side by side; a table in which each request's lengths are edited; export as SVG and CSV.

    A static batch starts when the former has ended, with the requests that wait then, at most one a slot;
    an ended text keeps its slot until its batch ends. In continuous batching a slot is given to the next
    request before the step that follows. In both, prompts are read beside the running texts,
    ``prefill_chunk`` tokens a step, and the step that ends a prompt draws the first token of the answer:
    the rules of `llm_from_scratch.inference.Scheduler`. One difference is in the drawing: a text keeps its
    row, where the scheduler moves the last text into a gap.

    Args:
        requests: triples of whole numbers: the steps that have run when the request arrives (0 to 60), the
            tokens of its prompt (1 to 64) and of its answer (1 to 32). Of more than 12, the first 12 are
            taken, with a warning. They are named A, B, C, ...
        slots: texts that run side by side, 1 to 8.
        prefill_chunk: tokens of prompts that one step reads at most, 1 to 512.
        batching: "static" or "continuous", what the view shows at first.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Raises: ValueError for what is not such a number, and if there is no request.

    >>> BatchingTimeline(
    ...     [(0, 6, 14), (0, 3, 4), (0, 9, 6), (1, 4, 3), (2, 5, 10), (4, 12, 5), (6, 2, 8), (9, 7, 3)],
    ...     slots=4,
    ...     prefill_chunk=8,
    ... )
    BatchingTimeline(8 requests, 4 slots, static 28 steps, continuous 16 steps)
    """

    def __init__(
        self,
        requests: Iterable[tuple[int, int, int]],
        slots: int = 4,
        *,
        prefill_chunk: int = 8,
        batching: Literal["static", "continuous"] = "continuous",
        title: str = "Static and continuous batching",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.requests = _read_requests(requests)
        self.slots = _whole("slots", slots, 1, MAX_SLOTS)
        self.prefill_chunk = _whole("prefill_chunk", prefill_chunk, 1, MAX_CHUNK)
        if batching not in MODES:
            raise ValueError(f'batching={batching!r} must be "static" or "continuous"')
        self.batching = batching
        self.schedules: dict[str, Schedule] = {}
        self.counts: dict[str, Counts] = {}
        for mode, static in MODES.items():
            self.schedules[mode], self.counts[mode] = replay(
                self.requests, slots=self.slots, prefill_chunk=self.prefill_chunk, static=static
            )
        self.title = title
        self.caption = _CAPTION if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        steps = (f"{mode} {_many(counts.steps, 'step')}" for mode, counts in self.counts.items())
        parts = (_many(len(self.requests), "request"), _many(self.slots, "slot"), *steps)
        return f"BatchingTimeline({', '.join(parts)})"

    def _default_alt(self) -> str:
        told = (
            f"{mode} batching takes {_many(counts.steps, 'step')}, {counts.used:.0%} of the slots of "
            f"all steps draw a token, and a request waits {counts.mean_wait:.1f} steps on average"
            for mode, counts in self.counts.items()
        )
        who = _many(len(self.requests), "request")
        return f"{who} on {_many(self.slots, 'slot')}: {'; '.join(told)}."

    def _build(self) -> str:
        names = ("title", "caption", "alt", "slots", "prefill_chunk", "batching", "requests")
        data = {name: getattr(self, name) for name in names}
        data |= {"limits": LIMITS, "max_slots": MAX_SLOTS, "names": NAMES}
        return html.widget_html(
            "batching",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Tables of counts and of requests",
            table=self._counts_table() + self._requests_table(),
        )

    def _picture(self) -> str:
        """Both schedules on one axis of steps: the fallback's picture."""
        most = max(counts.steps for counts in self.counts.values())
        shown = min(most, _PICTURED)
        parts, top = [], 0
        for mode, schedule in self.schedules.items():
            name = f"{mode} batching, {_many(self.counts[mode].steps, 'step')}"
            parts.append(f'<text x="6" y="{top + 18}">{name}</text>')
            parts += _grid(schedule, self.slots, shown, top + 28)
            top += 28 + _ROW * self.slots + 8
        axis = "".join(
            f'<text class="m q" x="{_LEFT + _CELL * step - 10}" y="{top + 10}">{step}</text>'
            for step in (1, *range(5, shown + 1, 5))
        )
        cut = f" (the first {shown} of {most} steps)" if shown < most else ""
        wide, high = max(_LEFT + _CELL * shown + 10, 300), top + 34
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}"><style>{_STYLE}</style><rect fill="#fff" width="100%" height="100%"/>'
            f'{"".join(parts)}{axis}<text class="q" x="{_LEFT}" y="{top + 28}">step{cut}</text></svg>'
        )

    def _counts_table(self) -> str:
        rows = (
            ("Steps until the last answer ends", lambda c: str(c.steps)),
            ("Slots of all steps that drew a token", lambda c: f"{_rounded(100 * c.used, 1)} %"),
            ("Tokens a step", lambda c: _rounded(c.tokens_per_step, 2)),
            ("Mean wait for a slot (steps)", lambda c: _rounded(c.mean_wait, 2)),
            ("Longest wait for a slot (steps)", lambda c: str(c.worst_wait)),
        )
        cells = [(name, *(show(counts) for counts in self.counts.values())) for name, show in rows]
        return _table(("Count", *(f"{mode} batching" for mode in MODES)), cells)

    def _requests_table(self) -> str:
        head = ["Request", "Arrives after step", "Prompt (tokens)", "Answer (tokens)"]
        for mode in MODES:
            head += [f"{mode}: {what}" for what in ("starts in step", "ends in step", "waits (steps)")]
        rows = []
        for number, lengths in enumerate(self.requests):
            spans = [schedule.spans[number] for schedule in self.schedules.values()]
            times = (time for span in spans for time in (span.start, span.end, span.waited))
            rows.append((NAMES[number], *map(str, lengths), *map(str, times)))
        return _table(head, rows)


_CAPTION = (
    "Each row is a slot, each column a step: one pass of the model. A filled cell drew a token of an answer. "
    "A cell with a frame read tokens of a prompt; framed and filled, it ended the prompt and drew the first "
    "token. A dashed cell waited while other prompts were read. A hatched cell did no work: with a letter "
    "its text has ended and pads the batch, without one the slot is empty."
)


def _grid(schedule: Schedule, slots: int, shown: int, top: int) -> list[str]:
    parts, hatches, letters = [], [], []
    for slot in range(slots):
        parts.append(f'<text x="6" y="{top + _ROW * slot + 15}">slot {slot + 1}</text>')
    for number, step in enumerate(schedule.steps[:shown]):
        x, used = _LEFT + _CELL * number, {cell.slot: cell for cell in step}
        for slot in range(slots):
            y, cell = top + _ROW * slot, used.get(slot)
            if cell is None or cell.kind == "padding":
                hatches.append(f"M{x} {y + 10}l10 -10M{x} {y + 20}l19 -19M{x + 9} {y + 20}l10 -10")
            else:
                kind = f"{_CLASSES[cell.kind]}{cell.request % len(_FILLS)}"
                parts.append(f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="18" height="18"/>')
            if cell is not None:
                look = "m" if cell.kind in (*DRAWING, "prefill") else "m w"
                letters.append(f'<text class="{look}" x="{x + 10}" y="{y + 15}">{NAMES[cell.request]}</text>')
    return [*parts, f'<path class="g" d="{"".join(hatches)}"/>', *letters]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = "".join(f"<th>{html.escaped(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _rounded(number: float, digits: int) -> str:
    """Round as the page does: a tie goes up.

    >>> _rounded(1.125, 2)
    '1.13'
    """
    return str(Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _read_requests(requests: Any) -> list[Lengths]:
    try:
        triples = [tuple(request) for request in requests]
    except TypeError:
        raise ValueError(
            f"requests={requests!r} must be a list of triples (arrival, prompt, answer) of whole numbers"
        ) from None
    if not triples:
        raise ValueError("requests is empty: a timeline needs at least one (arrival, prompt, answer)")
    if len(triples) > MAX_REQUESTS:
        warnings.warn(
            f"{len(triples)} requests are more than a timeline shows; the first {MAX_REQUESTS} are taken",
            stacklevel=3,
        )
    read = []
    for number, triple in enumerate(triples[:MAX_REQUESTS]):
        if len(triple) != 3:
            raise ValueError(
                f"requests[{number}]={triple!r} must be three whole numbers: arrival in steps, tokens of the "
                "prompt, tokens of the answer"
            )
        pairs = zip(LIMITS.items(), triple, strict=True)
        numbers = (_whole(f"requests[{number}], {name}", value, *limits) for (name, limits), value in pairs)
        read.append(Lengths(*numbers))
    return read


def _whole(name: str, value: Any, least: int, most: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
    return number
