"""The projection explorer: words as points of a plane, and the nearest neighbours of the chosen one.

The plane and the neighbours are given separately, because they disagree: two coordinates keep a part of the
distances, the neighbours come from all of them. Lines from the chosen word to its neighbours show how much
the plane has lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llm_from_scratch.widgets import html

MAX_WORDS = 400  # more points than this cannot be told apart
MAX_NEIGHBOURS = 20
_WIDTH, _HEIGHT, _PAD = 640, 460, 28  # of the picture, in CSS pixels
_STYLE = (
    "text{font:12px sans-serif;fill:#1c2430}.d{fill:#1b5fae}.o{fill:#566070}.b{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.d{fill:#8fc1ff}.o{fill:#a6afbb}.b{fill:#1b1e24}}"
)


class ProjectionExplorer:
    """Words at two-dimensional positions, with a search box and a table of nearest neighbours.

    Shown as the last line of a notebook cell. In the view: type to search, up and down walk through what
    was found; the arrow keys in the picture go to the next word in that direction; a click on a point or
    on a neighbour chooses it; export as SVG and CSV.

    Args:
        words: one string a point.
        positions: [words, 2], drawn with one scale for both axes.
        neighbours: [words, K], for each word the places of its K nearest others, nearest first.
        similarities: [words, K], how near each is; they must not rise along a row.
        measure: what the similarities are, a column's heading; axes: names of the two coordinates.
        chosen: the word at the start. title, caption: text above and below; alt: what the picture says.

    Raises: ValueError for shapes that do not fit, numbers that are not finite, places outside the words, a
    word that is its own neighbour, similarities that rise, and too many words.

    >>> ProjectionExplorer(["a", "b"], [[0, 0], [1, 2]], [[1], [0]], [[0.5], [0.5]])
    ProjectionExplorer(2 words, 1 neighbour each)
    """

    def __init__(
        self,
        words: Sequence[str],
        positions: Float[Any, "N 2"],
        neighbours: Int[Any, "N K"],
        similarities: Float[Any, "N K"],
        *,
        measure: str = "cosine",
        axes: tuple[str, str] = ("component 1", "component 2"),
        chosen: str | None = None,
        title: str = "Words near each other",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.words = html.read_tokens(words)
        count = len(self.words)
        if count > MAX_WORDS:
            raise ValueError(f"{count} words are more than the {MAX_WORDS} that fit; choose some of them")
        self.positions_N2 = _read_positions(positions, count)
        self.similarities_NK = html.to_array("similarities", similarities)
        self.neighbours_NK = _read_neighbours(neighbours, self.similarities_NK, count)
        if chosen is not None and chosen not in self.words:
            raise ValueError(f"chosen is {chosen!r}, which is not among the {count} words")
        self.chosen = 0 if chosen is None else self.words.index(chosen)
        self.measure, self.axes = str(measure), (str(axes[0]), str(axes[1]))
        self.shown = [html.visible(word) for word in self.words]
        self.title = title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        n, k = self.neighbours_NK.shape
        return f"ProjectionExplorer({n} word{'s' * (n != 1)}, {k} neighbour{'s' * (k != 1)} each)"

    def _default_caption(self) -> str:
        return (
            "Each point is a word. The lines lead to the nearest neighbours of the chosen word, which are "
            "found with all coordinates: where a line is long, the plane has lost that nearness."
        )

    def _default_alt(self) -> str:
        near = ", ".join(self.shown[k] for k in self.neighbours_NK[self.chosen])
        return (
            f"Scatter of {len(self.words)} words over {self.axes[0]} and {self.axes[1]}. "
            f"Nearest to {self.shown[self.chosen]}: {near}."
        )

    def _build(self) -> str:
        data = {
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
            "measure": self.measure,
            "axes": self.axes,
            "chosen": self.chosen,
            "words": self.words,
            "shown": self.shown,
            "at": [[_short(x), _short(y)] for x, y in self.positions_N2],
            "near": self.neighbours_NK.tolist(),
            "similar": [[round(float(value), 4) for value in row] for row in self.similarities_NK],
        }
        return html.widget_html(
            "projection",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of every word and its nearest neighbours",
            table=self._table(),
        )

    def _picture(self) -> str:
        """Every point, and as many names as fit without touching: the fallback's picture."""
        at_N2 = _fit(self.positions_N2, _WIDTH, _HEIGHT, _PAD)
        dots = "".join(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="2.5"/>' for x, y in at_N2)
        names, taken = [], []
        for i in [self.chosen, *range(len(self.words))]:
            x, y = at_N2[i]
            text = html.shorten(self.shown[i], 18)
            wide = 7 * len(text)
            left = x + 6 if x + 6 + wide < _WIDTH else x - 6 - wide
            box = (left - 2, y - 7, left + wide + 2, y + 7)
            if all(box[0] > b[2] or box[2] < b[0] or box[1] > b[3] or box[3] < b[1] for b in taken):
                taken.append(box)
                end = "" if left > x else ' text-anchor="end"'
                place = x + 6 if left > x else x - 6
                names.append(f'<text x="{place:.0f}" y="{y + 4:.0f}"{end}>{html.escaped(text)}</text>')
        foot = html.escaped(f"across: {self.axes[0]}; up: {self.axes[1]}")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}"><style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>'
            f'<g class="d">{dots}</g>{"".join(names)}'
            f'<text class="o" x="8" y="{_HEIGHT - 8}">{foot}</text></svg>'
        )

    def _table(self) -> str:
        rows = []
        for word, row, values in zip(self.shown, self.neighbours_NK, self.similarities_NK, strict=True):
            near = ", ".join(f"{self.shown[k]} {_hundredths(v)}" for k, v in zip(row, values, strict=True))
            rows.append(f"<tr><td>{html.escaped(word)}</td><td>{html.escaped(near)}</td></tr>")
        head = f"<tr><th>Word</th><th>Nearest, with {html.escaped(self.measure)}</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _hundredths(x: float) -> str:
    """Two decimals with a true minus sign; the JavaScript writes similarities in the same way."""
    text = f"{x:.2f}"
    return ("0.00" if text == "-0.00" else text).replace("-", "−")


def _short(x: float) -> float:
    """Four significant digits: more than a screen can show."""
    return float(f"{x:.4g}")


def _fit(at_N2: Float[np.ndarray, "N 2"], width: int, height: int, pad: int) -> Float[np.ndarray, "N 2"]:
    """Positions in pixels: one scale for both axes, the middle in the middle, up is up."""
    low, high = at_N2.min(0), at_N2.max(0)
    span = high - low
    room = np.array([width - 2 * pad, height - 2 * pad], dtype=float)
    scale = min((r / s for r, s in zip(room, span, strict=True) if s > 0), default=1.0)
    middle = (low + high) / 2
    return np.array([width / 2, height / 2]) + (at_N2 - middle) * scale * np.array([1, -1])


def _read_positions(positions: Any, count: int) -> Float[np.ndarray, "N 2"]:
    at_N2 = html.to_array("positions", positions)
    if at_N2.shape != (count, 2):
        raise ValueError(f"positions must have the shape ({count}, 2), a row a word, got {at_N2.shape}")
    if not np.isfinite(at_N2).all():
        place = int(np.argwhere(~np.isfinite(at_N2))[0, 0])
        raise ValueError(f"positions[{place}] is {at_N2[place].tolist()}: positions must be finite")
    if np.abs(at_N2).max() > 1e150:
        raise ValueError(f"positions reach {np.abs(at_N2).max():.3g}; the limit is 1e150: scale them down")
    return at_N2


def _read_neighbours(
    neighbours: Any, similarities_NK: Float[np.ndarray, "N K"], count: int
) -> Int[np.ndarray, "N K"]:
    places = html.to_array("neighbours", neighbours)
    if places.ndim != 2 or len(places) != count or not 0 < places.shape[1] <= MAX_NEIGHBOURS:
        raise ValueError(
            f"neighbours must have the shape ({count}, K), K from 1 to {MAX_NEIGHBOURS}, got {places.shape}"
        )
    if similarities_NK.shape != places.shape:
        raise ValueError(
            f"similarities must have the shape of neighbours, {places.shape}, got {similarities_NK.shape}"
        )
    for i, (row, values) in enumerate(zip(places, similarities_NK, strict=True)):
        for place in row:
            if not (math.isfinite(place) and place == int(place) and 0 <= place < count):
                raise ValueError(f"neighbours[{i}] holds {place:g}: places are whole, 0 to {count - 1}")
        if i in row:
            raise ValueError(f"neighbours[{i}] holds {i} itself: a word is not its own neighbour")
        if len(set(row)) < len(row):
            raise ValueError(f"neighbours[{i}] names a word twice: {row.astype(int).tolist()}")
        if not np.isfinite(values).all():
            raise ValueError(f"similarities[{i}] is {values.tolist()}: similarities must be finite")
        if (np.diff(values) > 1e-9).any():
            raise ValueError(f"similarities[{i}] rises, {values.tolist()}: the nearest comes first")
    return places.astype(np.int64)
