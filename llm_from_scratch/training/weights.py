"""The weights of a model as safetensors bytes or as boxes, and back.

safetensors stores names, shapes, number formats and raw numbers. Opening such a file runs no code,
unlike a pickle (which is what `torch.save` writes by default).
"""

from collections.abc import Collection

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from llm_from_scratch.training.boxes import TensorSource, WholeTensors
from llm_from_scratch.training.fingerprint import fingerprint
from llm_from_scratch.training.shard_files import label
from llm_from_scratch.training.strategy import Strategy


def weights_as_bytes(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    strategy: Strategy | None = None,
    only: Collection[str] | None = None,
) -> bytes:
    """Return the model's parameters and buffers in the safetensors format.

    A tensor that two names share (a tied output head) is stored once, under its first name.
    ``dtype`` converts floating-point tensors, for instance to torch.float16 for a small file.
    ``strategy`` gathers parameters that lie divided over several processes, which all must call;
    what those other than the main one get is not complete. ``only`` names the tensors that are stored.

    >>> len(weights_as_bytes(nn.Linear(3, 2))) > 8 * 4
    True
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in _distinct(model, only).items():
        convert = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if strategy is not None:
            tensor = strategy.whole(tensor, tensor)
        stored[name] = tensor.detach().to("cpu", convert).contiguous()
    return safetensors.save(stored)


def weight_boxes(
    model: nn.Module, strategy: Strategy, *, only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the boxes of parameters and buffers that this process writes, by label.

    ``only`` names the tensors that are stored.

    >>> {name: list(box.shape) for name, box in weight_boxes(nn.Linear(3, 2), Strategy()).items()}
    {'weight[0:2,0:3]': [2, 3], 'bias[0:2]': [2]}
    """
    return {
        label(name, box): place
        for number, (name, tensor) in enumerate(_distinct(model, only).items())
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
    only: Collection[str] | None = None,
) -> None:
    """Copy the weights in ``content`` into ``model``, in the model's own number format and device.

    ``content`` is a safetensors file or a source of tensors. ``origin`` names it in errors.
    ``strategy`` says what this process holds of each; only that is read. ``only`` names the tensors that
    ``content`` must hold, by default all of the model's; the others stay as they are.
    Raises: ValueError if the bytes are no safetensors, or names or shapes differ from the model's.

    >>> source, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> load_weights(copy, weights_as_bytes(source))
    >>> torch.equal(source.weight, copy.weight)
    True
    """
    source = read_weights(content, origin=origin) if isinstance(content, bytes) else content
    strategy = Strategy() if strategy is None else strategy
    stored = source.names()
    own = {n: t for n, t in model.state_dict(keep_vars=True).items() if only is None or n in only}
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


def trained_names(model: nn.Module) -> list[str]:
    """Name what a run with a frozen base changes: trainable parameters, and the buffers beside them.

    >>> model = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.BatchNorm1d(2))
    >>> trained_names(model)
    ['1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked']
    """
    beside = {
        name for name, part in model.named_modules() if any(p.requires_grad for p in part.parameters(False))
    }
    return [
        name
        for name, tensor in model.state_dict(keep_vars=True).items()
        if (tensor.requires_grad if isinstance(tensor, nn.Parameter) else name.rpartition(".")[0] in beside)
    ]


def base_of(model: nn.Module, trained: Collection[str] | None) -> str | None:
    """Return the fingerprint of what is not ``trained``; None if all is, which needs no other base."""
    if trained is None:
        return None
    kept = set(trained)
    return fingerprint((name, tensor) for name, tensor in model.state_dict().items() if name not in kept)


def check_base(stored: object, own: str | None, *, origin: str) -> None:
    """Raise ValueError unless a checkpoint that names its base as ``stored`` continues beside ours.

    >>> check_base(None, "8c1f", origin="the last checkpoint of runs/a")
    Traceback (most recent call last):
    ValueError: the last checkpoint of runs/a holds a whole model: continue it with trained_only=False
    """
    if stored == own:
        return
    if stored is None:
        raise ValueError(f"{origin} holds a whole model: continue it with trained_only=False")
    if own is None:
        raise ValueError(f"{origin} holds trained parameters without their base: use trained_only=True")
    raise ValueError(
        f"{origin} was trained beside another base (fingerprint {str(stored)[:12]}, this model's is "
        f"{own[:12]}): give the trainer the model that the run began with"
    )


def _distinct(model: nn.Module, only: Collection[str] | None = None) -> dict[str, Tensor]:
    """Return parameters and buffers, one that two names share under its first name."""
    distinct: dict[tuple[object, ...], tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if only is None or name in only:
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
