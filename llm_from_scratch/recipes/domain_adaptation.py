"""Domain adaptation: a small decoder of one century of annual messages is taught those of another.

Each way of adapting it is measured on the way, on held-out messages of both domains: what is gained in the
new one, and what is lost in the old one. Three seeds a way; the pretrained model is the same for all.

``python -m llm_from_scratch.recipes.publish domain_adaptation`` trains everything (its record says how
long that took); ``python -m llm_from_scratch.recipes.domain_adaptation --table`` prints the stored figures.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_files import load_adapter
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.domain_bench import METHODS, Bench, Method, Settings, checkpoint_steps
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.training.weights import load_weights, weights_as_bytes

NAME = "domain_adaptation"
COMMAND = publish_command(NAME)


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    settings: Settings | None = None,
    methods: Sequence[Method] = METHODS,
) -> dict[str, object]:
    """Pretrain, adapt in every way, and write the record, the pretrained model and one adapter.

    What is done is kept in ``folder / "parts"`` until all is, so that a run that was interrupted goes on
    where it was; each part says at which commit it was made.
    """
    settings = settings or Settings()
    about, parts = surroundings(torch.device("cpu")), folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)  # no mixture of two results
    bench = Bench(settings)
    wanted = {"settings": json.loads(json.dumps(asdict(settings)))}

    def done(name: str, work: Callable[[], dict], **also: object) -> dict[str, object]:
        """Return what was kept under this name and is of these settings, or do it and keep it."""
        path = parts / f"{name}.json"
        stored = json.loads(path.read_bytes()) if path.is_file() else {}
        if any(stored.get(key) != value for key, value in (wanted | also).items()):
            made = {"commit": about["commit"], **work()}
            stored = {**wanted, **also, "made": made}
            write_atomically(path, json.dumps(stored) + "\n")
            say(f"{name}: {_short(made)}")
        return stored["made"]

    pretrained = done("pretrained", lambda: _pretrain(bench, parts))
    start = _weights(bench, parts / "base.safetensors")
    mixed = done("mixed from the start", lambda: _mixed(bench))
    control = done("old texts continued", lambda: _continued(bench, start))
    runs = []
    for method in methods:
        for seed in settings.seeds:

            def work(method: Method = method, seed: int = seed) -> dict[str, object]:
                return bench.adapt(start, method, seed, parts / "adapter")

            runs.append(done(f"{method.name}, seed {seed}", work, method=asdict(method)))
    record = {
        "comparison": NAME,
        "command": COMMAND,
        **about,
        **wanted,
        "vocab_size": bench.tokenizer.vocab_size,
        "parameters": bench.new_model(0).num_parameters(),
        "domains": bench.about,
        "methods": [asdict(method) for method in methods],
        "pretrained": pretrained,
        "mixed": mixed,
        "continued": control,
        "runs": runs,
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in (pretrained, mixed, control, *runs)), 1),
    }
    write_atomically(folder / "base.safetensors", (parts / "base.safetensors").read_bytes())
    bench.tokenizer.save(folder / "tokenizer.json")
    if (parts / "adapter").is_dir():
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        (parts / "adapter").rename(folder / "adapter")
    write_atomically(folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(parts)
    return record


def _pretrain(bench: Bench, parts: Path) -> dict[str, object]:
    """Train the model of the old domain; keep it in float16, and measure it as it is kept."""
    began, training = time.process_time(), bench.settings.pretraining
    model = bench.new_model(training.seed)
    batches = bench.loader("old", rows=training.batch_size, seed=training.seed)
    at = checkpoint_steps(training.steps, 9)
    path = bench.train(model, training, batches, checkpoints=at)
    write_atomically(parts / "base.safetensors", weights_as_bytes(model, dtype=torch.float16))
    model.half().float()
    figures = {"start": bench.losses(model), "samples": bench.samples(model)}
    return {**path, **figures, "cpu_seconds": round(time.process_time() - began, 1)}


def _mixed(bench: Bench) -> dict[str, object]:
    """Train on both domains from the start, on about as many windows of each as the others see in turn."""
    began, settings = time.process_time(), bench.settings
    steps = settings.pretraining.steps + settings.adaptation.steps
    training = replace(settings.pretraining, steps=steps)
    new_rows = max(1, round(training.batch_size * settings.adaptation.steps / steps))
    model = bench.new_model(training.seed)
    batches = bench.mixed(training, old_rows=training.batch_size - new_rows)
    path = bench.train(model, training, batches, checkpoints=[steps])
    share = round(1 - batches.share, 4)
    return {**path, "new_share": share, "cpu_seconds": round(time.process_time() - began, 1)}


def _continued(bench: Bench, start: dict[str, Tensor]) -> dict[str, object]:
    """The pretrained model, trained on old texts as those that go back are: what that alone changes."""
    began, model = time.process_time(), bench.new_model(0)
    paths = []
    for seed in bench.settings.seeds:
        model.load_state_dict(start)
        paths.append(bench.go_back(model, seed))
    return {"paths": paths, "cpu_seconds": round(time.process_time() - began, 1)}


def _weights(bench: Bench, path: Path) -> dict[str, Tensor]:
    model = bench.new_model(0)
    load_weights(model, path.read_bytes(), origin=str(path))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _short(made: dict) -> str:
    figures = made.get("start") or {name: made[name][-1] for name in ("old", "new") if name in made}
    return (
        ", ".join(f"{name} {loss:.3f}" for name, loss in figures.items()) + f", {made['cpu_seconds']:.0f} s"
    )


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if damaged."""
    return read_record(
        NAME,
        folder,
        entries="runs",
        needed=("method", "seed", "steps", "old", "new", "trained_parameters"),
        also=lambda record: (record["pretrained"]["start"], record["settings"], record["vocab_size"]),
    )


def load_base(folder: Path = RESULTS / NAME) -> tuple[Decoder, BytePairTokenizer]:
    """Open the pretrained model (float16 on disk, float32 in memory) and its tokenizer.

    Raises: FileNotFoundError if there is no record; ValueError if the weights do not fit.
    """
    record = load_record(folder)
    sizes = ("context_length", "d_model", "num_layers", "num_heads")
    settings = Settings(**{name: record["settings"][name] for name in sizes})
    model, weights = Decoder(settings.model_config(record["vocab_size"])), folder / "base.safetensors"
    load_weights(model, weights.read_bytes(), origin=str(weights))
    return model.eval(), BytePairTokenizer.load(folder / "tokenizer.json")


def load_adapted(folder: Path = RESULTS / NAME) -> tuple[Decoder, BytePairTokenizer]:
    """Open the pretrained model with the kept adapter beside it, and its tokenizer.

    Raises: FileNotFoundError if there is no record; ValueError if something does not fit.
    """
    model, tokenizer = load_base(folder)
    load_adapter(model, folder / "adapter")
    return model.eval(), tokenizer


def changes(record: dict[str, object], method: str) -> list[tuple[float, float]]:
    """Return for each seed the gain in the new domain and the loss in the old one, nats a token.

    Both are measured against the pretrained model, at the last checkpoint.
    """
    start = record["pretrained"]["start"]
    runs = [run for run in record["runs"] if run["method"] == method]
    return [(start["new"] - run["new"][-1], run["old"][-1] - start["old"]) for run in runs]


def interpolation_path(record: dict[str, object], run: dict[str, object]) -> dict[str, object]:
    """Return the models between the pretrained one and the end of a full adaptation, both included.

    Fields: ``at``, the shares of the adapted weights; the losses ``new`` and ``old``; ``samples``.
    Raises: ValueError for a run that was not interpolated.
    """
    if "interpolation" not in run:
        raise ValueError(f"{run['method']}, seed {run['seed']}, was not interpolated: take a full adaptation")
    between, start = run["interpolation"], record["pretrained"]["start"]
    path = {name: [start[name], *between[name], run[name][-1]] for name in ("new", "old")}
    texts = {
        prompt: [record["pretrained"]["samples"][prompt], *middle, run["samples"][prompt][-1]]
        for prompt, middle in between.get("samples", {}).items()
    }
    return {"at": [0.0, *between["shares"], 1.0], **path, "samples": texts}


def old_loss_at(new: Sequence[float], old: Sequence[float], reached: float) -> float | None:
    """Return the old domain's loss where the new one's first falls to ``reached``; None if it never does.

    Between two checkpoints both losses are taken to change along a straight line. This compares ways of
    adapting at the same gain: a way that learns less also forgets less.

    >>> old_loss_at([5.0, 4.0, 3.0], [2.0, 2.5, 3.5], 3.5)
    3.0
    """
    for n, loss in enumerate(new):
        if loss <= reached:
            if n == 0:
                return old[0]
            share = (new[n - 1] - reached) / (new[n - 1] - loss)
            return old[n - 1] + share * (old[n] - old[n - 1])
    return None


def figures_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text: mean and standard deviation over the seeds."""
    record = load_record() if record is None else record
    start, mixed = record["pretrained"]["start"], record["mixed"]
    lines = [f"{'nats a token, held out':24}{'old':>16}{'new':>16}{'trained':>12}"]
    lines.append(f"{'pretrained on the old':24}{start['old']:9.3f}{'':7}{start['new']:9.3f}")
    for method in record["methods"]:
        runs = [run for run in record["runs"] if run["method"] == method["name"]]
        cells = "".join(f"{_spread([run[name][-1] for run in runs]):>16}" for name in ("old", "new"))
        lines.append(f"{method['name']:24}{cells}{runs[0]['trained_parameters']:12,}")
    lines.append(f"{'mixed from the start':24}{mixed['old'][-1]:9.3f}{'':7}{mixed['new'][-1]:9.3f}")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=figures_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
