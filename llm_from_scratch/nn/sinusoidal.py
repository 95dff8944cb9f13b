"""Sinusoidal positions: a vector of sines and cosines for each position, added to the embedding.

Legend: T positions, C width of the model, F = C/2 frequencies.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from llm_from_scratch.nn.positions import rotary_angles


def sinusoidal_positions(
    positions_T: Num[Tensor, "T"], d_model: int, *, base: float = 10000.0
) -> Float[Tensor, "T C"]:
    """The fixed vector of each position: waves of F lengths, a sine and a cosine of each.

    Formula: with ``angle[t, f] = t * base ** (-2 f / C)``, column 2f holds ``sin(angle[t, f])`` and
    column 2f + 1 holds ``cos(angle[t, f])``, for f = 0 .. C/2 - 1. The wavelength of pair f is
    ``2 pi base ** (2 f / C)`` tokens: from 2 pi to almost ``2 pi base``.

    Any position has a vector, also one that no training sequence reached, and also a fraction or a
    negative one. The product of two vectors depends on the distance of their positions alone, and
    a shift by k positions is one linear map, the same at every position (`shift_matrix`).

    Units: positions in tokens; every entry lies in [-1, 1], every row has the length sqrt(C / 2).
    Raises: ValueError if d_model is odd (columns come in pairs) or not positive, or base <= 0.
    Source: Vaswani et al. 2017, section 3.5.

    >>> sinusoidal_positions(torch.arange(3), 4, base=100.0)
    tensor([[ 0.0000,  1.0000,  0.0000,  1.0000],
            [ 0.8415,  0.5403,  0.0998,  0.9950],
            [ 0.9093, -0.4161,  0.1987,  0.9801]])
    """
    if d_model < 2 or d_model % 2:
        raise ValueError(
            f"sinusoidal positions come in pairs of sine and cosine, so d_model must be even and "
            f"positive, got {d_model}"
        )
    angles_TF = rotary_angles(positions_T, d_model, base=base)  # the same angles turn rotary pairs
    return torch.stack((angles_TF.sin(), angles_TF.cos()), dim=-1).flatten(-2)


def shift_matrix(offset: float, d_model: int, *, base: float = 10000.0) -> Float[Tensor, "C C"]:
    """The matrix M with ``sinusoidal_positions(t + offset) = sinusoidal_positions(t) @ M`` for every t.

    Formula: with ``a = offset * base ** (-2 f / C)``, the block ``[[cos a, -sin a], [sin a, cos a]]``
    stands on the diagonal at pair f, zeros elsewhere. Its columns are the addition theorems:
    ``sin(x + a) = sin x cos a + cos x sin a`` and ``cos(x + a) = cos x cos a - sin x sin a``.

    Units: ``offset`` in tokens; a negative one shifts back, and its matrix is the transpose.
    Raises: ValueError as `sinusoidal_positions`.
    Source: Vaswani et al. 2017, section 3.5, which states that such a map exists.

    >>> shift_matrix(1, 2)
    tensor([[ 0.5403, -0.8415],
            [ 0.8415,  0.5403]])
    """
    waves_F2 = sinusoidal_positions(torch.tensor([offset]), d_model, base=base).view(-1, 2)
    blocks = [torch.stack((c, -s, s, c)).view(2, 2) for s, c in waves_F2]
    return torch.block_diag(*blocks)
