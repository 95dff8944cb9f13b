"""How many labels a pretrained model needs: accuracy on film reviews against the number of training texts.

Bag of words, a linear model on frozen vectors, and full tuning, each on the same drawn texts in three seeds.

``python -m llm_from_scratch.recipes.publish few_labels`` runs all of it, and goes on where it was stopped;
``python -m llm_from_scratch.recipes.few_labels --table`` prints the stored figures.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from llm_from_scratch.data.augmentation import augmented
from llm_from_scratch.files import write_atomically
from llm_from_scratch.recipes import sentiment
from llm_from_scratch.recipes.classification import Encoded, Ledger, Method, encode_labelled, tuned_run
from llm_from_scratch.recipes.classification_extras import bag_of_words_runs, ledger_vectors, linear_runs
from llm_from_scratch.recipes.classification_view import spread
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS

NAME = "few_labels"
METHODS = ("bag of words", "frozen vectors", "full")


@dataclass(frozen=True, kw_only=True)
class FewLabelsConfig:
    """The sizes, and for how long a model of each size is tuned."""

    sizes: tuple[int, ...] = (8, 32, 128, 512, 2048, 4096)  # training texts
    augmented: tuple[int, ...] = (32, 128)  # of these, those that are tried with augmented texts too
    copies: int = 4  # changed texts for each text
    epochs: int = 2
    min_steps: int = 40
    batch_size: int = 32  # texts
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: int = 256  # texts of the validation curve
    rates: tuple[float, ...] = (1e-4, 3e-4)  # learning rates of full tuning that are tried
    trial_size: int = 128  # training texts of the trials; larger sizes of `sentiment` have its rate
    trial_seed: int = 100

    def steps(self, size: int) -> int:
        """Two epochs, but at least 40 steps.

        >>> [FewLabelsConfig().steps(size) for size in (8, 512, 2048)]
        [40, 40, 128]
        """
        return max(self.min_steps, self.epochs * size // self.batch_size)


def tune_by_size(
    ledger: Ledger,
    build: Callable[[], nn.Module],
    data: Encoded,
    config: FewLabelsConfig,
    method: Method,
    shared: sentiment.SentimentConfig,
    sizes: tuple[int, ...],
    encode: Callable[[str], list[int]] | None = None,
) -> list[dict]:
    """Tune with every number of labels and every seed; runs of the comparison `sentiment` are its own.

    With ``encode``, changed texts are added, and the number of steps stays.
    """
    found = []
    for size in sizes:
        settings = {"evaluations": 2, "validation": config.validation, "parts": ("test",)}
        steps = config.steps(size)
        if size == shared.labels:
            settings, steps = {}, shared.steps
        for seed in config.seeds:
            key = f"{data.name}/{method.name}/{size}/{seed}"
            settings |= {"count": size, "steps": steps, "seed": seed}
            if encode is not None:
                settings["extra"] = changed_texts(data, size, seed, config.copies, encode)
            found.append(tuned_run(ledger, key, build, data, method, **settings)["figures"])
    return found


def changed_texts(
    data: Encoded, size: int, seed: int, copies: int, encode: Callable[[str], list[int]]
) -> tuple[list[list[int]], list[int]]:
    """The drawn texts with words dropped, swapped or joined (`data.augmentation`), and their labels."""
    drawn = data.draw(size, seed)
    texts = [data.texts["train"][i] for i in drawn]
    labels = data.labels["train"][drawn].tolist()
    new_texts, new_labels = augmented(texts, labels, copies=copies, seed=seed)
    return [encode(text) for text in new_texts[size:]], list(new_labels[size:])


def run_trials(
    ledger: Ledger, build: Callable[[], nn.Module], data: Encoded, config: FewLabelsConfig
) -> list[dict]:
    """Full tuning of a small size with each learning rate, scored on the validation texts alone."""
    return [
        {"learning_rate": rate}
        | tuned_run(
            ledger,
            f"{data.name}/few trial {rate}",
            build,
            data,
            Method(name="full", learning_rate=rate),
            count=config.trial_size,
            steps=config.steps(config.trial_size),
            seed=config.trial_seed,
            evaluations=1,
            validation=config.validation,
            parts=("validation",),
        )["figures"]
        for rate in config.rates
    ]


def tuned_runs(
    ledger: Ledger,
    build: Callable[[], nn.Module],
    data: Encoded,
    config: FewLabelsConfig,
    film: sentiment.SentimentConfig,
    trials: list[dict],
    encode: Callable[[str], list[int]],
) -> list[dict]:
    """Full tuning at every size; below that of `sentiment` with the rate of the trials here."""
    best = min(trials, key=lambda trial: trial["validation_nll"])
    large = sentiment.chosen(film, sentiment.run_trials(ledger, build, data, film))["full"]
    found = []
    for size in config.sizes:
        method = large if size >= film.labels else Method(name="full", learning_rate=best["learning_rate"])
        found += tune_by_size(ledger, build, data, config, method, film, (size,))
    method = Method(name="augmented", learning_rate=best["learning_rate"])
    return found + tune_by_size(ledger, build, data, config, method, film, config.augmented, encode)


def make(
    folder: Path,
    *,
    say: Callable = print,
    config: FewLabelsConfig | None = None,
    film: sentiment.SentimentConfig | None = None,
    work: Path | None = None,
) -> dict[str, object]:
    """Train what the ledger in ``work`` does not hold yet; write the record. ``film``: of `sentiment`."""
    started, about = time.perf_counter(), surroundings(torch.device("cpu"))
    config, film = config or FewLabelsConfig(), film or sentiment.SentimentConfig()
    ledger = Ledger(sentiment.work_folder() if work is None else work, say=say)
    build, encode = sentiment.encoder_builder()
    data = encode_labelled("film_sentiment", encode)
    where = {"sizes": config.sizes, "seeds": config.seeds}
    trial = {"trial_size": film.labels, "trial_seed": film.trial_seed}
    vectors = ledger_vectors(ledger, build, data)
    linear, _, strength = linear_runs(vectors, data, name="frozen vectors", **where, **trial)
    trials = run_trials(ledger, build, data, config)
    record = {
        "recipe": NAME,
        "command": publish_command(NAME),
        **about,
        "config": asdict(config),
        "strength": strength,
        "trials": trials,
        "runs": [
            *bag_of_words_runs(ledger, data, **where)[0],
            *linear,
            *tuned_runs(ledger, build, data, config, film, trials, encode),
        ],
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    say(figures_table(record))
    return record


def load_record(folder: Path = RESULTS / NAME) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if damaged."""
    needed = ("method", "labels", "seed", "test_accuracy")
    return read_record(
        NAME, folder, entries="runs", needed=needed, also=lambda record: record["config"]["sizes"]
    )


def accuracies(record: dict[str, object], method: str, size: int) -> list[float]:
    """The test accuracies of a method with so many labels, one a seed."""
    return [
        run["test_accuracy"] for run in record["runs"] if (run["method"], run["labels"]) == (method, size)
    ]


def figures_table(record: dict[str, object] | None = None) -> str:
    """Return the test accuracies as lines: a row a size, mean over seeds, smallest to largest."""
    record = load_record() if record is None else record
    lines = ["labels  " + "".join(f"{method:22}" for method in METHODS).rstrip()]
    for size in record["config"]["sizes"]:
        found = (accuracies(record, method, size) for method in METHODS)
        cells = (spread(values) if values else "" for values in found)
        lines.append(f"{size:6,}  " + "".join(f"{cell:22}" for cell in cells).rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=figures_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
