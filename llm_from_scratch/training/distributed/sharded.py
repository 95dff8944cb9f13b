"""Parameters that lie divided over processes as DTensors: gathered for a file, divided again from one."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from llm_from_scratch.training.distributed.clipping import clip_by_global_norm
from llm_from_scratch.training.distributed.processes import Processes


class Sharded(Processes):
    """What full sharding and tensor parallelism share: DTensors, whole in checkpoints only."""

    whole_matrices = False

    def clip_gradients(self, model: nn.Module, limit: float) -> float:
        """Clip by the norm over all processes' parts."""
        return clip_by_global_norm(model, limit)

    @torch.no_grad()
    def whole(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Gather one tensor. Only the main process keeps it, so the others need no memory for all."""
        if not isinstance(tensor, DTensor):
            return tensor
        gathered = tensor.full_tensor()
        return gathered.cpu() if self.main else gathered.new_empty(0)

    @torch.no_grad()
    def part(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Cut this process's part out of a tensor that each process has read whole."""
        if not isinstance(parameter, DTensor):
            return tensor
        return distribute_tensor(
            tensor.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
        )
