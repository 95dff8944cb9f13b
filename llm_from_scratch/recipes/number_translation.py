"""Translate numbers between English and Chinese words, with and without attention.

Two models of the same number of parameters read the same pairs for the same number of steps. The plain
one passes a single vector from the encoder to the decoder; the other lets the decoder look back at the
source. What is compared is the share of held-out numbers that are translated without any mistake, by
the length of the source. Both directions, several seeds.

``python -m llm_from_scratch.recipes.publish number_translation`` trains all of it and keeps the record
and the two models of the first seed from English to Chinese.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from llm_from_scratch.data.number_words import chinese, english
from llm_from_scratch.data.translation import END, PAD, START, Vocabulary, padded
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.seq2seq import Seq2Seq, Seq2SeqConfig
from llm_from_scratch.recipes.comparison import publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.training.schedules import warmup_cosine
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.weights import load_weights, weights_as_bytes

NAME = "number_translation"
DIRECTIONS = ("english to chinese", "chinese to english")
FILES = {True: "attention.safetensors", False: "plain.safetensors"}  # by whether it attends


@dataclass(frozen=True, kw_only=True)
class NumberTranslationConfig:
    """Sizes of the comparison. Raises: ValueError naming the field that does not fit."""

    max_digits: int = 12  # decimal digits of the longest number
    width_attention: int = 64  # of embeddings and states
    width_plain: int = 77  # wider, so that both models have about the same number of parameters
    batch_size: int = 64  # pairs
    steps: int = 1_500  # optimizer steps
    peak_rate: float = 3e-3  # learning rate of Adam after the warm-up
    warmup_steps: int = 100  # optimizer steps
    clip: float = 1.0  # largest norm of the gradient
    seeds: tuple[int, ...] = (0, 1, 2)
    numbers_a_length: int = 150  # held-out numbers tested for each count of digits
    check_every: int = 250  # optimizer steps

    def __post_init__(self):
        if not 1 <= self.max_digits <= 12:
            raise ValueError(f"max_digits must be in [1, 12], got {self.max_digits}")
        for name in ("batch_size", "steps", "numbers_a_length", "check_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seeds:
            raise ValueError("seeds is empty; name at least one")


def is_held_out(number: int) -> bool:
    """Every eleventh number is kept for testing and never trained on."""
    return number % 11 == 5


def draw(rng: random.Random, *, max_digits: int) -> int:
    """Draw a number to train on: its count of digits first, all counts equally likely."""
    while True:
        digits = rng.randint(1, max_digits)
        number = rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
        if not is_held_out(number):
            return number


def held_out_numbers(digits: int, count: int) -> list[int]:
    """Return up to ``count`` different held-out numbers with so many digits, always the same ones.

    >>> held_out_numbers(2, 3)
    [16, 82, 93]
    """
    first = 10 ** (digits - 1) if digits > 1 else 0
    first += (5 - first) % 11
    there = range(first, 10**digits, 11)
    return sorted(random.Random(digits).sample(there, min(count, len(there))))


def tokens_of(number: int, direction: str) -> tuple[list[str], list[str]]:
    """Spell a number as source and target: English by words, Chinese by characters.

    >>> tokens_of(21, "english to chinese")
    (['twenty', 'one'], ['二', '十', '一'])
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(map(repr, DIRECTIONS))}, got {direction!r}")
    words, characters = english(number).split(), list(chinese(number))
    return (words, characters) if direction == DIRECTIONS[0] else (characters, words)


def vocabularies(direction: str) -> tuple[Vocabulary, Vocabulary]:
    """Return the vocabularies of source and target, which hold every word that a number can need."""
    some = [*range(1_000), *(10**power for power in range(12))]
    pairs = [tokens_of(number, direction) for number in some]
    source, target = (Vocabulary(token for pair in pairs for token in pair[side]) for side in (0, 1))
    return source, target


class Task:
    """One direction: its vocabularies, and numbers as batches of ids."""

    def __init__(self, direction: str):
        self.direction = direction
        self.source, self.target = vocabularies(direction)

    def batch(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the padded ids of sources and of targets, the latter with their ends."""
        pairs = [tokens_of(number, self.direction) for number in numbers]
        sources = padded([self.source.encode(source) for source, _ in pairs])
        return sources, padded([self.target.encode(target) for _, target in pairs], end=True)

    def model(self, attention: bool, config: NumberTranslationConfig) -> Seq2Seq:
        """Return an untrained translator for this direction."""
        sizes = Seq2SeqConfig(
            source_vocab_size=len(self.source),
            target_vocab_size=len(self.target),
            d_model=config.width_attention if attention else config.width_plain,
            attention=attention,
            pad_id=PAD,
            start_id=START,
            end_id=END,
        )
        return Seq2Seq(sizes)

    def translate(self, model: Seq2Seq, numbers: list[int]) -> list[list[str]]:
        """Translate each number greedily."""
        longest = max(len(tokens_of(number, self.direction)[1]) for number in numbers)
        ids, _ = model.translate(self.batch(numbers)[0], max_tokens=longest + 5)
        return [self.target.decode(row) for row in ids]

    def right(self, model: Seq2Seq, numbers: list[int]) -> list[bool]:
        """Say for each number whether its translation is the exact one."""
        written = self.translate(model, numbers)
        return [row == tokens_of(n, self.direction)[1] for row, n in zip(written, numbers, strict=True)]


def train_one(
    task: Task, *, attention: bool, seed: int, config: NumberTranslationConfig, say: Callable = print
) -> tuple[Seq2Seq, list[dict]]:
    """Train one translator. Return it, and every ``check_every`` steps the loss and the exact matches.

    A seed sets the first weights and the numbers drawn; the numbers are the same for both models.
    """
    seed_everything(seed)
    model, rng = task.model(attention, config), random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters())
    few = [n for digits in range(1, config.max_digits + 1) for n in held_out_numbers(digits, 20)]
    checks, losses = [], []
    for step in range(config.steps):
        rate = warmup_cosine(
            step,
            peak=config.peak_rate,
            floor=config.peak_rate / 20,
            warmup_steps=min(config.warmup_steps, config.steps),
            total_steps=config.steps,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        numbers = [draw(rng, max_digits=config.max_digits) for _ in range(config.batch_size)]
        _, loss = model(*task.batch(numbers))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % config.check_every == 0 or step + 1 == config.steps:
            exact = sum(task.right(model, few)) / len(few)
            recent = sum(losses[-50:]) / len(losses[-50:])
            checks.append({"step": step + 1, "loss": round(recent, 4), "exact": round(exact, 3)})
            say(f"{task.direction}, attention {attention}, seed {seed}: {checks[-1]}")
    return model.eval(), checks


def score(task: Task, model: Seq2Seq, config: NumberTranslationConfig) -> dict[str, object]:
    """Count exact translations of held-out numbers: in all, by source length and by count of digits."""
    by_length: dict[int, list[int]] = {}
    by_digits: dict[int, list[int]] = {}
    for digits in range(1, config.max_digits + 1):
        numbers = held_out_numbers(digits, config.numbers_a_length)
        for number, right in zip(numbers, task.right(model, numbers), strict=True):
            length = len(tokens_of(number, task.direction)[0])
            for table, key in ((by_length, length), (by_digits, digits)):
                entry = table.setdefault(key, [0, 0])
                entry[0] += right
                entry[1] += 1
    right, total = (sum(entry[i] for entry in by_digits.values()) for i in (0, 1))
    return {
        "exact": round(right / total, 4),
        "numbers": total,
        "by_source_length": {str(k): by_length[k] for k in sorted(by_length)},  # [right, tested]
        "by_digits": {str(k): by_digits[k] for k in sorted(by_digits)},
    }


def make(
    folder: Path, *, say: Callable = print, config: NumberTranslationConfig | None = None
) -> dict[str, object]:
    """Train everything; write record.json and the two kept models into ``folder``; return the record."""
    config = config or NumberTranslationConfig()
    started, runs, kept = time.perf_counter(), [], {}
    about = surroundings(torch.device("cpu"))  # before the work: the commit that it started from
    parameters = {}
    for seed in config.seeds:
        for direction in DIRECTIONS:
            task = Task(direction)
            for attention in (False, True):
                begun = time.perf_counter()
                model, checks = train_one(task, attention=attention, seed=seed, config=config, say=say)
                size = sum(parameter.numel() for parameter in model.parameters())
                parameters.setdefault(direction, {})["attention" if attention else "plain"] = size
                run = {"direction": direction, "attention": attention, "seed": seed}
                run |= {"seconds": round(time.perf_counter() - begun, 1), "checks": checks}
                runs.append(run | score(task, model, config))
                if direction == DIRECTIONS[0] and seed == config.seeds[0]:
                    kept[FILES[attention]] = weights_as_bytes(model, dtype=torch.float16)
                    runs[-1]["exact_float16"] = score(task, model.half().float(), config)["exact"]
    record = {
        "recipe": NAME,
        "command": publish_command(NAME),
        **about,
        "config": asdict(config),
        "parameters": parameters,
        "seconds": {"total": round(time.perf_counter() - started, 1)},
        "kept": {"direction": DIRECTIONS[0], "seed": config.seeds[0], "files": sorted(kept)},
        "runs": runs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)  # no mixture of two results
    for name, content in kept.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def load_record(folder: Path = RESULTS / NAME) -> dict[str, object]:
    """Return the committed record.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged.
    """
    needed = ("direction", "attention", "seed", "exact", "numbers", "by_source_length", "by_digits")
    return read_record(
        NAME,
        folder,
        entries="runs",
        needed=needed,
        also=lambda record: (record["config"]["seeds"], record["kept"]["direction"]),
    )


def load_model(*, attention: bool, folder: Path = RESULTS / NAME) -> tuple[Seq2Seq, Task]:
    """Open one of the two committed translators (float16 on disk, float32 in memory) and its task.

    Raises: FileNotFoundError if there is no record; ValueError if the weights do not fit.
    """
    record = load_record(folder)
    config = record["config"] | {"seeds": tuple(record["config"]["seeds"])}
    task = Task(record["kept"]["direction"])
    model = task.model(attention, NumberTranslationConfig(**config))
    weights = folder / FILES[attention]
    load_weights(model, weights.read_bytes(), origin=str(weights))
    return model.eval(), task
