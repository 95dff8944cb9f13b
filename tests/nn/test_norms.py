import pytest
import torch
from torch import nn

from llm_from_scratch.nn.norms import LayerNorm, RMSNorm, layer_norm, rms_norm

SHAPES = [(13,), (3, 13), (2, 5, 13), (2, 3, 5, 7), (4, 1)]


def data(shape):
    torch.manual_seed(11)
    return 3 * torch.randn(shape) + 2, torch.randn(shape[-1]), torch.randn(shape[-1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_equals_torch(shape, bias):
    x, weight, shift = data(shape)
    theirs, ours = nn.LayerNorm(shape[-1], eps=1e-3, bias=bias), LayerNorm(shape[-1], eps=1e-3, bias=bias)
    state = {"weight": weight, "bias": shift} if bias else {"weight": weight}
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    torch.testing.assert_close(ours(x), theirs(x))
    reference = layer_norm(x, weight, shift if bias else None, eps=1e-3)
    torch.testing.assert_close(reference, theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_equals_torch(shape):
    x, weight, _ = data(shape)
    theirs, ours = nn.RMSNorm(shape[-1], eps=1e-3), RMSNorm(shape[-1], eps=1e-3)
    theirs.load_state_dict({"weight": weight})
    ours.load_state_dict({"weight": weight})
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(rms_norm(x, weight, eps=1e-3), theirs(x), rtol=1e-5, atol=1e-5)


def test_gradcheck():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    w, b = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(layer_norm, (x, w, b))
    assert torch.autograd.gradcheck(rms_norm, (x, w))


def test_a_constant_vector_does_not_divide_by_zero():
    assert LayerNorm(7)(torch.full((2, 7), 5.0)).abs().max() == 0
    assert RMSNorm(7)(torch.zeros(2, 7)).abs().max() == 0
