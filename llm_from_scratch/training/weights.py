"""The weights of a model as safetensors bytes, and back.

safetensors stores names, shapes, number formats and raw numbers. Opening such a file runs no code,
unlike a pickle (which is what `torch.save` writes by default).
"""

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from llm_from_scratch.training.strategy import Strategy


def weights_as_bytes(
    model: nn.Module, *, dtype: torch.dtype | None = None, strategy: Strategy | None = None
) -> bytes:
    """Return the model's parameters and buffers in the safetensors format.

    A tensor that two names share (a tied output head) is stored once, under its first name.
    ``dtype`` converts floating-point tensors, for instance to torch.float16 for a small file.
    ``strategy`` gathers parameters that lie divided over several processes, which all must call;
    what those other than the main one get is not complete.

    >>> len(weights_as_bytes(nn.Linear(3, 2))) > 8 * 4
    True
    """
    stored: dict[str, Tensor] = {}
    seen: set[tuple[object, ...]] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if _place(tensor) in seen:
            continue
        seen.add(_place(tensor))
        convert = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if strategy is not None:
            tensor = strategy.whole(tensor, tensor)
        stored[name] = tensor.detach().to("cpu", convert).contiguous()
    return safetensors.save(stored)


def load_weights(
    model: nn.Module, content: bytes, *, origin: str = "the file", strategy: Strategy | None = None
) -> None:
    """Copy the weights in ``content`` into ``model``, in the model's own number format and device.

    ``origin`` names the file in errors. ``strategy`` picks what this process holds of each.
    Raises: ValueError if the bytes are no safetensors, or names or shapes differ from the model's.

    >>> source, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> load_weights(copy, weights_as_bytes(source))
    >>> torch.equal(source.weight, copy.weight)
    True
    """
    try:
        stored = safetensors.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{origin} is damaged or no safetensors file ({error})") from error
    own = model.state_dict(keep_vars=True)
    filled = {_place(own[name]) for name in stored if name in own}
    missing = [name for name, tensor in own.items() if name not in stored and _place(tensor) not in filled]
    unknown = [name for name in stored if name not in own]
    if missing or unknown:
        raise ValueError(
            f"{origin} does not fit the model: it lacks {_few(missing)} and has {_few(unknown)} in excess; "
            "the configuration beside it must be the one it was trained with"
        )
    for name, tensor in stored.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{origin} does not fit the model: {name} has shape {list(tensor.shape)}, "
                f"the model expects {list(own[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in stored.items():
            own[name].copy_(tensor if strategy is None else strategy.part(tensor, own[name]))


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Identify the memory a tensor looks at: equal for two names of one tied parameter."""
    if hasattr(tensor, "to_local"):  # a DTensor: the part that lies here
        tensor = tensor.to_local()
        if not tensor.numel():  # nothing lies here, so nothing can be shared
            return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _few(names: list[str]) -> str:
    """Name the first few, so that an error stays one line."""
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
