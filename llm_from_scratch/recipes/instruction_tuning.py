"""Instruction tuning of SmolLM2: short answers to generated tasks and in small talk, before and after.

Adapters in the upper blocks are trained on conversations, with several seeds of the adapters and of the
order; with the loss on the answers alone and, for comparison, with the loss on every token. Scored are
tasks and talk that were not trained on, and ordinary text, to see what was forgotten.

``python -m llm_from_scratch.recipes.publish instruction_tuning`` trains;
``python -m llm_from_scratch.recipes.instruction_tuning --table`` prints the stored figures. A run that was
stopped goes on after the last model that it finished.
"""

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.dialogue import load_dialogue
from llm_from_scratch.data.loader import Batch, evaluation_batches
from llm_from_scratch.data.tasks import Task, generated_tasks, is_right
from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_files import load_adapter, save_adapter
from llm_from_scratch.finetuning.conversations import question_and_answer
from llm_from_scratch.finetuning.example_batches import (
    Conversation,
    InstructionBatches,
    instruction_validation,
)
from llm_from_scratch.finetuning.instructions import encode_conversation
from llm_from_scratch.finetuning.lora import LoraConfig, LoraPart, add_lora, lora_parameters
from llm_from_scratch.finetuning.upper_blocks import UpperBlocks
from llm_from_scratch.inference import generate_batch
from llm_from_scratch.interop.chat import encode_chat
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.interop.smollm2 import load_smollm2
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import mean_loss

NAME = "instruction_tuning"
SYSTEM = "Answer briefly."  # before every question, also when the model is scored before training
ADAPTER = "adapter"  # the folder of the adapters that are kept
PAD_ID = 0  # <|endoftext|>, which stands in no conversation

TRAINING = TrainerConfig(
    steps=60, batch_size=8, learning_rate=1e-3, weight_decay=0.0, warmup_fraction=0.1, beta2=0.99,
    eval_every=60, device="cpu", precision="float32",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InstructionTuningConfig:
    """Data, adapters and steps of the comparison."""

    task_examples: int = 400  # generated questions trained on
    talk_examples: int = 80  # pairs of small talk trained on
    test_tasks: int = 180  # generated questions scored, of the test split
    test_talk: int = 48  # pairs of small talk scored
    generated: int = 90  # of the test questions, those that are answered token by token as well
    max_new_tokens: int = 24  # of such an answer
    text_tokens: int = 768  # of ordinary text: speeches of the validation split
    text_window: int = 128  # tokens read at a time
    context_length: int = 96  # tokens of a conversation; the end of a longer one is cut off
    first_block: int = 20  # of SmolLM2's 30; the blocks below have no adapters
    rank: int = 4
    alpha: float = 8.0
    parts: tuple[str, ...] = (  # of each upper block
        "attention.query",
        "attention.value",
        "attention.output",
        "feedforward.up",
        "feedforward.down",
    )
    training: TrainerConfig = field(default_factory=lambda: TRAINING)
    seeds: tuple[int, ...] = (0, 1, 2)  # with the loss on the answers
    everything_seeds: tuple[int, ...] = (0,)  # with the loss on every token, which takes twice the time

    def lora(self, num_layers: int) -> LoraConfig:
        """The adapters of the upper blocks."""
        blocks = range(self.first_block, num_layers)
        targets = tuple(f"blocks.{block}.{part}" for block in blocks for part in self.parts)
        return LoraConfig(rank=self.rank, alpha=self.alpha, targets=targets)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained and scored on."""

    train: dict[str, list[Conversation]]  # by what has a target: "answers", "everything"
    tasks: list[Task]  # of the test split
    task_batches: list[Batch]
    talk: list[Batch]
    text: list[Batch]


def prepare(loaded: Loaded, config: InstructionTuningConfig) -> Data:
    """Draw, encode and cut the data: the same each time."""

    def encoded(pairs: Sequence[tuple[str, str]], train_on: str = "answers") -> list[Conversation]:
        talks = [question_and_answer(*pair, system=SYSTEM) for pair in pairs]
        limit = config.context_length
        return [encode_conversation(loaded, t, train_on=train_on, context_length=limit) for t in talks]

    tasks = generated_tasks(config.test_tasks, seed=0, split="test")
    train_talk, test_talk = small_talk(config.talk_examples, config.test_talk)
    trained = [(task.question, task.answer) for task in generated_tasks(config.task_examples, seed=0)]
    batches = {"batch_size": 16, "pad_id": PAD_ID}
    return Data(
        train={name: encoded([*trained, *train_talk], name) for name in ("answers", "everything")},
        tasks=tasks,
        task_batches=instruction_validation(encoded([(t.question, t.answer) for t in tasks]), **batches),
        talk=instruction_validation(encoded(test_talk), **batches),
        text=ordinary_text(loaded, config.text_tokens, config.text_window),
    )


def small_talk(train: int, test: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs to train on and others to score; no question stands in both, each stands once.

    Raises: ValueError if there are not so many.
    """
    pairs = {}
    for question, answer in load_dialogue():
        question, answer = " ".join(question.split()), " ".join(answer.split())
        if question and answer and len(answer.split()) <= 16:
            pairs.setdefault(question.casefold(), (question, answer))
    order = np.random.default_rng(0).permutation(len(pairs))
    if train + test > len(pairs):
        raise ValueError(f"{train} + {test} pairs of small talk were asked for; there are {len(pairs)}")
    chosen = [list(pairs.values())[place] for place in order[: train + test]]
    return chosen[:train], chosen[train:]


def ordinary_text(loaded: Loaded, tokens: int, window: int) -> list[Batch]:
    """The first tokens of the validation split's speeches, as windows."""
    _, validation = load("sotu").split()
    ids: list[int] = []
    for document in validation.documents:
        ids += loaded.tokenizer.encode(document.text)
        if len(ids) > tokens:
            break
    return list(evaluation_batches(ids[: tokens + 1], context_length=window, batch_size=4))


@torch.no_grad()
def score(upper: UpperBlocks, data: Data) -> dict[str, object]:
    """Exact answers by kind of task, and the losses on talk and on ordinary text (nats a token)."""
    right = []
    for ids_BT, targets_BT in data.task_batches:
        logits_KV, targets_K, rows_K = upper.logits_at(ids_BT, targets_BT)
        wrong_K = (logits_KV.argmax(dim=-1) != targets_K).long()
        right += (torch.zeros(len(ids_BT), dtype=torch.long).index_add(0, rows_K, wrong_K) == 0).tolist()
    kinds: dict[str, list[bool]] = {}
    for task, exact in zip(data.tasks, right, strict=True):
        kinds.setdefault(task.kind, []).append(exact)
    new = [exact for task, exact in zip(data.tasks, right, strict=True) if task.new_phrasing]
    return {
        "exact": round(sum(right) / len(right), 4),
        "exact_by_kind": {kind: round(sum(r) / len(r), 4) for kind, r in sorted(kinds.items())},
        "exact_new_phrasing": round(sum(new) / max(len(new), 1), 4),
        "talk_loss": round(mean_loss(upper, data.talk), 4),
        "text_loss": round(mean_loss(upper, data.text), 4),
    }


def answer(loaded: Loaded, questions: Sequence[str], *, max_new_tokens: int = 24) -> list[str]:
    """Answer each question greedily, token by token."""
    end = loaded.tokenizer.special_ids[loaded.special_tokens["eos_token"]]
    prompts = [encode_chat(loaded, question_and_answer(q, "", system=SYSTEM)[:-1]) for q in questions]
    written = generate_batch(
        loaded.model, prompts, max_new_tokens=max_new_tokens, temperature=0, stop_ids=[end]
    )
    return [loaded.tokenizer.decode(ids) for ids in written]


def contains(text: str, expected: str) -> bool:
    """Whether the right answer stands anywhere in the text, as a word of its own.

    >>> contains("3 + 4 = 7, of course", "7"), contains("It is 17.", "7")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", text, flags=re.IGNORECASE) is not None


def generated_figures(loaded: Loaded, tasks: Sequence[Task], config: InstructionTuningConfig) -> dict:
    """What is right of answers that were written token by token, and a few of them to read."""
    chosen = tasks[: config.generated]
    texts = answer(loaded, [task.question for task in chosen], max_new_tokens=config.max_new_tokens)
    pairs = list(zip(chosen, texts, strict=True))
    return {
        "generated": len(pairs),
        "generated_exact": round(sum(text == task.answer for task, text in pairs) / len(pairs), 4),
        "generated_right": round(sum(is_right(task, text) for task, text in pairs) / len(pairs), 4),
        "generated_contained": round(
            sum(contains(text, task.answer) for task, text in pairs) / len(pairs), 4
        ),
        "samples": [
            {"kind": task.kind, "question": task.question, "right": task.answer, "answer": text}
            for task, text in pairs[:18]
        ],
    }


def begin_anew(loaded: Loaded, seed: int) -> None:
    """Draw the adapters again, and set torch's generator."""
    torch.manual_seed(seed)
    for part in loaded.model.modules():
        if isinstance(part, LoraPart):
            part.reset_parameters()


def train_one(
    upper: UpperBlocks, examples: Sequence[Conversation], training: TrainerConfig, validation: list[Batch]
) -> float:
    """Train the adapters of ``upper``; return the seconds of the steps."""
    batches = InstructionBatches(examples, batch_size=training.batch_size, pad_id=PAD_ID, seed=training.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            upper, training, batches=batches, validation=validation, folder=Path(folder), trained_only=True
        )
        if not trainer.fit():
            raise KeyboardInterrupt
    return round(trainer.seconds, 1)


def kept(path: Path, compute: Callable[[], dict]) -> dict:
    """Return what is stored at ``path``, or compute and store it: where a stopped run goes on."""
    if path.is_file():
        return json.loads(path.read_bytes())
    found = compute()
    write_atomically(path, json.dumps(found) + "\n")
    return found


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    config: InstructionTuningConfig | None = None,
    open_model: Callable[[], Loaded] = load_smollm2,
) -> dict[str, object]:
    """Train and score all models; write the record and the first seed's adapters into ``folder``."""
    config = config or InstructionTuningConfig()
    about, started = surroundings(torch.device("cpu")), time.perf_counter()
    loaded = open_model()
    model = loaded.model.requires_grad_(False)
    lora = config.lora(len(model.blocks))
    add_lora(model, lora)
    upper = UpperBlocks(model, first=config.first_block, pad_id=PAD_ID)
    data = prepare(loaded, config)
    parts = folder / "partial"

    def before() -> dict:
        return score(upper, data) | generated_figures(loaded, data.tasks, config)

    def run(seed: int, train_on: str) -> dict:
        begin_anew(loaded, seed)
        training = TrainerConfig(**asdict(config.training) | {"seed": seed})
        seconds = train_one(upper, data.train[train_on], training, data.talk[:1])
        found = {"train_on": train_on, "seed": seed, "seconds": seconds}
        if (seed, train_on) == (config.seeds[0], "answers"):
            save_adapter(model, folder / ADAPTER)
            found |= generated_figures(loaded, data.tasks, config)
        found |= score(upper, data)
        say(f"{train_on}, seed {seed}: {found['exact']:.1%} exact, text {found['text_loss']}")
        return found

    entries = [kept(parts / "before.json", before) | {"train_on": "nothing", "seed": None}]
    for train_on, seeds in (("answers", config.seeds), ("everything", config.everything_seeds)):
        for seed in seeds:
            entries.append(kept(parts / f"{train_on}-{seed}.json", partial(run, seed, train_on)))
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **about,
        "config": asdict(config),
        "trained_parameters": sum(p.numel() for p in lora_parameters(model)),
        "parameters": model.num_parameters(),
        "trained_targets": _counts(data.train),
        "entries": entries,
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    for path in parts.glob("*.json"):
        path.unlink()
    parts.rmdir()
    say(comparison_table(record))
    return record


def _counts(train: dict[str, list[Conversation]]) -> dict[str, int]:
    return {name: sum(int((t != -100).sum()) for _, t in examples) for name, examples in train.items()}


def load_tuned(folder: Path = RESULTS / NAME, *, open_model: Callable[[], Loaded] = load_smollm2) -> Loaded:
    """Open SmolLM2 with the adapters that were kept.

    Raises: FileNotFoundError if there are none; ValueError if they do not fit.
    """
    loaded = open_model()
    load_adapter(loaded.model, folder / ADAPTER)
    return loaded


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged."""
    needed = ("train_on", "seed", "exact", "exact_by_kind", "talk_loss", "text_loss")
    return read_record(NAME, folder, entries="entries", needed=needed)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and, over several seeds, the range.

    >>> spread([0.5, 0.75]), spread([0.5])
    ('0.625 (0.500 to 0.750)', '0.500')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text: mean and range over the seeds."""
    entries = (load_record() if record is None else record)["entries"]
    lines = [f"{'trained on':12}{'exact answers':26}{'loss of talk':26}loss of ordinary text"]
    for name in ("nothing", "answers", "everything"):
        chosen = [entry for entry in entries if entry["train_on"] == name]
        cells = [spread([e[key] for e in chosen]) for key in ("exact", "talk_loss", "text_loss")]
        lines.append(f"{name:12}{cells[0]:26}{cells[1]:26}{cells[2]}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
