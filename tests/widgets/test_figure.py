"""Pictures: words, both schemes, the same bytes each time, and nothing that a host would remove."""

import base64
import re
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from llm_from_scratch.widgets import COLORS, figure_style, show_figure, show_source


@pytest.fixture(autouse=True)
def _style():
    with figure_style():
        yield
    plt.close("all")


def draw(title="Title", text="line"):
    fig, ax = plt.subplots()
    ax.plot([1, 2, 4], label=text)
    ax.set_title(title)
    ax.legend()
    return fig


def svg_of(shown):
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', shown._repr_html_())[1]
    return base64.b64decode(data).decode("utf-8")


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_words_are_required(alt):
    with pytest.raises(ValueError, match="alt="):
        show_figure(draw(), alt=alt)


def test_html_is_what_every_host_keeps():
    page = show_figure(draw(), alt='a "line" & <b>', caption="x < y")._repr_html_()
    assert 'alt="a &quot;line&quot; &amp; &lt;b&gt;"' in page
    assert "<figcaption>x &lt; y</figcaption>" in page
    assert re.findall(r"<(\w+)", page) == ["figure", "img", "figcaption"]
    assert repr(show_figure(draw(), alt="a line")) == "Figure: a line"


def test_the_same_figure_gives_the_same_bytes():
    assert show_figure(draw(), alt="a")._repr_html_() == show_figure(draw(), alt="a")._repr_html_()


def test_svg_is_valid_small_and_holds_no_trace_of_the_machine():
    svg = svg_of(show_figure(draw(), alt="a"))
    ElementTree.fromstring(svg)
    assert len(svg) < 12_000
    assert not re.search(r"matplotlib\.org|<metadata|<!--|20\d\d-", svg)


def test_both_schemes_reach_ink_grid_and_paper():
    svg = svg_of(show_figure(draw(), alt="a"))
    assert "@media(prefers-color-scheme:dark)" in svg
    body = svg[svg.index("</style>") :]
    for name in ("ink", "muted", "grid", "paper"):
        assert f"var(--{name})" in body
        assert COLORS[name] not in body
    assert COLORS["blue"] in body  # data keep their colours
    assert re.search(r'<path d="M 0 259.2 [^"]*" style="fill: var\(--paper\)"', body), "no opaque background"


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_both_schemes():
    svg = svg_of(show_figure(draw(), alt="a"))
    schemes = [
        dict(re.findall(r"--(\w+):(#\w{6})", part)) for part in svg[: svg.index("</style>")].split("@media")
    ]
    for scheme in schemes:
        assert contrast(scheme["ink"], scheme["paper"]) > 7
        assert contrast(scheme["muted"], scheme["paper"]) > 4.5
    assert contrast(COLORS["blue"], schemes[1]["paper"]) > 3


def test_chinese_text_stays_text_and_warns_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = svg_of(show_figure(draw("注意力", "中文"), alt="a"))
    assert "注意力" in svg
    assert "Noto Sans CJK" in svg


def test_formulas_with_roots_become_outlines():
    svg = svg_of(show_figure(draw(r"$\sqrt{d_k}$"), alt="a"))
    assert "<text" not in svg
    ElementTree.fromstring(svg)


def test_black_text_on_a_light_cell_stays_black():
    fig, ax = plt.subplots()
    ax.text(0.5, 0.5, "here", color="black")
    svg = svg_of(show_figure(fig, alt="a"))
    style = re.search(r'<text style="([^"]*)"[^>]*>here', svg)[1]
    assert "--ink" not in style


def test_images_keep_their_place():
    fig, ax = plt.subplots()
    ax.imshow(np.arange(35).reshape(5, 7))
    svg = svg_of(show_figure(fig, alt="a"))
    raw = re.search(r"<image [^>]*>", svg)[0]
    assert float(re.search(r'height="([\d.]+)"', raw)[1]) > 100


def test_the_figure_is_closed():
    fig = draw()
    show_figure(fig, alt="a")
    assert not plt.fignum_exists(fig.number)


def test_style_is_restored_when_used_as_a_context():
    before = mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]
    mpl.rcParams.update({"axes.grid": False, "font.size": 7})
    with figure_style(**{"figure.figsize": (6.4, 2.0)}):
        assert mpl.rcParams["axes.grid"]
        assert mpl.rcParams["figure.figsize"] == [6.4, 2.0]
    assert (mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]) == (False, 7)
    mpl.rcParams.update({"axes.grid": before[0], "font.size": before[1]})


def test_source_is_shown_folded_and_whole():
    shown = show_source(show_figure)
    text = shown._repr_markdown_()
    assert text.startswith(
        "<details><summary>Source of <code>llm_from_scratch.widgets.figure.show_figure</code>"
    )
    assert "```python\ndef show_figure(" in text
    assert text.endswith("</details>")
    assert '"""' not in show_source(show_figure, docstring=False).code


def test_source_with_backticks_cannot_end_its_block():
    def inner():
        return "```"

    assert "````python" in show_source(inner)._repr_markdown_()


@pytest.mark.parametrize("thing", [len, 3, "text"])
def test_source_of_what_has_none(thing):
    with pytest.raises(ValueError, match="no source"):
        show_source(thing)
