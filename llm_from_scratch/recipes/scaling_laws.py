"""How a fixed number of operations is best divided between model and data: nine sizes, four budgets.

Small Llamas read the annual messages byte by byte, each window at most once. Each size is trained with a
learning rate that stays on a plateau; at each budget a copy is cooled down over the last fifth of its steps,
so that one plateau serves all budgets. A few short runs before choose the learning rate of each size.

``python -m llm_from_scratch.recipes.publish scaling_laws`` trains;
``python -m llm_from_scratch.recipes.scaling_laws --table`` prints the stored table.
"""

import json
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.loader import Batch
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.counts import parameter_counts
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.pretraining_data import WindowsInOrder
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.training.optimizers import build_adamw
from llm_from_scratch.training.planning.scaling import power_law
from llm_from_scratch.training.planning.speed import training_flops_per_token
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.schedules import warmup_stable_decay
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.validation import mean_loss, validation_batches

NAME = "scaling_laws"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained, and for how long."""

    corpus: str = "sotu"
    sizes: tuple[tuple[int, int, int], ...] = (  # columns, blocks, heads
        (12, 2, 1),
        (16, 2, 1),
        (24, 2, 1),
        (32, 2, 2),
        (48, 2, 2),
        (60, 3, 3),
        (80, 3, 2),
        (104, 4, 4),
        (144, 4, 4),
    )
    budgets: tuple[float, ...] = (1e11, 2.4e11, 5.8e11, 1.4e12)  # operations of a run
    context_length: int = 128  # bytes
    batch_size: int = 8  # windows
    fewest_steps: int = 96  # optimizer steps; a run with fewer would be warm-up for the most part
    warmup_steps: int = 30  # optimizer steps
    decay_fraction: float = 0.2  # of a run's steps, at its end
    eval_batches: int = 64  # of validation windows, the same for all runs
    swept: tuple[tuple[int, int, int], ...] = ((16, 2, 1), (32, 2, 2), (80, 3, 2))  # sizes tried out
    rates: tuple[float, ...] = (4e-3, 8e-3, 1.6e-2, 3.2e-2)  # learning rates tried at each of them
    sweep_steps: int = 200  # optimizer steps of such a run
    repeated: tuple[int, int, int] = (24, 2, 1)  # the size that is trained from other seeds as well
    repeated_budget: float = 2.4e11  # operations up to which it is
    seeds: tuple[int, ...] = (1, 2, 3)  # the first is that of all other runs


class Bench:
    """The windows that all runs read, in one order, and those that all are scored on."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.train, held_out = (
            np.frombuffer(part.text.encode("utf-8"), dtype=np.uint8) for part in load(settings.corpus).split()
        )
        T = settings.context_length
        starts = np.arange(0, len(self.train) - T, T)
        self.starts = np.random.default_rng(0).permutation(starts)
        self.bytes_per_step = settings.batch_size * T
        self.most_steps = len(starts) // settings.batch_size
        self.validation = validation_batches(
            held_out, context_length=T, batch_size=settings.batch_size, count=settings.eval_batches
        )

    def config(self, size: tuple[int, int, int]) -> DecoderConfig:
        """Return the model of a size: Llama's choices, the output layer tied to the embedding."""
        d_model, num_layers, num_heads = size
        sizes = {"d_model": d_model, "num_layers": num_layers, "num_heads": num_heads}
        T = self.settings.context_length
        return DecoderConfig.llama(vocab_size=256, context_length=T, tie_embeddings=True, **sizes)

    def steps(self, size: tuple[int, int, int], budget: float) -> int:
        """Return how many optimizer steps the budget pays for; 0 if too few, or more than there are data."""
        steps = round(budget / (training_flops_per_token(self.config(size)) * self.bytes_per_step))
        return steps if self.settings.fewest_steps <= steps <= self.most_steps else 0


class Run:
    """A model in training on the plateau, of which copies are cooled down."""

    def __init__(self, bench: Bench, size: tuple[int, int, int], rate: float, seed: int):
        self.bench, self.rate, self.step = bench, rate, 0
        seed_everything(seed)
        self.model = Decoder(bench.config(size))
        widen_start(self.model)
        self.optimizer = build_adamw(self.model, learning_rate=rate, weight_decay=0.1)

    def loss_after(self, total_steps: int) -> float:
        """Train up to the last fifth of ``total_steps``, cool a copy down, return its validation loss."""
        decay_steps = round(self.bench.settings.decay_fraction * total_steps)
        self._train(total_steps - decay_steps, total_steps, decay_steps)
        copy = deepcopy(self)  # the optimizer's parameters are those of the copied model
        copy._train(total_steps, total_steps, decay_steps)
        return mean_loss(copy.model, self.bench.validation)

    def __deepcopy__(self, memo: dict) -> "Run":
        copy = object.__new__(type(self))
        copy.bench, copy.rate, copy.step = self.bench, self.rate, self.step
        copy.model, copy.optimizer = deepcopy((self.model, self.optimizer), memo)
        return copy

    def _train(self, until: int, total_steps: int, decay_steps: int) -> None:
        settings = self.bench.settings
        windows = WindowsInOrder(
            self.bench.train,
            self.bench.starts[self.step * settings.batch_size :],
            context_length=settings.context_length,
            batch_size=settings.batch_size,
        )
        self.model.train()
        while self.step < until:
            rate = warmup_stable_decay(
                self.step,
                peak=self.rate,
                floor=0.0,
                warmup_steps=settings.warmup_steps,
                decay_steps=decay_steps,
                total_steps=total_steps,
            )
            self._take_step(next(windows), rate)

    def _take_step(self, batch: Batch, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model(*batch)[1].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1


@torch.no_grad()
def widen_start(model: Decoder) -> None:
    """Let the first weights of all matrices spread by ``1 / sqrt(C)`` where the decoder has 0.02.

    0.02 suits widths of some thousands. At a width C of 16 it gives all layers next to nothing to work
    with, and a small model spends its first hundreds of steps on getting out of there.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(model.config.d_model**-0.5 / 0.02)


def make(
    folder: Path, *, say: Callable[[str], None] = print, settings: Settings | None = None
) -> dict[str, object]:
    """Try learning rates, train every size at every budget that fits, write record.json."""
    settings = Settings() if settings is None else settings
    torch.set_num_threads(1)  # faster than two for models as small as these
    where = surroundings(choose_device("cpu"))
    bench, started = Bench(settings), time.perf_counter()
    sweep = []
    for size in settings.swept:
        for rate in settings.rates:
            loss = Run(bench, size, rate, settings.seeds[0]).loss_after(settings.sweep_steps)
            sweep.append({**_size(bench, size), "rate": rate, "loss": round(loss, 4)})
            say(f"{size} at {rate:g}: {loss:.4f}")
    factor, exponent = rate_rule(sweep)
    runs = []
    for size in settings.sizes:
        facts = _size(bench, size)
        rate = float(f"{factor * facts['parameters'] ** exponent:.2g}")
        for seed in settings.seeds if size == settings.repeated else settings.seeds[:1]:
            run = Run(bench, size, rate, seed)
            for budget in settings.budgets:
                steps = bench.steps(size, budget)
                if not steps or (seed != settings.seeds[0] and budget > settings.repeated_budget):
                    continue
                loss = run.loss_after(steps)
                tokens = steps * bench.bytes_per_step
                point = {"budget": budget, "rate": rate, "seed": seed, "steps": steps, "tokens": tokens}
                runs.append({**facts, **point, "loss": round(loss, 4)})
                say(f"{size}, seed {seed}, {budget:.1e} operations, {tokens:,} bytes: {loss:.4f}")
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **where,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": asdict(settings),
        "training_bytes": len(bench.train),
        "rate_rule": {"factor": factor, "exponent": exponent},
        "sweep": sweep,
        "runs": runs,
    }
    record = json.loads(json.dumps(record))  # tuples become lists, as in the file
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def rate_rule(sweep: list[dict]) -> tuple[float, float]:
    """Return factor and exponent of ``rate = factor N^exponent`` through the best rate of each size."""
    best: dict[int, dict] = {}
    for entry in sweep:
        other = best.setdefault(entry["parameters"], entry)
        if entry["loss"] < other["loss"]:
            best[entry["parameters"]] = entry
    return power_law(np.array(list(best)), np.array([entry["rate"] for entry in best.values()]))


def _size(bench: Bench, size: tuple[int, int, int]) -> dict[str, object]:
    config = bench.config(size)
    counts = parameter_counts(config)
    return {
        "d_model": config.d_model,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "parameters": sum(counts.values()),
        "non_embedding": sum(counts.values()) - counts["token embedding"],
        "flops_per_token": training_flops_per_token(config),
    }


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged."""
    needed = ("parameters", "non_embedding", "flops_per_token", "budget", "tokens", "seed", "loss")
    return read_record(NAME, folder, entries="runs", needed=needed, also=lambda record: record["sweep"][0])


def isoflop_runs(record: dict[str, object]) -> list[dict]:
    """Return one run of each size and budget: those of the first seed."""
    first = record["settings"]["seeds"][0]
    return [run for run in record["runs"] if run["seed"] == first]


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the losses, a line for each size and a column for each budget, as lines of text."""
    record = load_record() if record is None else record
    budgets = record["settings"]["budgets"]
    lines = ["parameters  non-embedding  rate    " + " ".join(f"{budget:8.1e}" for budget in budgets)]
    runs = isoflop_runs(record)
    for parameters in dict.fromkeys(run["parameters"] for run in runs):
        own = {run["budget"]: run for run in runs if run["parameters"] == parameters}
        facts = next(iter(own.values()))
        losses = " ".join(f"{own[b]['loss']:8.4f}" if b in own else f"{'':8}" for b in budgets)
        lines.append(f"{parameters:10,}  {facts['non_embedding']:13,}  {facts['rate']:<7g} {losses}")
    return "\n".join(line.ljust(len(lines[0])) for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
