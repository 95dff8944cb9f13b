"""Evaluation mode: dropout off while a model is measured or sampled, and back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put a module and its parts in evaluation mode, then give each part its own mode back.

    A part that was in evaluation mode before, such as a frozen layer, stays in it. Anything that
    is no `torch.nn.Module` passes unchanged. An error inside the block restores the modes too.

    >>> layer = nn.Dropout(0.5)
    >>> with evaluation_mode(layer):
    ...     print(layer.training)
    False
    >>> layer.training
    True
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        if parts:
            model.eval()
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
