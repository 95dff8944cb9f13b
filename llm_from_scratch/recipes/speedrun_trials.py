"""What each ingredient of `shakespeare_speedrun` is worth: the recipe again and again, one thing changed.

Each trial is a run of `llm-scratch train shakespeare_speedrun` with the fields it names, on one thread. Its
loss is that of the whole validation split, every character scored once, after a fixed number of steps. The
cost of a step is compared with one of `shakespeare_char`, in CPU time and in turn, after all trials.

``python -m llm_from_scratch.recipes.publish speedrun_trials`` trains;
``python -m llm_from_scratch.recipes.speedrun_trials --table`` prints the stored table.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes import get, with_changes
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.recipes.record import command_for, surroundings
from llm_from_scratch.recipes.text import encode
from llm_from_scratch.tokenizers import CharacterTokenizer
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import mean_loss, validation_batches

NAME = "speedrun_trials"
ROUNDS = 15  # steps of each trial that are timed, in turn


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run: what it is called, and the fields of the recipe that it changes."""

    name: str
    changes: dict[str, object] = field(default_factory=dict)


TRIALS = (
    Trial(name="the recipe"),
    Trial(name="the recipe, another seed", changes={"seed": 1338}),
    Trial(name="the recipe, a third seed", changes={"seed": 1339}),
    Trial(name="AdamW, rate 0.01", changes={"optimizer": "adamw"}),
    Trial(name="AdamW, rate 0.003", changes={"optimizer": "adamw", "learning_rate": 0.003}),
    Trial(name="no table of triples", changes={"trigram_rows": 0}),
    Trial(name="no tables", changes={"trigram_rows": 0, "bigram_rows": 0}),
    Trial(name="GELU", changes={"feedforward": "gelu"}),
    Trial(name="no norms of queries and keys", changes={"qk_norm": False}),
    Trial(name="outputs drawn at random", changes={"zero_outputs": False}),
    Trial(name="learned positions", changes={"positions": "learned"}),
    Trial(name="no positions", changes={"positions": "none"}),
    Trial(name="cosine schedule", changes={"schedule": "cosine"}),
    Trial(name="fall in the last fifth only", changes={"decay_fraction": 0.2}),
    Trial(name="warm-up of a tenth", changes={"warmup_fraction": 0.1}),
    Trial(name="Muon's rate doubled", changes={"muon_learning_rate": 0.04}),
    Trial(name="Muon's rate halved", changes={"muon_learning_rate": 0.01}),
    Trial(name="tables' rate doubled", changes={"learning_rate": 0.02}),
    Trial(name="gradient clipped to 1", changes={"clip_norm": 1.0}),
    Trial(name="weight decay 0.1", changes={"weight_decay": 0.1}),
    Trial(name="two layers", changes={"num_layers": 2}),
    Trial(name="half the batch, twice the steps", changes={"batch_size": 16, "steps": 200}),
    Trial(name="windows of 128, as many tokens", changes={"context_length": 128, "batch_size": 16}),
)


def recipe_of(trial: Trial) -> Recipe:
    """The recipe with the trial's changes."""
    return with_changes(get("shakespeare_speedrun"), trial.changes)


class Shakespeare:
    """The corpus as ids, encoded once for all trials."""

    def __init__(self) -> None:
        corpus = load("tiny_shakespeare")
        self.tokenizer = CharacterTokenizer.train(corpus.text)
        self.train, self.validation = (encode(self.tokenizer, part) for part in corpus.split())

    def trainer(self, recipe: Recipe, folder: Path) -> Trainer:
        """A new model of the recipe with its trainer: that of `llm-scratch train`, step for step."""
        sizes = {"context_length": recipe.context_length, "batch_size": recipe.training.batch_size}
        batches = BatchLoader(self.train, **sizes, seed=recipe.training.seed)
        seed_everything(recipe.training.seed)
        model = Decoder(recipe.model_config(self.tokenizer.vocab_size))
        return Trainer(model, recipe.training, batches=batches, validation=[], folder=folder)

    def score(self, trainer: Trainer, recipe: Recipe) -> float:
        """Nats a character over the whole validation split, in windows of the context that do not overlap."""
        batches = validation_batches(self.validation, context_length=recipe.context_length, batch_size=32)
        return mean_loss(trainer.model, batches)


def run_trial(trial: Trial, data: Shakespeare, folder: Path) -> dict[str, object]:
    """Train one trial and return its entry."""
    recipe = recipe_of(trial)
    trainer = data.trainer(recipe, folder)
    begun = time.process_time()
    losses = [trainer.train_step()["loss"] for _ in range(recipe.training.steps)]
    seconds = time.process_time() - begun
    return {
        "name": trial.name,
        "changes": trial.changes,
        "command": command_for(recipe),
        "parameters": trainer.model.num_parameters(),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "training_loss": round(float(np.mean(losses[-10:])), 4),
        "loss": round(data.score(trainer, recipe), 4),
        "cpu_seconds": round(seconds, 1),
    }


def step_ratios(trials: Sequence[Trial], data: Shakespeare, folder: Path, rounds: int) -> list[float]:
    """CPU time of each trial's step as a multiple of one of `shakespeare_char`, medians of rounds in turn."""
    recipes = [get("shakespeare_char")]
    recipes += [recipe_of(trial) for trial in trials]
    trainers = [data.trainer(recipe, folder) for recipe in recipes]
    times: list[list[float]] = [[] for _ in trainers]
    for turn in range(rounds + 1):
        for trainer, spent in zip(trainers, times, strict=True):
            begun = time.process_time()
            trainer.train_step()
            if turn:  # the first round is warming up
                spent.append(time.process_time() - begun)
    first = times[0]
    return [
        round(statistics.median(mine / base for mine, base in zip(spent, first, strict=True)), 3)
        for spent in times[1:]
    ]


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    trials: Sequence[Trial] = TRIALS,
    rounds: int = ROUNDS,
) -> dict[str, object]:
    """Run every trial on one thread, compare the cost of their steps, write record.json.

    Finished trials are kept in unfinished.jsonl meanwhile, so that an interrupted run goes on.
    """
    unfinished = folder / "unfinished.jsonl"
    lines = unfinished.read_text(encoding="utf-8").splitlines() if unfinished.is_file() else []
    done = {entry["command"]: entry for entry in map(json.loads, lines)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that CPU time is the time of the work, not of waiting
    try:
        where, data = surroundings(choose_device("cpu")), Shakespeare()
        entries = []
        with tempfile.TemporaryDirectory() as temporary:
            for trial in trials:
                entry = done.get(command_for(recipe_of(trial)))
                if entry is None:
                    entry = run_trial(trial, data, Path(temporary))
                entries.append(entry | {"name": trial.name})
                write_atomically(unfinished, "".join(json.dumps(each) + "\n" for each in entries))
                say(f"{trial.name}: {entries[-1]['loss']:.4f} nats a character")
            ratios = step_ratios(trials, data, Path(temporary), rounds)
    finally:
        torch.set_num_threads(threads)
    for entry, ratio in zip(entries, ratios, strict=True):
        entry["step_ratio"] = ratio
    record = {"comparison": NAME, "command": publish_command(NAME), **where, "trials": entries}
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    unfinished.unlink(missing_ok=True)
    return record


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged."""
    needed = ("name", "changes", "steps", "loss", "step_ratio", "parameters")
    return read_record(NAME, folder, entries="trials", needed=needed)


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return one line a trial: loss, difference to the recipe's, cost of a step, numbers, steps."""
    entries = (load_record() if record is None else record)["trials"]
    lines = [f"{'trial':36}{'loss':>7}{'differs':>9}{'step':>7}{'parameters':>12}{'steps':>7}"]
    for entry in entries:
        lines.append(
            f"{entry['name']:36}{entry['loss']:7.3f}{entry['loss'] - entries[0]['loss']:+9.3f}"
            f"{entry['step_ratio']:6.2f}x{entry['parameters']:12,}{entry['steps']:7,}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
