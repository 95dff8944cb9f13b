"""Transformer blocks: attention between positions, then the feed-forward layer within each.

`TransformerBlock` serves encoders and decoders: which one it is depends on the attention it is given.
`CrossBlock` puts a second attention between the two, by which a decoder reads an encoder's result.

Legend: B sequences, T positions, S positions of the memory, C width of the model, H heads.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from llm_from_scratch.nn.positions import Rotary


class TransformerBlock(nn.Module):
    """Two residual branches: attention, then a feed-forward layer, each with a norm.

    Formula: ``x <- x + attention(norm_1(x))``, then ``x <- x + feedforward(norm_2(x))``. Since
    each branch only adds, an unchanged copy of the input reaches the output. With
    ``norm_first=False`` the norm comes after the sum: ``x <- norm_1(x + attention(x))``, then
    ``x <- norm_2(x + feedforward(x))``, as in the first Transformer and in BERT.

    Arguments: the four parts, built by the caller, so that any kind of attention, feed-forward
    layer or norm fits. ``dropout`` is the probability that an entry of a branch's output is
    dropped in training.
    Source: Vaswani et al. 2017, section 3.1, for the norm at the end; Radford et al. 2019, section
    2.3, for the norm at the start; Xiong et al. 2020 for why that trains more steadily.

    >>> import torch
    >>> from llm_from_scratch.nn import FeedForward, LayerNorm, MultiHeadAttention
    >>> block = TransformerBlock(
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
        norm_first: bool = True,
    ):
        super().__init__()
        self.norm_1 = norm_1
        self.attention = attention
        self.norm_2 = norm_2
        self.feedforward = feedforward
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

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
            self.read(x_BTC, self.norm_1), mask=mask, rope=rope, return_weights=return_weights, bias=bias
        )
        attended_BTC, weights_BHTT = attended if return_weights else (attended, None)
        x_BTC = self.add(x_BTC, attended_BTC, self.norm_1)
        x_BTC = self.add(x_BTC, self.feedforward(self.read(x_BTC, self.norm_2)), self.norm_2)
        return (x_BTC, weights_BHTT) if return_weights else x_BTC

    def read(self, x_BTC: Float[Tensor, "B T C"], norm: nn.Module) -> Float[Tensor, "B T C"]:
        """What a branch reads: the normalised vectors, or, where the norm comes last, the vectors."""
        return norm(x_BTC) if self.norm_first else x_BTC

    def add(
        self, x_BTC: Float[Tensor, "B T C"], branch_BTC: Float[Tensor, "B T C"], norm: nn.Module
    ) -> Float[Tensor, "B T C"]:
        """Add a branch's output to the stream, and normalise the sum where the norm comes last."""
        x_BTC = x_BTC + self.dropout(branch_BTC)
        return x_BTC if self.norm_first else norm(x_BTC)


DecoderBlock = TransformerBlock  # the same block with causal attention


class CrossBlock(TransformerBlock):
    """A decoder's block with a third branch, between the two others, that reads the encoder.

    Formula: ``x <- x + attention(norm_1(x))``, ``x <- x + cross(norm_cross(x), memory)``, then the
    feed-forward branch; norms after the sums with ``norm_first=False``. The memory, the encoder's
    result, is the same for every block, and is not normalised again.

    Source: Vaswani et al. 2017, section 3.1.

    >>> import torch
    >>> from llm_from_scratch.nn import CrossAttention, FeedForward, LayerNorm, MultiHeadAttention
    >>> block = CrossBlock(
    ...     norm_1=LayerNorm(6), attention=MultiHeadAttention(d_model=6, num_heads=3, causal=True),
    ...     norm_cross=LayerNorm(6), cross=CrossAttention(d_model=6, num_heads=3),
    ...     norm_2=LayerNorm(6), feedforward=FeedForward(d_model=6, d_ff=24),
    ... )
    >>> block(torch.zeros(2, 5, 6), torch.zeros(2, 7, 6)).shape
    torch.Size([2, 5, 6])
    """

    def __init__(self, *, norm_cross: nn.Module, cross: nn.Module, **parts):
        super().__init__(**parts)
        self.norm_cross = norm_cross
        self.cross = cross

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        memory_BSC: Float[Tensor, "B S C"],
        mask: Bool[Tensor, "..."] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
        bias: Float[Tensor, "..."] | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pass the sequences through the block; ``return_weights`` adds the cross-attention's weights.

        ``mask`` and ``bias`` go to the attention within the sequence, ``memory_mask`` (False at the
        memory's padding) to the one that reads the memory.
        """
        attended_BTC = self.attention(self.read(x_BTC, self.norm_1), mask=mask, bias=bias)
        x_BTC = self.add(x_BTC, attended_BTC, self.norm_1)
        crossed = self.cross(
            self.read(x_BTC, self.norm_cross), memory_BSC, mask=memory_mask, return_weights=return_weights
        )
        crossed_BTC, weights_BHTS = crossed if return_weights else (crossed, None)
        x_BTC = self.add(x_BTC, crossed_BTC, self.norm_cross)
        x_BTC = self.add(x_BTC, self.feedforward(self.read(x_BTC, self.norm_2)), self.norm_2)
        return (x_BTC, weights_BHTS) if return_weights else x_BTC
