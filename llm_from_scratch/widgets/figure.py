"""Pictures for the chapters: one look, readable in light and dark, with words for those who cannot see them.

`figure_style` sets the look before plotting; `show_figure` turns the finished figure into an `<img>` that
holds an SVG. An `<img>` with a data address is what every host keeps: the built book, JupyterLab (also for
notebooks it does not trust), VS Code and Colab. Inline `<svg>` and `<style>` would be removed by some.

The colours for text, grid and background are sentinels. They are ordinary colours while matplotlib draws;
afterwards each becomes a CSS variable with a second value for dark pages. A browser gives an image the
colour scheme of the page around it, so a theme switch reaches the picture too. The background is opaque in
both schemes: where a host does not pass its scheme on, the picture is still readable.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), told apart by readers with any common colour-vision deficiency.
# "ink", "muted", "grid" and "paper" are the sentinels: dark pages show them in other colours.
COLORS: dict[str, str] = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "vermillion": "#d55e00",
    "sky": "#56b4e9",
    "yellow": "#f0e442",
    "ink": "#1a1c1f",
    "muted": "#5c6169",
    "grid": "#d4d7dc",
    "paper": "#fefeff",
}

# name of the CSS variable -> (colour on a light page, colour on a dark page)
_SCHEMES = {
    "ink": (COLORS["ink"], "#e6e8eb"),
    "muted": (COLORS["muted"], "#a3a9b2"),
    "grid": (COLORS["grid"], "#383b40"),
    "paper": ("#ffffff", "#121212"),
}

# What the reader's machine may have; the last ones hold Chinese characters.
_FONTS = (
    '"DejaVu Sans",Verdana,"Segoe UI",system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif'
)

_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")

_STYLE: dict[str, Any] = {
    "figure.figsize": (6.4, 3.6),  # inches
    "figure.dpi": 100,
    "figure.facecolor": COLORS["paper"],
    "figure.constrained_layout.use": True,
    "savefig.facecolor": COLORS["paper"],
    "axes.facecolor": COLORS["paper"],
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["ink"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"],
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": COLORS["ink"],
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same layout on every machine
    "font.size": 11,
    "mathtext.fontset": "dejavusans",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
    "patch.edgecolor": COLORS["paper"],
    "image.cmap": "cividis",
}
_CYCLE = ("blue", "vermillion", "green", "purple", "orange", "sky")


class _StyleScope:
    """What `figure_style` returns: leaving it as a context manager restores the earlier settings."""

    def __init__(self, before: dict[str, Any]) -> None:
        self._before = before

    def __enter__(self) -> _StyleScope:
        return self

    def __exit__(self, *_exc: object) -> None:
        import matplotlib as mpl

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mpl.rcParams.update(self._before)


def figure_style(**changes: Any) -> _StyleScope:
    """Set matplotlib's defaults to the book's look; ``changes`` are further rcParams by name.

    Call it once before plotting, or use it as a context manager to restore what was set before.
    Names with dots are given in a dict: ``figure_style(**{"figure.figsize": (6.4, 2.4)})``.

    >>> with figure_style():
    ...     import matplotlib.pyplot as plt
    ...     plt.rcParams["figure.figsize"]
    [6.4, 3.6]
    """
    import matplotlib as mpl

    new = dict(_STYLE, **{"axes.prop_cycle": mpl.cycler(color=[COLORS[name] for name in _CYCLE])}, **changes)
    before = {key: mpl.rcParams[key] for key in new}
    mpl.rcParams.update(new)
    return _StyleScope(before)


class ShownFigure:
    """A finished picture: an SVG, the words that replace it, and a caption. Jupyter shows its HTML."""

    def __init__(self, svg: str, *, alt: str, caption: str | None, width: int, height: int) -> None:
        self.svg = svg
        self.alt = alt
        self.caption = caption
        self.width = width  # CSS pixels
        self.height = height  # CSS pixels

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.svg.encode("utf-8")).decode("ascii")
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        # dark-light: the book's theme then leaves the picture's colours alone on dark pages.
        # min-width: on a phone the picture scrolls inside its box and the text stays legible.
        return (
            '<figure class="llm-figure" style="margin:1em 0;overflow-x:auto">'
            f'<img class="dark-light" alt="{html.escape(self.alt)}" '
            f'width="{self.width}" height="{self.height}" '
            f'style="max-width:100%;height:auto;min-width:{min(self.width, 440)}px" '
            f'src="data:image/svg+xml;base64,{data}">{caption}</figure>'
        )

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"


def show_figure(fig: Figure, *, alt: str, caption: str | None = None) -> ShownFigure:
    """Close ``fig`` and return it as a picture that a notebook cell shows when it is the last value.

    ``alt`` says in words what the picture shows: screen readers speak it, and it stands where the picture
    cannot be shown. ``caption`` is printed under the picture. The SVG depends on the figure alone (no date,
    no random ids), so running a chapter again changes nothing in its file.

    Raises: ValueError if ``alt`` is empty.

    >>> import matplotlib.pyplot as plt
    >>> fig, ax = plt.subplots()
    >>> _ = ax.plot([1, 2, 4])
    >>> show_figure(fig, alt="A line that doubles at each step.")
    Figure: A line that doubles at each step.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("show_figure needs alt=: one or two sentences that say what the picture shows")
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import matplotlib.text

    buffer = io.StringIO()
    # Text stays text: a third of the size of outlines, and characters that the author's fonts lack are
    # drawn by the reader's. matplotlib then has no glyph to measure and would warn; that changes nothing.
    # Formulas with signs that stretch (a root, a fraction) do need outlines.
    labels = [text.get_text() for text in fig.findobj(mpl.text.Text)]
    outlines = any(
        re.search(r"\$.*\\(sqrt|frac|sum|prod|int|hat|bar|tilde|left|overline)", label) for label in labels
    )
    settings = {"svg.fonttype": "path" if outlines else "none", "svg.hashsalt": "llm-from-scratch"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        if not outlines:
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        logs = [logging.getLogger(f"matplotlib.{name}") for name in ("font_manager", "mathtext")]
        levels = [log.level for log in logs]
        try:
            for log in logs:
                log.setLevel(logging.ERROR)
            fig.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
            plt.close(fig)
    svg = _adapt(buffer.getvalue())
    width, height = (round(float(x) * 96 / 72) for x in re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    return ShownFigure(svg, alt=alt.strip(), caption=caption, width=width, height=height)


def _adapt(svg: str) -> str:
    """Give matplotlib's SVG both colour schemes and the reader's fonts; drop what no browser needs."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for name in _SCHEMES:
        svg = re.sub(re.escape(COLORS[name]), f"var(--{name})", svg, flags=re.IGNORECASE)
    svg = svg.replace("'DejaVu Sans'", "var(--font)")
    # Two decimals are a hundredth of a point.
    svg = re.sub(
        r'\b(d|points|x|y|width|height)="([^"]*)"',
        lambda m: (
            f'{m[1]}="' + re.sub(r"-?\d+\.\d{3,}", lambda n: _short(n[0]), " ".join(m[2].split())) + '"'
        ),
        svg,
    )
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = re.sub(r">\s*\n\s*<", "><", svg)
    light = "".join(f"--{name}:{pair[0]};" for name, pair in _SCHEMES.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in _SCHEMES.items())
    style = (
        f"<style>:root{{{light}--font:{_FONTS}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    )
    head_end = svg.index(">") + 1
    return svg[:head_end] + style + svg[head_end:].strip()


def _short(number: str) -> str:
    """Two decimals without trailing zeros.

    >>> _short("12.3456"), _short("-0.0001"), _short("7.000001")
    ('12.35', '0', '7')
    """
    text = f"{float(number):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
