"""A Transformer block: attention between positions, then the feed-forward layer within each.

Legend: B sequences, T positions, C width of the model, H heads.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from llm_from_scratch.nn.positions import Rotary


class DecoderBlock(nn.Module):
    """Two residual branches, each normalised where it begins.

    Formula: ``x <- x + attention(norm_1(x))``, then ``x <- x + feedforward(norm_2(x))``. Since
    each branch only adds, an unchanged copy of the input reaches the output.

    Arguments: the four parts, built by the caller, so that any kind of attention, feed-forward
    layer or norm fits. ``dropout`` is the probability that an entry of a branch's output is
    dropped in training.
    Source: Radford et al. 2019, section 2.3 (norms moved to the start of each branch, against
    the end in Vaswani et al. 2017); Xiong et al. 2020 for why it trains more steadily.

    >>> import torch
    >>> from llm_from_scratch.nn import FeedForward, LayerNorm, MultiHeadAttention
    >>> block = DecoderBlock(
    ...     norm_1=LayerNorm(6), attention=MultiHeadAttention(d_model=6, num_heads=3, causal=True),
    ...     norm_2=LayerNorm(6), feedforward=FeedForward(d_model=6, d_ff=24),
    ... )
    >>> block(torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self,
        *,
        norm_1: nn.Module,
        attention: nn.Module,
        norm_2: nn.Module,
        feedforward: nn.Module,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm_1 = norm_1
        self.attention = attention
        self.norm_2 = norm_2
        self.feedforward = feedforward
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "..."] | None = None,
        rope: Rotary | None = None,
        return_weights: bool = False,
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T T"]]:
        """Pass the sequences through the block; with ``return_weights`` also give the weights.

        ``mask``, ``rope`` and ``bias`` (numbers added to the scores) are those of the attention.
        """
        attended = self.attention(
            self.norm_1(x_BTC), mask=mask, rope=rope, return_weights=return_weights, bias=bias
        )
        attended_BTC, weights_BHTT = attended if return_weights else (attended, None)
        x_BTC = x_BTC + self.dropout(attended_BTC)
        x_BTC = x_BTC + self.dropout(self.feedforward(self.norm_2(x_BTC)))
        return (x_BTC, weights_BHTT) if return_weights else x_BTC
