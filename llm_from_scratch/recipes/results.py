"""Results that come with the package: small trained models, each with the record of its run."""

import json
from pathlib import Path

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.checkpoint import read_config
from llm_from_scratch.training.weights import load_weights

RESULTS = Path(__file__).parent / "results"


def result_names() -> list[str]:
    """Return the names of the trained runs that are here.

    A comparison of several models keeps a record here too, but no config.json: its own module opens it.
    """
    return sorted(path.parent.name for path in RESULTS.glob("*/record.json") if is_run(path.parent))


def is_run(folder: Path) -> bool:
    """Say whether a folder of results holds one run of a recipe, rather than a comparison."""
    return (folder / "config.json").is_file()


def load_result(name: str) -> tuple[Decoder, object, dict]:
    """Open a committed result: the model in evaluation mode, its tokenizer, the record of its run.

    The weights are stored in float16 and opened in float32.
    Raises: ValueError if there is no such result; FileNotFoundError if its files are incomplete.
    """
    from llm_from_scratch.tokenizers import load_tokenizer  # late: listing results needs no tokenizer

    folder = RESULTS / name
    if name not in result_names():
        there = ", ".join(result_names()) or "none yet"
        raise ValueError(f"there is no committed result {name!r}; there are: {there}")
    model = Decoder(DecoderConfig.from_dict(read_config(folder)["model"]))
    weights = folder / "model.safetensors"
    load_weights(model, weights.read_bytes(), origin=str(weights))
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return model.eval(), load_tokenizer(folder / "tokenizer.json"), record
