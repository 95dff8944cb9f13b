"""Open a trained model by what a user types: a run's folder, or the name of a committed result."""

from dataclasses import dataclass
from pathlib import Path

import torch

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes.results import RESULTS, load_result, result_names
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
