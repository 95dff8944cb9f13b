"""The scrubber: a run of training, moved through checkpoint by checkpoint.

It shows what was measured: curves, bars and texts, one value a checkpoint. It knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.checkpoints import (
    Values,
    read_columns,
    read_digits,
    read_place,
    read_samples,
    read_steps,
    written,
)

MAX_SERIES, MAX_BARS = 4, 12
_WIDE, _HIGH = 640, 260  # SVG units of the fallback's picture
_COLOURS = ("#1b5fae", "#a33f00", "#00704f", "#1c2430")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


class Scrubber:
    """Learning curves, bars and sample texts, with a slider over the checkpoints of a run.

    Shown as the last line of a notebook cell. In the view: a slider with buttons; the curves with a marker
    at the chosen checkpoint and lines for what they are compared with; a bar for each part of the loss,
    with a stroke where it ends; what the model wrote after each prompt; export as SVG and CSV.

    Args:
        steps: the checkpoints, ascending numbers (optimizer steps, tokens ...), 1 to 60 of them.
        series: name -> one number a checkpoint, None where nothing was measured; up to 4 curves.
        bars: name -> one number a checkpoint, not below 0; up to 12 bars.
        samples: prompt -> one text a checkpoint, each of up to 2,000 characters; up to 4 prompts.
        references: name -> a number, drawn as a level line beside the curves; up to 4.
        at: which checkpoint is shown first, counted from 0; negative from the end.
        x_name: what the steps count; unit: of all numbers; digits: decimals shown, 0 to 4.
        log_x: whether the axis is log(1 + step), so that the first steps are not squeezed together.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Raises: ValueError for anything else, naming it: too many, of unlike lengths, not finite, nothing to show.

    >>> Scrubber([0, 10, 20], series={"validation": [8.3, 6.0, 5.1]}, samples={"The": [" x", " of", " oak"]})
    Scrubber(3 checkpoints, step 20: validation 5.10)
    """

    def __init__(
        self,
        steps: Sequence[float],
        *,
        series: Mapping[str, Values] | None = None,
        bars: Mapping[str, Values] | None = None,
        samples: Mapping[str, Sequence[str]] | None = None,
        references: Mapping[str, float] | None = None,
        at: int = -1,
        x_name: str = "step",
        unit: str = "nats a token",
        digits: int = 2,
        log_x: bool = True,
        title: str = "What the model had learned",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.steps = read_steps("steps", steps)
        count = len(self.steps)
        self.series = read_columns("series", series, count, MAX_SERIES)
        self.bars = read_columns("bars", bars, count, MAX_BARS)
        if any(value is not None and value < 0 for values in self.bars.values() for value in values):
            raise ValueError("bars must not be below 0: a bar has no place for it; use series")
        self.samples = read_samples("samples", samples, count)
        if not self.series and not self.bars and not self.samples:
            raise ValueError("there is nothing to show: give series, bars or samples")
        self.references = {
            name: values[0]
            for name, values in read_columns(
                "references", {name: [value] for name, value in (references or {}).items()}, 1, MAX_SERIES
            ).items()
        }
        if self.references and not self.series:
            raise ValueError("references are lines beside curves: give series too")
        self.at, self.digits, self.log_x = read_place(at, count), read_digits(digits), bool(log_x)
        self.x_name, self.unit, self.title = x_name, unit, title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {self._number(v[self.at])}" for name, v in self.series.items())
        place = f"{self.x_name} {self.steps[self.at]:g}"
        return f"Scrubber({len(self.steps)} checkpoints, {place}: {shown or 'texts'})"

    def _number(self, value: float | None) -> str:
        return written(value, self.digits)

    def _default_caption(self) -> str:
        parts = ["Move the slider from checkpoint to checkpoint."]
        if self.series:
            parts.append("The upright line in the curves is the checkpoint shown.")
        if self.bars:
            parts.append("The stroke behind each bar is where it stands at the end.")
        return " ".join(parts)

    def _default_alt(self) -> str:
        words = f"{len(self.steps)} checkpoints from {self.x_name} {self.steps[0]:g} to {self.steps[-1]:g}."
        for name, values in {**self.series, **self.bars}.items():
            known = [value for value in values if value is not None]
            if known:
                words += f" {name}: {self._number(known[0])} at first, {self._number(known[-1])} at the end."
        return words

    def _build(self) -> str:
        names = ("title", "caption", "alt", "at", "digits", "log_x", "x_name", "unit", "steps")
        data: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name in ("series", "bars", "samples", "references"):
            data[name] = [[key, value] for key, value in getattr(self, name).items()]
        return html.widget_html(
            "scrubber",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of all checkpoints",
            table=self._table(),
        )

    def _picture(self) -> str:
        """The curves, or the bars where there are none: the fallback's picture."""
        shown = self.series or self.bars
        values = [v for column in shown.values() for v in column if v is not None]
        values += list(self.references.values())
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
        scale = math.log1p if self.log_x else float
        first, last = scale(0.0), scale(self.steps[-1] - self.steps[0])

        def x(step: float) -> float:
            share = (scale(step - self.steps[0]) - first) / (last - first) if last > first else 0.5
            return round(50 + (_WIDE - 70) * share, 1)

        def y(value: float) -> float:
            return round(_HIGH - 40 - (_HIGH - 60) * (value - low) / (high - low), 1)

        drawn = [f'<text x="4" y="{y(v) + 4}">{self._number(v)}</text>' for v in (low, high)]
        drawn += [
            f'<text x="{x(step)}" y="{_HIGH - 20}" text-anchor="{anchor}">{step:g}</text>'
            for step, anchor in ((self.steps[0], "middle"), (self.steps[-1], "end"))
        ]
        drawn.append(f'<text x="{_WIDE // 2}" y="{_HIGH - 6}">{html.escaped(self.x_name)}</text>')
        above = -99.0
        for name, value in sorted(self.references.items(), key=lambda item: -item[1]):
            under = 13 if y(value) - above < 15 else -4  # below its line where the one above is near
            above = y(value)
            drawn.append(f'<path d="M50 {y(value)}H{_WIDE - 20}" stroke="#858f9c" stroke-dasharray="2 3"/>')
            drawn.append(f'<text x="54" y="{y(value) + under}">{html.escaped(html.shorten(name, 40))}</text>')
        for n, (name, column) in enumerate(shown.items()):
            points = zip(self.steps, column, strict=True)
            line = "L".join(f"{x(step)} {y(value)}" for step, value in points if value is not None)
            look = f'stroke="{_COLOURS[n % 4]}" stroke-dasharray="{_DASHES[n % 4]}"'
            drawn.append(f'<path d="M{line}" fill="none" stroke-width="2" {look}/>' if line else "")
            drawn.append(f'<path d="M{_WIDE - 46} {16 + 16 * n}h26" stroke-width="2" {look}/>')
            label = html.escaped(html.shorten(name, 40))
            drawn.append(f'<text x="{_WIDE - 52}" y="{20 + 16 * n}" text-anchor="end">{label}</text>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" '
            f'height="{_HIGH}"><style>text{{font:12px sans-serif;fill:#1c2430}}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(drawn)}</svg>'
        )

    def _table(self) -> str:
        numbers = {**self.series, **self.bars}
        head = "".join(f"<th>{html.escaped(name)}</th>" for name in (self.x_name, *numbers, *self.samples))
        rows = ""
        for n, step in enumerate(self.steps):
            cells = [f"{step:g}", *(self._number(values[n]) for values in numbers.values())]
            cells += [html.shorten(texts[n], 300) for texts in self.samples.values()]
            rows += "<tr>" + "".join(f"<td>{html.escaped(cell)}</td>" for cell in cells) + "</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
