"""Training in several processes, on torch's own engine.

Read in this order: `processes` (how they find each other and add up numbers), `data_parallel` (every
process a whole model and a part of each batch), `fully_sharded` (every process a part of each
parameter, too), `tensor_parallel` with `tensor_plan` (every process some heads and hidden columns),
`clipping` (the norm of a gradient that lies in parts).

A strategy wraps any module; no model knows of it. What was run: CPU processes over gloo. The GPU
branches (one CUDA device a process, nccl) were never run by us.
"""

import os

import torch

from llm_from_scratch.training.strategy import Strategy

NAMES = ("single", "ddp", "fsdp", "tensor")


def open_strategy(name: str, device: torch.device) -> Strategy:
    """Join the processes that torchrun started and return the strategy called ``name``.

    Raises: ValueError for an unknown name, for a strategy of several processes without torchrun, and
    for "single" under torchrun, where every process would train the whole run by itself.

    >>> open_strategy("single", torch.device("cpu")).processes
    1
    >>> open_strategy("zero", torch.device("cpu"))
    Traceback (most recent call last):
    ValueError: strategy must be one of single, ddp, fsdp, tensor, got "zero"
    """
    if name not in NAMES:
        raise ValueError(f'strategy must be one of {", ".join(NAMES)}, got "{name}"')
    if name == "single":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, but the strategy is single: name "
                "one that shares the work, such as --strategy ddp, or start without torchrun"
            )
        return Strategy()
    from llm_from_scratch.training.distributed.data_parallel import DataParallel
    from llm_from_scratch.training.distributed.fully_sharded import FullySharded
    from llm_from_scratch.training.distributed.tensor_parallel import TensorParallel

    return {"ddp": DataParallel, "fsdp": FullySharded, "tensor": TensorParallel}[name](device)
