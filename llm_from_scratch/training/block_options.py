"""Two options that change how the blocks of a model compute, and nothing of what: recomputing and compiling.

Both replace a block's ``forward`` on the instance, so that names, states and checkpoints stay as they
are. Give the Trainer a model so prepared; where both are wanted, compile first.
"""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the parts that repeat: the members of every outermost ModuleList.

    >>> len(blocks_of(nn.Sequential(nn.ModuleList([nn.Linear(1, 1), nn.ModuleList([nn.Linear(1, 1)])]))))
    2
    """
    if isinstance(model, nn.ModuleList):
        return list(model)
    return [block for child in model.children() for block in blocks_of(child)]


def recompute_activations(model: nn.Module) -> nn.Module:
    """Keep only each block's input for the backward pass, which computes the rest a second time.

    Memory of activations falls from that of L blocks to L inputs and one block; a step costs one more
    forward pass, about a third more. Dropout draws the same numbers again.
    Source: Chen et al. 2016, section 4.
    """
    for block in blocks_of(model):
        block.forward = functools.partial(_recomputed, block, block.forward)
    return model


def compile_blocks(model: nn.Module, *, compiler: Callable = torch.compile) -> nn.Module:
    """Compile each block; one that cannot be compiled here computes as it did, after one warning."""
    for block in blocks_of(model):
        block.forward = CompiledOrNot(block.forward, compiler)
    return model


def with_options(*, compiled: bool, recompute: bool) -> Callable[[nn.Module], None]:
    """Return what prepares a new model in these ways, compiling first."""

    def prepare(model: nn.Module) -> None:
        if compiled:
            compile_blocks(model)
        if recompute:
            recompute_activations(model)

    return prepare


class CompiledOrNot:
    """A compiled function that falls back to the plain one when compiling it fails.

    Compiling happens at the first call, and again for inputs of another shape. Only errors of the
    compiler are caught: a mistake of the caller is raised by the plain function as before.
    """

    def __init__(self, plain: Callable, compiler: Callable) -> None:
        self.plain, self.compiled = plain, None
        try:
            self.compiled = compiler(plain)
        except RuntimeError as error:  # not on this system
            self._fall_back(error)

    def __call__(self, *inputs: object, **named: object) -> object:
        """Compute, compiled if that is possible."""
        if self.compiled is not None:
            try:
                return self.compiled(*inputs, **named)
            except Exception as error:
                if not _of_compiler(error):
                    raise
                self._fall_back(error)
        return self.plain(*inputs, **named)

    def _fall_back(self, error: Exception) -> None:
        self.compiled = None
        reason = str(error).strip().split("\n")[0][:200]
        warnings.warn(f"torch.compile failed ({reason}): going on without it", stacklevel=3)


def _recomputed(block: nn.Module, forward: Callable, *inputs: object, **named: object) -> object:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False, **named)
    return forward(*inputs, **named)


def _of_compiler(error: Exception) -> bool:
    """Tell whether torch's compiler raised it; its modules are loaded only once something is compiled."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
