"""The graph stepper: a computation as a graph, its values forward and its gradients back, step by step.

A node is drawn below everything it was computed from. A constant has no box: it stands in the box of the
operation that uses it. Positions are worked out here, so that the picture without JavaScript and the
picture with it are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.graph_layout import BOX, curve, layout

MAX_NODES = 64  # more boxes than this nobody steps through
FUNCTIONS = ("exp", "log", "tanh", "relu")
_STYLE = (
    "text{font:12px sans-serif;fill:#1c2430}.k{font-weight:600}.o,.g{text-anchor:end}.o{fill:#566070}"
    ".g{fill:#a33f00}.b{fill:#fff}.n{fill:#f3f6f9;stroke:#858f9c}path{fill:none;stroke:#858f9c}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.o{fill:#a6afbb}.g{fill:#ffb27a}"
    ".b{fill:#1b1e24}.n{fill:#23272f;stroke:#77818f}path{stroke:#77818f}}"
)


class GraphStepper:
    """A computation of numbers as an interactive graph.

    Shown as the last line of a notebook cell. In the view: one node a click (buttons, or the arrow keys,
    Home and End), first forward, then back; the formula of each step in words and in numbers, with the local
    slope on each arrow; inputs whose values can be changed; export as SVG and CSV.

    Args:
        nodes: dicts with ``name`` (unique), ``op`` and ``value``. ``op`` is "" for an input, else one of
            "+", "*" (two inputs or more), "**k" with a number k, "exp", "log", "tanh", "relu" (one input).
            ``value`` is needed for inputs; where an operation has one, it is checked. ``constant: True``
            marks an input that stays as it is and has no gradient of its own.
        edges: pairs (from, to) of names. Their order is the order of the operands; ``a * a`` is two edges.
            ``autograd.graph_of(tensor)`` writes both lists.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    The gradients are those of the one node that nothing uses, as in ``autograd.Tensor.backward``.

    Raises: ValueError for names that repeat or are unknown, an unknown operation, a wrong number of inputs,
    a cycle, several outputs, values that are missing, not finite or not what the operation gives.

    >>> GraphStepper([{"name": "a", "op": "", "value": 3.0}, {"name": "y", "op": "*"}], [("a", "y")] * 2)
    GraphStepper(2 nodes, output y = 9)
    """

    def __init__(
        self,
        nodes: Iterable[Mapping[str, Any]],
        edges: Iterable[tuple[str, str]],
        title: str = "Values forward, gradients back",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.nodes = _read_nodes(nodes)
        self.names = [node["name"] for node in self.nodes]
        self.inputs = _read_edges(edges, self.names)
        _check_inputs(self.nodes, self.inputs)
        self.order = _order(self.names, self.inputs)
        self.output = _output(self.names, self.inputs)
        self.values = _forward(self.nodes, self.inputs, self.order)
        self.gradients = _backward(self.nodes, self.inputs, self.order, self.values, self.output)
        self.shown = [html.visible(name).replace("␣", " ") for name in self.names]
        self.title = title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        result = f"output {self.shown[self.output]} = {self.values[self.output]:.4g}"
        return f"GraphStepper({len(self.nodes)} node{'s' * (len(self.nodes) != 1)}, {result})"

    def _default_caption(self) -> str:
        return (
            "Each box is a value, with the operation that makes it. Below the name stands the value and, "
            f"once the walk back has reached it, the slope of {self.shown[self.output]} with respect to it."
        )

    def _default_alt(self) -> str:
        parts = []
        for i in self.order:
            if self.nodes[i]["constant"]:
                continue
            made = f" = {self._formula(i)}" if self.nodes[i]["op"] else ""
            parts.append(
                f"{self.shown[i]}{made} is {_number(self.values[i])}, slope {_number(self.gradients[i])}"
            )
        return f"Computation graph of {self.shown[self.output]}: {'; '.join(parts)}."

    def _operands(self, i: int) -> list[str]:
        constant = [self.nodes[k]["constant"] for k in self.inputs[i]]
        return [
            _number(self.values[k]) if fixed else self.shown[k]
            for k, fixed in zip(self.inputs[i], constant, strict=True)
        ]

    def _formula(self, i: int) -> str:
        op, operands = self.nodes[i]["op"], self._operands(i)
        if op in ("+", "*"):
            return {"+": " + ", "*": " × "}[op].join(operands)
        if op.startswith("**"):
            return f"{operands[0]} to the power {_number(float(op[2:]))}"
        return f"{op}({operands[0]})"

    def _label(self, i: int) -> str:
        """The operation as it stands in the box, with its constants."""
        op = self.nodes[i]["op"]
        if op.startswith("**"):
            return "^" + _number(float(op[2:]))
        fixed = [_number(self.values[k]) for k in self.inputs[i] if self.nodes[k]["constant"]]
        return " ".join([{"*": "×", "relu": "ReLU"}.get(op, op), *fixed])

    def _build(self) -> str:
        boxes, arrows, size = layout(self.nodes, self.inputs, self.order)
        labels = [self._label(i) for i in range(len(self.nodes))]
        data = {
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
            "size": size,
            "box": BOX,
            "output": self.output,
            "order": self.order,
            "nodes": [
                {
                    "name": self.names[i],
                    "shown": self.shown[i],
                    "op": node["op"],
                    "label": labels[i],
                    "value": self.values[i],
                    "constant": node["constant"],
                    "inputs": self.inputs[i],
                    "at": boxes.get(i),
                }
                for i, node in enumerate(self.nodes)
            ],
            "arrows": [{"from": a, "to": b, "slot": slot, "points": points} for a, b, slot, points in arrows],
        }
        return html.widget_html(
            "graph",
            data,
            svg=self._picture(boxes, arrows, size, labels),
            alt=self.alt,
            caption=self.caption,
            summary="Table of values and gradients",
            table=self._table(),
        )

    def _picture(self, boxes: dict, arrows: list, size: tuple[int, int], labels: list[str]) -> str:
        """The whole graph with all values and gradients: the fallback's picture."""
        parts = [f'<path d="{curve(points)}"/>' for *_, points in arrows]
        for i, (x, y) in boxes.items():
            left, top = x - BOX[0] / 2, y - BOX[1] / 2
            parts.append(
                f'<rect class="n" x="{left:g}" y="{top:g}" width="{BOX[0]}" height="{BOX[1]}" rx="7"/>'
            )
            for kind, row, words in (
                ("k", 16, html.shorten(self.shown[i], 6)),
                ("o", 16, html.shorten(labels[i], 5)),
                ("v", 32, _number(self.values[i])),
                ("g", 47, _number(self.gradients[i])),
            ):
                at = left + 7 if kind in "kv" else left + BOX[0] - 7
                parts.append(
                    f'<text class="{kind}" x="{at:g}" y="{top + row:g}">{html.escaped(words)}</text>'
                )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
            f'height="{size[1]}"><style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>'
            f"{''.join(parts)}</svg>"
        )

    def _table(self) -> str:
        output = html.escaped(self.shown[self.output])
        rows = []
        for i in self.order:
            constant = self.nodes[i]["constant"]
            made = self._formula(i) if self.nodes[i]["op"] else "constant" if constant else "input"
            slope = "" if constant else _number(self.gradients[i])
            cells = (self.shown[i], made, _number(self.values[i]), slope)
            rows.append(f"<tr>{''.join(f'<td>{html.escaped(cell)}</td>' for cell in cells)}</tr>")
        head = f"<tr><th>Node</th><th>Made by</th><th>Value</th><th>Slope of {output}</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _number(x: float) -> str:
    """Four significant digits, with a true minus sign; the JavaScript writes numbers in the same way."""
    if x == 0:
        return "0"
    if not 1e-4 <= abs(x) < 1e6:
        digits, power = f"{x:.3e}".split("e")
        return f"{digits}e{int(power)}".replace("-", "−")
    return np.format_float_positional(x, precision=4, fractional=False, trim="-").replace("-", "−")


def _read_nodes(nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found, names = [], set()
    for position, node in enumerate(nodes):
        if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
            raise ValueError(f"nodes[{position}] is {node!r}: every node is a dict with a str under 'name'")
        name, op, value = node["name"], node.get("op", ""), node.get("value")
        if name in names:
            raise ValueError(f"nodes[{position}] has the name {name!r} again: names must differ")
        names.add(name)
        if not _is_operation(op):
            raise ValueError(
                f"node {name!r} has the unknown op {op!r}; known are '' (an input), '+', '*', '**k', "
                f"{', '.join(map(repr, FUNCTIONS))}"
            )
        if value is None and not op:
            raise ValueError(f"node {name!r} is an input without a value")
        if value is not None:
            try:
                value = float(value)
            except (TypeError, ValueError):
                raise ValueError(f"node {name!r} has the value {value!r}, which is not a number") from None
            if not math.isfinite(value):
                raise ValueError(f"node {name!r} has the value {value}: values must be finite")
        constant = bool(node.get("constant", False))
        if constant and op:
            raise ValueError(f"node {name!r} is the result of {op!r} and cannot be a constant")
        found.append({"name": name, "op": op, "value": value, "constant": constant})
    if not found:
        raise ValueError("nodes is empty: a graph needs at least one node")
    if len(found) > MAX_NODES:
        raise ValueError(f"{len(found)} nodes are more than the {MAX_NODES} that can be stepped through")
    return found


def _is_operation(op: Any) -> bool:
    if not isinstance(op, str):
        return False
    if op.startswith("**"):
        try:
            return math.isfinite(float(op[2:]))
        except ValueError:
            return False
    return op in ("", "+", "*", *FUNCTIONS)


def _read_edges(edges: Iterable[tuple[str, str]], names: list[str]) -> list[list[int]]:
    place = {name: i for i, name in enumerate(names)}
    inputs: list[list[int]] = [[] for _ in names]
    for position, edge in enumerate(edges):
        if isinstance(edge, str) or len(tuple(edge)) != 2:
            raise ValueError(f"edges[{position}] is {edge!r}: every edge is a pair (from, to) of names")
        for name in edge:
            if not isinstance(name, str) or name not in place:
                raise ValueError(f"edges[{position}] is {tuple(edge)!r}, but no node is named {name!r}")
        start, end = edge
        inputs[place[end]].append(place[start])
    return inputs


def _check_inputs(nodes: list[dict], inputs: list[list[int]]) -> None:
    for node, given in zip(nodes, inputs, strict=True):
        op, name, count = node["op"], node["name"], len(given)
        if not op and count:
            raise ValueError(f"node {name!r} is an input (op '') and yet {count} edges lead to it")
        if op in ("+", "*") and count < 2:
            raise ValueError(
                f"node {name!r} needs two inputs or more for {op!r}, got {count}: an edge is missing"
            )
        if op and op not in ("+", "*") and count != 1:
            raise ValueError(f"node {name!r} needs one input for {op!r}, got {count} edges")


def _order(names: list[str], inputs: list[list[int]]) -> list[int]:
    """The nodes, each after its inputs, and otherwise as they were given."""
    order: list[int] = []
    while len(order) < len(names):
        ready = [i for i in range(len(names)) if i not in order and all(k in order for k in inputs[i])]
        if not ready:
            stuck = [names[i] for i in range(len(names)) if i not in order]
            raise ValueError(f"the edges form a cycle through or before {', '.join(map(repr, stuck[:6]))}")
        order += ready
    return order


def _output(names: list[str], inputs: list[list[int]]) -> int:
    used = {k for given in inputs for k in given}
    unused = [i for i in range(len(names)) if i not in used]
    if len(unused) != 1:
        several = ", ".join(repr(names[i]) for i in unused)
        raise ValueError(
            f"a graph has one output, but nothing uses {several}: an edge is missing, or a node too many"
        )
    return unused[0]


def _forward(nodes: list[dict], inputs: list[list[int]], order: list[int]) -> list[float]:
    values = [0.0] * len(nodes)
    for i in order:
        op, given = nodes[i]["op"], nodes[i]["value"]
        if not op:
            values[i] = given
            continue
        operands = [values[k] for k in inputs[i]]
        values[i] = _apply(op, operands)
        name = nodes[i]["name"]
        if not math.isfinite(values[i]):
            raise ValueError(f"node {name!r} is {values[i]}: {op!r} of {', '.join(map(repr, operands))}")
        if given is not None and not math.isclose(given, values[i], rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(
                f"node {name!r} has the value {given!r}, but {op!r} of its inputs gives {values[i]!r}"
            )
    return values


def _apply(op: str, operands: list[float]) -> float:
    x = np.float64(operands[0])
    with np.errstate(all="ignore"):
        if op == "+":
            result = sum(operands)
        elif op == "*":
            result = math.prod(operands)
        elif op.startswith("**"):
            result = x ** float(op[2:])
        else:
            result = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "relu": lambda v: max(v, 0.0)}[op](x)
    return float(result)


def _slope(op: str, operands: list[float], result: float, slot: int) -> float:
    """The derivative of the result with respect to the operand in ``slot``."""
    x = operands[slot]
    if op == "+":
        return 1.0
    if op == "*":
        return math.prod(operands[:slot] + operands[slot + 1 :])
    if op.startswith("**"):
        with np.errstate(all="ignore"):
            exponent = np.float64(op[2:])
            return float(exponent * np.float64(x) ** (exponent - 1))
    return {"exp": result, "log": 1 / x if x else math.nan, "tanh": 1 - result**2, "relu": float(x > 0)}[op]


def _backward(
    nodes: list[dict], inputs: list[list[int]], order: list[int], values: list[float], output: int
) -> list[float]:
    gradients = [0.0] * len(nodes)
    gradients[output] = 1.0
    for i in reversed(order):
        operands = [values[k] for k in inputs[i]]
        for slot, k in enumerate(inputs[i]):
            gradients[k] += gradients[i] * _slope(nodes[i]["op"], operands, values[i], slot)
    for i in order:
        if not math.isfinite(gradients[i]):
            raise ValueError(
                f"node {nodes[i]['name']!r} has the gradient {gradients[i]}: move the inputs off the pole"
            )
    return gradients
