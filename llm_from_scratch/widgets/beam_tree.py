"""The beam tree: beam search step by step, on a table of what a model said, with its settings to change.

The search runs here once, for the picture and the table without JavaScript, and in the page for every
setting that a reader chooses; tests hold both equal to `llm_from_scratch.decoding.beam_search`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.beam_replay import Finished, Node, Table, replay

MAX_BEAMS, MAX_STEPS = 6, 16  # more do not fit a page that is read
_WIDE, _HIGH, _BOX = 124, 32, 104  # SVG units: one step, one row, the width of a node
_STYLE = (
    "text{font:12px sans-serif;fill:#1c2430}.b{fill:#fff}.l{fill:none;stroke:#858f9c}"
    ".kept{fill:#e8f0fa;stroke:#1b5fae}.ended{fill:#fdf0e4;stroke:#a33f00}"
    ".dropped{fill:#fff;stroke:#858f9c;stroke-dasharray:3 3}.best{stroke-width:3}"
)


class BeamTree:
    """What beam search keeps, drops and ends at each step, and what greedy search would have written.

    Shown as the last line of a notebook cell. In the view: the tree up to a step, its candidates with the
    sum of their log-probabilities; controls for the step, the number of beams, the length penalty and the
    stopping rule; the finished texts with their scores beside greedy's; export as SVG and CSV.

    Args:
        texts: the text of each token id that the table names.
        table: for each text of new tokens that a search may continue, the likeliest next tokens and their
            log-probabilities in nats, as `llm_from_scratch.decoding.beam_table` writes it.
        max_new_tokens: steps after which every text ends, 1 to 16, as the table was made for.
        max_beams: the largest number of beams the table was made for, 1 to 6.
        stop_ids: tokens that end a text; prompt: the text before.
        num_beams, length_penalty (-5 to 5), early_stopping (True, False or "never"): the settings at first.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Raises: ValueError for settings out of range, and for a table that lacks what the search asks for.

    >>> table = {(): ([1, 2], [-0.5, -0.9]), (1,): ([3, 4], [-0.7, -0.7]), (2,): ([3], [-0.1])}
    >>> BeamTree({1: "a", 2: "b", 3: "c", 4: "d"}, table, max_new_tokens=2, max_beams=2, num_beams=2)
    BeamTree(2 beams, 2 steps, best 'bc')
    """

    def __init__(
        self,
        texts: dict[int, str],
        table: Table,
        *,
        max_new_tokens: int,
        max_beams: int,
        stop_ids: Any = (),
        prompt: str = "",
        num_beams: int = 3,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        title: str = "Beam search, step by step",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        _check_whole("max_new_tokens", max_new_tokens, 1, MAX_STEPS)
        _check_whole("max_beams", max_beams, 1, MAX_BEAMS)
        _check_whole("num_beams", num_beams, 1, max_beams)
        is_number = isinstance(length_penalty, (int, float)) and not isinstance(length_penalty, bool)
        if not is_number or not -5 <= length_penalty <= 5:
            raise ValueError(f"length_penalty={length_penalty!r} must be a number from -5 to 5")
        if not isinstance(early_stopping, bool) and early_stopping != "never":
            raise ValueError(f'early_stopping={early_stopping!r} must be True, False or "never"')
        self.stop_ids = sorted({int(token) for token in stop_ids})
        self.table = {tuple(map(int, text)): row for text, row in table.items()}
        _check_table(self.table, texts)
        self.texts = dict(zip(texts, html.read_tokens(list(texts.values())), strict=True))
        self.max_new_tokens, self.max_beams, self.prompt = max_new_tokens, max_beams, prompt
        self.num_beams, self.length_penalty = num_beams, float(length_penalty)
        self.early_stopping = early_stopping
        self.nodes, self.finished = self._search(num_beams)
        self.title = title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        best = self._text(self.finished[0]) if self.finished else ""
        return f"BeamTree({self.num_beams} beams, {self.nodes[-1].step} steps, best {best!r})"

    def _search(self, num_beams: int) -> tuple[list[Node], list[Finished]]:
        return replay(
            self.table,
            max_new_tokens=self.max_new_tokens,
            num_beams=num_beams,
            stop_ids=frozenset(self.stop_ids),
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
        )

    def _text(self, finished: Finished) -> str:
        return "".join(self.texts[token] for token in finished.ids)

    def _default_caption(self) -> str:
        return (
            "Each column is a step. A full frame was kept as a beam, a dashed one dropped, a frame with a "
            "square ended. The number is the sum of the log-probabilities so far, in nats. A thick frame "
            "leads to the text that wins at the end; a dot marks what greedy search would take."
        )

    def _default_alt(self) -> str:
        greedy = self._search(1)[1]
        words = f"Beam search with {self.num_beams} beams over {self.nodes[-1].step} steps"
        if not self.finished:
            return f"{words}: no text ended."
        best = self.finished[0]
        told = f"{words}: the best text is {self._shown(best)}, log-probability {best.total:.2f}"
        return (
            f"{told}. Greedy search writes {self._shown(greedy[0])}, {greedy[0].total:.2f}."
            if greedy
            else told
        )

    def _shown(self, finished: Finished) -> str:
        return html.shorten("".join(html.visible(self.texts[token]) for token in finished.ids), 80)

    def _build(self) -> str:
        names = ("title", "caption", "alt", "prompt", "max_new_tokens", "max_beams", "stop_ids", "num_beams")
        data = {name: getattr(self, name) for name in (*names, "length_penalty", "early_stopping")}
        data["texts"] = {str(token): [text, html.visible(text)] for token, text in self.texts.items()}
        data["table"] = {
            " ".join(map(str, text)): [list(map(int, ids)), [round(float(p), 6) for p in log_probs]]
            for text, (ids, log_probs) in self.table.items()
        }
        return html.widget_html(
            "beam_tree",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of finished texts",
            table=self._finished_table(),
        )

    def _picture(self) -> str:
        """The whole tree under the first settings: the fallback's picture."""
        rows: dict[int, int] = {}
        place = {0: (8, 26)}
        for number, node in enumerate(self.nodes[1:], start=1):
            row = rows.get(node.step, 0)
            rows[node.step] = row + 1
            place[number] = (8 + _WIDE * node.step, 26 + _HIGH * row)
        best = set(_path(self.nodes, self.finished[0].node)) if self.finished else set()
        lines, boxes = [], []
        for number, node in enumerate(self.nodes):
            x, y = place[number]
            if node.parent is not None:
                px, py = place[node.parent]
                lines.append(f"M{px + _BOX} {py + 12}L{x} {y + 12}")
            token = "prompt" if node.token is None else html.visible(self.texts[node.token])
            text = html.escaped(html.shorten(token, 9) + ("" if node.token is None else f" {node.total:.2f}"))
            kind = node.state + (" best" if number in best else "")
            boxes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{_BOX}" height="24" rx="4"/>')
            boxes.append(f'<text x="{x + 5}" y="{y + 16}">{text}</text>')
        wide = 16 + _BOX + _WIDE * self.nodes[-1].step
        high = 40 + _HIGH * max(rows.values(), default=1)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}"><style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>'
            f'<path class="l" d="{"".join(lines)}"/>{"".join(boxes)}</svg>'
        )

    def _finished_table(self) -> str:
        rows = [("beam search", one) for one in self.finished]
        rows += [("greedy", one) for one in self._search(1)[1][:1]]
        cells = (
            (how, self._shown(one), str(len(one.ids)), f"{one.total:.3f}", f"{one.score:.3f}")
            for how, one in rows
        )
        lines = "".join(
            "<tr>" + "".join(f"<td>{html.escaped(cell)}</td>" for cell in row) + "</tr>" for row in cells
        )
        names = ("Search", "Text", "Tokens", "Log-probability (nats)", "Score")
        head = "".join(f"<th>{name}</th>" for name in names)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _path(nodes: list[Node], number: int | None) -> list[int]:
    """The nodes from one of them back to the root."""
    path = []
    while number is not None:
        path.append(number)
        number = nodes[number].parent
    return path


def _check_table(table: Table, texts: dict[int, str]) -> None:
    if () not in table:
        raise ValueError("the table lacks the empty text (), where every search begins; see beam_table")
    for text, row in table.items():
        ids, log_probs = row
        if len(ids) != len(log_probs) or not ids:
            raise ValueError(
                f"the table's row {text} must hold as many log-probabilities as tokens, at least one"
            )
        missing = [token for token in ids if token not in texts]
        if missing:
            raise ValueError(f"texts lacks token {missing[0]}, which the table's row {text} names")
        if any(not math.isfinite(p) or p > 1e-4 for p in log_probs):
            raise ValueError(f"the table's row {text} must hold finite log-probabilities of at most 0")


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
