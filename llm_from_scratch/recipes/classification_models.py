"""The models of the recipes of text classification: MiniLM and SmolLM2 with a new head, and what is kept."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_files import save_adapter
from llm_from_scratch.finetuning.heads import DecoderClassifier, EncoderClassifier
from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, lora_layers
from llm_from_scratch.interop import load_minilm, load_smollm2
from llm_from_scratch.recipes.classification import MAX_TOKENS
from llm_from_scratch.tokenizers.wordpiece import PADDING
from llm_from_scratch.training.weights import load_weights, trained_names, weights_as_bytes


def encoder_builder() -> tuple[Callable[[], nn.Module], Callable[[str], list[int]]]:
    """Return what builds a classifier on MiniLM with a new head, and what encodes a text for it."""
    loaded = load_minilm()
    pad_id = loaded.tokenizer.special_ids[PADDING]

    def build() -> nn.Module:
        return EncoderClassifier(copy.deepcopy(loaded.model), num_classes=2, pad_id=pad_id)

    return build, lambda text: loaded.tokenizer.encode_for_bert(text, max_tokens=MAX_TOKENS)[0]


def decoder_builder() -> tuple[Callable[[], nn.Module], Callable[[str], list[int]]]:
    """Return what builds a classifier on SmolLM2 with a new head, and what encodes a text for it."""
    loaded = load_smollm2()
    pad_id = loaded.tokenizer.special_ids[loaded.special_tokens["pad_token"]]

    def build() -> nn.Module:
        return DecoderClassifier(copy.deepcopy(loaded.model), num_classes=2, pad_id=pad_id)

    return build, lambda text: loaded.tokenizer.encode(text)[:MAX_TOKENS]


def keep_weights(folder: Path, key: str, model: nn.Module) -> None:
    """Store what was trained: for averages, and for the adapter that is published."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = all(parameter.requires_grad for parameter in model.parameters())
    content = weights_as_bytes(
        model, dtype=torch.float16 if whole else None, only=None if whole else trained_names(model)
    )
    write_atomically(weights_path(folder, key), content)


def weights_path(folder: Path, key: str) -> Path:
    """The file that `keep_weights` writes."""
    return folder / f"{key.replace('/', ' ')}.safetensors"


def keep_adapter(folder: Path, model: nn.Module, weights: Path, chosen: dict[str, dict]) -> None:
    """Write the adapter and the head of a tuned model into the record's folder, in float16."""
    lora = chosen["film_sentiment"]["lora"]["lora"]
    add_lora(model, LoraConfig(**lora))
    load_weights(model, weights.read_bytes(), origin=str(weights), only=trained_names(model))
    for layer in lora_layers(model).values():
        layer.parts.half()
    save_adapter(model, folder, base="minilm")
