"""Full sharding (FSDP2, also ZeRO stage 3): each process keeps a part of every parameter.

A block's parameters are gathered just before it computes and dropped after; its gradients are added up
and divided as they appear. So parameters, gradients and AdamW's two averages take ``16 P / n`` bytes a
process in float32, where data parallelism takes ``16 P``; on top comes one gathered block.
Sources: Rajbhandari et al. 2020 (ZeRO), section 5; Zhao et al. 2023 (PyTorch FSDP), section 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from llm_from_scratch.training.block_options import blocks_of
from llm_from_scratch.training.distributed.sharded import Sharded


class FullySharded(Sharded):
    """Shard each block by itself, and what is left (embeddings, last norm, head) together."""

    name = "fsdp"

    def wrap(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Divide the parameters in place. In bfloat16 they are gathered as such, gradients added in float32.

        Raises: ValueError for float16, whose loss scaler would have to agree over the processes.
        """
        if dtype == torch.float16:
            raise ValueError("float16 is not offered with strategy fsdp: use bfloat16 or strategy ddp")
        self.seed_share()
        mesh = init_device_mesh(self.device.type, (self.processes,))
        policy = MixedPrecisionPolicy()
        if dtype != torch.float32:
            policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        self.wrapped = fully_shard(model, mesh=mesh, mp_policy=policy)
        return self.wrapped

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """Add up over the processes only after the last micro-batch."""
        self.wrapped.set_requires_gradient_sync(last)
        yield
