import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llm_from_scratch.nn.positions import (
    apply_rotary,
    half_to_interleaved,
    interleaved_to_half,
    rotary_angles,
    rotary_table,
)


def test_angles_by_hand():
    angles = rotary_angles(torch.tensor([0, 1, 10]), 6, base=1000.0)
    torch.testing.assert_close(angles, torch.tensor([[0, 0, 0], [1, 0.1, 0.01], [10, 1, 0.1]]))


@settings(max_examples=50, deadline=None)
@given(
    m=st.integers(0, 500), n=st.integers(0, 500), shift=st.integers(0, 500),
    half=st.integers(1, 9), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_products_depend_on_the_distance_alone(m, n, shift, half, seed):
    """Moving a query and a key by the same number of tokens leaves their product unchanged."""
    q, k = torch.randn(2, 2 * half, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def product(at_q, at_k):
        angles = rotary_angles(torch.tensor([at_q, at_k]), 2 * half).double()
        turned = apply_rotary(torch.stack([q, k]), angles.cos(), angles.sin())
        return turned[0] @ turned[1]

    # Angles are float32, as in trained models: at 1000 radians they are exact to 6e-5.
    torch.testing.assert_close(product(m, n), product(m + shift, n + shift), rtol=1e-3, atol=2e-3)


def test_a_turn_depends_on_the_distance():
    cos, sin = rotary_table(11, 6)
    q = apply_rotary(torch.ones(11, 6), cos, sin)
    assert (q @ q[0] - q[0] @ q[0])[1:].abs().min() > 0.1


def test_lengths_are_kept_and_position_zero_is_unchanged():
    x = torch.randn(2, 3, 7, 10)
    turned = apply_rotary(x, *rotary_table(7, 10))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


def test_equals_transformers():
    q, k = torch.randn(2, 2, 3, 7, 10)
    cos, sin = rotary_table(7, 10)
    full = [torch.cat((part, part), dim=-1)[None] for part in (cos, sin)]
    expected_q, expected_k = apply_rotary_pos_emb(q, k, *full)
    torch.testing.assert_close(apply_rotary(q, cos, sin), expected_q)
    torch.testing.assert_close(apply_rotary(k, cos, sin), expected_k)


def test_equals_complex_multiplication():
    """Each pair is a complex number, and the turn multiplies it by exp(i angle)."""
    x = torch.randn(5, 6, dtype=torch.float64)
    angles = rotary_angles(torch.arange(5), 6).double()
    product = torch.complex(x[:, :3], x[:, 3:]) * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat((product.real, product.imag), dim=-1)
    torch.testing.assert_close(apply_rotary(x, angles.cos(), angles.sin()), expected)


def test_gradcheck():
    cos, sin = (part.double() for part in rotary_table(3, 4))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: apply_rotary(t, cos, sin), (x,))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must be even and positive, got 7"):
        rotary_table(3, 7)
    with pytest.raises(ValueError, match="base must be positive, got 0"):
        rotary_table(3, 4, base=0)
    with pytest.raises(ValueError, match=r"5 positions of width 6 need a table of shape \(5, 3\).*\(4, 3\)"):
        apply_rotary(torch.zeros(5, 6), *rotary_table(4, 6))
    with pytest.raises(ValueError, match="even width"):
        apply_rotary(torch.zeros(4, 7), *rotary_table(4, 6))


def interleaved_rotary(x, angles):
    """The paper's equation 34, entry by entry: columns 2f and 2f + 1 are a pair."""
    turned = torch.empty_like(x)
    for f in range(x.shape[-1] // 2):
        a, b, angle = x[..., 2 * f], x[..., 2 * f + 1], angles[:, f]
        turned[..., 2 * f] = a * angle.cos() - b * angle.sin()
        turned[..., 2 * f + 1] = a * angle.sin() + b * angle.cos()
    return turned


def test_the_two_layouts_are_one_rotation():
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    angles = rotary_angles(torch.arange(7), 6).double()
    ours = apply_rotary(interleaved_to_half(x), angles.cos(), angles.sin())
    torch.testing.assert_close(half_to_interleaved(ours), interleaved_rotary(x, angles))
    q, k = torch.randn(2, 7, 6, dtype=torch.float64)
    halves = [apply_rotary(interleaved_to_half(t), angles.cos(), angles.sin()) for t in (q, k)]
    scores = halves[0] @ halves[1].mT
    torch.testing.assert_close(scores, interleaved_rotary(q, angles) @ interleaved_rotary(k, angles).mT)
    # Without the conversion the scores are others, although every shape fits.
    wrong = [apply_rotary(t, angles.cos(), angles.sin()) for t in (q, k)]
    assert (wrong[0] @ wrong[1].mT - scores).abs().max() > 0.1


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_converting_there_and_back(dim):
    x = torch.randn(6, 10, 14)
    assert torch.equal(half_to_interleaved(interleaved_to_half(x, dim), dim), x)
    assert torch.equal(interleaved_to_half(half_to_interleaved(x, dim), dim), x)
    width = x.shape[dim]
    order = [*range(0, width, 2), *range(1, width, 2)]
    assert torch.equal(interleaved_to_half(x, dim), x.index_select(dim, torch.tensor(order)))


def test_weights_convert_head_by_head():
    """Rows of a projection are reordered within each head, and the projected heads follow."""
    H, D, C = 3, 6, 5
    weight, x = torch.randn(H * D, C), torch.randn(7, C)
    converted = interleaved_to_half(weight.view(H, D, C), dim=1).reshape(H * D, C)
    expected = interleaved_to_half((x @ weight.T).view(7, H, D))
    torch.testing.assert_close((x @ converted.T).view(7, H, D), expected)


def test_layouts_of_odd_width_are_refused():
    for convert in (interleaved_to_half, half_to_interleaved):
        with pytest.raises(ValueError, match=r"dim 0 must have an even size, got \(7, 4\)"):
            convert(torch.zeros(7, 4), dim=0)
