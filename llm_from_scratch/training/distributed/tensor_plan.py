"""Which matrix is cut along which side: the plan of tensor parallelism, kept outside the models.

A pair of products ``y = f(x A) B`` is cut so that each process computes with some columns of A and the same
rows of B: f acts on each hidden column alone, and ``y = sum_r f(x A_r) B_r`` needs one sum at the end. In
a feed-forward layer the columns are hidden columns, in attention they are whole heads.

Source: Shoeybi et al. 2019 (Megatron-LM), section 3.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from llm_from_scratch.nn.adapters import check_no_adapters
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.feedforward import FeedForward, SwiGLU


def apply_plan(model: nn.Module, mesh: DeviceMesh) -> dict[Tensor, Tensor]:
    """Divide every attention and feed-forward layer of ``model`` over ``mesh``.

    Returns, for each parameter whose rows had to be moved to do so, the order of its rows in the model.
    Raises: ValueError if heads or hidden columns do not divide, the model has none of these layers, or some
    carry adapters, which are small and would have to be cut in other ways.
    """
    check_no_adapters(model, who="tensor parallelism", way_out="use strategy ddp or fsdp")
    orders: dict[Tensor, Tensor] = {}
    found = False
    for name, part in list(model.named_modules()):
        if isinstance(part, MultiHeadAttention):
            _divide_attention(name, part, mesh, orders)
        elif isinstance(part, (FeedForward, SwiGLU)):
            plan: dict[str, ParallelStyle] = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            if isinstance(part, SwiGLU):
                plan["gate"] = ColwiseParallel()
            _check_divides(f"d_ff of {name}", part.up.out_features, mesh.size())
            parallelize_module(part, mesh, plan)
        else:
            continue
        found = True
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no attention or feed-forward layer that the plan knows; use fsdp"
        )
    return orders


def head_order(num_heads: int, num_kv_heads: int, d_head: int, parts: int) -> Tensor:
    """Return the rows of a joint query-key-value matrix in the order in which parts hold them.

    The matrix lists H query heads, K key heads, K value heads; each part is to hold H/n, K/n and K/n of them.

    >>> head_order(4, 2, 1, 2).tolist()
    [0, 1, 4, 6, 2, 3, 5, 7]
    """
    rows = torch.arange((num_heads + 2 * num_kv_heads) * d_head)
    kinds = rows.split([num_heads * d_head, num_kv_heads * d_head, num_kv_heads * d_head])
    return torch.cat([kind.chunk(parts)[part] for part in range(parts) for kind in kinds])


def _divide_attention(
    name: str, attention: MultiHeadAttention, mesh: DeviceMesh, orders: dict[Tensor, Tensor]
) -> None:
    """Give each process whole heads; its attention then is one with fewer heads."""
    parts = mesh.size()
    _check_divides(f"num_heads of {name}", attention.num_heads, parts)
    _check_divides(f"num_kv_heads of {name}", attention.num_kv_heads, parts)
    order = head_order(attention.num_heads, attention.num_kv_heads, attention.d_head, parts)
    with torch.no_grad():
        for parameter in attention.qkv.parameters():
            parameter.copy_(parameter[order.to(parameter.device)])
    parallelize_module(attention, mesh, {"qkv": ColwiseParallel(), "output": RowwiseParallel()})
    orders.update((parameter, order) for parameter in attention.qkv.parameters())
    attention.num_heads //= parts
    attention.num_kv_heads //= parts
    for norm in (attention.query_norm, attention.key_norm):
        if norm is not None:  # every process norms its own heads with the same weight
            norm.weight.register_hook(lambda gradient: _summed(gradient, mesh))


def _summed(gradient: Tensor, mesh: DeviceMesh) -> Tensor:
    summed = gradient.clone()
    torch.distributed.all_reduce(summed, group=mesh.get_group())
    return summed


def _check_divides(what: str, size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(
            f"{what} is {size}, which does not divide among {parts} processes; start a number that divides it"
        )
