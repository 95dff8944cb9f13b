"""Open what `llm-scratch finetune` made: the run's folder is what the other commands take."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from llm_from_scratch.finetuning.heads import TextClassifier
from llm_from_scratch.finetuning.lora import lora_layers, merge_lora
from llm_from_scratch.interop import Loaded
from llm_from_scratch.nn.weight_only import WeightOnlyLinear
from llm_from_scratch.recipes.finetuning.base import Base, empty_base, open_base
from llm_from_scratch.recipes.finetuning.building import adapted, fill_from_run
from llm_from_scratch.recipes.finetuning.recipe import CLASSIFY, FinetuneRecipe
from llm_from_scratch.recipes.finetuning.recipes import get_finetuning, stored_finetuning
from llm_from_scratch.recipes.recipe import with_changes
from llm_from_scratch.tokenizers import load_tokenizer
from llm_from_scratch.training.checkpoint import read_config


def recipe_of(folder: Path) -> FinetuneRecipe:
    """Return the recipe of a fine-tuned run. Raises: ValueError if the folder holds none."""
    fields = dict(stored_finetuning(read_config(folder), folder))
    return with_changes(get_finetuning(fields.pop("name")), fields)


def rebuild(folder: str | Path, which: str = "best") -> tuple[nn.Module, Base, list[str]]:
    """Return a run's model with a checkpoint's weights, in evaluation mode, its base, its labels' names.

    A fully tuned model needs its own folder alone. One with adapters, or with a new head on a frozen base,
    needs the base that it was trained beside.
    Raises: FileNotFoundError for a base or a checkpoint that is not there; ValueError for files that are
    damaged, and a base that has changed.
    """
    folder = Path(folder)
    config, recipe = read_config(folder), recipe_of(folder)
    try:
        stored, labels, model = config["base"], list(config["labels"]), config["model"]
    except (KeyError, TypeError):
        raise ValueError(f"{folder} was ended before its first step: begin it again") from None
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if recipe.method == "full":
        base = empty_base(stored, model, tokenizer)
    else:
        base = open_base(replace(recipe, base=_present(stored, recipe)))
    model = adapted(recipe, base, num_classes=len(labels))
    fill_from_run(recipe, model, folder, which)
    return model.eval(), base, labels


def open_decoder(folder: str | Path, which: str = "best") -> tuple[Loaded, list[int]]:
    """Return a fine-tuned language model as one without adapters: they are merged into the base.

    A base that was rounded in training is widened first: its weights are the rounded numbers.
    Raises: as `rebuild`; ValueError for a classifier, which writes no text.
    """
    folder = Path(folder)
    if recipe_of(folder).task == CLASSIFY:
        raise ValueError(
            f"{folder} holds a classifier, which writes no text: llm-scratch classify {folder} TEXT"
        )
    model, base, _ = rebuild(folder, which)
    if lora_layers(model):
        widen(model)
        merge_lora(model)
    return replace(base.loaded, model=model.eval()), base.start_ids


def widen(model: nn.Module) -> None:
    """Replace rounded linear layers, in place, by ordinary ones with the same numbers.

    >>> model = nn.Sequential(WeightOnlyLinear(nn.Linear(32, 2), bits=8))
    >>> rounded = model[0].weight
    >>> widen(model)
    >>> torch.equal(model[0].weight, rounded), type(model[0]).__name__
    (True, 'Linear')
    """
    rounded = [(name, part) for name, part in model.named_modules() if isinstance(part, WeightOnlyLinear)]
    for name, part in rounded:
        layer = nn.Linear(part.in_features, part.out_features, bias=part.bias is not None)
        with torch.no_grad():
            layer.weight.copy_(part.weight)
            if part.bias is not None:
                layer.bias.copy_(part.bias)
        model.set_submodule(name, layer.requires_grad_(False))


def open_classifier(
    folder: str | Path, which: str = "best", *, device: torch.device | str = "cpu"
) -> tuple[TextClassifier, Base, list[str]]:
    """Return a classifier, the base that encodes its texts, and the names of its classes.

    Raises: as `rebuild`; FileNotFoundError for no run folder; ValueError for a run that is no classifier.
    """
    folder = Path(folder)
    if recipe_of(folder).task != CLASSIFY:
        raise ValueError(f"{folder} holds a language model, no classifier: llm-scratch chat, sample or serve")
    model, base, labels = rebuild(folder, which)
    return model.to(device), base, labels


def _present(stored: dict, recipe: FinetuneRecipe) -> str:
    """The base's place: as it was found then, unless only the name given is there now."""
    source = stored.get("source")
    return source if isinstance(source, str) and Path(source).exists() else recipe.base
