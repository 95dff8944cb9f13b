"""Groups of numbers in 8, 4 or 2 bits each: every group has its own smallest number and its own step.

Legend: G rows of a group, D columns, P rows of packed bytes (G * bits / 8).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

BITS = (8, 4, 2)
GROUPS = {"channel": -2, "token": -1}  # the axis that shares a step: all rows of a column, or a whole row


class Rounded(NamedTuple):
    """Numbers in few bits: ``least + code * step``, the codes packed into bytes."""

    codes: UInt8[Tensor, "*B P D"]
    least: Float[Tensor, "*group"]  # bfloat16, one a group; never above the group's smallest number
    step: Float[Tensor, "*group"]  # bfloat16, one a group; wide enough to reach its largest


def round_groups(x_GD: Float[Tensor, "*B G D"], *, bits: int, groups: str) -> Rounded:
    """Round each number to one of the ``2 ** bits`` evenly spaced ones that span its group.

    Formula: ``code = round((x - least) / step)`` with ``step = (largest - least) / (2 ** bits - 1)``.
    The error is at most half a step. Step and least are kept in bfloat16, which has the range of
    float32; both are rounded so that the span only grows, by less than 1 % of it and of the size of the
    group's smallest number.

    Arguments: ``groups`` "channel" gives each column of G rows a span, "token" each row of D columns.
    A group that holds NaN or infinity, or spans more than float32 does, comes back as NaN or infinity.
    Raises: ValueError for ``bits`` other than 8, 4, 2, and a G that bytes cannot be filled with.
    Source: Liu et al. 2024 (KIVI), section 2.2.

    >>> rounded = round_groups(torch.tensor([[0.0, 5.0], [3.0, 5.0]]), bits=4, groups="channel")
    >>> rounded.codes.tolist(), rounded.step.tolist()  # two codes a byte: 0 and 15, 0 and 0
    ([[240, 0]], [[0.2001953125, 0.0]])
    """
    check_bits(bits)
    per_byte, levels = 8 // bits, 2**bits - 1
    if x_GD.shape[-2] % per_byte:
        raise ValueError(
            f"{x_GD.shape[-2]} rows do not fill bytes of {per_byte} codes; take a multiple of {per_byte}"
        )
    x_GD, dim = x_GD.double(), GROUPS[groups]
    least = _to_bfloat16(x_GD.amin(dim, keepdim=True), -1.0)
    step = _to_bfloat16((x_GD.amax(dim, keepdim=True) - least.double()) / levels, 1.0)
    codes_GD = (x_GD - least.double()) / step.double().masked_fill(step == 0, 1.0)
    codes_GD = codes_GD.nan_to_num(0.0).round().clamp(0, levels).to(torch.uint8)
    packed_PD = sum(
        part << (bits * place) for place, part in enumerate(codes_GD.chunk(per_byte, dim=-2))
    )  # byte p holds rows p, p + P, ...
    return Rounded(packed_PD, least, step)


def restore_groups(rounded: Rounded, *, bits: int, dtype: torch.dtype) -> Float[Tensor, "*B G D"]:
    """The numbers that the codes stand for.

    >>> x = torch.tensor([[-1.0, 4.0], [0.5, 9.0]])
    >>> restore_groups(round_groups(x, bits=8, groups="token"), bits=8, dtype=x.dtype)
    tensor([[-1.0000,  3.9919],
            [ 0.5000,  8.9956]])
    """
    parts = [(rounded.codes >> (bits * place)) & (2**bits - 1) for place in range(8 // bits)]
    codes_GD = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)).float()
    return torch.addcmul(rounded.least.float(), codes_GD, rounded.step.float()).to(dtype)


def check_bits(bits: int) -> None:
    """Raise ValueError for a number of bits that is not offered."""
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"bits must be one of {BITS}, got {bits!r}")


def _to_bfloat16(x: Tensor, sign: float) -> Tensor:
    """The nearest bfloat16 that is not below x (sign 1), or not above it (sign -1)."""
    near = x.to(torch.bfloat16)
    wrong = sign * near.double() < sign * x
    return torch.where(wrong, torch.nextafter(near, torch.full_like(near, sign * torch.inf)), near)
