"""Build a model whose weights are about to be loaded: without drawing random ones first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWS = {
    nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.xavier_uniform_,
    nn.init.trunc_normal_, torch.Tensor.normal_, torch.Tensor.uniform_,
}  # fmt: skip


class _NothingDrawn(TorchFunctionMode):
    """Inside this block, functions that fill a tensor with random numbers leave it as it is."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def build_empty(build: Callable[[], nn.Module]) -> nn.Module:
    """Return ``build()`` with matrices that hold nothing yet; every weight has to be filled.

    The memory of a matrix is reserved, and the operating system gives it page by page as the matrix is
    filled. Torch's random generator is left as it was. Check the sizes before: a size that no memory
    holds raises torch's RuntimeError.

    >>> state = torch.get_rng_state()
    >>> build_empty(lambda: nn.Linear(5, 3)).weight.shape, torch.equal(state, torch.get_rng_state())
    (torch.Size([3, 5]), True)
    """
    with _NothingDrawn():
        return build()
