"""A small engine for reverse-mode automatic differentiation, on NumPy arrays.

A ``Tensor`` remembers which tensors it was computed from and, for each of them, how a gradient
flows back: a function that turns dL/d(output) into dL/d(input), the vector-Jacobian product.
``backward`` walks the graph once, from the loss to the leaves.

A scalar is a tensor of shape ``()``, so the same engine serves the worked example with two hidden
units and a character model with thousands of parameters. Everything is float64: the engine exists
to be checked against finite differences and against torch, not to be fast.

Source: the accumulation order is that of Griewank and Walther 2008, chapter 3. The interface
follows torch where it can, so that a reader meets nothing new there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Array = np.ndarray
Number = int | float
# A parent and the function that carries a gradient back to it.
Edge = tuple["Tensor", Callable[[Array], Array]]


class Tensor:
    """A NumPy array with a gradient.

    ``data`` and ``grad`` have the same shape; ``grad`` is None until ``backward`` reaches the
    tensor, and calls of ``backward`` add to it, as in torch. ``op`` names the operation that made
    the tensor ("" for a leaf).

    >>> x, w = Tensor(2.0), Tensor(3.0)
    >>> loss = (x * w + 1).tanh()
    >>> loss.backward()
    >>> bool(np.isclose(x.grad, 3 * (1 - np.tanh(7) ** 2)))
    True
    """

    __array_priority__ = 1  # NumPy's operators step back: array * Tensor calls Tensor.__rmul__

    def __init__(self, data: Array | Number | Sequence, *, op: str = "", edges: tuple[Edge, ...] = ()):
        self.data = np.asarray(data, dtype=np.float64)
        self.grad: Array | None = None
        self.op = op
        self.edges = edges

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return self.data.shape

    def __repr__(self) -> str:
        made_by = f", op={self.op!r}" if self.op else ""
        return f"Tensor({np.array2string(self.data, precision=4)}{made_by})"

    # Arithmetic ---------------------------------------------------------------------------------

    def __add__(self, other: Tensor | Array | Number) -> Tensor:
        other = as_tensor(other)
        return _make("+", self.data + other.data, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other: Tensor | Array | Number) -> Tensor:
        other = as_tensor(other)
        return _make(
            "*", self.data * other.data, (self, lambda g: g * other.data), (other, lambda g: g * self.data)
        )

    def __pow__(self, exponent: Number) -> Tensor:
        if not isinstance(exponent, (int, float)):
            raise TypeError(f"the exponent must be a number, got {type(exponent).__name__}; use exp and log")
        slope = lambda g: g * exponent * self.data ** (exponent - 1)  # noqa: E731
        return _make(f"**{exponent}", self.data**exponent, (self, slope))

    def __matmul__(self, other: Tensor | Array) -> Tensor:
        """Matrix product of two matrices, [M, K] @ [K, N] -> [M, N]; dL/dA = G Bᵀ, dL/dB = Aᵀ G."""
        other = as_tensor(other)
        if self.data.ndim != 2 or other.data.ndim != 2 or self.shape[1] != other.shape[0]:
            raise ValueError(f"matmul takes [M, K] @ [K, N], got {self.shape} @ {other.shape}; reshape first")
        return _make(
            "@",
            self.data @ other.data,
            (self, lambda g: g @ other.data.T),
            (other, lambda g: self.data.T @ g),
        )

    def __neg__(self) -> Tensor:
        return self * -1.0

    def __sub__(self, other: Tensor | Array | Number) -> Tensor:
        return self + (-as_tensor(other))

    def __truediv__(self, other: Tensor | Array | Number) -> Tensor:
        return self * as_tensor(other) ** -1

    __radd__ = __add__
    __rmul__ = __mul__

    def __rmatmul__(self, other: Array) -> Tensor:
        return as_tensor(other) @ self

    def __rsub__(self, other: Array | Number) -> Tensor:
        return as_tensor(other) - self

    def __rtruediv__(self, other: Array | Number) -> Tensor:
        return as_tensor(other) / self

    # Functions of one argument ------------------------------------------------------------------

    def exp(self) -> Tensor:
        """The exponential of each entry, which is its own derivative."""
        out = np.exp(self.data)
        return _make("exp", out, (self, lambda g: g * out))

    def log(self) -> Tensor:
        """Natural logarithm. Raises ValueError where an entry is not positive."""
        if (self.data <= 0).any():
            raise ValueError(f"log needs positive entries, got {self.data.min()}; clip or add a constant")
        return _make("log", np.log(self.data), (self, lambda g: g / self.data))

    def tanh(self) -> Tensor:
        """Hyperbolic tangent; derivative 1 - tanh²."""
        out = np.tanh(self.data)
        return _make("tanh", out, (self, lambda g: g * (1 - out**2)))

    def relu(self) -> Tensor:
        """max(0, x); derivative 1 for x > 0, else 0 (at 0 too, as in torch)."""
        return _make("relu", np.maximum(self.data, 0), (self, lambda g: g * (self.data > 0)))

    def sum(self, axis: int | None = None) -> Tensor:
        """Sum over all entries or over one axis; the gradient is copied to every summand."""

        def spread(g: Array) -> Array:
            return np.broadcast_to(g if axis is None else np.expand_dims(g, axis), self.shape)

        return _make("sum", self.data.sum(axis), (self, spread))

    def mean(self) -> Tensor:
        """Mean over all entries."""
        return self.sum() / self.data.size

    def reshape(self, *shape: int) -> Tensor:
        """Same entries, other shape."""
        return _make("reshape", self.data.reshape(shape), (self, lambda g: g.reshape(self.shape)))

    def __getitem__(self, index: Array | slice | int | tuple) -> Tensor:
        """Select entries or rows, as NumPy does. Rows chosen twice receive both gradients."""

        def scatter(g: Array) -> Array:
            grad = np.zeros_like(self.data)
            np.add.at(grad, index, g)
            return grad

        return _make("[]", self.data[index], (self, scatter))

    # The backward pass --------------------------------------------------------------------------

    def backward(self) -> None:
        """Add dL/dx to ``x.grad`` for every tensor x that this scalar L was computed from.

        Every node is visited once, after all the nodes that use it: by then its gradient is whole.
        Raises: ValueError if the tensor has more than one entry.
        """
        if self.data.size != 1:
            raise ValueError(f"backward starts at a scalar, got shape {self.shape}; take a sum or a mean")
        upstream: dict[int, Array] = {id(self): np.ones_like(self.data)}
        for node in reversed(list(topological_order(self))):
            g = upstream.pop(id(node))
            node.grad = g.copy() if node.grad is None else node.grad + g
            for parent, vjp in node.edges:
                contribution = _sum_to_shape(vjp(g), parent.shape)
                seen = upstream.get(id(parent))
                upstream[id(parent)] = contribution if seen is None else seen + contribution


def as_tensor(value: Tensor | Array | Number) -> Tensor:
    """Return tensors as they are; wrap numbers and arrays as leaves."""
    return value if isinstance(value, Tensor) else Tensor(value)


def topological_order(root: Tensor) -> Iterator[Tensor]:
    """Yield every tensor of the graph below ``root``, each after all that it was computed from.

    Depth first with a stack of our own: a graph of a long recurrence is deeper than Python's
    recursion limit.
    """
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent, _ in node.edges)


def softmax_cross_entropy(logits_NV: Tensor, targets_N: Sequence[int] | Array) -> Tensor:
    """Mean over N rows of -log softmax(logits)[target], in nats.

    Computed as log Σ exp(z - max z) - (z_target - max z), which cannot overflow. The gradient of a
    row is (softmax(z) - one-hot(target)) / N.

    Shapes: N examples, V classes. Raises: ValueError for targets outside [0, V).

    >>> loss = softmax_cross_entropy(Tensor([[0.0, 0.0]]), [1])
    >>> round(float(loss.data), 4)
    0.6931
    """
    targets_N = np.asarray(targets_N)
    num_rows, num_classes = logits_NV.shape
    if targets_N.shape != (num_rows,):
        raise ValueError(f"{num_rows} rows of logits need {num_rows} targets, got shape {targets_N.shape}")
    if num_rows == 0:
        raise ValueError("the mean over no rows is not defined; pass at least one row")
    if targets_N.min() < 0 or targets_N.max() >= num_classes:
        raise ValueError(
            f"targets must lie in [0, {num_classes}), got {targets_N.min()} to {targets_N.max()}"
        )
    shifted_NV = logits_NV.data - logits_NV.data.max(axis=1, keepdims=True)
    log_probs_NV = shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))
    rows = np.arange(num_rows)

    def vjp(g: Array) -> Array:
        grad_NV = np.exp(log_probs_NV)
        grad_NV[rows, targets_N] -= 1.0
        return g * grad_NV / num_rows

    return _make("cross_entropy", -log_probs_NV[rows, targets_N].mean(), (logits_NV, vjp))


def numerical_gradient(function: Callable[[], Tensor], tensor: Tensor, *, step: float = 1e-6) -> Array:
    """Estimate d function() / d tensor by central differences: (f(x+h) - f(x-h)) / 2h.

    Costs two evaluations for each entry, which is why nobody trains this way; the error is of
    order h² plus rounding of order 1e-16 / h.
    """
    gradient = np.zeros_like(tensor.data)
    for index in np.ndindex(tensor.shape):
        kept = tensor.data[index]
        tensor.data[index] = kept + step
        above = float(function().data)
        tensor.data[index] = kept - step
        below = float(function().data)
        tensor.data[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def graph_of(root: Tensor, names: dict[str, Tensor] | None = None) -> dict[str, list]:
    """Write the graph below a scalar as plain data, the form that ``widgets.GraphStepper`` draws.

    Returns {"nodes": [{"name", "op", "value", "constant"}], "edges": [(from, to)]}, each node after its
    inputs and each node's edges in the order of its operands. ``names`` maps names to tensors. Without a
    name a result is called v1, v2, ... and a leaf counts as a constant, c1, c2, ...

    Raises: ValueError for tensors that are no scalars, operations that the data has no word for (matmul,
    sum ...), a tensor named twice, and names of tensors outside the graph.

    >>> a = Tensor(3.0)
    >>> graph_of(a * a, {"a": a})["edges"]
    [('a', 'v1'), ('a', 'v1')]
    """
    order = list(topological_order(root))
    inside = {id(node) for node in order}
    known: dict[int, str] = {}
    for name, tensor in (names or {}).items():
        if id(tensor) not in inside:
            raise ValueError(f"the tensor named {name!r} is not part of the graph")
        if id(tensor) in known:
            raise ValueError(f"one tensor has two names, {known[id(tensor)]!r} and {name!r}")
        known[id(tensor)] = name
    # By depth, then by the order of the names: still each after its inputs, and drawn as the author listed.
    rank = {key: place for place, key in enumerate(known)}
    depth: dict[int, int] = {}
    for node in order:
        depth[id(node)] = 1 + max((depth[id(parent)] for parent, _ in node.edges), default=-1)
    order.sort(key=lambda node: (depth[id(node)], rank.get(id(node), len(rank))))
    nodes, edges, taken = [], [], set(known.values())
    counts = {"c": 0, "v": 0}
    for node in order:
        unnamed = id(node) not in known
        while id(node) not in known:
            kind = "v" if node.edges else "c"
            counts[kind] += 1
            if f"{kind}{counts[kind]}" not in taken:
                known[id(node)] = f"{kind}{counts[kind]}"
        name = known[id(node)]
        if node.data.size != 1:
            raise ValueError(
                f"{name!r} has shape {node.shape}: only graphs of scalars can be written node by node"
            )
        if node.op not in ("", "+", "*", "exp", "log", "tanh", "relu") and not node.op.startswith("**"):
            raise ValueError(
                f"{name!r} was made by {node.op!r}: write it with +, *, **, exp, log, tanh and relu"
            )
        constant = unnamed and not node.edges
        nodes.append({"name": name, "op": node.op, "value": float(node.data.item()), "constant": constant})
        edges += [(known[id(parent)], name) for parent, _ in node.edges]
    return {"nodes": nodes, "edges": edges}


def _make(op: str, data: Array, *edges: Edge) -> Tensor:
    return Tensor(data, op=op, edges=edges)


def _sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: an entry that was used many times receives the sum of its gradients."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    stretched = tuple(i for i, size in enumerate(shape) if size == 1 and grad.shape[i] != 1)
    return grad.sum(axis=stretched, keepdims=True)
