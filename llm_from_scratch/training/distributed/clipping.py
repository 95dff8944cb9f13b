"""The norm of a gradient whose parts lie in several processes.

Formula: ``|g|^2 = sum over parameters of sum over entries g_i^2``. Entries that lie divided are summed
where they lie, and the sums are added over the processes of their mesh; entries that every process holds
are counted once.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def clip_by_global_norm(model: nn.Module, limit: float) -> float:
    """Scale all gradients by ``min(1, limit / (norm + 1e-6))``; return the norm before.

    torch's own `clip_grad_norm_` refuses a model in which only some parameters are divided.
    Source: Pascanu et al. 2013, algorithm 1; the 1e-6 is torch's.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = float(global_norm(gradients))
    if norm > limit - 1e-6:  # the scale would be below 1
        for gradient in gradients:
            _local(gradient).mul_(limit / (norm + 1e-6))
    return norm


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of plain and divided tensors together, the same number in each process."""
    sums: dict[tuple[dist.ProcessGroup, ...], Tensor] = {}
    for gradient in gradients:
        groups = _groups(gradient)
        squares = torch.linalg.vector_norm(_local(gradient), dtype=torch.float32).square()
        sums[groups] = sums.get(groups, 0.0) + squares
    for groups, squares in sums.items():
        for group in groups:
            dist.all_reduce(squares, group=group)
    return torch.stack(list(sums.values())).sum().sqrt() if sums else torch.zeros(())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _groups(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """Return the groups of processes over which the tensor lies divided; none if it is whole."""
    if not isinstance(tensor, DTensor):
        return ()
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError("a gradient is still a sum in parts: it must be reduced before it is clipped")
    return tuple(
        tensor.device_mesh.get_group(dimension)
        for dimension, placement in enumerate(tensor.placements)
        if not placement.is_replicate()
    )
