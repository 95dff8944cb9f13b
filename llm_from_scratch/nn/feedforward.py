"""The feed-forward layer: the same small network applied to every position by itself.

Legend: C width of the model, F width of the hidden layer.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Widen, bend, narrow: the layer of GPT-2, of BERT and of the first Transformer.

    Formula: ``down(gelu(up(x)))`` with ``gelu(z) = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))``.

    Arguments: ``d_ff`` is the hidden width F, 4 C by custom. ``exact`` takes the GELU itself,
    ``z times the probability that a standard normal number lies below z``, in place of the tanh
    formula that approximates it; the two differ by less than 0.0005. ``relu`` takes ``max(0, z)``
    instead of either, and ``power=2`` its square.
    Source: Vaswani et al. 2017, section 3.3, with ReLU; Hendrycks and Gimpel 2016, section 2, for the
    GELU and for the approximation, which GPT-2's weights were trained with; So et al. 2021 (Primer),
    section 4, for the square.

    >>> import torch
    >>> FeedForward(d_model=3, d_ff=12)(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_ff: int,
        bias: bool = True,
        exact: bool = False,
        relu: bool = False,
        power: int = 1,
    ):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.approximate = "none" if exact else "tanh"
        self.relu, self.power = relu, power

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Apply the layer to the last axis."""
        hidden_F = self.up(x_C)
        if not self.relu:
            return self.down(F.gelu(hidden_F, approximate=self.approximate))
        hidden_F = F.relu(hidden_F)
        return self.down(hidden_F if self.power == 1 else hidden_F**self.power)


class SwiGLU(nn.Module):
    """A feed-forward layer whose hidden values are let through by a second projection: Llama's.

    Formula: ``down(silu(gate(x)) * up(x))`` with ``silu(z) = z / (1 + exp(-z))``.

    Arguments: ``d_ff`` is the hidden width F. Three matrices instead of two: F = 8/3 C costs as
    many parameters as a `FeedForward` with F = 4 C.
    Source: Shazeer 2020, equation 6, with beta = 1.

    >>> import torch
    >>> SwiGLU(d_model=3, d_ff=8)(torch.zeros(2, 3)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self, *, d_model: int, d_ff: int, bias: bool = False):
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Apply the layer to the last axis."""
        return self.down(F.silu(self.gate(x_C)) * self.up(x_C))


class GEGLU(SwiGLU):
    """`SwiGLU` with the GELU at the gate, in its tanh form: the layer of T5 from version 1.1 on.

    Formula: ``down(gelu(gate(x)) * up(x))``.
    Source: Shazeer 2020, equation 6.

    >>> import torch
    >>> GEGLU(d_model=3, d_ff=8)(torch.zeros(2, 3)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Apply the layer to the last axis."""
        return self.down(F.gelu(self.gate(x_C), approximate="tanh") * self.up(x_C))


def swiglu_width(d_model: int, *, multiple_of: int = 8) -> int:
    """The hidden width at which `SwiGLU` has about the parameters of `FeedForward` at 4 C.

    Formula: ``8/3 d_model``, rounded up to a multiple of ``multiple_of``, which hardware likes.
    Source: Shazeer 2020, section 2 (two thirds of the width); Touvron et al. 2023, section 2.2.

    >>> swiglu_width(128)
    344
    """
    return -(-8 * d_model // (3 * multiple_of)) * multiple_of
