"""Attention: each position takes a weighted mean of values, weighted by how keys match its query.

`attention` is the definition in plain tensor operations. `fused_attention` computes the same
through torch's kernel, which never stores the T x S weights. `MultiHeadAttention` runs several
heads side by side on learned projections.

Legend: B sequences, T queries, S keys, H query heads, K key/value heads (K divides H),
D width of a head, C width of the model.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from llm_from_scratch.nn.masks import causal_mask
from llm_from_scratch.nn.positions import Rotary, apply_rotary


def attention_scores(
    q_BHTD: Float[Tensor, "*B H T D"], k_BKSD: Float[Tensor, "*B K S D"], *, scale: float | None = None
) -> Float[Tensor, "*B H T S"]:
    """Scaled match of every query with every key, before any mask and before the softmax.

    Formula: ``scores[i, j] = scale * (q_i . k_j)``, with ``scale = 1 / sqrt(D)`` by default.
    With fewer key heads than query heads, query head h reads key head ``h // (H / K)``.

    Raises: ValueError if H is no multiple of K.
    Source: Vaswani et al. 2017, equation 1; grouped heads: Ainslie et al. 2023, section 2.2.

    >>> attention_scores(torch.ones(1, 1, 4), torch.ones(1, 2, 4)).tolist()
    [[[2.0, 2.0]]]
    """
    scale = 1.0 / math.sqrt(q_BHTD.shape[-1]) if scale is None else scale
    k_BHSD = _one_head_per_query_head(k_BKSD, q_BHTD.shape[-3])
    return q_BHTD @ k_BHSD.transpose(-2, -1) * scale


def attention(
    q_BHTD: Float[Tensor, "*B H T D"],
    k_BHSD: Float[Tensor, "*B K S D"],
    v_BHSD: Float[Tensor, "*B K S E"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "*B H T E"], Float[Tensor, "*B H T S"]]:
    """Attend: the readable reference. Returns the output and the weights.

    Formula: ``weights = softmax(scale * q k^T)`` over the keys, ``output = weights v``.
    Masked keys get the score minus infinity, hence the weight 0. A query that may attend to
    nothing has no softmax; its weights and its output are zeros, as in torch's kernel.

    Shapes: keys and values may have K heads, where K divides H (grouped-query attention). The
    mask, True where attention is allowed, broadcasts to ``[B, H, T, S]``.
    Units: weights are probabilities; each row sums to 1, or to 0 if it is fully masked.
    Raises: ValueError if H is no multiple of K, or if the mask does not broadcast.
    Source: Vaswani et al. 2017, section 3.2.1.

    >>> q, k = torch.zeros(1, 1, 2), torch.zeros(1, 2, 2)
    >>> output, weights = attention(q, k, torch.tensor([[[1.0], [3.0]]]))
    >>> output.item(), weights.tolist()
    (2.0, [[[0.5, 0.5]]])
    """
    scores_BHTS = attention_scores(q_BHTD, k_BHSD, scale=scale)
    if mask is not None:
        _check_mask(mask, scores_BHTS.shape)
        scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf)
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    if mask is not None:
        weights_BHTS = weights_BHTS.masked_fill(~mask, 0.0)  # a fully masked row: zeros, not NaN
    return weights_BHTS @ _one_head_per_query_head(v_BHSD, q_BHTD.shape[-3]), weights_BHTS


def fused_attention(
    q_BHTD: Float[Tensor, "B H T D"],
    k_BHSD: Float[Tensor, "B K S D"],
    v_BHSD: Float[Tensor, "B K S D"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "B H T D"]:
    """Attend through torch's `scaled_dot_product_attention`: equal to `attention`, in less memory.

    ``is_causal`` adds `causal_mask` to the mask, with the last query at the last key. The kernel
    makes the causal mask itself where it can, which saves time and a T x S mask.

    Units: ``dropout_p`` is the probability that a weight is set to zero.
    Raises: ValueError as in `attention`.
    Source: Dao et al. 2022 for the kernel that never stores the weights.
    """
    T, S, H, K = q_BHTD.shape[-2], k_BHSD.shape[-2], q_BHTD.shape[-3], k_BHSD.shape[-3]
    _check_heads(H, K)
    if is_causal and (mask is not None or T != S):
        causal_TS = causal_mask(T, S, device=q_BHTD.device)
        mask, is_causal = causal_TS if mask is None else causal_TS & mask, False
    if mask is not None:
        _check_mask(mask, (*q_BHTD.shape[:-1], S))
    return F.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, mask, dropout_p, is_causal, scale=scale, enable_gqa=H != K
    )


class MultiHeadAttention(nn.Module):
    """Several attention heads side by side, between learned projections.

    Formula: ``output(concat(head_1 .. head_H))`` where head h attends with its own D columns of
    ``qkv(x)``. One matrix product makes all queries, keys and values, in this order: H query
    heads, K key heads, K value heads.

    Arguments: ``num_kv_heads`` defaults to ``num_heads``; fewer gives grouped-query attention, 1
    multi-query attention. ``bias`` adds biases to both projections. ``dropout`` is the probability
    that a weight is dropped in training. ``causal`` masks the future, whatever mask is passed.
    Raises: ValueError if d_model is no multiple of num_heads, or num_heads of num_kv_heads.
    Source: Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023, section 2.2.
    Departure: no separate d_k and d_v; both are ``d_model / num_heads``.

    >>> MultiHeadAttention(d_model=6, num_heads=3)(torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
    ):
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or d_model < 1 or d_model % num_heads:
            raise ValueError(
                f"d_model={d_model} must be a positive multiple of num_heads={num_heads}; "
                "change one so that every head gets the same number of columns"
            )
        _check_heads(num_heads, num_kv_heads)
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.d_head = d_model // num_heads
        self.dropout, self.causal = dropout, causal
        self.qkv = nn.Linear(d_model, (num_heads + 2 * num_kv_heads) * self.d_head, bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)

    def project(
        self, x_BTC: Float[Tensor, "B T C"], rope: Rotary | None = None
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B K T D"], Float[Tensor, "B K T D"]]:
        """Make the queries, keys and values of every head; rotate queries and keys by ``rope``."""
        heads_BTND = self.qkv(x_BTC).unflatten(-1, (-1, self.d_head))
        heads = heads_BTND.transpose(1, 2).split(
            [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1
        )
        q_BHTD, k_BKTD, v_BKTD = heads
        if rope is not None:
            q_BHTD, k_BKTD = apply_rotary(q_BHTD, *rope), apply_rotary(k_BKTD, *rope)
        return q_BHTD, k_BKTD, v_BKTD

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "..."] | None = None,
        rope: Rotary | None = None,
        return_weights: bool = False,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T T"]]:
        """Attend within each sequence; with ``return_weights`` also give the weights.

        Asking for weights takes the readable path, which stores them and applies no dropout to
        them, so that what is returned are the probabilities.
        """
        q_BHTD, k_BKTD, v_BKTD = self.project(x_BTC, rope)
        if return_weights:
            if self.causal:
                causal_TT = causal_mask(x_BTC.shape[1], device=x_BTC.device)
                mask = causal_TT if mask is None else causal_TT & mask
            heads_BHTD, weights_BHTT = attention(q_BHTD, k_BKTD, v_BKTD, mask=mask)
        else:
            dropout_p = self.dropout if self.training else 0.0
            heads_BHTD = fused_attention(
                q_BHTD, k_BKTD, v_BKTD, mask=mask, is_causal=self.causal, dropout_p=dropout_p
            )
        out_BTC = self.output(heads_BHTD.transpose(1, 2).flatten(2))
        return (out_BTC, weights_BHTT) if return_weights else out_BTC


def _one_head_per_query_head(x_BKSD: Tensor, num_heads: int) -> Tensor:
    """Repeat each key or value head for the query heads that share it."""
    _check_heads(num_heads, x_BKSD.shape[-3])
    return x_BKSD.repeat_interleave(num_heads // x_BKSD.shape[-3], dim=-3)


def _check_heads(num_heads: int, num_kv_heads: int) -> None:
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(
            f"num_heads={num_heads} must be a multiple of num_kv_heads={num_kv_heads}; "
            "each key/value head serves the same number of query heads"
        )


def _check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be boolean, True where attention is allowed, got {mask.dtype}")
    sizes = tuple(mask.shape)
    aligned = zip(sizes[::-1], tuple(shape)[::-1], strict=False)
    if len(sizes) > len(shape) or any(m not in (1, s) for m, s in aligned):
        raise ValueError(
            f"a mask of shape {sizes} does not broadcast to {tuple(shape)} "
            "(sequences, heads, queries, keys); rows are queries and columns are keys"
        )
