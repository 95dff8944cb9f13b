"""Forgetting and gain: ways of adapting a model as paths in a plane, checkpoint by checkpoint.

It shows what was measured: two losses a checkpoint, and texts. It knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.checkpoints import (
    read_columns,
    read_digits,
    read_place,
    read_samples,
    read_steps,
    written,
)

MAX_PATHS, MAX_POINTS = 9, 4
_WIDE, _HIGH = 560, 340  # SVG units of the fallback's picture


@dataclass(frozen=True, kw_only=True)
class AdaptationPath:
    """The checkpoints of one way of adapting a model, the first of them the model before."""

    at: Sequence[float]  # what tells the checkpoints apart: ascending numbers, 2 to 60 of them
    new: Sequence[float]  # the loss in the new domain at each
    old: Sequence[float]  # the loss in the old domain at each
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)  # prompt -> a text at each
    at_name: str = "step"  # what ``at`` counts


class ForgettingExplorer:
    """What a model gains in a new domain and loses in the old one, for several ways of adapting it.

    Shown as the last line of a notebook cell. In the view: a plane with the new domain's loss to the right
    and the old one's upwards, so that lower left is better; a path for each way, from the model before to
    its last checkpoint; lines through the start, and the region that is better in both; radio buttons for
    the ways and a slider over the checkpoints; gain and loss in numbers; each sample beside the one before;
    export as SVG and CSV.

    Args:
        paths: name -> `AdaptationPath`, 1 to 9 of them, all from the same start.
        points: name -> (loss in the new domain, loss in the old one), marks to compare with; up to 4.
        path: the name of the path shown first, None for the first; at: its checkpoint, counted from 0,
            negative from the end.
        new_name, old_name: of the domains; unit: of all losses; digits: decimals shown, 0 to 4.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Raises: ValueError for anything else, naming it: too many, of unlike lengths, not finite, another start.

    >>> tuned = AdaptationPath(at=[0, 10, 100], new=[5.0, 4.5, 4.0], old=[4.0, 4.1, 4.5])
    >>> ForgettingExplorer({"full": tuned})
    ForgettingExplorer(1 path, full at step 100: gained +1.00, lost +0.50)
    """

    def __init__(
        self,
        paths: Mapping[str, AdaptationPath],
        *,
        points: Mapping[str, tuple[float, float]] | None = None,
        path: str | None = None,
        at: int = -1,
        new_name: str = "new domain",
        old_name: str = "old domain",
        unit: str = "nats a token",
        digits: int = 2,
        title: str = "What was gained, and what was forgotten",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.digits = read_digits(digits)
        if not 1 <= len(paths) <= MAX_PATHS:
            raise ValueError(f"paths must name 1 to {MAX_PATHS} ways of adapting, got {len(paths)}")
        self.paths = {str(name): _path(str(name), one) for name, one in paths.items()}
        first = next(iter(self.paths.values()))
        self.start = (first["new"][0], first["old"][0])
        for name, one in self.paths.items():
            begins = (one["new"][0], one["old"][0])
            if max(abs(a - b) for a, b in zip(begins, self.start, strict=True)) > 0.5 * 10.0**-self.digits:
                raise ValueError(
                    f"paths[{name!r}] begins at {begins}, the first path at {self.start}; all must begin "
                    "with the same model. Give what began elsewhere, such as a model trained anew, in points"
                )
        given = {name: list(point) for name, point in (points or {}).items()}
        self.points = read_columns("points", given, 2, MAX_POINTS)
        if any(value is None for point in self.points.values() for value in point):
            raise ValueError("points must hold two numbers each, (loss in the new domain, loss in the old)")
        if path is not None and path not in self.paths:
            raise ValueError(f"path={path!r} is none of the paths, which are {', '.join(self.paths)}")
        self.path = next(iter(self.paths)) if path is None else path
        self.at = read_place(at, len(self.paths[self.path]["at"]))
        self.new_name, self.old_name, self.unit, self.title = new_name, old_name, unit, title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        one, count = self.paths[self.path], len(self.paths)
        place = f"{self.path} at {one['at_name']} {one['at'][self.at]:g}"
        gained, lost = self._changes(one, self.at)
        return f"ForgettingExplorer({count} path{'s' * (count > 1)}, {place}: gained {gained}, lost {lost})"

    def _changes(self, path: dict, n: int) -> tuple[str, str]:
        """What the new domain gained and the old one lost at a checkpoint, with their signs."""
        changes = (self.start[0] - path["new"][n], path["old"][n] - self.start[1])
        texts = (written(change, self.digits) for change in changes)
        zero = written(0.0, self.digits)
        return tuple(
            zero if text.strip("−") == zero else f"+{text}" if change > 0 else text
            for change, text in zip(changes, texts, strict=True)
        )

    def _default_caption(self) -> str:
        samples = any(one["samples"] for one in self.paths.values())
        return (
            "Choose a way of adapting, and move the slider from checkpoint to checkpoint; or choose a "
            "checkpoint in the plane. A path that leads to the left gains in the new domain, one that "
            "leads upwards forgets the old one. The dashed lines are the losses before."
            + (" The samples are continuations of the bold prompts." if samples else "")
        )

    def _default_alt(self) -> str:
        new, old = (written(value, self.digits) for value in self.start)
        words = (
            f"{len(self.paths)} ways of adapting a model with a loss of {new} ({self.new_name}) and {old} "
        )
        words += f"({self.old_name}), in {self.unit}."
        for name, one in self.paths.items():
            gained, lost = self._changes(one, -1)
            words += f" {name}: at the end gained {gained}, lost {lost}."
        return words

    def _build(self) -> str:
        names = ("title", "caption", "alt", "at", "digits", "unit", "new_name", "old_name")
        data = {name: getattr(self, name) for name in names}
        data["path"] = list(self.paths).index(self.path)
        data["points"] = [[name, *point] for name, point in self.points.items()]
        data["paths"] = [
            {"name": name, **one, "samples": [[key, texts] for key, texts in one["samples"].items()]}
            for name, one in self.paths.items()
        ]
        return html.widget_html(
            "forgetting",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of all checkpoints",
            table=self._table(),
        )

    def _picture(self) -> str:
        """The plane with all paths, numbered: the fallback's picture."""
        points = [(self.start), *map(tuple, self.points.values())]
        points += [pair for one in self.paths.values() for pair in zip(one["new"], one["old"], strict=True)]
        (left, right), (low, high) = (
            (min(values), max(max(values), min(values) + 1e-3)) for values in zip(*points, strict=True)
        )

        def x(value: float) -> float:
            return round(50 + (_WIDE - 80) * (value - left) / (right - left), 1)

        def y(value: float) -> float:
            return round(_HIGH - 50 - (_HIGH - 80) * (value - low) / (high - low), 1)

        x0, y0 = x(self.start[0]), y(self.start[1])
        drawn = [f'<path d="M{x0} 20V{_HIGH - 40}M40 {y0}H{_WIDE - 20}" stroke="#858f9c" fill="none"/>']
        for value in (left, right):
            drawn.append(f'<text x="{x(value)}" y="{_HIGH - 24}">{written(value, self.digits)}</text>')
        for value in (low, high):
            drawn.append(f'<text x="4" y="{y(value) + 4}">{written(value, self.digits)}</text>')
        across = html.escaped(html.shorten(f"loss, {self.new_name} ({self.unit})", 70))
        drawn.append(f'<text x="50" y="{_HIGH - 6}">{across}</text>')
        drawn.append(f'<text x="50" y="14">{html.escaped(html.shorten(f"loss, {self.old_name}", 60))}</text>')
        placed: list[tuple[float, float]] = []
        for number, (name, one) in enumerate(self.paths.items(), start=1):
            line = "L".join(f"{x(a)} {y(b)}" for a, b in zip(one["new"], one["old"], strict=True))
            look = 'stroke="#1b5fae" stroke-width="2.5"' if name == self.path else 'stroke="#566070"'
            drawn.append(f'<path d="M{line}" fill="none" {look}/>')
            at = (x(one["new"][-1]) - 12, y(one["old"][-1]) + 4)
            while any(abs(at[0] - a) < 10 and abs(at[1] - b) < 12 for a, b in placed):
                at = (at[0], at[1] + 13)  # ends that lie together have their numbers one below the other
            placed.append(at)
            drawn.append(f'<text x="{at[0]}" y="{at[1]:.1f}">{number}</text>')
        for name, (new, old) in self.points.items():
            drawn.append(f'<path d="M{x(new)} {y(old) - 6}l6 10h-12z" fill="#a33f00"/>')
            anchor = "end" if x(new) > _WIDE / 2 else "start"
            place = f'x="{x(new) + (-9 if anchor == "end" else 9)}" y="{y(old) + 4}" text-anchor="{anchor}"'
            drawn.append(f"<text {place}>{html.escaped(html.shorten(name, 24))}</text>")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" '
            f'height="{_HIGH}"><style>text{{font:12px sans-serif;fill:#1c2430}}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(drawn)}'
            f'<rect x="{x0 - 5}" y="{y0 - 5}" width="10" height="10" fill="#1c2430"/></svg>'
        )

    def _table(self) -> str:
        """A row a checkpoint; the texts stand at the first and at the last one of each path."""
        prompts = list(dict.fromkeys(prompt for one in self.paths.values() for prompt in one["samples"]))
        columns = ("Path", "Checkpoint", f"Loss, {self.new_name}", f"Loss, {self.old_name}", "Gained", "Lost")
        head = "".join(f"<th>{html.escaped(name)}</th>" for name in (*columns, *prompts))
        rows = ""
        for number, (name, one) in enumerate(self.paths.items(), start=1):
            ends = (0, len(one["at"]) - 1)
            for n, at in enumerate(one["at"]):
                losses = (written(one[key][n], self.digits) for key in ("new", "old"))
                cells = [f"{number} {name}", f"{one['at_name']} {at:g}", *losses, *self._changes(one, n)]
                texts = (one["samples"].get(prompt) if n in ends else None for prompt in prompts)
                cells += ["" if text is None else html.shorten(text[n], 200) for text in texts]
                rows += "<tr>" + "".join(f"<td>{html.escaped(cell)}</td>" for cell in cells) + "</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _path(name: str, path: AdaptationPath) -> dict[str, object]:
    """Check one path; return it as it travels."""
    what = f"paths[{name!r}]"
    if not isinstance(path, AdaptationPath):
        raise ValueError(f"{what} must be an AdaptationPath, got {type(path).__name__}")
    at = read_steps(f"{what}.at", path.at)
    if len(at) < 2:
        raise ValueError(f"{what} has one checkpoint, the model before; a path needs another one")
    losses = read_columns(what, {"new": path.new, "old": path.old}, len(at), 2)
    if any(value is None for values in losses.values() for value in values):
        raise ValueError(f"{what} must have both losses at every checkpoint; leave out those without")
    samples = read_samples(f"{what}.samples", path.samples, len(at))
    return {"at_name": path.at_name, "at": at, **losses, "samples": samples}
