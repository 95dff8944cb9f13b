"""Parameters that lie divided over processes as DTensors: which boxes lie here, and how to gather them."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llm_from_scratch.training.boxes import Box, part_of, whole_box
from llm_from_scratch.training.distributed.clipping import clip_by_global_norm
from llm_from_scratch.training.distributed.processes import Processes


class Sharded(Processes):
    """What full sharding and tensor parallelism share: DTensors."""

    @property
    def divides(self) -> bool:
        """Whether there is more than one process to divide parameters over."""
        return self.processes > 1

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
    def boxes(self, tensor: Tensor, parameter: Tensor) -> list[tuple[Box, Tensor]]:
        """Return the one box that lies here: none if the tensor has too few rows for all processes."""
        if not isinstance(tensor, DTensor):
            return super().boxes(tensor, parameter)
        local = tensor.to_local()
        return [(box_of(tensor), local)] if local.numel() else []

    def writes(self, tensor: Tensor, number: int) -> bool:
        """Tell whether this process writes its boxes of the tensor with this ``number``."""
        divided = isinstance(tensor, DTensor) and any(p.is_shard() for p in tensor.placements)
        return divided or super().writes(tensor, number)


def box_of(tensor: DTensor) -> Box:
    """Return the indices that this process holds. A part of a sum has none: ValueError."""
    box, mesh = list(whole_box(tensor.shape)), tensor.device_mesh
    for dimension, placement in enumerate(tensor.placements):
        if placement.is_shard():
            mine = mesh.get_local_rank(dimension), mesh.size(dimension)
            box[placement.dim] = part_of(box[placement.dim], *mine)
        elif not placement.is_replicate():
            raise ValueError(f"a tensor laid out as {placement} holds no box of the whole")
    assert tuple(map(len, box)) == tuple(tensor.to_local().shape)
    return tuple(box)
