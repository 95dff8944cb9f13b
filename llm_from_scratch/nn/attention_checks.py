"""What attention requires of its heads, masks and biases, and the errors that say so.

Legend: B sequences, T queries, S keys, H query heads, K key/value heads (K divides H), D width of a head.
"""

import torch
from torch import Tensor


def one_head_per_query_head(x_BKSD: Tensor, num_heads: int) -> Tensor:
    """Repeat each key or value head for the query heads that share it.

    >>> one_head_per_query_head(torch.tensor([[[1.0]], [[2.0]]]), 4).flatten().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    check_heads(num_heads, x_BKSD.shape[-3])
    return x_BKSD.repeat_interleave(num_heads // x_BKSD.shape[-3], dim=-3)


def check_heads(num_heads: int, num_kv_heads: int) -> None:
    """Raise ValueError unless every key/value head serves the same number of query heads."""
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(
            f"num_heads={num_heads} must be a multiple of num_kv_heads={num_kv_heads}; "
            "each key/value head serves the same number of query heads"
        )


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``mask`` is boolean and broadcasts to the scores' ``shape``."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"the mask must be boolean, True where attention is allowed, got {mask.dtype}; "
            "numbers that are added to the scores go into bias"
        )
    _check_broadcast("mask", mask, shape)


def check_bias(bias: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``bias`` holds numbers and broadcasts to the scores' ``shape``."""
    if not bias.is_floating_point():
        raise ValueError(
            f"the bias is added to the scores, so it must hold floating-point numbers, got {bias.dtype}; "
            "what may be attended to goes into mask"
        )
    _check_broadcast("bias", bias, shape)


def _check_broadcast(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    sizes = tuple(tensor.shape)
    aligned = zip(sizes[::-1], tuple(shape)[::-1], strict=False)
    if len(sizes) > len(shape) or any(m not in (1, s) for m, s in aligned):
        raise ValueError(
            f"a {name} of shape {sizes} does not broadcast to {tuple(shape)} "
            "(sequences, heads, queries, keys); rows are queries and columns are keys"
        )
