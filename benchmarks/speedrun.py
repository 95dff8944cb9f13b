"""Train Shakespeare's characters: the recipe shakespeare_speedrun beside shakespeare_char, in one run.

    python -m benchmarks.speedrun [--no-record]
    python -m benchmarks.speedrun --table

Three things take their steps in turn, round by round, in this process and with the same threads: 2,000
steps of nanoGPT's shape (shakespeare_char, 768 characters a step); the whole speed run, once for each of
three seeds; and the run that may take as long as those 2,000 steps. Seconds are those of the steps: batches,
forward, backward, clipping, optimizer; not reading the text, nor evaluations. Each result is scored on the
whole validation split, every character once, by the model's own predictions in windows that do not overlap.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.ledger import median, print_latest, record
from llm_from_scratch.recipes import get, with_changes
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.recipes.shakespeare_speedrun import EQUAL_TIME, TARGET_LOSS
from llm_from_scratch.recipes.speedrun_trials import Shakespeare

NAME = "speedrun"
ROUNDS = 10
SEEDS = (1337, 1338, 1339)
MOST_PARAMETERS = 1_500_000


def run(scale: float = 1.0) -> dict[str, object]:
    """Train all of them and return the figures; ``scale`` below 1 shortens every run, to try this out."""
    recipes: dict[str, Recipe] = {"baseline": get("shakespeare_char")}
    for seed in SEEDS:
        recipes[f"seed {seed}"] = with_changes(get("shakespeare_speedrun"), {"seed": seed})
    recipes["equal time"] = with_changes(get("shakespeare_speedrun"), EQUAL_TIME)
    recipes = {
        name: with_changes(recipe, {"steps": max(ROUNDS, round(scale * recipe.training.steps))})
        for name, recipe in recipes.items()
    }
    data = Shakespeare()
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: data.trainer(recipe, Path(folder)) for name, recipe in recipes.items()}
        for turn in range(1, ROUNDS + 1):
            for name, trainer in trainers.items():
                while trainer.step < turn * recipes[name].training.steps // ROUNDS:
                    trainer.train_step()
            print(f"{turn} of {ROUNDS} rounds", flush=True)
        losses = {name: round(data.score(trainer, recipes[name]), 4) for name, trainer in trainers.items()}
    runs = [f"seed {seed}" for seed in SEEDS]
    seconds = {name: round(trainer.seconds, 2) for name, trainer in trainers.items()}
    baseline = seconds["baseline"]
    parameters = {name: trainer.model.num_parameters() for name, trainer in trainers.items()}
    return {
        "threads": torch.get_num_threads(),
        "target_loss": TARGET_LOSS,
        "baseline_steps": trainers["baseline"].step,
        "baseline_seconds": baseline,
        "baseline_loss": losses["baseline"],
        "speedrun_parameters": parameters[runs[0]],
        "speedrun_steps": trainers[runs[0]].step,
        "speedrun_seconds": [seconds[name] for name in runs],
        "speedrun_losses": [losses[name] for name in runs],
        "speedrun_ratio": median([seconds[name] / baseline for name in runs]),
        "equal_time_parameters": parameters["equal time"],
        "equal_time_steps": trainers["equal time"].step,
        "equal_time_seconds": seconds["equal time"],
        "equal_time_ratio": round(seconds["equal time"] / baseline, 3),
        "equal_time_loss": losses["equal time"],
    }


def table(figures: dict) -> str:
    """The three runs, one line each, and whether the targets were met."""
    lines = [f"{'run':26}{'steps':>6}{'parameters':>12}{'seconds':>9}{'of baseline':>13}{'loss':>8}"]

    def line(name: str, steps: int, parameters: object, seconds: float, loss: float) -> str:
        share = seconds / figures["baseline_seconds"]
        return f"{name:26}{steps:6,}{parameters:>12,}{seconds:9.1f}{share:13.3f}{loss:8.4f}"

    lines.append(
        line("shakespeare_char", figures["baseline_steps"], 804_096, figures["baseline_seconds"],
             figures["baseline_loss"])
    )  # fmt: skip
    for seconds, loss in zip(figures["speedrun_seconds"], figures["speedrun_losses"], strict=True):
        steps, parameters = figures["speedrun_steps"], figures["speedrun_parameters"]
        lines.append(line("shakespeare_speedrun", steps, parameters, seconds, loss))
    lines.append(
        line("the same, equal time", figures["equal_time_steps"], figures["equal_time_parameters"],
             figures["equal_time_seconds"], figures["equal_time_loss"])
    )  # fmt: skip
    lines.append(f"target loss {figures['target_loss']}, {figures['threads']} threads")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the last recorded run")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="shorten every run to this share of its steps"
    )
    parser.add_argument("--no-record", action="store_true", help="print, but leave the ledger alone")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return
    figures = run(arguments.scale)
    if max(figures["speedrun_parameters"], figures["equal_time_parameters"]) > MOST_PARAMETERS:
        raise SystemExit(f"more than {MOST_PARAMETERS:,} parameters: not the speed run that was agreed on")
    print(table(figures))
    if not arguments.no_record and arguments.scale == 1.0:
        record(NAME, figures, packages=("torch",))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
