"""A frozen base in 4 or 8 bits under adapters in full precision: the idea of QLoRA.

The matrices that are not trained need not be stored as numbers that training could move by a little. Each is
widened when it is used, in the forward pass and again in the backward pass (`nn.weight_only`).
"""

import torch
from torch import nn

from llm_from_scratch.finetuning.lora import LoraLinear, lora_layers
from llm_from_scratch.nn.weight_only import WeightOnlyLinear
from llm_from_scratch.training.block_options import blocks_of


def quantise_base(model: nn.Module, *, bits: int = 4, group_size: int = 32) -> list[str]:
    """Round the matrices of the blocks, in place, and freeze the model but for adapters; return their names.

    The embeddings, the output layer, the norms and the biases stay as they are. Adapters may be there
    already, or are added afterwards by `add_lora`; they and what was trained with them stay trainable.
    A model without blocks (a ModuleList) has all its linear layers rounded.

    Formula: a group of ``group_size`` columns of a row is stored as whole numbers q from 0 to 15, a scale
    and a minimum: ``w ~ q scale + minimum``. That takes 5 bits a weight in groups of 32, in place of 32.
    Raises: ValueError for other bits and groups, and for a model with nothing to round, or rounded already.
    Source: Dettmers et al. 2023, section 3. Departures: evenly spaced values in place of those of the normal
    distribution (NF4), scales in float16 that are not rounded a second time, no paged optimizer.

    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    >>> quantise_base(model), model[0].num_bytes  # 64 x 32 numbers in 5 bits, 32 biases in 32
    (['0', '2'], 1408)
    """
    blocks = blocks_of(model)
    inside = {id(part) for block in blocks or [model] for part in block.modules()}
    chosen = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and id(part) in inside and not _is_adapter_part(model, name)
    }
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} has no linear layer left to round; it may be rounded already"
        )
    trained = {id(p) for p in model.parameters() if p.requires_grad} if lora_layers(model) else set()
    for name, layer in chosen.items():
        model.set_submodule(name, WeightOnlyLinear(layer, bits=bits, group_size=group_size))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return list(chosen)


def rounding_error(layer: nn.Linear, *, bits: int = 4, group_size: int = 32) -> float:
    """How far the rounded matrix lies from the matrix: the norm of the difference, as a share of its norm.

    >>> rounding_error(nn.Linear(64, 32), bits=8) < rounding_error(nn.Linear(64, 32), bits=4) < 0.1
    True
    """
    with torch.no_grad():
        rounded = WeightOnlyLinear(layer, bits=bits, group_size=group_size).weight
        return float((rounded - layer.weight).norm() / layer.weight.norm())


def _is_adapter_part(model: nn.Module, name: str) -> bool:
    """Whether the layer is trained: a whole module of ``also_train``. Its numbers have to move."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, LoraLinear):
        return False
    layer = model.get_submodule(name)
    return bool(lora_layers(model)) and any(p.requires_grad for p in layer.parameters())
