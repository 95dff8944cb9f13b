"""Adapting a trained model to a task: heads, learning rates by depth, adapters, instructions.

Read in this order: `heads`, `layerwise` and `averaging` (all weights); `lora` with `lora_targets` (two thin
matrices beside a frozen one), `adapter_files` (stored as peft does), `quantised_base` and `memory` (what a
step holds), `prefix`; `instructions` and `preference` (from continuing to answering).
"""

from llm_from_scratch.finetuning.adapter_files import load_adapter, save_adapter
from llm_from_scratch.finetuning.averaging import average_weights
from llm_from_scratch.finetuning.example_batches import InstructionBatches
from llm_from_scratch.finetuning.heads import DecoderClassifier, EncoderClassifier
from llm_from_scratch.finetuning.instructions import encode_conversation
from llm_from_scratch.finetuning.layerwise import layerwise_groups
from llm_from_scratch.finetuning.lora import (
    LoraConfig,
    LoraLinear,
    adapters_off,
    add_lora,
    count_trained,
    lora_layers,
    lora_parameters,
    merge_lora,
    remove_lora,
    unmerge_lora,
)
from llm_from_scratch.finetuning.memory import StepMemory, compare_memory, measure_step
from llm_from_scratch.finetuning.preference import PreferenceModel, dpo_loss
from llm_from_scratch.finetuning.prefix import PrefixAttention, add_prefix, remove_prefix
from llm_from_scratch.finetuning.quantised_base import quantise_base, rounding_error

__all__ = [
    "DecoderClassifier",
    "EncoderClassifier",
    "InstructionBatches",
    "LoraConfig",
    "LoraLinear",
    "PreferenceModel",
    "PrefixAttention",
    "StepMemory",
    "adapters_off",
    "add_lora",
    "add_prefix",
    "average_weights",
    "compare_memory",
    "count_trained",
    "dpo_loss",
    "encode_conversation",
    "layerwise_groups",
    "load_adapter",
    "lora_layers",
    "lora_parameters",
    "measure_step",
    "merge_lora",
    "quantise_base",
    "remove_lora",
    "remove_prefix",
    "rounding_error",
    "save_adapter",
    "unmerge_lora",
]
