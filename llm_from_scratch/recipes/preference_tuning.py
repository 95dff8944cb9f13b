"""Preference tuning: from pairs of a right and a wrong answer, by direct preference optimisation.

It starts from the adapters of `instruction_tuning` and trains them on pairs whose right answer is known,
with several values of beta and several seeds of pairs and order. Beside it stands the fair control: the
same number of further steps of ordinary training on the right answers of the same pairs.

``python -m llm_from_scratch.recipes.publish preference_tuning`` trains;
``python -m llm_from_scratch.recipes.preference_tuning --table`` prints the stored figures. A run that was
stopped goes on after the last model that it finished.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llm_from_scratch.data.tasks import corrupted, generated_tasks
from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.conversations import question_and_answer
from llm_from_scratch.finetuning.instructions import encode_conversation
from llm_from_scratch.finetuning.lora import lora_parameters
from llm_from_scratch.finetuning.preference import (
    PreferenceBatches,
    PreferenceModel,
    RememberedScores,
    stack_pairs,
)
from llm_from_scratch.finetuning.upper_blocks import UpperBlocks
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.recipes import instruction_tuning as tuning
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.instruction_tuning import PAD_ID, SYSTEM, InstructionTuningConfig, spread
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.trainer import Trainer

NAME = "preference_tuning"
SFT = "more SFT"  # ordinary training on the chosen answers: the control
BEFORE = "before"

Pair = tuple[Tensor, Tensor, Tensor, Tensor]  # ids and targets of the right answer, then of the wrong one


@dataclass(frozen=True, kw_only=True)
class PreferenceTuningConfig:
    """Pairs, steps and the values of beta that are compared."""

    pairs: int = 128  # trained on, drawn anew for each seed
    test_pairs: int = 90  # scored, of the test split
    betas: tuple[float, ...] = (0.1, 1.0)  # a nat of distance from the reference is worth this much
    training: TrainerConfig = field(
        default_factory=lambda: replace(tuning.TRAINING, steps=16, eval_every=16, learning_rate=2e-3)
    )
    seeds: tuple[int, ...] = (0, 1, 2)


def preference_pairs(loaded: Loaded, count: int, *, seed: int, split: str, limit: int) -> list[Pair]:
    """Draw tasks, and beside each right answer a wrong one; encode both."""
    rng, pairs = np.random.default_rng(seed), []
    for task in generated_tasks(count, seed=seed, split=split):
        pair: list[Tensor] = []
        for answer in (task.answer, corrupted(task, rng)):
            talk = question_and_answer(task.question, answer, system=SYSTEM)
            pair += encode_conversation(loaded, talk, context_length=limit)
        pairs.append(tuple(pair))
    return pairs


@torch.no_grad()
def answer_log_probabilities(upper: UpperBlocks, pairs: list[Pair]) -> Tensor:
    """Of each pair's right and wrong answer: log-probability, nats; ``[N, 2]``."""
    found = []
    for i in range(0, len(pairs), 8):
        pairs_B22T, preferred_B = stack_pairs(pairs[i : i + 8], pad_id=PAD_ID)
        nats_B2 = upper.log_probabilities(*pairs_B22T.flatten(0, 1).unbind(dim=1)).unflatten(0, (-1, 2))
        found.append(nats_B2.gather(1, torch.stack([preferred_B, 1 - preferred_B], dim=1)))
    return torch.cat(found)


@torch.no_grad()
def next_token_distributions(upper: UpperBlocks, pairs: list[Pair]) -> list[Tensor]:
    """Log-probabilities of all tokens wherever a right answer has a target, ``[K, V]`` for each pair."""
    return [upper.logits_at(ids[None], targets[None])[0].log_softmax(dim=-1) for ids, targets, *_ in pairs]


def figures(before_N2: Tensor, after_N2: Tensor, beta: float) -> dict[str, float]:
    """What the held-out pairs say of a model: means over the pairs, nats an answer.

    >>> moved = figures(torch.tensor([[-2.0, -3.0]]), torch.tensor([[-2.5, -6.0]]), 0.1)
    >>> moved["pair_accuracy"], moved["margin"], moved["chosen_change"], moved["rejected_change"]
    (1.0, 0.25, -0.5, -3.0)
    """
    change_N2 = after_N2 - before_N2
    margin_N = beta * (change_N2[:, 0] - change_N2[:, 1])
    return {
        "pair_accuracy": round(float((margin_N > 0).float().mean()), 4),
        "likelier": round(float((after_N2[:, 0] > after_N2[:, 1]).float().mean()), 4),
        "margin": round(float(margin_N.mean()), 4),
        "chosen_change": round(float(change_N2[:, 0].mean()), 4),
        "rejected_change": round(float(change_N2[:, 1].mean()), 4),
        "chosen_fell": round(float((change_N2[:, 0] < 0).float().mean()), 4),
    }


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    config: PreferenceTuningConfig | None = None,
    sft: InstructionTuningConfig | None = None,
    open_model: Callable[[], Loaded] = tuning.load_tuned,
) -> dict[str, object]:
    """Train and score every model from the same adapters; write record.json into ``folder``."""
    config, sft = config or PreferenceTuningConfig(), sft or InstructionTuningConfig()
    about, started = surroundings(torch.device("cpu")), time.perf_counter()
    loaded = open_model()
    adapters = list(lora_parameters(loaded.model))
    for parameter in adapters:
        parameter.requires_grad_(True)
    start = [parameter.detach().clone() for parameter in adapters]
    upper = UpperBlocks(loaded.model, first=sft.first_block, pad_id=PAD_ID)
    data, limit = tuning.prepare(loaded, sft), sft.context_length
    held_out = preference_pairs(loaded, config.test_pairs, seed=1, split="test", limit=limit)
    before_N2, known = answer_log_probabilities(upper, held_out), next_token_distributions(upper, held_out)

    def scored(beta: float) -> dict:
        now = next_token_distributions(upper, held_out)
        kl_N = torch.cat([(n.exp() * (n - k)).sum(dim=-1) for n, k in zip(now, known, strict=True)])
        found = figures(before_N2, answer_log_probabilities(upper, held_out), beta)
        return found | {"kl": round(float(kl_N.mean()), 4)} | tuning.score(upper, data)

    def run(method: str, beta: float, seed: int) -> dict:
        with torch.no_grad():
            for parameter, value in zip(adapters, start, strict=True):
                parameter.copy_(value)
        pairs = preference_pairs(loaded, config.pairs, seed=100 + seed, split="train", limit=limit)
        training = replace(config.training, seed=seed)
        torch.manual_seed(seed)
        if method == SFT:
            seconds = tuning.train_one(upper, [pair[:2] for pair in pairs], training, data.talk[:1])
        else:
            seconds = _train_on_pairs(upper, pairs, training, beta)
        found = {"method": method, "beta": beta, "seed": seed, "seconds": seconds, **scored(beta)}
        say(f"{method}, beta {beta}, seed {seed}: {found['exact']:.1%} exact, KL {found['kl']}")
        return found

    def before() -> dict:
        return {"method": BEFORE, "beta": None, "seed": None, **scored(1.0)}

    parts = folder / "partial"
    entries = [tuning.kept(parts / "before.json", before)]
    for seed in config.seeds:
        for method, beta in [("DPO", beta) for beta in config.betas] + [(SFT, 1.0)]:
            compute = partial(run, method, beta, seed)
            entries.append(tuning.kept(parts / f"{method}-{beta}-{seed}.json", compute))
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **about,
        "config": asdict(config),
        "entries": entries,
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    for path in parts.glob("*.json"):
        path.unlink()
    parts.rmdir()
    say(comparison_table(record))
    return record


def _train_on_pairs(upper: UpperBlocks, pairs: list[Pair], training: TrainerConfig, beta: float) -> float:
    """Train the adapters by DPO from where they stand, which is the reference; return the seconds."""
    reference = RememberedScores(upper.log_probabilities, pairs)
    model = PreferenceModel(upper, reference, beta=beta, score=upper.log_probabilities)
    batches = PreferenceBatches(pairs, batch_size=training.batch_size, pad_id=PAD_ID, seed=training.seed)
    validation = [stack_pairs(pairs[: training.batch_size], pad_id=PAD_ID)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, training, batches=batches, validation=validation, folder=Path(folder), trained_only=True
        )
        if not trainer.fit():
            raise KeyboardInterrupt
    return round(trainer.seconds, 1)


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged."""
    needed = ("method", "beta", "seed", "exact", "pair_accuracy", "margin", "chosen_change", "kl")
    return read_record(NAME, folder, entries="entries", needed=needed)


def groups(record: dict[str, object]) -> dict[str, list[dict]]:
    """The entries of a record by what was done, its seeds together."""
    found: dict[str, list[dict]] = {}
    for entry in record["entries"]:
        name = f"DPO, beta {entry['beta']}" if entry["method"] == "DPO" else entry["method"]
        found.setdefault(name, []).append(entry)
    return found


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text, a column a way: mean and range over the seeds."""
    rows = {
        "exact": "exact answers",
        "likelier": "right one likelier",
        "pair_accuracy": "right reward higher",
        "chosen_change": "change of right",
        "rejected_change": "change of wrong",
        "kl": "KL a token",
        "talk_loss": "loss of talk",
        "text_loss": "ordinary text",
    }
    named = groups(load_record() if record is None else record)
    lines = [f"{'':20}" + "".join(f"{name:25}" for name in named).rstrip()]
    for key, title in rows.items():
        cells = "".join(f"{spread([entry[key] for entry in found], 2):25}" for found in named.values())
        lines.append(f"{title:20}{cells}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
