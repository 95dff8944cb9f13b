"""Whether a machine can hold a recipe, by prediction, before anything is written or allocated."""

import os

import torch

from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.recipes.record import command_line
from llm_from_scratch.training.planning.footprint import Footprint, predict_footprint
from llm_from_scratch.training.precision import choose_device, choose_dtype
from llm_from_scratch.training.strategy import Strategy


def machine_memory(device: torch.device) -> int | None:
    """Return the bytes of a GPU, or of this machine for its CPU; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def check_fits(recipe: Recipe, strategy: Strategy, *, recompute: bool = False) -> Footprint | None:
    """Return the predicted memory of one process; None where there is no formula.

    Processes of one machine share the memory of its CPU, and have a GPU each.
    Raises: ValueError with the prediction if it is more than there is.
    """
    training = recipe.training
    device = choose_device(training.device)
    dtype = choose_dtype(training.precision, device)
    rows = training.batch_size // strategy.shares
    try:
        footprint = predict_footprint(
            recipe.model_config(recipe.expected_vocab_size()),
            batch_size=max(1, rows),
            strategy=strategy.name,
            processes=strategy.processes,
            product_bytes=dtype.itemsize,
            recompute=recompute,
            accumulate=training.accumulate,
            optimizer=training.optimizer,
        )
    except ValueError:  # a choice without a formula, or one that the run itself refuses with better words
        return None
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    memory = machine_memory(device)
    if memory is None or footprint.total * sharing <= memory:
        return footprint
    parts = ", ".join(
        f"{part.replace('_', ' ')} {size / 1e9:.1f}" for part, size in footprint.parts.items() if size
    )
    whose = "this machine" if device.type == "cpu" else "the GPU"
    among = f", shared by {sharing} processes" if sharing > 1 else ""
    raise ValueError(
        f"recipe {recipe.name} needs a predicted {footprint.total / 1e9:.1f} GB in each process ({parts}), "
        f"and {whose} has {memory / 1e9:.1f} GB{among}. Halve --batch-size and double --accumulate, add "
        f"--recompute, or share the work: {command_line('plan', recipe.name)} predicts what is enough"
    )
