"""Rotary position embeddings: turn queries and keys by an angle that grows with position.

Legend: T positions, D width of a head, F = D/2 frequencies.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from llm_from_scratch.nn.rope_scaling import RopeScaling

# The cosines and sines of every position: what `rotary_table` makes and `apply_rotary` takes.
Rotary = tuple[Tensor, Tensor]


def rotary_angles(
    positions_T: Num[Tensor, "T"], d_head: int, *, base: float = 10000.0, scaling: RopeScaling | None = None
) -> Float[Tensor, "T F"]:
    """The angle by which each pair of columns is turned at each position.

    Formula: ``angle[t, f] = t * base ** (-2 f / D)`` for f = 0 .. D/2 - 1: the first pair turns by
    one radian a token, the last by almost ``1 / base``. With ``scaling`` the frequencies are changed
    for longer texts.

    Units: positions in tokens, angles in radians.
    Raises: ValueError if d_head is odd (columns turn in pairs) or not positive, or base <= 0.
    Source: Su et al. 2021, section 3.2.2, equation 15.

    >>> rotary_angles(torch.arange(3), 4, base=100.0)
    tensor([[0.0000, 0.0000],
            [1.0000, 0.1000],
            [2.0000, 0.2000]])
    """
    if d_head < 2 or d_head % 2:
        raise ValueError(
            f"rotary positions turn columns in pairs, so the head width must be even and positive, "
            f"got {d_head}; choose d_model / num_heads even"
        )
    if base <= 0:
        raise ValueError(f"the rotary base must be positive, got {base}; 10000 is the usual one")
    exponents_F = torch.arange(0, d_head, 2, device=positions_T.device, dtype=torch.float32) / d_head
    freqs_F = 1.0 / base**exponents_F
    freqs_F = freqs_F if scaling is None else scaling.frequencies(freqs_F, base=base)
    return positions_T.float()[:, None] * freqs_F


def rotary_table(
    length: int,
    d_head: int,
    *,
    base: float = 10000.0,
    scaling: RopeScaling | None = None,
    device: torch.device | str | None = None,
) -> Rotary:
    """Cosines and sines of `rotary_angles` for positions 0 .. length - 1, each of shape [T, F].

    Of a ``scaling`` with an attention_factor they are that multiple, so scores are its square.

    >>> cos, sin = rotary_table(5, 4)
    >>> cos.shape, sin[0].tolist()
    (torch.Size([5, 2]), [0.0, 0.0])
    """
    angles_TF = rotary_angles(torch.arange(length, device=device), d_head, base=base, scaling=scaling)
    size = 1.0 if scaling is None else scaling.attention_factor
    return angles_TF.cos() * size, angles_TF.sin() * size


def apply_rotary(
    x_BHTD: Float[Tensor, "*B T D"], cos_TF: Float[Tensor, "T F"], sin_TF: Float[Tensor, "T F"]
) -> Float[Tensor, "*B T D"]:
    """Turn each pair of columns of each position by that position's angle.

    Formula: column f and column ``f + D/2`` make a pair (a, b), which becomes
    ``(a cos - b sin, a sin + b cos)``. A turn keeps lengths, and the inner product of a query
    turned for position m with a key turned for position n depends on m - n alone.

    Raises: ValueError if the table is not of shape [T, D/2].
    Source: Su et al. 2021, equation 34.
    Departure: the paper pairs columns 2f and 2f + 1. Pairing the two halves, as Llama's released
    weights do in `transformers`, is the same up to a fixed order of the columns of the head;
    `interleaved_to_half` and `half_to_interleaved` convert.

    >>> apply_rotary(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6]]), torch.tensor([[0.8]])).tolist()
    [[0.6..., 0.8...]]
    """
    T, D = x_BHTD.shape[-2:]
    if cos_TF.shape != (T, D // 2) or sin_TF.shape != (T, D // 2) or D % 2:
        raise ValueError(
            f"{T} positions of width {D} need a table of shape ({T}, {D // 2}) and an even width, "
            f"got cosines {tuple(cos_TF.shape)} and sines {tuple(sin_TF.shape)}"
        )
    a, b = x_BHTD.chunk(2, dim=-1)
    turned = torch.cat(
        (torch.addcmul(a * cos_TF, b, sin_TF, value=-1), torch.addcmul(a * sin_TF, b, cos_TF)), dim=-1
    )  # a cos - b sin and a sin + b cos, each in two passes over memory
    return turned.to(x_BHTD.dtype)  # the table may be more precise than a bfloat16 query


def interleaved_to_half(x: Tensor, dim: int = -1) -> Tensor:
    """Reorder a head whose pairs are (2f, 2f + 1) for `apply_rotary`, whose pairs are (f, f + D/2).

    Formula: ``y = [x_0, x_2, .., x_{D-2}, x_1, x_3, .., x_{D-1}]`` along ``dim``. For queries and keys,
    and for the rows of the weights that make them: a weight of shape [H D, C] is viewed as [H, D, C]
    and reordered along dim 1. Queries and keys must be reordered alike; values never are.

    Raises: ValueError if the width is odd.
    Source: the interleaved layout is that of Su et al. 2021, equation 34, and of Llama's original
    checkpoints; the half-split one is that of `transformers`.

    >>> interleaved_to_half(torch.tensor([0, 1, 2, 3, 4, 5])).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    x = _pairs_last(x, dim).unflatten(-1, (-1, 2))
    return x.transpose(-1, -2).flatten(-2).movedim(-1, dim)


def half_to_interleaved(x: Tensor, dim: int = -1) -> Tensor:
    """Undo `interleaved_to_half`: pairs (f, f + D/2) become neighbours (2f, 2f + 1).

    Raises: ValueError if the width is odd.

    >>> half_to_interleaved(torch.tensor([0, 2, 4, 1, 3, 5])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    x = _pairs_last(x, dim).unflatten(-1, (2, -1))
    return x.transpose(-1, -2).flatten(-2).movedim(-1, dim)


def _pairs_last(x: Tensor, dim: int) -> Tensor:
    if x.shape[dim] % 2:
        raise ValueError(f"columns turn in pairs, so dim {dim} must have an even size, got {tuple(x.shape)}")
    return x.movedim(dim, -1)
