"""The positions explorer: how sinusoids, rotary positions and ALiBi tell one position from another.

The numbers are worked out here in float64 for the picture and the table without JavaScript, and once more
in the JavaScript for every setting that a reader chooses; a browser test holds the two equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.graph import _number

SCHEMES = ("sinusoidal", "rope", "alibi")
MAX_LENGTH, MAX_WIDTH, MAX_HEADS = 64, 128, 16  # positions, columns, heads: more nobody can tell apart
_LEVELS = 8  # shades on either side of zero
_STYLE = (
    "text{font:12px sans-serif;fill:#1c2430}.b{fill:#fff}.x{fill:none;stroke:#858f9c}"
    ".c{fill:none;stroke:#1b5fae;stroke-width:2}.m{fill:none;stroke:#1c2430;stroke-width:1.5}"
)


class PositionExplorer:
    """Sinusoids, rotary positions and ALiBi side by side, with their settings to change.

    Shown as the last line of a notebook cell. In the view: a heat map of the sinusoids, the turning
    pairs of the rotary scheme, or the fading of each ALiBi head; beside it what one position gives
    with every other: the dot product, or ALiBi's penalty. Controls for the scheme, the width, the base
    (or the heads) and the position; a table of values; export as SVG and CSV.

    Args:
        scheme: what is shown first: "sinusoidal", "rope" or "alibi".
        d_model: width of the vectors, or of a rotary head: an even number of columns up to 128.
        base: of the wavelengths; position: the one that is compared with all others, from 0.
        length: positions shown, 2 to 64; num_heads: of ALiBi, 1 to 16.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    The dot products are divided by the largest, d_model / 2. For the rotary scheme they are those of a
    query and a key that are equal, with the same length in each pair.

    Raises: ValueError naming the setting, its value and the limit.

    >>> PositionExplorer("rope", d_model=8)
    PositionExplorer('rope', 8 columns, base 10000, 64 positions)
    """

    def __init__(
        self,
        scheme: str = "sinusoidal",
        *,
        d_model: int = 32,
        base: float = 10000.0,
        length: int = 64,
        position: int = 24,
        num_heads: int = 8,
        title: str = "Positions and the distances between them",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        if scheme not in SCHEMES:
            raise ValueError(f"scheme={scheme!r} is unknown; choose one of {SCHEMES}")
        _check_whole("d_model", d_model, 2, MAX_WIDTH)
        if d_model % 2:
            raise ValueError(f"d_model={d_model} is odd, and columns come in pairs; choose {d_model + 1}")
        _check_whole("length", length, 2, MAX_LENGTH)
        _check_whole("position", position, 0, length - 1)
        _check_whole("num_heads", num_heads, 1, MAX_HEADS)
        if isinstance(base, bool) or not isinstance(base, (int, float)) or not 1 < base <= 1e9:
            raise ValueError(
                f"base={base!r} must be a number above 1 and at most 1e9; 10000 is the usual one"
            )
        self.scheme, self.d_model, self.base, self.length = scheme, d_model, float(base), length
        self.position, self.num_heads = position, num_heads
        self.title = title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        size = f"{self.num_heads} heads" if self.scheme == "alibi" else f"{self.d_model} columns"
        base = "" if self.scheme == "alibi" else f"base {_number(self.base)}, "
        return f"PositionExplorer({self.scheme!r}, {size}, {base}{self.length} positions)"

    def _default_caption(self) -> str:
        return (
            "Left, what marks each position: the sinusoids' columns, the angles of the rotary pairs, or how "
            "fast each ALiBi head fades with distance. Right, what the chosen position gives with every "
            "other one. Move the position: the curve moves along and keeps its shape."
        )

    def _default_alt(self) -> str:
        if self.scheme == "alibi":
            slopes = alibi_slopes(self.num_heads)
            return (
                f"ALiBi with {self.num_heads} heads: the penalty a token lies between "
                f"{_number(float(min(slopes)))} and {_number(float(max(slopes)))}."
            )
        products = product_by_distance(self.length, self.d_model, self.base)
        told = [f"{_number(float(products[k]))} at distance {k}" for k in (1, 4, 16) if k < self.length]
        kind = "Sinusoids" if self.scheme == "sinusoidal" else "Rotary positions"
        return (
            f"{kind} of {self.d_model} columns and base {_number(self.base)}: the dot product is 1 at "
            f"distance 0, {', '.join(told)}."
        )

    def _build(self) -> str:
        names = ("title", "caption", "alt", "scheme", "d_model", "base", "length", "position", "num_heads")
        return html.widget_html(
            "positions",
            {name: getattr(self, name) for name in names},
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of values",
            table=self._table(),
        )

    def _map(self) -> np.ndarray:
        """What the heat map shows: rows positions (or heads), columns entries (or distances)."""
        if self.scheme == "alibi":
            return np.exp(-np.outer(alibi_slopes(self.num_heads), np.arange(self.length)))
        angles = wave_angles(np.arange(self.length), self.d_model, self.base)
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(self.length, -1)

    def _curve(self) -> np.ndarray:
        if self.scheme == "alibi":
            return np.exp(-alibi_slopes(self.num_heads)[0] * np.arange(self.length))
        return product_by_distance(self.length, self.d_model, self.base)

    def _picture(self) -> str:
        """Heat map and curve: the fallback's picture. Cells of one shade are one path."""
        values = self._map()[:, :MAX_LENGTH]
        wide, high = 260 / values.shape[1], 180 / values.shape[0]
        paths: dict[int, list[str]] = {}
        for (row, column), value in np.ndenumerate(np.rint(values * _LEVELS).astype(int)):
            paths.setdefault(int(value), []).append(f"M{column} {row}h1v1h-1z")
        cells = "".join(f'<path fill="{_shade(v)}" d="{"".join(d)}"/>' for v, d in sorted(paths.items()))
        curve = self._curve()
        points = " ".join(
            f"{330 + 250 * k / (self.length - 1):.1f},{124 - 90 * v:.1f}" for k, v in enumerate(curve)
        )
        down, across = ("head", "distance") if self.scheme == "alibi" else ("position", "column")
        right = "weight left by the first head" if self.scheme == "alibi" else "dot product"
        words = [(30, 20, f"{down} (down), {across} (across)"), (330, 20, f"{right}, from 1 to −1")]
        words += [(330, 232, f"distance, 0 to {self.length - 1} tokens")]
        texts = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in words)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 240" width="600" height="240">'
            f'<style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>'
            f'<g transform="translate(30 34) scale({wide:.4f} {high:.4f})">{cells}</g>'
            f'<path class="x" d="M330 34v180M330 124h250"/>'
            f'<polyline class="c" points="{points}"/>{texts}</svg>'
        )

    def _table(self) -> str:
        if self.scheme == "alibi":
            head = ("Head", "Slope a token", "Distance at which the weight halves")
            slopes = [float(slope) for slope in alibi_slopes(self.num_heads)]
            rows = [(str(h), _number(s), _number(math.log(2) / s)) for h, s in enumerate(slopes)]
        else:
            head = ("Pair", "Wavelength", f"Angle at position {self.position}", "Sine", "Cosine")
            angles = wave_angles(np.array([self.position]), self.d_model, self.base)[0]
            lengths = 2 * math.pi / wave_angles(np.array([1]), self.d_model, self.base)[0]
            rows = [
                (str(f), *(_number(float(v)) for v in (length, angle, math.sin(angle), math.cos(angle))))
                for f, (length, angle) in enumerate(zip(lengths, angles, strict=True))
            ]
        lines = (f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        names = "".join(f"<th>{name}</th>" for name in head)
        return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def wave_angles(positions: np.ndarray, d_model: int, base: float) -> np.ndarray:
    """Angle of each pair at each position, in radians: ``position * base ** (-2 f / d_model)``.

    >>> wave_angles(np.array([0, 2]), 4, 100.0).round(4).tolist()
    [[0.0, 0.0], [2.0, 0.2]]
    """
    return np.outer(positions, base ** (-np.arange(0, d_model, 2) / d_model))


def product_by_distance(length: int, d_model: int, base: float) -> np.ndarray:
    """The mean over pairs of ``cos(distance * base ** (-2 f / d_model))``, for distances from 0.

    >>> product_by_distance(3, 4, 100.0).round(4).tolist()
    [1.0, 0.7677, 0.282]
    """
    return np.cos(wave_angles(np.arange(length), d_model, base)).mean(axis=1)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Each head's penalty a token (Press et al. 2022); also for numbers that are no power of 2.

    >>> alibi_slopes(2).tolist(), alibi_slopes(3).tolist()
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    power = 1 << (num_heads.bit_length() - 1)
    row = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    return np.array(row + [2 ** (-4 * (2 * h + 1) / power) for h in range(num_heads - power)])


def _shade(level: int) -> str:
    """From orange at the lowest level over white to blue at the highest."""
    end = (27, 95, 174) if level > 0 else (199, 84, 0)
    share = abs(level) / _LEVELS
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in end)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
