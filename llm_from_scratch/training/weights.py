"""The weights of a model as safetensors bytes or as boxes, and back.

safetensors stores names, shapes, number formats and raw numbers. Opening such a file runs no code,
unlike a pickle (which is what `torch.save` writes by default).
"""

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from llm_from_scratch.training.boxes import TensorSource, WholeTensors
from llm_from_scratch.training.shard_files import label
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
    for name, tensor in _distinct(model).items():
        convert = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if strategy is not None:
            tensor = strategy.whole(tensor, tensor)
        stored[name] = tensor.detach().to("cpu", convert).contiguous()
    return safetensors.save(stored)


def weight_boxes(model: nn.Module, strategy: Strategy) -> dict[str, Tensor]:
    """Return the boxes of parameters and buffers that this process writes, by label.

    >>> {name: list(box.shape) for name, box in weight_boxes(nn.Linear(3, 2), Strategy()).items()}
    {'weight[0:2,0:3]': [2, 3], 'bias[0:2]': [2]}
    """
    return {
        label(name, box): place
        for number, (name, tensor) in enumerate(_distinct(model).items())
        if strategy.writes(tensor, number)
        for box, place in strategy.boxes(tensor, tensor)
    }


def read_weights(content: bytes, *, origin: str = "the file") -> WholeTensors:
    """Return the tensors of a safetensors file. Raises: ValueError, which names ``origin``, if it is none."""
    try:
        return WholeTensors(safetensors.load(content))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{origin} is damaged or no safetensors file ({error})") from error


def load_weights(
    model: nn.Module,
    content: bytes | TensorSource,
    *,
    origin: str = "the file",
    strategy: Strategy | None = None,
) -> None:
    """Copy the weights in ``content`` into ``model``, in the model's own number format and device.

    ``content`` is a safetensors file or a source of tensors. ``origin`` names it in errors.
    ``strategy`` says what this process holds of each; only that is read.
    Raises: ValueError if the bytes are no safetensors, or names or shapes differ from the model's.

    >>> source, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> load_weights(copy, weights_as_bytes(source))
    >>> torch.equal(source.weight, copy.weight)
    True
    """
    source = read_weights(content, origin=origin) if isinstance(content, bytes) else content
    strategy = Strategy() if strategy is None else strategy
    stored = source.names()
    own = model.state_dict(keep_vars=True)
    filled = {_place(own[name]) for name in stored if name in own}
    missing = [name for name, tensor in own.items() if name not in stored and _place(tensor) not in filled]
    unknown = [name for name in stored if name not in own]
    if missing or unknown:
        raise ValueError(
            f"{origin} does not fit the model: it lacks {_few(missing)} and has {_few(unknown)} in excess; "
            "the configuration beside it must be the one it was trained with"
        )
    for name in stored:
        if source.shape(name) != tuple(own[name].shape):
            raise ValueError(
                f"{origin} does not fit the model: {name} has shape {list(source.shape(name))}, "
                f"the model expects {list(own[name].shape)}"
            )
    with torch.no_grad():
        for name in stored:
            for box, place in strategy.boxes(own[name], own[name]):
                place.copy_(source.read(name, box))


def _distinct(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, one that two names share under its first name."""
    distinct: dict[tuple[object, ...], tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        distinct.setdefault(_place(tensor), (name, tensor))
    return dict(distinct.values())


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Identify the memory a tensor looks at: equal for two names of one tied parameter."""
    if hasattr(tensor, "to_local"):  # a DTensor, of which nothing may lie here: the object itself
        return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _few(names: list[str]) -> str:
    """Name the first few, so that an error stays one line."""
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
