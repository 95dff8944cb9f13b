"""The small BERT of `bert_small` with both tasks, trained for more steps: what the budget adds.

Everything else is as there: data, vocabulary, model, seed 0, batches, and what is scored.

``python -m llm_from_scratch.recipes.publish bert_longer`` trains it;
``python -m llm_from_scratch.recipes.bert_longer --table`` prints the stored figures.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from llm_from_scratch.models.encoder_pretraining import PretrainingEncoder
from llm_from_scratch.recipes import bert_small
from llm_from_scratch.recipes.bert_small import TRAINING, BertSmallConfig
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.tokenizers import WordPieceTokenizer
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.weights import load_weights

NAME = "bert_longer"

LONGER = replace(TRAINING, steps=8000, eval_every=400)


@dataclass(frozen=True, kw_only=True)
class BertLongerConfig(BertSmallConfig):
    """The settings of `bert_small` with more optimizer steps and one seed."""

    training: TrainerConfig = LONGER
    seeds: tuple[int, ...] = (0,)


def make(folder: Path, *, say: Callable = print, config: BertLongerConfig | None = None) -> dict[str, object]:
    """Train the model with both tasks; write it and its record into ``folder``; return the record."""
    config = config or BertLongerConfig()
    started = time.perf_counter()
    about = surroundings(torch.device("cpu"))
    data = bert_small.prepare(config)
    (seed,) = config.seeds
    weights, figures = bert_small.train_one(data, config, replace(config.training, seed=seed), nsp=True)
    model = bert_small.build(config, data.tokenizer)
    load_weights(model, weights)  # float16: scored again
    rounded = bert_small.score(model, data, config, nsp=True)
    record = {
        "recipe": NAME,
        "command": publish_command(NAME),
        **about,
        "config": asdict(config),
        "runs": [figures | {f"{name}_float16": value for name, value in rounded.items()}],
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    bert_small.write_result(folder, weights=weights, tokenizer=data.tokenizer, record=record)
    say(figures_table(record))
    return record


def load_record(folder: Path = RESULTS / NAME) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if damaged."""
    needed = ("steps", "masked_loss", "masked_accuracy", "pair_accuracy", "masked_loss_by_step")
    return read_record(NAME, folder, entries="runs", needed=needed, also=lambda record: record["config"])


def load_model(folder: Path = RESULTS / NAME) -> tuple[PretrainingEncoder, WordPieceTokenizer]:
    """Open the model (float16 on disk, float32 in memory) and its tokenizer.

    Raises: FileNotFoundError if there is no record; ValueError if the weights do not fit.
    """
    return bert_small.open_model(folder, load_record(folder)["config"])


def figures_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text."""
    (run,) = (load_record() if record is None else record)["runs"]
    lines = [f"{step:>6} steps   {loss:.4f} nats" for step, loss in run["masked_loss_by_step"].items()]
    lines.append(f"scored: {run['masked_loss']} nats, {run['masked_accuracy']} of the hidden tokens right, ")
    return "\n".join(lines) + f"{run['pair_accuracy']} of the pairs"


def main(arguments: list[str] | None = None) -> int:
    """Print the stored figures; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=figures_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
