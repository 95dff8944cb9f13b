"""Instruction and preference tuning: the recipes end to end on a tiny model, and the committed records."""

import json
from dataclasses import replace

import pytest
import torch

from llm_from_scratch.data.tasks import Task, generated_tasks
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes import instruction_tuning as recipe
from llm_from_scratch.recipes import preference_tuning as preference
from llm_from_scratch.recipes import publish
from llm_from_scratch.recipes.instruction_tuning import InstructionTuningConfig
from llm_from_scratch.recipes.preference_tuning import PreferenceTuningConfig
from llm_from_scratch.tokenizers import BytePairTokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STEPS = replace(recipe.TRAINING, steps=4, eval_every=4, batch_size=2, learning_rate=0.3)
TINY = InstructionTuningConfig(
    task_examples=6, talk_examples=2, test_tasks=9, test_talk=2, generated=2, max_new_tokens=3,
    text_tokens=40, text_window=16, context_length=200, first_block=1, rank=2, training=STEPS, seeds=(0, 1),
)  # fmt: skip


def tiny_model():
    text = "".join(task.question + task.answer for task in generated_tasks(9, seed=0)) + "assistant\n" * 9
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = BytePairTokenizer.train(text, vocab_size=320, special_tokens=special)
    torch.manual_seed(0)
    config = DecoderConfig.llama(
        vocab_size=tokenizer.vocab_size, context_length=256, d_model=12, num_layers=2, num_heads=3
    )
    return Loaded(
        model=Decoder(config).eval(),
        tokenizer=tokenizer,
        config=config,
        chat_template=TEMPLATE,
        special_tokens={"eos_token": "<|im_end|>"},
    )


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    """Small talk and speeches that need no download."""
    talk = tuple((f"How are you, number {i}?", f"Well, as {i} is.") for i in range(9))
    monkeypatch.setattr(recipe, "load_dialogue", lambda: talk)
    monkeypatch.setattr(
        recipe,
        "ordinary_text",
        lambda loaded, tokens, window: [(torch.arange(6)[None], torch.arange(1, 7)[None])],
    )


def test_both_recipes_train_score_and_write_what_opens_again(tmp_path):
    said = []
    record = recipe.make(tmp_path, say=said.append, config=TINY, open_model=tiny_model)
    assert [(e["train_on"], e["seed"]) for e in record["entries"]] == [
        ("nothing", None), ("answers", 0), ("answers", 1), ("everything", 0)
    ]  # fmt: skip
    assert json.loads(json.dumps(record["entries"])) == recipe.load_record(tmp_path)["entries"]
    assert record["trained_targets"]["answers"] < record["trained_targets"]["everything"]
    assert not (tmp_path / "partial").exists()
    assert len({entry["talk_loss"] for entry in record["entries"]}) == 4  # each model is another one
    assert "exact answers" in recipe.comparison_table(record)
    loaded = recipe.load_tuned(tmp_path, open_model=tiny_model)
    upper = recipe.UpperBlocks(loaded.model, first=1, pad_id=recipe.PAD_ID)
    scored = recipe.score(upper, recipe.prepare(loaded, TINY))
    assert scored == {key: record["entries"][1][key] for key in scored}

    config = PreferenceTuningConfig(pairs=4, test_pairs=4, betas=(0.1,), training=STEPS, seeds=(0,))
    folder = tmp_path / "preference"
    found = preference.make(
        folder,
        say=said.append,
        config=config,
        sft=TINY,
        open_model=lambda: recipe.load_tuned(tmp_path, open_model=tiny_model),
    )
    before, dpo, sft = found["entries"]
    assert (before["kl"], before["margin"], before["chosen_change"]) == (0.0, 0.0, 0.0)
    assert scored == {key: before[key] for key in scored}
    assert dpo["kl"] > 0
    assert sft["method"] == preference.SFT
    assert sft["chosen_change"] != dpo["chosen_change"] != 0
    assert preference.load_record(folder)["entries"] == found["entries"]
    assert "DPO, beta 0.1" in preference.comparison_table(found)


def test_a_stopped_run_goes_on_after_the_last_model(tmp_path):
    whole = recipe.make(tmp_path / "a", say=lambda line: None, config=TINY, open_model=tiny_model)
    folder = tmp_path / "b"
    finished = []

    def stop(line):
        finished.append(line)
        if len(finished) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.make(folder, say=stop, config=TINY, open_model=tiny_model)
    said = []
    record = recipe.make(folder, say=said.append, config=TINY, open_model=tiny_model)
    assert len(said) == 3  # the second model again, another, the table
    drop = ("seconds",)
    for first, second in zip(whole["entries"], record["entries"], strict=True):
        assert {k: v for k, v in first.items() if k not in drop} == {
            k: v for k, v in second.items() if k not in drop
        }


def test_one_pass_counts_what_token_by_token_answers_would(tmp_path):
    loaded = tiny_model()
    loaded.model.requires_grad_(False)
    upper = recipe.UpperBlocks(loaded.model, first=1, pad_id=recipe.PAD_ID)
    data = recipe.prepare(loaded, TINY)
    (written,) = recipe.answer(loaded, [data.tasks[0].question], max_new_tokens=4)
    tasks = [
        Task(question=data.tasks[0].question, answer=a, kind="x") for a in ("x7", written.strip() or "y")
    ]
    talks = [recipe.question_and_answer(t.question, t.answer, system=recipe.SYSTEM) for t in tasks]
    batches = recipe.instruction_validation(
        [recipe.encode_conversation(loaded, talk) for talk in talks], batch_size=2, pad_id=recipe.PAD_ID
    )
    found = recipe.score(upper, replace(data, tasks=tasks, task_batches=batches))
    generated = recipe.generated_figures(loaded, tasks, replace(TINY, max_new_tokens=6))
    assert found["exact"] == generated["generated_exact"]


def test_the_committed_records_hold_what_the_book_says():
    assert {recipe.NAME, preference.NAME} <= set(publish.COMPARISONS)
    record, pairs = recipe.load_record(), preference.load_record()
    for one, name in ((record, recipe.NAME), (pairs, preference.NAME)):
        assert one["command"].endswith(f"publish {name}")
        assert one["commit"]
        assert not one["commit"].endswith("+")
    by_name = {
        n: [e for e in record["entries"] if e["train_on"] == n] for n in ("nothing", "answers", "everything")
    }
    assert [len(entries) for entries in by_name.values()] == [1, 3, 1]
    (before,) = by_name["nothing"]
    assert min(e["exact"] for e in by_name["answers"]) > before["exact"] + 0.15
    assert max(e["talk_loss"] for e in by_name["answers"]) < before["talk_loss"]
    assert record["trained_parameters"] < 0.02 * record["parameters"]
    kept = by_name["answers"][0]
    found = preference.groups(pairs)
    assert found["before"][0]["exact"] == kept["exact"]  # the preference runs begin where that one ended
    assert all(len({entry["seed"] for entry in entries}) == len(entries) for entries in found.values())
    assert all(entry["chosen_change"] < 0 for entry in found["DPO, beta 0.1"])
    for seed, control in enumerate(found[preference.SFT]):  # ordinary training does better in each seed
        others = [e for e in pairs["entries"] if e["method"] == "DPO" and e["seed"] == seed]
        assert len(others) == 2
        assert control["exact"] > max(entry["exact"] for entry in others)
        assert max(entry["rejected_change"] for entry in others) < control["rejected_change"]
    adapter = recipe.RESULTS / recipe.NAME / recipe.ADAPTER
    assert sum(path.stat().st_size for path in adapter.iterdir()) < 2_000_000


@pytest.mark.slow
def test_the_committed_adapters_score_what_the_record_says(monkeypatch):
    monkeypatch.undo()  # the real small talk and speeches
    loaded, record = recipe.load_tuned(), recipe.load_record()
    config = InstructionTuningConfig()
    upper = recipe.UpperBlocks(loaded.model, first=config.first_block, pad_id=recipe.PAD_ID)
    found, kept = recipe.score(upper, recipe.prepare(loaded, config)), record["entries"][1]
    assert (
        abs(found["exact"] - kept["exact"]) <= 1.5 / config.test_tasks
    )  # a tie may fall otherwise elsewhere
    assert abs(found["talk_loss"] - kept["talk_loss"]) < 1e-3
    assert abs(found["text_loss"] - kept["text_loss"]) < 1e-3
