"""How many bytes a training step really holds, to compare with the formulas of `footprint`."""

import torch
from torch import nn


def measured_activations(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Run the forward pass and return the bytes that it keeps for the backward pass.

    autograd hands each tensor that it keeps to a hook; memory that two of them share counts once, parameters,
    buffers and inputs do not count. For a decoder called with ids and targets, in float32, that is
    `footprint.activation_bytes`, the log-softmax of the logits (4 V bytes a token), and a few numbers of the
    loss. Under autocast the matrices that were converted count too.

    >>> layer = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 1))
    >>> measured_activations(layer, torch.zeros(7, 3)) == 4 * 7 * (5 + 5)  # before and after the GELU
    True
    """
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *inputs)}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held, so that its place is not given away
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(*inputs)
        return sum(storage.nbytes() for storage in kept.values())


def measured_states(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Return the bytes of parameters, of gradients, and of the optimizer's averages after its first step.

    Of parameters that lie divided over processes, what this process holds counts.

    >>> layer = nn.Linear(3, 5)
    >>> optimizer = torch.optim.AdamW(layer.parameters())
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> measured_states(layer, optimizer)
    {'parameters': 80, 'gradients': 80, 'optimizer': 160}
    """
    parameters = list(model.parameters())
    averages = [
        value
        for kept in optimizer.state.values()
        for value in kept.values()
        if isinstance(value, torch.Tensor) and value.dim()  # the count of steps is one number
    ]
    return {
        "parameters": _bytes(parameters),
        "gradients": _bytes([p.grad for p in parameters if p.grad is not None]),
        "optimizer": _bytes(averages),
    }


def _bytes(tensors: list[torch.Tensor]) -> int:
    here = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in here)
