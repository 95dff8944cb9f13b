"""The comparison of translators: what is trained on, what is counted, what is kept."""

import json
import random
from collections import Counter

import pytest
import torch

from llm_from_scratch.data.number_words import chinese, english
from llm_from_scratch.data.translation import END, PAD
from llm_from_scratch.recipes import number_translation as recipe
from llm_from_scratch.recipes.number_translation import (
    DIRECTIONS,
    NumberTranslationConfig,
    Task,
    draw,
    held_out_numbers,
    is_held_out,
    load_model,
    load_record,
    make,
    score,
    tokens_of,
    train_one,
)

TINY = NumberTranslationConfig(
    max_digits=2, width_attention=11, width_plain=13, batch_size=7, steps=6, warmup_steps=2,
    seeds=(0, 5), numbers_a_length=3, check_every=4,
)  # fmt: skip


def silent(*_):
    pass


@pytest.mark.parametrize("max_digits", [1, 2, 12])
def test_training_never_sees_a_held_out_number(max_digits):
    rng = random.Random(3)
    drawn = [draw(rng, max_digits=max_digits) for _ in range(3_000)]
    assert not any(is_held_out(number) for number in drawn)
    counts = Counter(len(str(number)) for number in drawn)
    assert sorted(counts) == list(range(1, max_digits + 1))
    assert min(counts.values()) > 0.7 * 3_000 / max_digits
    assert 0 in drawn or max_digits == 12


@pytest.mark.parametrize("digits", range(1, 13))
def test_held_out_numbers(digits):
    numbers = held_out_numbers(digits, 40)
    assert all(is_held_out(number) and len(str(number)) == digits for number in numbers)
    assert len(set(numbers)) == len(numbers) == {1: 1, 2: 8}.get(digits, 40)
    assert numbers == held_out_numbers(digits, 40)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_vocabularies_know_every_word(direction):
    task, rng = Task(direction), random.Random(4)
    numbers = [draw(rng, max_digits=12) for _ in range(500)] + [0, 10**11, 10**12 - 1, 20_304_050]
    sources, targets = task.batch(numbers)
    assert not (sources == 3).any()
    assert not (targets == 3).any()
    for number, source, target in zip(numbers, sources.tolist(), targets.tolist(), strict=True):
        words, written = tokens_of(number, direction)
        assert task.source.decode(i for i in source if i != PAD) == words
        assert task.target.decode(target[: target.index(END)]) == written
    spelled = english(20_304_050).split(), list(chinese(20_304_050))
    assert tokens_of(20_304_050, direction) == (spelled if direction == DIRECTIONS[0] else spelled[::-1])


def test_both_models_have_the_same_size():
    for direction in DIRECTIONS:
        sizes = [
            sum(p.numel() for p in Task(direction).model(attention, NumberTranslationConfig()).parameters())
            for attention in (True, False)
        ]
        assert abs(sizes[0] / sizes[1] - 1) < 0.03


class Oracle:
    """A translator that is right but for the numbers it is told to miss."""

    def __init__(self, task, wrong):
        self.task, self.wrong = task, wrong

    def translate(self, sources, *, max_tokens):
        words = [self.task.source.decode(i for i in row if i != PAD) for row in sources.tolist()]
        numbers = {tuple(english(n).split()): n for n in range(100)}
        rows = []
        for each in words:
            number = numbers[tuple(each)]
            right = tokens_of(number, self.task.direction)[1]
            rows.append(self.task.target.encode(right[:-1] if number in self.wrong else right))
        assert max(map(len, rows)) < max_tokens
        return rows, None


def test_only_the_whole_and_exact_translation_counts():
    task = Task(DIRECTIONS[0])
    config = NumberTranslationConfig(max_digits=2, numbers_a_length=9)
    counted = score(task, Oracle(task, wrong={16, 93}), config)
    assert counted["by_digits"] == {"1": [1, 1], "2": [6, 8]}
    # 5 and 16 are one word, sixteen is wrong; of 27, 38, ... 93 the last is wrong, and 60 is one word
    assert counted["by_source_length"] == {"1": [2, 3], "2": [5, 6]}
    assert counted["exact"] == round(7 / 9, 4)


def test_what_is_kept_opens_again(tmp_path):
    record = make(tmp_path, say=silent, config=TINY)
    assert record == json.loads((tmp_path / "record.json").read_text(encoding="utf-8")) | {
        "config": record["config"]
    }
    assert {path.name for path in tmp_path.iterdir()} == {
        "record.json",
        "attention.safetensors",
        "plain.safetensors",
    }
    assert len(record["runs"]) == 2 * 2 * 2
    assert [run["checks"][-1]["step"] for run in record["runs"]] == [6] * 8
    for attention in (True, False):
        model, task = load_model(attention=attention, folder=tmp_path)
        fresh, _ = train_one(Task(DIRECTIONS[0]), attention=attention, seed=0, config=TINY, say=silent)
        assert task.direction == DIRECTIONS[0]
        assert model.config.attention is attention
        for ours, theirs in zip(model.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(ours, theirs.half().float())


def test_both_models_read_the_same_numbers(monkeypatch):
    read = []
    batch = Task.batch
    monkeypatch.setattr(
        Task, "batch", lambda self, numbers: (read.append(tuple(numbers)), batch(self, numbers))[1]
    )
    for attention in (True, False):
        train_one(Task(DIRECTIONS[0]), attention=attention, seed=3, config=TINY, say=silent)
    assert len(read) % 2 == 0
    assert read[: len(read) // 2] == read[len(read) // 2 :]


def test_a_seed_sets_the_first_weights():
    once = NumberTranslationConfig(**{**vars(TINY), "steps": 1})
    unread = []  # the embedding of the unknown word: nothing trains it
    for seed in (3, 4, 3):
        model, _ = train_one(Task(DIRECTIONS[0]), attention=False, seed=seed, config=once, say=silent)
        unread.append(model.source_embedding.weight[3].detach())
    assert torch.equal(unread[0], unread[2])
    assert not torch.equal(unread[0], unread[1])


def test_training_learns_with_clipped_gradients(monkeypatch):
    config = NumberTranslationConfig(
        max_digits=1, width_attention=16, batch_size=8, steps=60, warmup_steps=5, peak_rate=0.02,
        clip=0.7, check_every=10,
    )  # fmt: skip
    limits, clip = [], torch.nn.utils.clip_grad_norm_

    def watched(parameters, limit):
        limits.append(limit)
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    _, checks = train_one(Task(DIRECTIONS[0]), attention=True, seed=0, config=config, say=silent)
    assert checks[-1]["loss"] < 0.5 * checks[0]["loss"]
    assert limits == [0.7] * 60


def test_what_is_kept_is_also_scored_as_it_is_kept(tmp_path, monkeypatch):
    rounded = []
    monkeypatch.setattr(
        recipe,
        "score",
        lambda task, model, config: (
            rounded.append(all(torch.equal(p, p.half().float()) for p in model.parameters())),
            {"exact": 0.0},
        )[1],
    )
    make(tmp_path, say=silent, config=NumberTranslationConfig(**{**vars(TINY), "steps": 1, "seeds": (0,)}))
    assert rounded == [False, True, False, True, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NumberTranslationConfig(max_digits=13), r"\[1, 12\], got 13"),
        (lambda: NumberTranslationConfig(steps=0), "steps must be at least 1"),
        (lambda: NumberTranslationConfig(seeds=()), "seeds is empty"),
        (lambda: tokens_of(7, "english to french"), "english to french"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish number_translation"):
        load_record(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    whole = json.dumps(load_record())
    path = tmp_path / "record.json"
    path.write_text(whole, encoding="utf-8")
    assert load_record(tmp_path) == load_record()
    for damaged in (
        whole[:100],
        "[]",
        "{}",
        whole.replace("by_digits", "by"),
        whole.replace('"kept"', '"k"'),
    ):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"record\.json is damaged .*publish number_translation"):
            load_record(tmp_path)


def test_the_committed_record_holds_what_the_book_says():
    record = load_record()
    assert record["commit"]
    assert record["command"].endswith("publish number_translation")
    runs = record["runs"]
    assert len(runs) == 2 * 2 * 3
    folder = recipe.RESULTS / recipe.NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    for run in runs:
        assert [sum(column) for column in zip(*run["by_digits"].values(), strict=True)][1] == run["numbers"]
        long = [entry for length, entry in run["by_source_length"].items() if int(length) >= 17]
        right, tested = (sum(column) for column in zip(*long, strict=True))
        assert tested > 100
        assert right / tested > 0.99 if run["attention"] else right / tested < 0.2
        assert run["exact"] > 0.99 if run["attention"] else 0.4 < run["exact"] < 0.7


@pytest.mark.parametrize("attention", [True, False])
def test_the_committed_models_score_what_the_record_says(attention):
    record = load_record()
    model, task = load_model(attention=attention)
    numbers = [n for digits in range(1, 13) for n in held_out_numbers(digits, 25)]
    run = next(
        r
        for r in record["runs"]
        if (r["direction"], r["attention"], r["seed"]) == (task.direction, attention, record["kept"]["seed"])
    )
    exact = sum(task.right(model, numbers)) / len(numbers)
    assert abs(run["exact_float16"] - run["exact"]) < 0.01
    assert abs(exact - run["exact"]) < 0.12
