"""Is a run of several processes the same run? One small model, trained in every way, loss against loss.

    python -m llm_from_scratch.recipes.distributed_equivalence          # a few minutes on two cores
    python -m llm_from_scratch.recipes.distributed_equivalence --table  # the stored record

Each way takes the same 50 steps over the same batches on the CPU, over gloo: data parallel, fully sharded
and tensor parallel in 1, 2 and 4 processes; runs that are stopped after 25 steps in 2 processes and
continued in 1 and 4, from checkpoints that one process gathered and from those of which each process wrote
its part; runs of 2 processes of which one is killed (kill -9) after 30 steps, so that torchrun starts both
again. The figure is the largest difference of a step's loss to that of a plain process.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.training.checkpoint import has_checkpoint
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.distributed import open_strategy
from llm_from_scratch.training.log import RunLog
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches

MODULE = "llm_from_scratch.recipes.distributed_equivalence"
RECORD = RESULTS / "distributed_equivalence" / "record.json"
STRATEGIES = ("ddp", "fsdp", "tensor")
STOPPED = {"gathered": STRATEGIES, "sharded": ("fsdp", "tensor")}  # which are stopped with such checkpoints
LIMIT = 1e-5  # nats a token
STEPS, STOPPED_AFTER, KILLED_AFTER, CONTEXT_LENGTH = 50, 25, 30, 64
MODEL = {"d_model": 64, "num_layers": 4, "num_heads": 4}


def measure() -> dict[str, object]:
    """Train in every way and return the record."""
    where = surroundings(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _run(1, folder / "plain", "single")
        plain = _losses(folder / "plain" / "single")
        rows = [{**way, "largest_difference": _largest(plain, run)} for way, run in _ways(folder)]
    return {
        "command": f"python -m {MODULE}",
        **where,
        "backend": "gloo on the CPU; nothing here was run on a GPU",
        "steps": STEPS,
        "first_and_last_loss": [round(plain[1, "loss"], 4), round(plain[STEPS, "loss"], 4)],
        "model": {**MODEL, "vocab_size": 256, "context_length": CONTEXT_LENGTH},
        "limit": LIMIT,
        "rows": rows,
    }


def rows_to_measure() -> list[dict[str, str]]:
    """Return every way in which the run is made, as the record names it.

    >>> len(rows_to_measure()), rows_to_measure()[0]
    (24, {'strategy': 'ddp', 'processes': '1', 'checkpoint': 'gathered', 'run': 'uninterrupted'})
    """
    stopped, killed = f"stopped after {STOPPED_AFTER} steps", f"rank 1 killed after {KILLED_AFTER} steps"
    found = [(name, str(n), None, "uninterrupted") for n in (1, 2, 4) for name in STRATEGIES]
    for form, names in STOPPED.items():
        found += [(name, f"2, then {n}", form, stopped) for n in (1, 4) for name in names]
    found += [(f"{name}, then single", "2, then 1", "sharded", stopped) for name in STOPPED["sharded"]]
    found += [(name, "2", None, killed) for name in STRATEGIES]
    return [
        {"strategy": name, "processes": processes, "checkpoint": form or _form(name, processes), "run": run}
        for name, processes, form, run in found
    ]


def _form(name: str, processes: str) -> str:
    """Return how the Trainer writes checkpoints when it is not told."""
    return "sharded" if name in STOPPED["sharded"] and processes != "1" else "gathered"


def _ways(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Run each of `rows_to_measure`, and give with it the folder of the run."""
    made: dict[str, Path] = {}

    def once(
        name: str, processes: int, *strategies: str, begun: Path | None = None, **options: object
    ) -> Path:
        """Start one launch of all strategies the first time that one of them is asked for."""
        if name not in made:
            made[name] = folder / name
            if begun is not None:
                shutil.copytree(begun, made[name])
            given = [word for key, value in options.items() for word in (f"--{key}".replace("_", "-"), value)]
            _run(processes, made[name], *strategies, options=[str(word) for word in given])
        return made[name]

    for way in rows_to_measure():
        strategy, _, then = way["strategy"].partition(", then ")
        last, form = way["processes"][-1], way["checkpoint"]
        if way["run"] == "uninterrupted":
            run = once(f"n{last}", int(last), *STRATEGIES) / strategy
        elif "killed" in way["run"]:
            run = once(f"killed-{strategy}", 2, strategy, kill_after=KILLED_AFTER) / strategy
        else:
            names, how = STOPPED[form], {"checkpoint": form}
            begun = once(f"stopped-{form}", 2, *names, stop_after=STOPPED_AFTER, **how)
            if then:
                (folder / f"plain-{strategy}").mkdir()
                shutil.copytree(begun / strategy, folder / f"plain-{strategy}" / then)
                _run(1, folder / f"plain-{strategy}", then)
                run = folder / f"plain-{strategy}" / then
            else:
                run = once(f"continued-{form}-{last}", int(last), *names, begun=begun, **how) / strategy
        yield way, run


def _largest(plain: dict[tuple[int, str], float], run: Path) -> float:
    losses = _losses(run)
    if losses.keys() != plain.keys():
        raise ValueError(f"{run} took other steps: {len(losses)} losses, not {len(plain)}")
    return max(abs(losses[key] - plain[key]) for key in plain)


def table(record: dict[str, object]) -> str:
    """Return the record as lines of text.

    >>> print(table({"rows": []}))
    strategy            processes   checkpoint  run                             largest difference...
    """
    head = f"{'strategy':20}{'processes':12}{'checkpoint':12}{'run':32}"
    lines = [head + "largest difference of a loss, nats a token"]
    for row in record["rows"]:
        lines.append(
            f"{row['strategy']:20}{row['processes']:12}{row['checkpoint']:12}{row['run']:32}"
            f"{row['largest_difference']:.1e}"
        )
    return "\n".join(lines)


def load_record() -> dict[str, object]:
    """Return the stored record."""
    return json.loads(RECORD.read_bytes())


def _losses(run: Path) -> dict[tuple[int, str], float]:
    """Return every loss that a run logged, of training batches and of the validation windows."""
    records = RunLog(run / "log.jsonl").read()
    return {(r["step"], key): r[key] for r in records for key in ("loss", "val_loss") if key in r}


def _run(processes: int, folder: Path, *strategies: str, options: list[str] | None = None) -> None:
    """Start the processes, each with one thread, and wait for their end."""
    start = [sys.executable, "-m"]
    if strategies != ("single",):
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start += ["--max-restarts=1", "--monitor-interval=0.1", "-m"]
    command = [*start, MODULE, "--worker", str(folder), *strategies, *(options or [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command[1:])} failed:\n{done.stderr[-3000:]}")


def _work(
    folder: Path, names: list[str], stop_after: int | None, kill_after: int | None, sharded: bool | None
) -> None:
    """Be one process: train with each strategy in turn."""
    torch.set_num_threads(1)
    for name in names:
        strategy = open_strategy(name, torch.device("cpu"))
        trainer = _trainer(folder / name, strategy, sharded)
        _interrupt(trainer, stop_after, kill_after)
        if has_checkpoint(folder / name):
            trainer.resume()
        trainer.fit()
    strategy.finish()


def _trainer(folder: Path, strategy: Strategy, sharded: bool | None) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    train, validation = load("sotu").split()
    tokens = [np.frombuffer(part.text.encode("utf-8"), dtype=np.uint8) for part in (train, validation)]
    config = TrainerConfig(
        steps=STEPS, batch_size=8, accumulate=2, learning_rate=3e-3, eval_every=10, device="cpu"
    )
    seed_everything(config.seed)
    return Trainer(
        Decoder(DecoderConfig.llama(vocab_size=256, context_length=CONTEXT_LENGTH, **MODEL)),
        config,
        batches=BatchLoader(tokens[0], context_length=CONTEXT_LENGTH, batch_size=8, seed=config.seed),
        validation=validation_batches(tokens[1], context_length=CONTEXT_LENGTH, batch_size=6, count=4),
        folder=folder,
        strategy=strategy,
        sharded=sharded,
    )


def _interrupt(trainer: Trainer, stop_after: int | None, kill_after: int | None) -> None:
    """Send a signal to the last process once it has taken a step; the kill only the first time."""
    step, last = trainer.train_step, trainer.strategy.rank == trainer.strategy.processes - 1
    first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

    def train_step() -> dict[str, object]:
        record = step()
        if last and trainer.step == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        if last and first_start and trainer.step == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    trainer.train_step = train_step


def main() -> int:
    """Measure, store and print, or print what is stored; return 1 if a difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the stored record")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--stop-after", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        sharded = None if given.checkpoint is None else given.checkpoint == "sharded"
        _work(Path(given.worker[0]), given.worker[1:], given.stop_after, given.kill_after, sharded)
        return 0
    record = load_record() if given.table else measure()
    if not given.table:
        write_atomically(RECORD, json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(f"{record['command']}  {record['date']}  commit {record['commit']}")
    print(f"{record['hardware']['processor']}, {record['backend']}")
    return int(any(row["largest_difference"] > LIMIT for row in record["rows"]))


if __name__ == "__main__":
    sys.exit(main())
