"""A short name for a set of tensors, by which another base is told from the one that was trained on.

What is trained beside a frozen base (`finetuning.lora`) means nothing beside another one. Files of it
carry the base's fingerprint, so that nobody has to notice from the answers.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

SAMPLE = 1024  # numbers read of each tensor: training moves them all, so a sample tells


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a sha256 over names, shapes, number formats and a sample of the numbers, evenly spread.

    A sample keeps it cheap: a few milliseconds for a hundred million numbers. It recognises another model or
    another checkpoint; it is no proof against a forger.

    >>> one, other = torch.zeros(3, 5), torch.zeros(3, 5)
    >>> fingerprint([("w", one)]) == fingerprint([("w", other)])
    True
    >>> other[2, 4] = 1.0
    >>> fingerprint([("w", one)]) == fingerprint([("w", other)])
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.is_meta or not tensor.numel():
            continue
        flat = tensor.detach().reshape(-1)
        count = min(SAMPLE, flat.numel())
        places = torch.linspace(0, flat.numel() - 1, count, dtype=torch.float64).round().long()
        sample = flat[places.to(flat.device)].cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
