"""Attention from one sequence to another: a decoder's queries, an encoder's keys and values.

Legend: B pairs of sequences, T queries, S keys, H heads, D width of a head, C width of the model.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from llm_from_scratch.nn.attention import attention, fused_attention


class CrossAttention(nn.Module):
    """Several heads whose queries come from ``x`` and whose keys and values come from ``memory``.

    Formula: ``output(concat(head_1 .. head_H))``, head h attending with its columns of ``query(x)``,
    and of ``key_value(memory)``, which holds H key heads and then H value heads.

    Arguments: as in `MultiHeadAttention`. No position is added or turned here: a distance between
    two sequences has no meaning.
    Raises: ValueError if d_model is no multiple of num_heads and d_head is not given.
    Source: Vaswani et al. 2017, section 3.2.3; Bahdanau et al. 2015 for the idea.

    >>> import torch
    >>> CrossAttention(d_model=6, num_heads=3)(torch.zeros(2, 5, 6), torch.zeros(2, 7, 6)).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        bias: bool = True,
        dropout: float = 0.0,
        d_head: int | None = None,
        scale: float | None = None,
    ):
        super().__init__()
        if num_heads < 1 or (d_head is None and d_model % num_heads):
            raise ValueError(
                f"d_model={d_model} must be a multiple of num_heads={num_heads}; "
                "change one so that every head gets the same number of columns, or give d_head"
            )
        self.num_heads = num_heads
        self.d_head = d_model // num_heads if d_head is None else d_head
        self.dropout, self.scale = dropout, scale
        self.query = nn.Linear(d_model, num_heads * self.d_head, bias=bias)
        self.key_value = nn.Linear(d_model, 2 * num_heads * self.d_head, bias=bias)
        self.output = nn.Linear(num_heads * self.d_head, d_model, bias=bias)

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        memory_BSC: Float[Tensor, "B S C"],
        mask: Bool[Tensor, "..."] | None = None,
        return_weights: bool = False,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T S"]]:
        """Read the memory; with ``return_weights`` also give the weights, without dropout on them."""
        q_BHTD = self.query(x_BTC).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
        kv_BHSD = self.key_value(memory_BSC).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
        k_BHSD, v_BHSD = kv_BHSD.chunk(2, dim=1)
        if return_weights:
            heads_BHTD, weights_BHTS = attention(q_BHTD, k_BHSD, v_BHSD, mask=mask, scale=self.scale)
        else:
            dropout_p = self.dropout if self.training else 0.0
            heads_BHTD = fused_attention(
                q_BHTD, k_BHSD, v_BHSD, mask=mask, dropout_p=dropout_p, scale=self.scale
            )
        out_BTC = self.output(heads_BHTD.transpose(1, 2).flatten(2))
        return (out_BTC, weights_BHTS) if return_weights else out_BTC
