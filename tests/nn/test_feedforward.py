import math

import torch

from llm_from_scratch.nn.feedforward import FeedForward, SwiGLU, swiglu_width


def test_feedforward_by_its_formula():
    layer = FeedForward(d_model=5, d_ff=11)
    x = 3 * torch.randn(2, 3, 5)
    z = x @ layer.up.weight.T + layer.up.bias
    bent = z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    expected = bent @ layer.down.weight.T + layer.down.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_tanh_form_is_near_the_exact_one_and_is_not_it():
    z = torch.linspace(-6, 6, 10001, dtype=torch.float64)
    exact = z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    gap = (torch.nn.functional.gelu(z, approximate="tanh") - exact).abs().max()
    assert 1e-4 < gap < 5e-4  # the bound that the docstring gives


def test_exact_gelu_by_its_formula():
    layer = FeedForward(d_model=5, d_ff=11, exact=True)
    x = 3 * torch.randn(2, 3, 5)
    z = layer.up(x)
    expected = layer.down(z * torch.distributions.Normal(0.0, 1.0).cdf(z))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_swiglu_by_its_formula():
    layer = SwiGLU(d_model=5, d_ff=7, bias=True)
    x = 3 * torch.randn(2, 3, 5)
    gate, up = (x @ part.weight.T + part.bias for part in (layer.gate, layer.up))
    expected = (gate / (1 + torch.exp(-gate)) * up) @ layer.down.weight.T + layer.down.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_swiglu_width_matches_the_parameters_of_the_plain_layer():
    for d_model in (64, 96, 384, 768):
        gated = SwiGLU(d_model=d_model, d_ff=swiglu_width(d_model), bias=False)
        plain = FeedForward(d_model=d_model, d_ff=4 * d_model, bias=False)
        counts = [sum(p.numel() for p in layer.parameters()) for layer in (gated, plain)]
        assert abs(counts[0] / counts[1] - 1) < 0.05


def test_every_position_is_treated_by_itself():
    for layer in (FeedForward(d_model=5, d_ff=11), SwiGLU(d_model=5, d_ff=7)):
        x = torch.randn(2, 3, 5)
        torch.testing.assert_close(layer(x)[:, 1], layer(x[:, 1]))
