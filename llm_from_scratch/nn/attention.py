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

from llm_from_scratch.nn.attention_checks import (
    check_bias,
    check_heads,
    check_mask,
    one_head_per_query_head,
)
from llm_from_scratch.nn.masks import causal_mask
from llm_from_scratch.nn.norms import RMSNorm
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
    k_BHSD = one_head_per_query_head(k_BKSD, q_BHTD.shape[-3])
    return q_BHTD @ k_BHSD.transpose(-2, -1) * scale


def attention(
    q_BHTD: Float[Tensor, "*B H T D"],
    k_BHSD: Float[Tensor, "*B K S D"],
    v_BHSD: Float[Tensor, "*B K S E"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "*B H T E"], Float[Tensor, "*B H T S"]]:
    """Attend: the readable reference. Returns the output and the weights.

    Formula: ``weights = softmax(scale * q k^T + bias)`` over the keys, ``output = weights v``.
    Masked keys get the score minus infinity, hence the weight 0. A query that may attend to
    nothing has no softmax; its weights and its output are zeros, as in torch's kernel.

    Shapes: keys and values may have K heads, where K divides H (grouped-query attention). The
    mask, True where attention is allowed, broadcasts to ``[B, H, T, S]``, and so does the bias.
    Units: weights are probabilities; each row sums to 1, or to 0 if it is fully masked.
    Raises: ValueError if H is no multiple of K, or if mask or bias do not broadcast.
    Source: Vaswani et al. 2017, section 3.2.1; with a bias: Raffel et al. 2020, section 2.1.

    >>> q, k = torch.zeros(1, 1, 2), torch.zeros(1, 2, 2)
    >>> output, weights = attention(q, k, torch.tensor([[[1.0], [3.0]]]))
    >>> output.item(), weights.tolist()
    (2.0, [[[0.5, 0.5]]])
    """
    scores_BHTS = attention_scores(q_BHTD, k_BHSD, scale=scale)
    if bias is not None:
        check_bias(bias, scores_BHTS.shape)
        scores_BHTS = scores_BHTS + bias
    if mask is not None:
        check_mask(mask, scores_BHTS.shape)
        scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf)
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    if mask is not None:
        weights_BHTS = weights_BHTS.masked_fill(~mask, 0.0)  # a fully masked row: zeros, not NaN
    return weights_BHTS @ one_head_per_query_head(v_BHSD, q_BHTD.shape[-3]), weights_BHTS


def fused_attention(
    q_BHTD: Float[Tensor, "B H T D"],
    k_BHSD: Float[Tensor, "B K S D"],
    v_BHSD: Float[Tensor, "B K S D"],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "B H T D"]:
    """Attend through torch's `scaled_dot_product_attention`: equal to `attention`, in less memory.

    ``is_causal`` adds `causal_mask` to the mask, with the last query at the last key. The kernel
    makes the causal mask itself where it can, which saves time and a T x S mask. A ``bias`` is
    given to it as the numbers to add to the scores, minus infinity where the mask forbids.

    Units: ``dropout_p`` is the probability that a weight is set to zero.
    Raises: ValueError as in `attention`.
    Source: Dao et al. 2022 for the kernel that never stores the weights.
    """
    T, S, H, K = q_BHTD.shape[-2], k_BHSD.shape[-2], q_BHTD.shape[-3], k_BHSD.shape[-3]
    check_heads(H, K)
    if is_causal and (mask is not None or bias is not None or T != S):
        causal_TS = causal_mask(T, S, device=q_BHTD.device)
        mask, is_causal = causal_TS if mask is None else causal_TS & mask, False
    if mask is not None:
        check_mask(mask, (*q_BHTD.shape[:-1], S))
    if bias is not None:
        check_bias(bias, (*q_BHTD.shape[:-1], S))
        mask = (bias if mask is None else torch.where(mask, bias, -torch.inf)).to(q_BHTD.dtype)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, mask, dropout_p, is_causal, scale=scale, enable_gqa=H != K
    )


class MultiHeadAttention(nn.Module):
    """Several attention heads side by side, between learned projections.

    Formula: ``output(concat(head_1 .. head_H))`` where head h attends with its own D columns of
    ``qkv(x)``. One matrix product makes all queries, keys and values, in this order: H query
    heads, K key heads, K value heads.

    Arguments: ``num_kv_heads`` defaults to ``num_heads``; fewer gives grouped-query attention, 1
    multi-query attention. ``bias`` adds biases to both projections, ``qkv_bias`` decides for the
    first alone (Qwen2 has biases there only). ``d_head`` is the width of a head, by default
    ``d_model / num_heads``. ``dropout`` is the probability that a weight is dropped in training.
    ``causal`` masks the future, whatever mask is passed; with a ``window``, each position sees
    itself and the ``window - 1`` before it. ``scale`` multiplies the scores, by default
    ``1 / sqrt(d_head)``. ``qk_norm_eps`` puts an RMS norm on every query and key head.
    Raises: ValueError if d_model is no multiple of num_heads, or num_heads of num_kv_heads.
    Source: Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023, section 2.2; window: Child et
    al. 2019, Jiang et al. 2023; norms of queries and keys: Henry et al. 2020.
    Departure: no separate d_k and d_v; both are ``d_head``.

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
        d_head: int | None = None,
        qkv_bias: bool | None = None,
        window: int | None = None,
        scale: float | None = None,
        qk_norm_eps: float | None = None,
    ):
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or d_model < 1 or (d_head is None and d_model % num_heads):
            raise ValueError(
                f"d_model={d_model} must be a positive multiple of num_heads={num_heads}; "
                "change one so that every head gets the same number of columns"
            )
        check_heads(num_heads, num_kv_heads)
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.d_head = d_model // num_heads if d_head is None else d_head
        self.dropout, self.causal, self.window, self.scale = dropout, causal, window, scale
        num_columns = (num_heads + 2 * num_kv_heads) * self.d_head
        self.qkv = nn.Linear(d_model, num_columns, bias=bias if qkv_bias is None else qkv_bias)
        self.output = nn.Linear(num_heads * self.d_head, d_model, bias=bias)
        self.query_norm = self.key_norm = None
        if qk_norm_eps is not None:
            self.query_norm = RMSNorm(self.d_head, eps=qk_norm_eps)
            self.key_norm = RMSNorm(self.d_head, eps=qk_norm_eps)

    def project(
        self, x_BTC: Float[Tensor, "B T C"], rope: Rotary | None = None
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B K T D"], Float[Tensor, "B K T D"]]:
        """Make the queries, keys and values of every head; rotate queries and keys by ``rope``.

        A table of fewer than D/2 frequencies turns the first columns of a head and leaves the rest.
        """
        H, K = self.num_heads, self.num_kv_heads
        heads_BNTD = self.qkv(x_BTC).unflatten(-1, (-1, self.d_head)).transpose(1, 2)
        both_BNTD, v_BKTD = heads_BNTD.split([H + K, K], dim=1)  # queries and keys turn in one call
        if self.query_norm is not None:
            q_BHTD, k_BKTD = both_BNTD.split([H, K], dim=1)
            both_BNTD = torch.cat((self.query_norm(q_BHTD), self.key_norm(k_BKTD)), dim=1)
        if rope is not None:
            both_BNTD = _rotate(both_BNTD, rope)
        q_BHTD, k_BKTD = both_BNTD.split([H, K], dim=1)
        return q_BHTD, k_BKTD, v_BKTD

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "..."] | None = None,
        rope: Rotary | None = None,
        return_weights: bool = False,
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T T"]]:
        """Attend within each sequence; with ``return_weights`` also give the weights.

        ``bias`` is added to the scores. Asking for weights takes the readable path, which stores
        them and applies no dropout to them, so that what is returned are the probabilities.
        """
        q_BHTD, k_BKTD, v_BKTD = self.project(x_BTC, rope)
        T, causal = x_BTC.shape[1], self.causal
        windowed = self.window is not None and self.window < T
        if causal and (return_weights or windowed):
            causal_TT = causal_mask(T, window=self.window, device=x_BTC.device)
            mask, causal = causal_TT if mask is None else causal_TT & mask, False
        inputs = {"mask": mask, "bias": bias, "scale": self.scale}
        if return_weights:
            heads_BHTD, weights_BHTT = attention(q_BHTD, k_BKTD, v_BKTD, **inputs)
        else:
            dropout_p = self.dropout if self.training else 0.0
            heads_BHTD = fused_attention(
                q_BHTD, k_BKTD, v_BKTD, **inputs, is_causal=causal, dropout_p=dropout_p
            )
        out_BTC = self.output(heads_BHTD.transpose(1, 2).flatten(2))
        return (out_BTC, weights_BHTT) if return_weights else out_BTC


def _rotate(x_BHTD: Tensor, rope: Rotary) -> Tensor:
    """Turn as many columns as the table has pairs for: all of them, or the first ones."""
    width = 2 * rope[0].shape[-1]
    if width >= x_BHTD.shape[-1]:
        return apply_rotary(x_BHTD, *rope)
    turned, left = x_BHTD[..., :width], x_BHTD[..., width:]
    return torch.cat((apply_rotary(turned, *rope), left), dim=-1)
