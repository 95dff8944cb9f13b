"""Normalisation: bring every position's vector to a common size before a layer reads it.

`layer_norm` and `rms_norm` are the definitions; the modules compute the same through torch.

Legend: C width of the model.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def layer_norm(
    x_C: Float[Tensor, "*B C"],
    weight_C: Float[Tensor, "C"],
    bias_C: Float[Tensor, "C"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "*B C"]:
    """Shift each vector to mean 0, scale it to variance 1, then stretch and shift each column.

    Formula: ``(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias``, mean and variance over
    the C columns, the variance divided by C rather than C - 1.

    Source: Ba et al. 2016, section 3.1, with eps inside the root as in every implementation.

    >>> layer_norm(torch.tensor([1.0, 3.0]), torch.ones(2), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    centred_C = x_C - x_C.mean(dim=-1, keepdim=True)
    normalised_C = centred_C * torch.rsqrt(centred_C.square().mean(dim=-1, keepdim=True) + eps)
    return normalised_C * weight_C if bias_C is None else normalised_C * weight_C + bias_C


def rms_norm(
    x_C: Float[Tensor, "*B C"], weight_C: Float[Tensor, "C"], *, eps: float = 1e-6
) -> Float[Tensor, "*B C"]:
    """Scale each vector to root mean square 1, then stretch each column. No mean is taken off.

    Formula: ``x / sqrt(mean(x^2) + eps) * weight``.

    Source: Zhang and Sennrich 2019, equation 4, with eps inside the root.

    >>> rms_norm(torch.tensor([3.0, -3.0]), torch.ones(2), eps=0.0).tolist()
    [1.0, -1.0]
    """
    return x_C * torch.rsqrt(x_C.square().mean(dim=-1, keepdim=True) + eps) * weight_C


class LayerNorm(nn.Module):
    """`layer_norm` with learned weight (ones at first) and bias (zeros at first, or none).

    >>> LayerNorm(3)(torch.tensor([1.0, 1.0, 1.0])).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, d_model: int, *, eps: float = 1e-5, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.eps = eps

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Normalise the last axis."""
        return F.layer_norm(x_C, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned weight (ones at first).

    >>> RMSNorm(2)(torch.tensor([5.0, 5.0])).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    def __init__(self, d_model: int, *, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Normalise the last axis."""
        return F.rms_norm(x_C, self.weight.shape, self.weight, self.eps)
