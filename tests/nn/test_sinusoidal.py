import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.fsmt.modeling_fsmt import SinusoidalPositionalEmbedding

from llm_from_scratch.nn.sinusoidal import shift_matrix, sinusoidal_positions


def test_entries_by_the_formula():
    """The formula of the paper, one entry at a time in Python's own arithmetic."""
    waves = sinusoidal_positions(torch.tensor([0, 1, 7, 500]), 6, base=1000.0)
    for row, t in zip(waves.tolist(), (0, 1, 7, 500), strict=True):
        for i in range(3):
            angle = t / 1000.0 ** (2 * i / 6)
            assert math.isclose(row[2 * i], math.sin(angle), abs_tol=1e-4)
            assert math.isclose(row[2 * i + 1], math.cos(angle), abs_tol=1e-4)


def test_equals_transformers_up_to_its_layout_and_spacing():
    """FSMT puts all sines before all cosines, and spaces the exponents over F - 1 instead of F."""
    theirs = SinusoidalPositionalEmbedding.get_embedding(11, 10, None)
    base = 10000.0 ** (5 / 4)  # with which our spacing over F = 5 pairs gives theirs over 4
    ours = sinusoidal_positions(torch.arange(11), 10, base=base)
    torch.testing.assert_close(torch.cat((ours[:, 0::2], ours[:, 1::2]), dim=1), theirs, rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(t=st.integers(0, 300), shift=st.integers(-300, 300), half=st.integers(1, 9), base=st.floats(2.0, 1e5))
def test_a_shift_is_one_matrix_for_every_position(t, shift, half, base):
    waves = sinusoidal_positions(torch.tensor([t, t + shift]), 2 * half, base=base)
    matrix = shift_matrix(shift, 2 * half, base=base)
    torch.testing.assert_close(waves[0] @ matrix, waves[1], rtol=0, atol=3e-4)  # float32 angles up to 600
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2 * half), rtol=0, atol=1e-5)


def test_shifts_compose_and_are_undone():
    torch.testing.assert_close(shift_matrix(3, 8) @ shift_matrix(4, 8), shift_matrix(7, 8))
    torch.testing.assert_close(shift_matrix(-5, 8), shift_matrix(5, 8).T)


def test_products_depend_on_the_distance_alone():
    waves = sinusoidal_positions(torch.arange(40), 14)
    products = waves @ waves.T
    for distance in range(20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4)
    assert (products.diagonal() - 7).abs().max() < 1e-4  # the length is sqrt(C / 2)
    assert (products[0, 1:] < 7 - 1e-3).all()


def test_any_position_has_a_vector_and_none_are_alike():
    waves = sinusoidal_positions(torch.arange(2000), 8)
    assert torch.cdist(waves, waves).fill_diagonal_(9.0).min() > 1e-3
    half = sinusoidal_positions(torch.tensor([2.5]), 8)
    torch.testing.assert_close(half, waves[2:3] @ shift_matrix(0.5, 8))


@pytest.mark.parametrize("d_model", [0, -2, 7])
def test_widths_that_cannot_be_paired_are_refused(d_model):
    for function in (
        lambda: sinusoidal_positions(torch.arange(3), d_model),
        lambda: shift_matrix(1, d_model),
    ):
        with pytest.raises(ValueError, match=f"must be even and positive, got {d_model}"):
            function()


def test_a_base_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="base must be positive, got 0"):
        sinusoidal_positions(torch.arange(3), 4, base=0)
