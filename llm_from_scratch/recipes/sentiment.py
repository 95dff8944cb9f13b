"""Ways to tune a pretrained model to judge film reviews, and to find spam, on the same labelled texts.

Every method gets the same drawn training texts in each of three seeds, and is scored on the same test texts.
Learning rates are chosen by short trials on the validation texts. Further: averages of the tuned weights, and
a decoder in the place of the encoder.

``python -m llm_from_scratch.recipes.publish sentiment`` runs all of it, and goes on where it was stopped;
``python -m llm_from_scratch.recipes.sentiment --table`` prints the stored figures.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import nn

from llm_from_scratch.data.files import cache_folder
from llm_from_scratch.evaluation.calibration import expected_calibration_error, softmax_at
from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_files import load_adapter
from llm_from_scratch.finetuning.lora import LoraConfig
from llm_from_scratch.recipes.classification import (
    MAX_TOKENS,
    TRAINING,
    Encoded,
    Ledger,
    Method,
    encode_labelled,
    tuned_run,
)
from llm_from_scratch.recipes.classification_extras import (
    average_runs,
    bag_of_words_runs,
    ledger_vectors,
    linear_runs,
)
from llm_from_scratch.recipes.classification_models import (
    decoder_builder,
    encoder_builder,
    keep_adapter,
    keep_weights,
    weights_path,
)
from llm_from_scratch.recipes.classification_view import select, spread
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS

NAME = "sentiment"
WORK = "classification"  # folder of the ledger, in the cache
ATTENTION, EVERY = ("query", "value"), ("query", "key", "value", "output", "up", "down")


@dataclass(frozen=True, kw_only=True)
class SentimentConfig:
    """How much is trained and on what."""

    labels: int = 2048  # training texts of a run
    steps: int = 128  # of 32 texts: two epochs
    trial_steps: int = 64
    trial_seed: int = 100
    methods: tuple[str, ...] = ("full", "lora")  # of those tried, what is run; empty: all
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: tuple[Method, ...] = (
        *(Method(name="full", learning_rate=rate) for rate in (3e-5, 1e-4, 3e-4)),
        Method(name="layerwise", learning_rate=3e-4, decay=0.8),
        Method(name="gradual", learning_rate=3e-4, unfreeze=0.5),
        *(
            Method(
                name="lora",
                learning_rate=rate,
                lora=LoraConfig(rank=8, targets=targets, also_train=("head",)),
                steps=steps,
            )
            for targets, rate, steps in (
                (ATTENTION, 3e-3, 64),
                (EVERY, 3e-3, 64),
                (EVERY, 6e-3, 64),
                (EVERY, 1.5e-3, 128),
            )
        ),
    )


def run_trials(ledger: Ledger, build: Callable, data: Encoded, config: SentimentConfig) -> list[dict]:
    """One short run for each candidate, scored on the validation texts alone; none if there is no choice."""
    if len(config.trials) == 1:
        return []
    return [
        tuned_run(
            ledger,
            f"trial {number}",
            build,
            data,
            method,
            count=config.labels,
            steps=method.steps or config.trial_steps,
            seed=config.trial_seed,
            evaluations=1,
            parts=("validation",),
        )["figures"]
        for number, method in enumerate(config.trials)
    ]


def chosen(config: SentimentConfig, trials: list[dict]) -> dict[str, Method]:
    """Of each method the candidate with the lowest validation loss."""
    if not trials:
        return {method.name: method for method in config.trials}
    best: dict[str, tuple[float, Method]] = {}
    for method, figures in zip(config.trials, trials, strict=True):
        loss = figures["validation_nll"]
        if method.name not in best or loss < best[method.name][0]:
            best[method.name] = (loss, method)
    return {name: method for name, (_, method) in best.items()}


def work_folder() -> Path:
    """Where the ledger and the tuned weights wait until all runs are done."""
    return cache_folder() / "runs" / WORK


def run_methods(
    ledger: Ledger, build: Callable, data: Encoded, config: SentimentConfig, methods: dict[str, Method]
) -> list[dict]:
    """Every method with every seed."""
    found = []
    for name in config.methods or methods:
        for seed in config.seeds:
            key = f"{data.name}/{name}/{config.labels}/{seed}"
            kept = data.name == "film_sentiment" and name in ("full", "lora")
            keep = partial(keep_weights, ledger.path.parent, key) if kept else None
            steps = methods[name].steps or config.steps
            settings = {"count": config.labels, "steps": steps, "seed": seed, "keep": keep}
            found.append(tuned_run(ledger, key, build, data, methods[name], **settings))
    return found


@dataclass(frozen=True, kw_only=True)
class SpamConfig(SentimentConfig):
    """The same protocol for messages, with one way of tuning."""

    methods: tuple[str, ...] = ()

    labels: int = 1024
    steps: int = 64  # two epochs
    trial_steps: int = 32
    trials: tuple[Method, ...] = tuple(Method(name="full", learning_rate=rate) for rate in (1e-4, 3e-4))


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(SentimentConfig):
    """SmolLM2, which is six times as large as MiniLM, on fewer texts."""

    methods: tuple[str, ...] = ()

    labels: int = 512
    steps: int = 32  # two epochs
    trial_seed: int = 0
    trials: tuple[Method, ...] = (  # one candidate: its learning rate is not chosen
        Method(
            name="decoder lora",
            learning_rate=1e-3,
            lora=LoraConfig(rank=8, targets=ATTENTION, also_train=("head",)),
        ),
    )
    validation: int = 256  # texts
    test: int = 500  # texts, the first of the test part


def make(
    folder: Path,
    *,
    say: Callable = print,
    film: SentimentConfig | None = None,
    spam: SpamConfig | None = None,
    decoder: DecoderConfig | None = None,
    work: Path | None = None,
) -> dict[str, object]:
    """Train everything that the ledger in ``work`` does not hold yet; write record and margins."""
    started, about = time.perf_counter(), surroundings(torch.device("cpu"))
    ledger = Ledger(work_folder() if work is None else work, say=say)
    film, spam, decoder = film or SentimentConfig(), spam or SpamConfig(), decoder or DecoderConfig()
    build, encode = encoder_builder()
    sections = [
        encoder_section(ledger, build, encode_labelled(name, encode), config)
        for name, config in (("film_sentiment", film), ("sms_spam", spam))
    ]
    build, encode = decoder_builder()
    limits = {"validation": decoder.validation, "test": decoder.test}
    data = encode_labelled("film_sentiment", encode, limits=limits)
    sections.append(decoder_section(ledger, build, data, decoder))
    record = {
        "recipe": NAME,
        "command": publish_command(NAME),
        **about,
        "config": {name: asdict(c) for name, c in (("film", film), ("spam", spam), ("decoder", decoder))},
        "training": asdict(TRAINING),
        "max_tokens": MAX_TOKENS,
        **{
            field: {section["name"]: section[field] for section in sections}
            for field in ("parts", "trials", "chosen", "strengths", "averages")
        },
        "runs": [run for section in sections for run in section["runs"]],
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)
    kept = {
        f"{key}/{part}": np.round(1000 * np.asarray(each)).clip(-32767, 32767).astype(np.int16)
        for section in sections
        for key, parts in section["margins"].items()
        for part, each in parts.items()
    }
    labels = {
        f"{section['name']}/{part}": section["labels"][part].astype(np.int8)
        for section in sections
        for part in ("validation", "test")
    }
    write_atomically(folder / "margins.safetensors", save(kept | labels))
    key = f"film_sentiment/lora/{film.labels}/{film.seeds[0]}"
    keep_adapter(folder, encoder_builder()[0](), weights_path(ledger.path.parent, key), record["chosen"])
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    say(figures_table(record))
    return record


def encoder_section(
    ledger: Ledger, build: Callable, data: Encoded, config: SentimentConfig
) -> dict[str, object]:
    """All that is measured with MiniLM on one collection."""
    trials = run_trials(ledger, build, data, config)
    methods = chosen(config, trials)
    entries = run_methods(ledger, build, data, config, methods)
    where = {"sizes": (config.labels, len(data.labels["train"])), "seeds": config.seeds}
    vectors = ledger_vectors(ledger, build, data)
    trial = {"trial_size": config.labels, "trial_seed": config.trial_seed}
    linear = {
        "bag of words": bag_of_words_runs(ledger, data, **where),
        "frozen vectors": linear_runs(vectors, data, name="frozen vectors", **where, **trial),
    }
    averages = []
    if data.name == "film_sentiment":
        keys = {seed: f"{data.name}/full/{config.labels}/{seed}" for seed in config.seeds}
        files = {seed: weights_path(ledger.path.parent, key) for seed, key in keys.items()}
        averages = average_runs(ledger, build, data, files)
    return section(data, data.name, config, trials, methods, entries, linear, averages)


def decoder_section(ledger: Ledger, build: Callable, data: Encoded, config: DecoderConfig) -> dict:
    """All that is measured with SmolLM2."""
    trials = run_trials(ledger, build, data, config)
    methods = chosen(config, trials)
    entries = run_methods(ledger, build, data, config, methods)
    texts = {seed: data.draw(config.labels, seed) for seed in (*config.seeds, config.trial_seed)}
    vectors = ledger_vectors(
        ledger, build, data, only=np.unique(np.concatenate(list(texts.values()))), precision="bfloat16"
    )
    where = {"sizes": (config.labels,), "seeds": config.seeds}
    trial = {"trial_size": config.labels, "trial_seed": config.trial_seed}
    linear = {
        "decoder frozen": linear_runs(vectors, data, name="decoder frozen", **where, **trial),
    }
    return section(data, "decoder", config, trials, methods, entries, linear, [])


def section(
    data: Encoded,
    name: str,
    config: SentimentConfig,
    trials: list[dict],
    methods: dict[str, Method],
    entries: list[dict],
    linear: dict[str, tuple],
    averages: list[dict],
) -> dict[str, object]:
    """Put together what the record and the margins hold of one collection."""
    margins = {
        entry["key"]: {p: np.array(m) / 1000 for p, m in entry["margins"].items()} for entry in entries
    }
    for _, kept, _ in linear.values():
        margins |= kept
    runs = [run for found, _, _ in linear.values() for run in found]
    runs += [entry["figures"] for entry in entries]
    for run in runs:
        key = f"{data.name}/{run['method']}/{run['labels']}/{run['seed']}"
        probs_N2 = softmax_at(
            np.stack([np.zeros(len(margins[key]["test"])), margins[key]["test"]], axis=1), 1.0
        )
        error = expected_calibration_error(data.labels["test"], probs_N2)
        run["test_calibration_error"] = round(error, 4)
    return {
        "name": name,
        "labels": data.labels,
        "parts": {part: len(each) for part, each in data.labels.items()},
        "trials": [
            {"learning_rate": method.learning_rate, "targets": method.lora and method.lora.targets, **figures}
            for method, figures in zip(config.trials, trials, strict=bool(trials))
        ],
        "chosen": {method.name: asdict(method) for method in methods.values()},
        "strengths": {method: strength for method, (_, _, strength) in linear.items()},
        "averages": [entry["figures"] for entry in averages],
        "runs": runs,
        "margins": margins,
    }


def load_classifier(folder: Path = RESULTS / NAME) -> nn.Module:
    """Return MiniLM with the adapter and the head of the first seed of the comparison.

    Raises: FileNotFoundError if they are not there; ValueError if they do not fit.
    """
    model = encoder_builder()[0]()
    load_adapter(model, folder)
    return model.eval()


def load_record(folder: Path = RESULTS / NAME) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if damaged."""
    needed = ("data", "method", "labels", "seed", "trained", "test_accuracy", "test_nll")
    return read_record(
        NAME,
        folder,
        entries="runs",
        needed=needed,
        also=lambda record: (record["chosen"], record["averages"]),
    )


def load_margins(folder: Path = RESULTS / NAME) -> dict[str, np.ndarray]:
    """Return the stored margins, in logits, and the labels that belong to them, by name.

    ``film_sentiment/full/2048/0/test``: collection, method, labels, seed, part; ``film_sentiment/test``: the
    labels of that part.
    """
    stored = load_file(folder / "margins.safetensors")
    return {
        n: each / np.float32(1000) if each.dtype == np.int16 else each.astype(int)
        for n, each in stored.items()
    }


METHODS = ("bag of words", "frozen vectors", "full", "lora")


def figures_table(
    record: dict[str, object] | None = None,
    methods: Sequence[str] = METHODS,
    *,
    data: str = "film_sentiment",
) -> str:
    """Return the figures of methods on the test texts as lines: mean over seeds, smallest to largest."""
    record = load_record() if record is None else record
    lines = [f"{'':16}{'trained numbers':>16}  {'test accuracy, %':22}test loss, nats"]
    for method in methods:
        runs = select(record, method, data=data)
        accuracy = spread([run["test_accuracy"] for run in runs])
        loss = spread([run["test_nll"] for run in runs], percent=False)
        lines.append(f"{method:16}{runs[0]['trained']:16,}  {accuracy:22}{loss}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=figures_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
