"""Data parallelism: each process holds the whole model and computes on its part of every batch.

Formula: with n processes, mean loss l_r over the c_r targets of part r, and c = sum of c_r, each backward
pass starts from ``n (c_r / c) l_r``; the average of the n gradients is then ``grad sum_r (c_r / c) l_r``,
that of the whole batch. All processes then take the same optimizer step.
Source: Li et al. 2020 (PyTorch Distributed), sections 3 and 4.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from llm_from_scratch.training.distributed.processes import Processes


class DataParallel(Processes):
    """Average the gradients, bucket by bucket, while the backward pass still runs.

    Memory: parameters, gradients and optimizer states are held once a process.
    """

    name = "ddp"

    def wrap(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Take the main process's weights everywhere; return the module that averages gradients."""
        self.seed_share()
        devices = [self.device.index] if self.device.type == "cuda" else None
        self.wrapped = DistributedDataParallel(model, device_ids=devices, forward_sync_buffers=False)
        return self.wrapped

    def micro_batch(self, *, last: bool) -> AbstractContextManager:
        """Average only after the last micro-batch: the sum of the parts is sent once."""
        return nullcontext() if last else self.wrapped.no_sync()
