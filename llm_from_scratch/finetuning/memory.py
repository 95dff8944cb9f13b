"""What a training step of full fine-tuning, of LoRA, and of LoRA on a rounded base holds, in bytes measured.

Legend: B sequences, T tokens of each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, count_trained, remove_lora
from llm_from_scratch.finetuning.quantised_base import quantise_base
from llm_from_scratch.training.planning.measure import measured_activations, measured_states


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes at the end of a training step, before the gradients are dropped."""

    way: str
    trained: int  # numbers that change
    weights: int  # bytes of parameters and of rounded matrices
    gradients: int  # bytes
    optimizer: int  # bytes of AdamW's two averages
    activations: int  # bytes that the forward pass keeps for the backward pass

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return self.weights + self.gradients + self.optimizer + self.activations


def measure_step(model: nn.Module, ids_BT: Int[Tensor, "B T"], *, way: str) -> StepMemory:
    """Take one step with AdamW at a rate of 0, which changes nothing, and count what it holds.

    The model is called as ``model(ids, targets)``, the targets being the ids one place on.

    >>> from llm_from_scratch.models.decoder import Decoder, DecoderConfig
    >>> sizes = {"vocab_size": 11, "context_length": 7, "d_model": 6, "num_layers": 1, "num_heads": 3}
    >>> step = measure_step(Decoder(DecoderConfig.gpt2(**sizes)), torch.tensor([[1, 2, 3, 4]]), way="full")
    >>> step.weights == step.gradients == step.optimizer // 2 == 4 * step.trained
    True
    """
    inputs = ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0
    )
    activations = measured_activations(model, *inputs)
    _, loss = model(*inputs)
    loss.backward()
    optimizer.step()
    states = measured_states(model, optimizer)
    rounded = [part.matrix for part in model.modules() if hasattr(part, "matrix")]
    model.zero_grad(set_to_none=True)
    return StepMemory(
        way=way,
        trained=count_trained(model).trained,
        weights=states["parameters"] + sum(matrix.num_bytes for matrix in rounded),
        gradients=states["gradients"],
        optimizer=states["optimizer"],
        activations=activations,
    )


def compare_memory(
    model: nn.Module, ids_BT: Int[Tensor, "B T"], config: LoraConfig, *, bits: int = 4, group_size: int = 32
) -> list[StepMemory]:
    """Measure the three ways on one model, which ends with a rounded base and new adapters.

    No copy of the model is made: the base is rounded last.
    """
    model.requires_grad_(True)
    steps = [measure_step(model, ids_BT, way="full fine-tuning")]
    add_lora(model, config)
    steps.append(measure_step(model, ids_BT, way="LoRA"))
    remove_lora(model)
    quantise_base(model, bits=bits, group_size=group_size)
    add_lora(model, config)
    steps.append(measure_step(model, ids_BT, way=f"LoRA, base in {bits} bits"))
    return steps
