"""On which device to compute, and in which number format.

Three formats of floating-point numbers. float32 has 8 bits of exponent and 23 of fraction. bfloat16
keeps the exponent and cuts the fraction to 7 bits: the same range, coarser steps. float16 has 5 bits
of exponent and 10 of fraction: finer steps, but gradients below 6e-8 vanish, which loss scaling
mends (Micikevicius et al. 2018, section 3.2). The parameters stay in float32 in each case; autocast
converts the inputs of the matrix products.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; "auto" is cuda where there is one, otherwise cpu.

    Apple's mps is used on request only, with a warning: losses there have differed between
    versions of torch and from those of a CPU.
    Raises: ValueError if the name is unknown or this machine lacks the device.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "mps", got "{name}"')
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f'device "{name}" was asked for, but this installation of torch sees no CUDA GPU; use "cpu"'
        )
    if name.startswith("mps"):
        if not torch.backends.mps.is_available():
            raise ValueError('device "mps" was asked for, but torch sees no Apple GPU here; use "cpu"')
        warnings.warn("losses on mps can differ from those the book prints, which ran on a CPU", stacklevel=2)
    try:
        return torch.device(name)
    except RuntimeError as error:  # "cpu:x"
        raise ValueError(f'device "{name}" is not one that torch knows') from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of the matrix products; "auto" is what suits the device.

    "auto" is bfloat16 on a GPU that has it (float16 on an older one) and float32 on everything
    else: a CPU without bfloat16 units is slower with it than without.
    Raises: ValueError if the name is unknown, or for float16 on a CPU, where no loss scaler guards it.

    >>> choose_dtype("auto", torch.device("cpu"))
    torch.float32
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name not in DTYPES:
        raise ValueError(f'precision must be "auto" or one of {", ".join(DTYPES)}, got "{name}"')
    if name == "float16" and device.type != "cuda":
        raise ValueError(f'float16 needs a CUDA GPU, the device is {device.type}: use "float32"')
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Return the context in which forward passes run: autocast, or nothing at all for float32.

    >>> with autocast(torch.device("cpu"), torch.bfloat16):
    ...     (torch.ones(2, 3) @ torch.ones(3, 2)).dtype
    torch.bfloat16
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def loss_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Return the scaler of the loss. It does nothing unless the format is float16."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
