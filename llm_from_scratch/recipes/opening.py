"""Open a model by what a user types: a run's folder, the name of a committed result, or others' files."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llm_from_scratch.inference.fast_decoder import WEIGHTS
from llm_from_scratch.inference.quantise import quantise_weights
from llm_from_scratch.interop import Loaded, load_folder, load_gguf, load_smollm2
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes.adapter_opening import is_adapter, open_adapter
from llm_from_scratch.recipes.results import RESULTS, load_result, result_names
from llm_from_scratch.recipes.text import END_OF_TEXT, end_of_text_id
from llm_from_scratch.training.checkpoint import load_run, read_config


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with what belongs to it."""

    model: Decoder
    tokenizer: object
    config: dict  # of the run: recipe, model, training
    origin: str  # where it was found, in words


def open_trained(run: str, *, which: str = "best", device: torch.device | str = "cpu") -> Trained:
    """Open a run's folder or, where there is no such folder, the committed result of that name.

    Raises: FileNotFoundError if there is neither, naming what there is.
    """
    path = Path(run)
    if path.is_dir() and is_finetuned(path):
        model, tokenizer = (loaded := open_finetuned(path, which)[0]).model.to(device), loaded.tokenizer
        origin = f"{which} checkpoint of {run}, fine-tuned"
        return Trained(model=model, tokenizer=tokenizer, config=read_config(path), origin=origin)
    if path.is_dir():
        model, tokenizer, config = load_run(path, which, device=device)
        return Trained(model=model, tokenizer=tokenizer, config=config, origin=f"{which} checkpoint of {run}")
    if run in result_names():
        if which != "best":
            raise ValueError(f"a committed result holds its best checkpoint only, {which!r} was asked for")
        model, tokenizer, record = load_result(run)
        origin = f"committed result {run}, trained {str(record.get('date', 'at an unknown date'))[:10]}"
        config = read_config(RESULTS / run)
        return Trained(model=model.to(device), tokenizer=tokenizer, config=config, origin=origin)
    runs = sorted(str(config.parent) for config in Path("runs").glob("*/config.json"))
    raise FileNotFoundError(
        f"there is no run folder {run!r} and no committed result of that name. "
        f"Runs here: {', '.join(runs) or 'none'}. Committed results: {', '.join(result_names()) or 'none'}"
    )


def open_any(
    source: str, *, which: str = "best", device: torch.device | str = "cpu", weights: str = "fp32"
) -> tuple[Loaded, list[int]]:
    """Open "smollm2", a folder of Hugging Face's or with an adapter, a GGUF file, a run's folder or a result.

    Returns the model with what belongs to it, and the ids that come before every text: the end of
    an earlier one, for models that were trained here. ``weights`` "int8" and "int4" quantise them.
    Raises: FileNotFoundError as `open_trained`, ValueError for files that cannot be read.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    loaded, start_ids = _open(source, which)
    model = loaded.model.to(device)
    if WEIGHTS[weights] is not None:
        model = quantise_weights(model, bits=WEIGHTS[weights])
    return replace(loaded, model=model), start_ids


def _open(source: str, which: str) -> tuple[Loaded, list[int]]:
    path = Path(source)
    if source == "smollm2" and not path.exists():
        return load_smollm2(), []
    if path.is_file():
        return load_gguf(path), []
    if path.is_dir() and is_adapter(path):
        return open_adapter(path, which)
    if path.is_dir() and _is_published(path):
        return load_folder(path), []
    if path.is_dir() and is_finetuned(path):
        return open_finetuned(path, which)
    trained = open_trained(source, which=which)
    end = end_of_text_id(trained.tokenizer)
    loaded = Loaded(
        model=trained.model.eval(),
        tokenizer=trained.tokenizer,
        config=trained.model.config,
        special_tokens={} if end is None else {"eos_token": END_OF_TEXT},
    )
    return loaded, [] if end is None else [end]


def is_finetuned(folder: Path) -> bool:
    """Whether a folder holds a run of `llm-scratch finetune`."""
    try:
        return "finetune" in read_config(folder)
    except (OSError, ValueError):
        return False


def open_finetuned(folder: Path, which: str) -> tuple[Loaded, list[int]]:
    """Open a fine-tuned language model: see `recipes.finetuning.opening.open_decoder`."""
    from llm_from_scratch.recipes.finetuning.opening import (
        open_decoder,
    )  # late: it opens its base by this file

    return open_decoder(folder, which)


def _is_published(folder: Path) -> bool:
    """Whether the folder's config.json is one of Hugging Face's; ours name no model type."""
    try:
        return "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
