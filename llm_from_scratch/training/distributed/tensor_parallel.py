"""Tensor parallelism: every process computes on the whole batch, with some of the heads and columns.

Embeddings, norms and the output layer are held whole by each process and computed alike in each.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from llm_from_scratch.data.loader import Batch
from llm_from_scratch.training.boxes import Box, runs_of
from llm_from_scratch.training.distributed.sharded import Sharded
from llm_from_scratch.training.distributed.tensor_plan import apply_plan


class TensorParallel(Sharded):
    """Divide the matrices of attention and feed-forward layers; see `tensor_plan`.

    Dropout of whole activations must agree, so all processes draw the same random numbers; heads of
    different processes then drop the same attention weights.
    """

    name = "tensor"
    one_kernel = False  # divided and whole parameters in one model

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.share, self.shares = 0, 1

    def wrap(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Divide the parameters in place.

        Raises: ValueError if heads or columns do not divide, for float16, and for positions that add
        numbers to the scores of every head.
        """
        if dtype == torch.float16:
            raise ValueError("float16 is not offered with strategy tensor: use bfloat16 or strategy ddp")
        positions = getattr(getattr(model, "config", None), "positions", "none")
        if positions in ("relative", "alibi"):
            raise ValueError(
                f'positions "{positions}" add a number to each head\'s scores: use strategy fsdp'
            )
        mesh = init_device_mesh(self.device.type, (self.processes,))
        self.orders = apply_plan(model, mesh)
        return model

    def batches(self, batches: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
        """Return the batches as they are: each process computes on all rows."""
        return batches

    @torch.no_grad()
    def whole(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Gather one tensor, its rows in the model's own order."""
        gathered = super().whole(tensor, parameter)
        order = self.orders.get(parameter)
        return gathered if order is None or not self.main else gathered[order.argsort()]

    @torch.no_grad()
    def boxes(self, tensor: Tensor, parameter: Tensor) -> list[tuple[Box, Tensor]]:
        """Return what lies here in the model's own order: of moved rows, a box for each stretch of them."""
        found, order = super().boxes(tensor, parameter), self.orders.get(parameter)
        if order is None:
            return found
        return [
            ((rows, *box[1:]), held[start : start + len(rows)])
            for box, held in found
            for rows, start in runs_of(order[box[0].start : box[0].stop].tolist())
        ]
