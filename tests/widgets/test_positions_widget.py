"""The positions explorer's numbers, its checks, and what its fallback says."""

import json
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from llm_from_scratch.nn.alibi import alibi_slopes as alibi_slopes_of_the_package
from llm_from_scratch.nn.positions import apply_rotary, rotary_angles, rotary_table
from llm_from_scratch.nn.sinusoidal import sinusoidal_positions
from llm_from_scratch.widgets import PositionExplorer
from llm_from_scratch.widgets.html import script
from llm_from_scratch.widgets.positions import alibi_slopes, product_by_distance, wave_angles


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def picture_of(view):
    address = re.search(r'src="data:image/svg\+xml,(.*?)"', view._repr_html_())[1]
    return ElementTree.fromstring(unquote(address))


@pytest.mark.parametrize(("d_model", "base"), [(6, 10000.0), (14, 37.5)])
def test_numbers_equal_the_packages(d_model, base):
    angles = wave_angles(np.arange(11), d_model, base)
    np.testing.assert_allclose(angles, rotary_angles(torch.arange(11), d_model, base=base), rtol=1e-5)
    waves = sinusoidal_positions(torch.arange(11), d_model, base=base).numpy()
    np.testing.assert_allclose(PositionExplorer(d_model=d_model, base=base)._map()[:11], waves, atol=1e-5)
    products = product_by_distance(11, d_model, base)
    np.testing.assert_allclose(waves[3] @ waves[3:].T / (d_model / 2), products[:8], atol=1e-5)
    # Rotary: an equal query and key, every pair of the same length.
    turned = apply_rotary(torch.ones(11, d_model), *rotary_table(11, d_model, base=base))
    np.testing.assert_allclose(turned[10] @ turned.T / d_model, products[::-1], atol=1e-5)


@pytest.mark.parametrize("num_heads", range(1, 17))
def test_slopes_equal_the_packages(num_heads):
    np.testing.assert_allclose(alibi_slopes(num_heads), alibi_slopes_of_the_package(num_heads), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scheme": "learned"}, "scheme='learned' is unknown; choose one of"),
        ({"d_model": 7}, "d_model=7 is odd.*choose 8"),
        ({"d_model": 130}, "d_model=130 must be a whole number from 2 to 128"),
        ({"d_model": 6.0}, "d_model=6.0 must be a whole number"),
        ({"length": 1}, "length=1 must be a whole number from 2 to 64"),
        ({"length": 9, "position": 9}, "position=9 must be a whole number from 0 to 8"),
        ({"position": True, "length": 9}, "position=True"),
        ({"num_heads": 0}, "num_heads=0 must be a whole number from 1 to 16"),
        ({"base": 1.0}, "base=1.0 must be a number above 1"),
        ({"base": float("nan")}, "base=nan"),
        ({"base": "10000"}, "base='10000'"),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        PositionExplorer(**settings)


@pytest.mark.parametrize("scheme", ["sinusoidal", "rope", "alibi"])
def test_fallback_speaks(scheme):
    view = PositionExplorer(
        scheme, d_model=10, length=7, position=3, num_heads=3, title="T<1>", caption="C&2"
    )
    page = view._repr_html_()
    assert "T&lt;1&gt;" in page
    assert "C&amp;2" in page
    assert len(view.alt) > 40
    assert page.count("<tr>") == 1 + (3 if scheme == "alibi" else 5)
    assert data_of(view)["position"] == 3
    assert len(picture_of(view).find(".//{*}polyline").get("points").split()) == 7


def test_alt_tells_the_products():
    view = PositionExplorer(d_model=4, base=100.0, length=3, position=0)
    assert "1 at distance 0, 0.7677 at distance 1." in view.alt
    assert "between 0.003906 and 0.25" in PositionExplorer("alibi", num_heads=4).alt


def test_table_holds_the_values_of_the_position():
    table = PositionExplorer(d_model=4, base=100.0, length=6, position=5)._table()
    cells = re.findall(r"<td>(.*?)</td>", table)
    assert cells == ["0", "6.283", "5", "−0.9589", "0.2837", "1", "62.83", "0.5", "0.4794", "0.8776"]
    alibi = re.findall(r"<td>(.*?)</td>", PositionExplorer("alibi", num_heads=2)._table())
    assert alibi == ["0", "0.0625", "11.09", "1", "0.003906", "177.4"]


def test_the_heat_map_has_a_cell_for_each_value():
    view = PositionExplorer(d_model=6, length=5, position=0)
    cells = [path.get("d") for path in picture_of(view).findall(".//{*}g/{*}path")]
    assert sum(d.count("M") for d in cells) == 5 * 6
    first = next(path for path in picture_of(view).findall(".//{*}g/{*}path") if "M1 0h" in path.get("d"))
    assert first.get("fill") == "#1b5fae"  # the cosine at position 0 is 1


def test_sizes_and_hostile_titles():
    widest = PositionExplorer(d_model=128, length=64, title="</script><b onclick=x>\ud800", caption="<!--")
    page = widest._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    assert len(page) < 150_000
    assert len(PositionExplorer()._repr_html_()) < 60_000
    assert len(script("positions").encode("utf-8")) <= 20_000
    assert (
        widest._repr_html_()
        == PositionExplorer(d_model=128, length=64, title=widest.title, caption=widest.caption)._repr_html_()
    )
