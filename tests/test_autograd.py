"""Every operation against finite differences and against torch, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.autograd import Tensor, numerical_gradient, softmax_cross_entropy, topological_order

ONE_ARGUMENT = {
    "exp": (lambda x: x.exp(), torch.exp),
    "log": (lambda x: x.log(), torch.log),
    "tanh": (lambda x: x.tanh(), torch.tanh),
    "relu": (lambda x: (x - 1.0).relu(), lambda x: (x - 1.0).relu()),
    "power": (lambda x: x**-1.5, lambda x: x**-1.5),
    "rsub": (lambda x: 2.0 - x, lambda x: 2.0 - x),
    "rdiv": (lambda x: 3.0 / x, lambda x: 3.0 / x),
    "sum axis 0": (lambda x: x.sum(0), lambda x: x.sum(0)),
    "sum axis 1": (lambda x: x.sum(1), lambda x: x.sum(1)),
    "mean": (lambda x: x.mean(), torch.mean),
    "reshape": (lambda x: x.reshape(5, 3), lambda x: x.reshape(5, 3)),
    "rows chosen twice": (lambda x: x[np.array([0, 2, 2])], lambda x: x[[0, 2, 2]]),
}


def weighted(out):
    """A scalar whose gradient differs for each entry, so that a transposed gradient shows."""
    weights = np.cos(np.arange(out.data.size if isinstance(out, Tensor) else out.numel())).reshape(out.shape)
    return (out * weights).sum() if isinstance(out, Tensor) else (out * torch.tensor(weights)).sum()


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_one_argument(name):
    ours, theirs = ONE_ARGUMENT[name]
    data = np.random.default_rng(3).uniform(0.5, 2.0, (3, 5))
    x, t = Tensor(data.copy()), torch.tensor(data, requires_grad=True)
    out = ours(x)
    np.testing.assert_allclose(out.data, theirs(t).detach().numpy(), rtol=1e-12)
    weighted(out).backward()
    weighted(theirs(t)).backward()
    np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad, numerical_gradient(lambda: weighted(ours(x)), x), rtol=1e-6, atol=1e-7)


SHAPES = [
    ((3, 5), (3, 5)),
    ((3, 5), (5,)),
    ((3, 5), (3, 1)),
    ((3, 1), (1, 5)),
    ((), (2, 3)),
    ((7, 3, 5), (3, 1)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("op", ["__add__", "__sub__", "__mul__", "__truediv__"])
def test_two_arguments_with_broadcasting(left, right, op):
    rng = np.random.default_rng(5)
    for shape_a, shape_b in ((left, right), (right, left)):
        a, b = rng.uniform(0.5, 2.0, shape_a), rng.uniform(0.5, 2.0, shape_b)
        x, y = Tensor(a), Tensor(b)
        t, u = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
        weighted(getattr(x, op)(y)).backward()
        weighted(getattr(t, op)(u)).backward()
        np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=1e-12)
        np.testing.assert_allclose(y.grad, u.grad.numpy(), rtol=1e-12)


def test_matmul():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(5, 2))
    x, y = Tensor(a), Tensor(b)
    t, u = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    weighted(x @ y).backward()
    weighted(t @ u).backward()
    np.testing.assert_allclose((a @ y).data, (x @ y).data)  # an array on the left is a constant
    np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(y.grad, u.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax_cross_entropy(scale):
    rng = np.random.default_rng(11)
    z, targets = scale * rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    x, t = Tensor(z), torch.tensor(z, requires_grad=True)
    ours = softmax_cross_entropy(x, targets)
    theirs = torch.nn.functional.cross_entropy(t, torch.tensor(targets))
    np.testing.assert_allclose(float(ours.data), theirs.item(), rtol=1e-12)
    ours.backward()
    theirs.backward()
    np.testing.assert_allclose(x.grad, t.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_a_tensor_used_twice_receives_both_gradients():
    x = Tensor(3.0)
    y = x * x
    (y + y * x).backward()  # x² + x³
    assert float(x.grad) == pytest.approx(2 * 3 + 3 * 9)


def test_gradients_accumulate_over_calls():
    x = Tensor(2.0)
    (x * 3).backward()
    (x * 4).backward()
    assert float(x.grad) == 7.0


def test_a_second_backward_through_the_same_graph_adds_the_same_again():
    x = Tensor(2.0)
    loss = (x * x) * x
    loss.backward()
    loss.backward()
    assert float(x.grad) == 2 * 3 * 4.0


def test_order_and_depth():
    x = Tensor(1.0)
    y = x
    for _ in range(5_000):
        y = y + 0.001
    order = list(topological_order(y))
    place = {id(node): i for i, node in enumerate(order)}
    assert len(place) == len(order)
    assert all(place[id(p)] < place[id(node)] for node in order for p, _ in node.edges)
    y.backward()
    assert float(x.grad) == 1.0


def test_a_wide_diamond_is_linear_in_its_nodes():
    x = y = Tensor(1.0)
    for _ in range(60):
        y = y + y  # 2^60 paths, 60 nodes
    y.backward()
    assert float(x.grad) == 2.0**60


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(0, 1))
def test_a_network_of_two_layers_equals_torch(values, target):
    w = np.array(values).reshape(2, 2)
    weights, t = Tensor(w), torch.tensor(w, requires_grad=True)
    inputs = np.array([[1.0, -2.0]])
    softmax_cross_entropy((Tensor(inputs) @ weights).tanh() @ weights, [target]).backward()
    logits = (torch.tensor(inputs) @ t).tanh() @ t
    torch.nn.functional.cross_entropy(logits, torch.tensor([target])).backward()
    np.testing.assert_allclose(weights.grad, t.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tensor([1.0, 2.0]).backward(), "scalar"),
        (lambda: Tensor([0.0]).log(), "positive"),
        (lambda: Tensor(np.ones((2, 3))) @ Tensor(np.ones((2, 3))), r"\(2, 3\) @ \(2, 3\)"),
        (lambda: softmax_cross_entropy(Tensor(np.ones((1, 3))), [3]), r"\[0, 3\)"),
        (lambda: softmax_cross_entropy(Tensor(np.ones((2, 3))), [0]), "2 targets"),
        (lambda: softmax_cross_entropy(Tensor(np.ones((0, 3))), []), "no rows"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_exponent_that_is_a_tensor_is_refused():
    with pytest.raises(TypeError, match="exp and log"):
        Tensor(2.0) ** Tensor(3.0)
