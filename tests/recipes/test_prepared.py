"""A recipe trained from prepared tokens: from documents through shards to a scored model."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import typer.testing

from llm_from_scratch import cli
from llm_from_scratch.data.prepare import prepare
from llm_from_scratch.data.shards import open_folder
from llm_from_scratch.recipes import get, with_changes
from llm_from_scratch.recipes.prepared import tokenizer_named
from llm_from_scratch.recipes.run import train
from llm_from_scratch.training.trainer import Trainer
from tests.data.prepared import SETTINGS, TEXTS, tiny_tokenizer, write_jsonl
from tests.recipes.conftest import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens")
    prepare(
        [write_jsonl(path / "texts.jsonl")],
        tokenizer=tiny_tokenizer(),
        out=path / "out",
        settings=SETTINGS,
        workers=1,
    )
    return path / "out"


def tiny(folder, **changes):
    return with_changes(get("laptop"), {**TINY, "data": str(folder), **changes})


def test_a_recipe_trains_from_shards(folder, tmp_path):
    record = train(tiny(folder), out=tmp_path / "run")
    assert record["tokens_trained_on"] == 6 * 3 * 11
    index = open_folder(folder).index
    assert record["losses"]["tokens_scored"] == index["splits"]["validation"]["tokens"]
    bytes_scored = index["splits"]["validation"]["text_bytes"]
    nats = record["losses"]["validation_whole_split"] * record["losses"]["tokens_scored"]
    assert record["losses"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / bytes_scored, rel=1e-3)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    result = typer.testing.CliRunner().invoke(cli.app, ["evaluate", str(tmp_path / "run")])
    assert f"on the validation split of {folder}" in result.output
    assert f"loss           {record['losses']['validation_whole_split']:.4f}" in result.output


def losses(run):
    lines = (run / "log.jsonl").read_text().splitlines()
    return [(line["step"], line.get("loss"), line.get("val_loss")) for line in map(json.loads, lines)]


def test_resumed_equals_uninterrupted(folder, tmp_path, monkeypatch):
    train(tiny(folder), out=tmp_path / "whole")
    real = Trainer.train_step

    def interrupted(self):
        if self.step == 3:
            raise RuntimeError("killed")
        return real(self)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    with pytest.raises(RuntimeError, match="killed"):
        train(tiny(folder), out=tmp_path / "resumed")
    monkeypatch.undo()
    from llm_from_scratch.recipes import run, text
    from tests.recipes.conftest import small_corpus

    monkeypatch.setattr(run, "load", small_corpus)
    monkeypatch.setattr(text, "load", small_corpus)
    train(tiny(folder), out=tmp_path / "resumed", resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")


def test_a_damaged_shard_is_refused_by_name_before_training(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shard = copy / "train_00002.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(ValueError, match=r"the shard .*train_00002.bin is damaged"):
        train(tiny(copy), out=tmp_path / "run")


def test_a_resumed_run_refuses_another_tokenizer(folder, tmp_path):
    train(tiny(folder, steps=2), out=tmp_path / "run")
    (tmp_path / "run" / "record.json").unlink()
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="another tokenizer than that of the run"):
        train(tiny(folder, steps=2), out=tmp_path / "run", resume=True)


def test_recipes_without_a_corpus_say_what_they_need(tmp_path):
    recipe = with_changes(get("gpt2_124m"), {"depth": 1, "device": "cpu"})
    with pytest.raises(ValueError, match=r"trains on prepared tokens: `llm-scratch data prepare"):
        train(recipe, out=tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="holds no prepared tokens"):
        train(with_changes(recipe, {"data": str(tmp_path)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_small_gpt2_trains_from_shards_on_this_machine(folder, tmp_path):
    changes = {"depth": 1, "context_length": 11, "steps": 2, "batch_size": 2, "accumulate": 2}
    recipe = with_changes(
        get("gpt2_124m"), {**changes, "eval_batches": 1, "device": "cpu", "data": str(folder)}
    )
    record = train(recipe, out=tmp_path / "run")
    assert record["tokens_trained_on"] == 2 * 2 * 2 * 11
    assert record["parameters"] < 200_000  # the tokenizer's vocabulary, not GPT-2's


def test_from_the_command_line(tmp_path):
    source = write_jsonl(tmp_path / "texts.jsonl", TEXTS[:12])
    call = typer.testing.CliRunner().invoke
    tiny_tokenizer().save(tmp_path / "tokenizer.json")
    arguments = ["--tokenizer", str(tmp_path / "tokenizer.json"), "--workers", "1", "--validation", "0.25"]
    result = call(cli.app, ["data", "prepare", source, *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "9 documents in 1 shards" in result.stdout
    assert f"llm-scratch train gpt2_124m --data {tmp_path / 'out'}" in result.stdout
    (tmp_path / "bad.jsonl").write_text("{")
    result = call(
        cli.app, ["data", "prepare", str(tmp_path / "bad.jsonl"), *arguments, "--out", str(tmp_path / "bad")]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {tmp_path / 'bad.jsonl'}, line 1: not JSON")
    write_jsonl(tmp_path / "bad.jsonl")  # mended, and no shard was made of what it was
    result = call(
        cli.app, ["data", "prepare", str(tmp_path / "bad.jsonl"), *arguments, "--out", str(tmp_path / "bad")]
    )
    assert result.exit_code == 0, result.output


def test_names_of_tokenizers(tmp_path):
    assert tokenizer_named("laptop").vocab_size == 4096
    with pytest.raises(FileNotFoundError, match="no tokenizer 'gpt7'"):
        tokenizer_named("gpt7")
    tiny_tokenizer().save(tmp_path / "tokenizer.json")
    assert tokenizer_named(str(tmp_path)).vocab_size == tiny_tokenizer().vocab_size


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_equal_one(folder, tmp_path):
    """Two ranks read disjoint rows whose steps are those of one process."""
    arguments = [
        f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "batch_size"
    ]
    arguments += ["--batch-size=4", f"--data={folder}"]
    alone = [sys.executable, "-m", "llm_from_scratch.cli", "train", "laptop", *arguments]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *alone[1:]]
    subprocess.run([*alone, "--out", tmp_path / "one"], check=True, capture_output=True)
    subprocess.run([*together, "--strategy=ddp", "--out", tmp_path / "two"], check=True, capture_output=True)
    for one, two in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert [value or 0.0 for value in one] == pytest.approx([value or 0.0 for value in two], rel=1e-5)
