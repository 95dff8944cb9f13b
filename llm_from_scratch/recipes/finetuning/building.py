"""From a base to the model that is trained: its new parts, and what of it is frozen."""

from pathlib import Path

from torch import Tensor, nn

from llm_from_scratch.finetuning.heads import DecoderClassifier, EncoderClassifier
from llm_from_scratch.finetuning.layerwise import layerwise_groups
from llm_from_scratch.finetuning.lora import add_lora
from llm_from_scratch.finetuning.preference import (
    PreferenceModel,
    frozen_reference,
    score_with,
    without_adapters,
)
from llm_from_scratch.recipes.finetuning.base import Base
from llm_from_scratch.recipes.finetuning.recipe import CLASSIFY, PREFER, FinetuneRecipe
from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.weights import base_of, check_base, load_weights, trained_names

UNREAD = ("head", "pooler", "masked_language_head", "next_sentence_head")  # of a base, by its classifier


def adapted(recipe: FinetuneRecipe, base: Base, *, num_classes: int = 0) -> nn.Module:
    """Put what the recipe adds on the base, and freeze what it leaves alone.

    A classifier for texts with labels, the base itself otherwise. With the method lora there are adapters
    in it; with head only the classifier's last layer is trainable. New weights are drawn here.
    Raises: ValueError for unknown targets, or a rank that is too large for one.
    """
    model = base.loaded.model
    if recipe.task == CLASSIFY:
        kind = EncoderClassifier if base.kind == "encoder" else DecoderClassifier
        _freeze_unread(model)
        model = kind(model, num_classes=num_classes, pad_id=base.pad_id, dropout=recipe.dropout)
    if recipe.method == "lora":
        add_lora(model, recipe.lora())
    elif recipe.method == "head":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model


def in_training(recipe: FinetuneRecipe, model: nn.Module, *, reference: nn.Module | None = None) -> nn.Module:
    """Return the model as the trainer calls it; a checkpoint's names are this one's.

    For pairs of answers it stands beside what it is compared with: itself without its adapters; where it has
    none, the ``reference``, by default (None) a copy of the model as it is now.
    """
    if recipe.task != PREFER:
        return model
    if recipe.method == "lora":
        score = without_adapters(model)
    else:
        score = frozen_reference(model) if reference is None else score_with(reference.eval())
    return PreferenceModel(model, score, beta=recipe.beta)


def groups_of(recipe: FinetuneRecipe, model: nn.Module) -> list[dict[str, object]] | None:
    """Return the groups of parameters with learning rates of their own; None if all have the same."""
    if recipe.layer_decay == 1 and not recipe.unfreeze_every:
        return None
    return layerwise_groups(
        model,
        weight_decay=recipe.training.weight_decay,
        decay=recipe.layer_decay,
        unfreeze_every=recipe.unfreeze_every,
    )


def fill_from_run(recipe: FinetuneRecipe, model: nn.Module, folder: Path, which: str) -> int:
    """Load a run's checkpoint into a model as `adapted` built it; return its step.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged, of another model, or was
    trained beside another base.
    """
    module = in_training(recipe, model, reference=model)  # nothing is computed
    checkpoint = load_checkpoint(folder, which)
    origin = f"the {which} checkpoint of {folder}"
    only = None if recipe.method == "full" else trained_names(module)
    check_base(checkpoint.state.get("base"), base_of(module, only), origin=origin)
    load_weights(module, checkpoint.weights, origin=origin, only=only)
    return checkpoint.step


def _freeze_unread(model: nn.Module) -> None:
    """Freeze a base's own heads, which its classifier does not compute, but for what they share."""
    unread = [part for name in UNREAD if (part := getattr(model, name, None)) is not None]
    theirs = {id(parameter) for part in unread for parameter in part.parameters()}
    read: set[int] = set()
    for part in model.children():
        if not any(part is other for other in unread):
            read |= {id(parameter) for parameter in part.parameters()}
    parameters: list[Tensor] = list(model.parameters())
    for parameter in parameters:
        if id(parameter) in theirs - read:
            parameter.requires_grad_(False)
