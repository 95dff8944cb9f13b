"""Train recipes and keep their results in the package: ``python -m llm_from_scratch.recipes.publish``.

With names, only those. ``--run FOLDER`` keeps a finished run of a recipe instead of training again.
Beside the recipes there are comparisons: each trains several models and keeps one record of them all.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

import torch

from llm_from_scratch.files import write_atomically
from llm_from_scratch.recipes import RECIPES, get
from llm_from_scratch.recipes.results import RESULTS, load_result
from llm_from_scratch.recipes.run import score_split, train
from llm_from_scratch.training.checkpoint import load_run
from llm_from_scratch.training.weights import weights_as_bytes

MAX_BYTES = 5_000_000  # of weights, so that the repository stays small

# Modules of llm_from_scratch.recipes. Each has ``make(folder, *, say)``: train, write record.json and
# what else is kept into the folder, return the record.
COMPARISONS = (
    "before_attention",
    "bert_longer",
    "bert_small",
    "constrained_json",
    "diversity",
    "domain_adaptation",
    "few_labels",
    "instruction_tuning",
    "length_extrapolation",
    "number_translation",
    "preference_tuning",
    "pretraining",
    "pretraining_data",
    "quantisation",
    "scaling_laws",
    "sentiment",
    "speedrun_trials",
)


def publish(run: Path, name: str, results: Path = RESULTS) -> dict[str, object]:
    """Copy a finished run's best model, in float16, with tokenizer, config and record. Return the record.

    Rounding to float16 can move the loss, so the rounded model is scored again and both stand in the
    record.
    Raises: FileNotFoundError if the run is not finished; ValueError if it is of another recipe or its
    weights are too large.
    """
    if not (run / "record.json").is_file():
        raise FileNotFoundError(f"{run} has no record.json: it is no finished run; resume it first")
    record = json.loads((run / "record.json").read_bytes())
    if record["recipe"] != name:
        raise ValueError(f"{run} is a run of {record['recipe']}, not of {name}")
    model, tokenizer, config = load_run(run, "best")
    weights = weights_as_bytes(model, dtype=torch.float16)
    if len(weights) > MAX_BYTES:
        raise ValueError(f"the weights of {run} take {len(weights):,} bytes; the limit is {MAX_BYTES:,}")
    folder = results / name
    (folder / "record.json").unlink(missing_ok=True)  # without it there is no result: no mixture of two
    write_atomically(folder / "model.safetensors", weights)
    write_atomically(folder / "tokenizer.json", (run / "tokenizer.json").read_bytes())
    write_atomically(folder / "config.json", (run / "config.json").read_bytes())
    model.half().float()
    rounded = score_split(model, tokenizer, config["recipe"]["corpus"])
    record["losses"]["validation_whole_split_float16"] = round(rounded.nats_per_token, 4)
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def main(arguments: list[str] | None = None) -> int:
    """Publish what the command line names; return the exit code."""
    every = [*(name for name in RECIPES if get(name).corpus is not None), *COMPARISONS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)}; default: all")
    parser.add_argument("--run", type=Path, help="a finished run of a recipe to keep; needs exactly one NAME")
    options = parser.parse_args(arguments)
    names = options.names or every
    recipes = {name: get(name) for name in names if name not in COMPARISONS}
    if options.run is not None and (len(names) != 1 or not recipes):
        parser.error("--run needs exactly one NAME, that of a recipe")
    for name in names:
        if name in COMPARISONS:
            importlib.import_module(f"llm_from_scratch.recipes.{name}").make(RESULTS / name, say=print)
            print(f"{name}: {RESULTS / name / 'record.json'}")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            run = options.run
            if run is None:
                run = Path(temporary) / name
                if train(recipes[name], out=run, say=print) is None:
                    return 130
            record = publish(run, name)
        model, _, _ = load_result(name)
        print(f"{name}: {model.num_parameters():,} parameters, {json.dumps(record['losses'])}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:  # no network, a full disk, a run of another recipe
        sys.exit(f"error: {error}")
