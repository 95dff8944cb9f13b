"""Fine-tuning recipes from base and data to the model that the other commands open."""

import json
import math
import shutil
import sys

import pytest
import torch

from llm_from_scratch.data.loader import evaluation_batches
from llm_from_scratch.finetuning.adapter_files import load_adapter
from llm_from_scratch.interop import load_folder
from llm_from_scratch.recipes.finetuning import FINETUNING, chosen, get_finetuning
from llm_from_scratch.recipes.finetuning.building import adapted, groups_of
from llm_from_scratch.recipes.finetuning.opening import open_classifier, rebuild
from llm_from_scratch.recipes.opening import open_any
from llm_from_scratch.recipes.record import command_for
from llm_from_scratch.tokenizers import load_tokenizer
from llm_from_scratch.training import trainer
from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.log import RunLog
from llm_from_scratch.training.validation import mean_loss
from tests.processes import check_in_processes
from tests.recipes.finetune_bases import (
    SMALL_ADAPTERS,
    TINY,
    fields_of,
    run,
    run_process,
    write_bases,
    write_data,
)

IDS_BT = torch.tensor([[5, 6, 7, 8], [100, 90, 80, 70]])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    write_bases(folder)
    write_data(folder)
    return folder


def losses(out):
    return [(r["step"], r.get("loss"), r.get("val_loss")) for r in RunLog(out / "log.jsonl").read()]


@pytest.mark.parametrize("task", ["classify", "classify_by_decoder"])
@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_classifier_learns_labels_of_a_file_and_is_opened_from_its_folder(here, tmp_path, task, method):
    changes = {"method": method, "rank": 2, "dropout": 0.0, "steps": 24, "eval_every": 12}
    record = run(here, task, tmp_path / "run", learning_rate=0.05, batch_size=16, **changes)
    found = record["losses"]
    least = 0.02 if task == "classify" else 0.0  # a random decoder's last vector says little
    assert found["validation_best"] <= found["validation_before_training"] - least
    assert abs(found["validation_before_training"] - math.log(2)) < 0.1  # nothing known yet
    assert (record["trained_share"] < 0.5) == (method != "full")
    stored = load_checkpoint(tmp_path / "run", "best").weights.names()
    assert ({name.split(".")[0] for name in stored} == {"head"}) == (method == "head")
    model, _, labels = open_classifier(tmp_path / "run")
    assert labels == ["bad", "good"]
    bare = load_folder(here / ("encoder" if task == "classify" else "decoder")).model.state_dict()
    inner = (model.encoder if task == "classify" else model.decoder).state_dict()
    changed = {
        n
        for n, t in bare.items()
        if not torch.equal(t, inner.get(n, inner.get(n.replace("qkv.", "qkv.base."))))
    }
    assert bool(changed) == (method == "full")
    assert (tmp_path / "run" / "adapter").exists() == (method == "lora")


def test_words_that_decide_are_told_apart(here, tmp_path):
    changes = {"method": "full", "steps": 60, "eval_every": 20, "batch_size": 16, "dropout": 0.0}
    record = run(here, "classify", tmp_path / "run", learning_rate=0.02, **changes)
    assert record["losses"]["test_accuracy"] > 0.95
    assert record["data"]["to_test_on"] > 20


def test_the_loss_before_training_is_that_of_the_base(here, tmp_path):
    record = run(here, "continue", tmp_path / "run", method="full", eval_batches=1000, first_year=None)
    base = load_folder(here / "decoder")
    text = (here / "text.txt").read_text(encoding="utf-8")
    held_out = base.tokenizer.encode(text[len(text) * 9 // 10 :])
    end = base.tokenizer.special_ids["<|endoftext|>"]
    windows = evaluation_batches([*held_out, end], context_length=30, batch_size=4)
    assert record["losses"]["validation_before_training"] == round(mean_loss(base.model, windows), 4)
    assert record["losses"]["validation_whole"] == record["losses"]["validation_best"]


@pytest.mark.parametrize("task", ["continue", "instruct", "prefer"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_language_model_is_opened_from_its_folder(here, tmp_path, task, method):
    out = tmp_path / "run"
    record = run(here, task, out, method=method, rank=2, learning_rate=0.02)
    assert record["losses"]["validation_best"] < record["losses"]["validation_before_training"]
    opened, start_ids = open_any(str(out))
    assert (start_ids, opened.chat_template is None) == ([], False)
    assert opened.tokenizer.encode("the film") == load_tokenizer(out / "tokenizer.json").encode("the film")
    base = load_folder(here / "decoder")
    assert not torch.allclose(opened.model(IDS_BT), base.model(IDS_BT), atol=1e-3)
    if method == "lora":  # peft's files give the same model by another way
        load_adapter(base.model, out / "adapter")
        expected = base.model.eval()
        assert json.loads((out / "adapter/adapter_config.json").read_text())["r"] == 2
    else:
        prefix = "policy." if task == "prefer" else ""
        weights = load_checkpoint(out, "best").weights.tensors
        expected = base.model
        expected.load_state_dict({name.removeprefix(prefix): t for name, t in weights.items()}, strict=False)
    torch.testing.assert_close(opened.model(IDS_BT), expected(IDS_BT), atol=1e-5, rtol=0)


def test_a_base_that_is_a_run_of_train_keeps_its_beginning_of_texts(here, tmp_path):
    from llm_from_scratch.recipes import get, with_changes
    from llm_from_scratch.recipes.run import train
    from tests.recipes.conftest import TINY as TINY_TRAIN

    train(with_changes(get("laptop"), TINY_TRAIN), out=tmp_path / "base")
    short = {"base": str(tmp_path / "base"), "context_length": 11}
    with pytest.raises(ValueError, match=r"conversation 1, .*no token of an answer is left"):
        run(here, "instruct", tmp_path / "run", **short)
    record = run(here, "continue", tmp_path / "run", **short, **SMALL_ADAPTERS)
    assert record["steps"] == 6
    opened, start_ids = open_any(str(tmp_path / "run"))
    assert start_ids == [opened.tokenizer.special_ids["<|endoftext|>"]]


@pytest.mark.parametrize(("method", "rate"), [("full", 0.01), ("lora", 0.05)])
def test_preferences_begin_at_log_2_and_are_learned(here, tmp_path, method, rate):
    changes = {"method": method, "rank": 2, "learning_rate": rate, "steps": 24, "eval_every": 8}
    found = run(here, "prefer", tmp_path / "run", **changes)["losses"]
    assert found["validation_before_training"] == round(math.log(2), 4)
    assert found["validation_whole"] == found["validation_best"]  # the same pairs, the best model again
    assert found["validation_whole"] < found["validation_before_training"] - 0.003


def test_only_answers_are_trained_on(here, tmp_path):
    changes = {"steps": 1, "eval_every": 1, **SMALL_ADAPTERS}
    one = run(here, "instruct", tmp_path / "answers", **changes)
    all_of_it = run(here, "instruct", tmp_path / "all", train_on="everything", **changes)
    assert one["targets_trained_on"] < all_of_it["targets_trained_on"] / 2
    assert 0 <= one["losses"]["answers_exactly_right"] <= 1


def test_a_rounded_base_under_adapters(here, tmp_path):
    record = run(here, "continue", tmp_path / "run", base_bits=8, learning_rate=0.02, **SMALL_ADAPTERS)
    assert record["losses"]["validation_best"] < record["losses"]["validation_before_training"]
    opened, _ = open_any(str(tmp_path / "run"))
    model, _, _ = rebuild(tmp_path / "run")
    torch.testing.assert_close(opened.model(IDS_BT), model(IDS_BT), atol=1e-5, rtol=0)
    assert {type(part).__name__ for part in opened.model.modules()}.isdisjoint(
        {"WeightOnlyLinear", "LoraLinear"}
    )


def test_layers_have_rates_and_first_steps_of_their_own(here, tmp_path):
    changes = {"method": "full", "unfreeze_every": 5, "layer_decay": 0.5, "steps": 4, "eval_every": 4}
    run(here, "classify", tmp_path / "run", learning_rate=0.01, **changes)
    model, _, _ = rebuild(tmp_path / "run", "last")
    bare = load_folder(here / "encoder").model.state_dict()
    assert all(torch.equal(bare[name], tensor) for name, tensor in model.encoder.state_dict().items())
    assert model.head.bias.abs().max() > 0
    recipe = chosen(*fields_of(here, "classify", method="full", layer_decay=0.5), None)
    rates = {group["rate"] for group in groups_of(recipe, model)}
    assert rates == {1.0, 0.5, 0.25, 0.125}


def test_patience_ends_a_run_that_gets_worse(here, tmp_path):
    changes = {"method": "full", "patience": 1, "steps": 400, "learning_rate": 3.0, "clip_norm": None}
    record = run(here, "continue", tmp_path / "run", **changes)
    assert record["steps"] < 400


def interrupted_at(monkeypatch, step, error):
    take = trainer.Trainer.train_step

    def stop(self):
        if self.step == step:
            raise error
        return take(self)

    monkeypatch.setattr(trainer.Trainer, "train_step", stop)


@pytest.mark.parametrize(("task", "method"), [("classify", "lora"), ("prefer", "full"), ("instruct", "lora")])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(here, tmp_path, monkeypatch, task, method):
    changes = {"method": method, "rank": 2, "steps": 6, "eval_every": 2, "learning_rate": 0.01}
    whole = run(here, task, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 3, OSError(28, "the disk is full"))
        with pytest.raises(OSError, match="full"):
            run(here, task, tmp_path / "two", **changes)
    assert load_checkpoint(tmp_path / "two").step == 2
    resumed = run(here, task, tmp_path / "two", resume=True)
    assert losses(tmp_path / "two") == losses(tmp_path / "whole")
    assert resumed["losses"] == whole["losses"]
    assert (resumed["resumed"], whole["resumed"]) == (True, False)
    one, other = (load_checkpoint(tmp_path / name, "best").weights.tensors for name in ("two", "whole"))
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


def test_a_run_belongs_to_its_base_its_data_and_its_fields(here, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    shutil.copytree(here, mine)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 3, OSError(28, "the disk is full"))
        with pytest.raises(OSError, match="full"):
            run(mine, "instruct", mine / "run", **SMALL_ADAPTERS)
    with pytest.raises(ValueError, match="holds a run of recipe smollm2_tasks, not sms_spam"):
        chosen("sms_spam", {}, mine / "run")
    changed = chosen("smollm2_tasks", {"rank": "3"}, mine / "run")
    from llm_from_scratch.recipes.finetuning.run import finetune

    with pytest.raises(ValueError, match=r"begun with finetune\.rank = 2, not 3"):
        finetune(changed, out=mine / "run", resume=True)
    with pytest.raises(ValueError, match="Continue it with --resume"):
        run(mine, "instruct", mine / "run", **SMALL_ADAPTERS)
    data = (mine / "talks.jsonl").read_text(encoding="utf-8")
    (mine / "talks.jsonl").write_text(data.replace("it is fine", "it is not"), encoding="utf-8")
    with pytest.raises(ValueError, match="the data of the first run"):
        run(mine, "instruct", mine / "run", resume=True)
    (mine / "talks.jsonl").write_text(data, encoding="utf-8")
    shutil.rmtree(mine / "decoder")
    torch.manual_seed(4)
    write_bases_again(mine)
    with pytest.raises(ValueError, match="trained beside another base"):
        run(mine, "instruct", mine / "run", resume=True)
    with pytest.raises(ValueError, match="trained beside another base"):
        open_any(str(mine / "run"))


def write_bases_again(folder):
    """The same sizes, one weight of the decoder moved."""
    from llm_from_scratch.interop import save_folder

    write_bases(folder)
    loaded = load_folder(folder / "decoder")
    with torch.no_grad():
        loaded.model.blocks[0].attention.output.weight[0, 0] += 1e-3
    settings = {"special_tokens": loaded.special_tokens, "chat_template": loaded.chat_template}
    save_folder(loaded.model, folder / "decoder", loaded.tokenizer, **settings)


@pytest.mark.parametrize(
    ("task", "strategy", "changes"),
    [
        ("classify", "ddp", {"method": "full"}),
        ("classify_by_decoder", "ddp", SMALL_ADAPTERS),
        pytest.param("prefer", "ddp", SMALL_ADAPTERS, marks=pytest.mark.slow),
        pytest.param("instruct", "fsdp", SMALL_ADAPTERS, marks=pytest.mark.slow),
        pytest.param("classify", "fsdp", {"method": "full"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets over a Unix file here")
def test_two_processes_take_the_steps_of_one(here, tmp_path, task, strategy, changes):
    changes = {"steps": 4, "learning_rate": 0.01, "dropout": 0.0, **changes}
    if "classify" not in task:
        changes.pop("dropout")
    one = run(here, task, tmp_path / "one", **changes)
    check_in_processes(2, run_process, here, task, tmp_path / "two", strategy, changes)
    two = json.loads((tmp_path / "two/record.json").read_text(encoding="utf-8"))
    assert two["processes"] == 2
    for (step, *mine), (other_step, *theirs) in zip(
        losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True
    ):
        assert step == other_step
        assert mine == [loss if loss is None else pytest.approx(loss, abs=1e-5) for loss in theirs]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)


def test_a_recipe_can_be_named_by_its_command():
    recipe = chosen("film_sentiment", {"method": "lora", "rank": "4"}, None)
    assert recipe.training.learning_rate == recipe.rates["lora"]
    assert command_for(recipe) == (
        "llm-scratch finetune film_sentiment --method=lora --rank=4 --learning-rate=0.001"
    )
    given = chosen("film_sentiment", {"method": "lora", "learning_rate": "3e-4"}, None)
    assert given.training.learning_rate == 3e-4
    for name in FINETUNING:
        get_finetuning(name).check()
        assert (
            get_finetuning(name).training.learning_rate
            == get_finetuning(name).rates[get_finetuning(name).method]
        )


def test_parts_of_the_base_that_a_classifier_does_not_read_are_frozen(here):
    from llm_from_scratch.recipes.finetuning.base import open_base

    recipe = chosen(*fields_of(here, "classify_by_decoder", method="full"), None)
    model = adapted(recipe, open_base(recipe), num_classes=2)
    loss = model(torch.tensor([[5, 6, 7]]), torch.tensor([1]))[1]
    loss.backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    assert "decoder.head.weight" not in trained


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        (
            "classify",
            {"rank": 11, "method": "lora"},
            "rank 11 is larger than encoder.blocks.0.attention.query",
        ),
        ("classify", {"targets": "querry", "method": "lora"}, "did you mean 'query'"),
        ("classify", {"targets": ","}, "targets must name layers"),
        ("classify", {"labels": "good,bda"}, "'bad' of the text .* is none of good, bda; did you mean bda"),
        ("classify", {"labels": "good,bad,odd"}, "no text of the label 'odd'"),
        (
            "classify",
            {"data": "nothing.csv"},
            "there is no file nothing.csv; known by name are film_sentiment",
        ),
        ("classify", {"context_length": 32}, "context_length 32 is more than the 31 tokens"),
        ("classify", {"dropout": 1.0}, "dropout must be"),
        ("continue", {"data": "nothing.txt"}, "there is no file nothing.txt; known by name is sotu"),
        ("continue", {"first_year": 1900}, "has no years"),
        ("continue", {"method": "head"}, "method head trains a classifier"),
        ("continue", {"method": "full", "base_bits": 4}, "base_bits 4 rounds the base"),
        ("continue", {"base_bits": 3}, "base_bits must be none, 4 or 8"),
        ("continue", {"base": "nowhere"}, "--base: there is no run folder 'nowhere'.*minilm, smollm2"),
        ("continue", {"base": "ENCODER"}, "is an encoder, which writes no text"),
        ("continue", {"patience": 0}, "patience must be 1 evaluation"),
        ("continue", {"layer_decay": 0.0}, "layer_decay must be"),
        ("continue", {"unfreeze_every": -1}, "unfreeze_every must be"),
        ("instruct", {"data": "nothing.jsonl"}, "there is no file nothing.jsonl; known by name is tasks"),
        ("instruct", {"data": "PAIRS"}, "line 1: expected"),
        ("instruct", {"examples": 0}, "examples must be 1"),
        ("prefer", {"data": "TALKS"}, "line 1: chosen must be a text, got None"),
        ("prefer", {"beta": 0.0}, "beta must be above 0"),
    ],
)
def test_mistakes_are_named_before_a_folder_is_made(here, tmp_path, task, changes, says):
    places = {"ENCODER": here / "encoder", "PAIRS": here / "pairs.jsonl", "TALKS": here / "talks.jsonl"}
    changes = {
        name: str(places.get(value, value)) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        run(here, task, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_generated_tasks_and_pairs_are_lessons(here, tmp_path):
    changes = {"steps": 1, "eval_every": 1, "examples": 20, "context_length": 150, **SMALL_ADAPTERS}
    record = run(here, "prefer", tmp_path / "pairs", data="preferences", **changes)
    assert record["data"] == {"pairs_to_train_on": 20, "to_validate_on": 2}
    record = run(here, "instruct", tmp_path / "tasks", data="tasks", dialogue=0, **changes)
    assert record["data"] == {"conversations_to_train_on": 20, "to_validate_on": 2}


def test_the_messages_that_validate_were_never_trained_on():
    from llm_from_scratch.data.corpora import load
    from llm_from_scratch.recipes.finetuning.lessons import _corpora

    parts = _corpora(get_finetuning("sotu_century"))
    trained = {document.text for document in load("sotu").split()[0].documents}
    assert {document.text for document in parts["train"].documents} <= trained
    assert trained.isdisjoint({document.text for document in parts["validation"].documents})
    assert min(document.year for part in parts.values() for document in part.documents) == 1946


assert TINY["steps"] == 6  # what the tests above count on
