"""The graph stepper's data: what is checked, what is computed, and what its fallback says."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from llm_from_scratch import autograd
from llm_from_scratch.autograd import Tensor, graph_of
from llm_from_scratch.widgets import GraphStepper
from llm_from_scratch.widgets.graph import _number
from llm_from_scratch.widgets.graph_layout import BOX, PITCH

A = {"name": "a", "op": "", "value": 3.0}
B = {"name": "b", "op": "", "value": -2.0}


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def everything():
    """Every operation once; a is used three times, b twice."""
    a, b = Tensor(0.7), Tensor(-1.3)
    c = (a * b).tanh() + a.exp()
    y = (c**3 + a.log() + (b * 2.0).relu()).exp() * 0.1
    return y, {"a": a, "b": b, "c": c, "y": y}


def test_gradients_equal_the_engine():
    y, names = everything()
    y.backward()
    view = GraphStepper(**graph_of(y, names))
    for name, tensor in names.items():
        place = view.names.index(name)
        assert math.isclose(view.values[place], tensor.data, rel_tol=1e-12)
        assert math.isclose(view.gradients[place], tensor.grad, rel_tol=1e-12)
    for name in "ab":  # and central differences, which know nothing of graphs
        estimate = float(autograd.numerical_gradient(lambda: everything_again(names), names[name]))
        assert math.isclose(view.gradients[view.names.index(name)], estimate, rel_tol=1e-6)


def everything_again(names):
    a, b = names["a"], names["b"]
    c = (a * b).tanh() + a.exp()
    return (c**3 + a.log() + (b * 2.0).relu()).exp() * 0.1


def test_operands_may_repeat_and_be_many():
    square = GraphStepper([A, {"name": "y", "op": "*"}], [("a", "y"), ("a", "y")])
    assert (square.values, square.gradients) == ([3.0, 9.0], [6.0, 1.0])
    nodes = [A, B, {"name": "k", "op": "", "value": 5.0, "constant": True}, {"name": "y", "op": "*"}]
    cube = GraphStepper(nodes, [("a", "y"), ("b", "y"), ("k", "y"), ("a", "y")])
    assert cube.values[3] == -90.0
    assert cube.gradients == [-60.0, 45.0, -18.0, 1.0]
    alone = GraphStepper([A], [])
    assert alone.gradients == [1.0]


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        ([], [], "nodes is empty"),
        ([A, A], [], "the name 'a' again"),
        ([{"op": "", "value": 1}], [], r"nodes\[0\] is .*every node is a dict"),
        ([{"name": "a", "op": ""}], [], "'a' is an input without a value"),
        ([{**A, "value": float("nan")}], [], "'a' has the value nan: values must be finite"),
        ([{**A, "value": "three"}], [], "'three', which is not a number"),
        ([A, {"name": "y", "op": "sin"}], [("a", "y")], "'y' has the unknown op 'sin'"),
        ([A, {"name": "y", "op": "**x"}], [("a", "y")], r"unknown op '\*\*x'"),
        ([A, {"name": "y", "op": 3}], [("a", "y")], "unknown op 3"),
        ([A, {"name": "y", "op": "+"}], [("a", "y")], r"'y' needs two inputs or more for '\+', got 1"),
        ([A, {"name": "y", "op": "exp"}], [], "'y' needs one input for 'exp', got 0 edges"),
        ([A, B], [("a", "b")], "'b' is an input .* 1 edges lead to it"),
        (
            [A, {"name": "y", "op": "exp"}],
            [("q", "y")],
            r"edges\[0\] is \('q', 'y'\), but no node is named 'q'",
        ),
        ([A, {"name": "y", "op": "exp"}], ["ay"], "every edge is a pair"),
        ([A, B], [], "nothing uses 'a', 'b'"),
        (
            [A, {"name": "p", "op": "+"}, {"name": "q", "op": "exp"}],
            [("a", "p"), ("q", "p"), ("p", "q")],
            "cycle through or before 'p', 'q'",
        ),
        ([B, {"name": "y", "op": "log"}], [("b", "y")], "'y' is nan: 'log' of -2.0"),
        ([{**A, "value": 800}, {"name": "y", "op": "exp"}], [("a", "y")], "'y' is inf"),
        (
            [A, {"name": "y", "op": "exp", "value": 2.0}],
            [("a", "y")],
            "has the value 2.0, but 'exp' .* 20.08",
        ),
        ([A, {"name": "y", "op": "exp", "constant": True}], [("a", "y")], "cannot be a constant"),
        ([{**A, "value": 0}, {"name": "y", "op": "**0.5"}], [("a", "y")], "'a' has the gradient inf"),
        ([{**A, "name": f"n{i}"} for i in range(65)], [], "65 nodes are more than the 64"),
    ],
)
def test_bad_graphs_are_named(nodes, edges, words):
    with pytest.raises(ValueError, match=words):
        GraphStepper(nodes, edges)


def test_layers_go_down_and_boxes_do_not_touch():
    rng = np.random.default_rng(0)
    for trial in range(20):
        nodes = [{**A, "name": f"n{i}"} for i in range(3)]
        edges, unused = [], {"n0", "n1", "n2"}
        for i in range(3, 14):
            pair = [f"n{k}" for k in rng.integers(0, i, 2)] if i < 13 else [*sorted(unused), "n0"]
            nodes.append({"name": f"n{i}", "op": "+"})
            edges += [(name, f"n{i}") for name in pair]
            unused = unused - set(pair) | {f"n{i}"}
        data = data_of(GraphStepper(nodes, edges))
        at = [node["at"] for node in data["nodes"]]
        for i, (x, y) in enumerate(at):
            assert BOX[0] / 2 <= x <= data["size"][0] - BOX[0] / 2
            assert BOX[1] / 2 <= y <= data["size"][1] - BOX[1] / 2
            for u, v in at[:i]:
                assert y != v or abs(x - u) >= PITCH[0] - 0.2, trial
        assert len(data["arrows"]) == len(edges)
        for arrow in data["arrows"]:
            heights = [y for _, y in arrow["points"]]
            assert heights == sorted(set(heights))
            start, end = at[arrow["from"]], at[arrow["to"]]
            assert arrow["points"][0] == [start[0], start[1] + BOX[1] / 2]
            assert abs(arrow["points"][-1][0] - end[0]) < BOX[0] / 2


def test_fallback_speaks():
    y, names = everything()
    view = GraphStepper(**graph_of(y, names), title="T<1>", caption="C&2")
    page = view._repr_html_()
    assert "T&lt;1&gt;" in page
    assert "C&amp;2" in page
    assert "a is 0.7, slope" in view.alt
    assert page.count("<tr>") == 1 + len(view.names)
    assert len(page) < 45_000
    assert repr(view).startswith("GraphStepper(")


def test_hostile_names_stay_text():
    nodes = [{**A, "name": "</script><b onclick=x>"}, {"name": 'q"\u202e\ud800', "op": "exp"}]
    view = GraphStepper(nodes, [(nodes[0]["name"], nodes[1]["name"])])
    page = view._repr_html_()
    page.encode("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<b" not in page.split("<script")[0]
    boxes = view._picture({0: (60, 30), 1: (60, 90)}, [], (120, 120), ["", "exp"])
    assert "".join(ElementTree.fromstring(boxes).itertext()).count("</scr…") == 1


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (-0.25, "−0.25"),
        (3.14159, "3.142"),
        (123456.0, "123500"),
        (2e6, "2.000e6"),
        (1.5e-7, "1.500e−7"),
    ],
)
def test_numbers(x, text):
    assert _number(x) == text


def test_graph_of_names_what_it_cannot_write():
    a, b = Tensor(2.0), Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="has shape"):
        graph_of((b * 1.0).sum())
    with pytest.raises(ValueError, match="'v2' was made by 'reshape'"):
        graph_of((a * 2.0).reshape(1))
    with pytest.raises(ValueError, match="'q' is not part"):
        graph_of(a * a, {"q": Tensor(1.0)})
    with pytest.raises(ValueError, match="two names, 'a' and 'b'"):
        graph_of(a * a, {"a": a, "b": a})


def test_graph_of_constants_and_names():
    a = Tensor(2.0)
    graph = graph_of(-a + 1, {"v1": a})
    assert [(n["op"], n["value"], n["constant"]) for n in graph["nodes"] if n["name"][0] == "v"] == [
        ("", 2.0, False),
        ("*", -2.0, False),
        ("+", -1.0, False),
    ]
    assert sorted(n["value"] for n in graph["nodes"] if n["constant"]) == [-1.0, 1.0]
    assert graph["edges"][0] == ("v1", "v2")
    assert json.loads(json.dumps(graph))["nodes"] == graph["nodes"]
