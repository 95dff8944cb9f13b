"""`llm-scratch finetune` and `classify` as a user meets them."""

import json
import os
import re
import shlex
import signal

import pytest
import torch

from llm_from_scratch.interop import load_folder
from llm_from_scratch.recipes.finetuning.commands import in_words
from llm_from_scratch.recipes.finetuning.lessons import encode_text
from llm_from_scratch.recipes.finetuning.opening import open_classifier
from llm_from_scratch.recipes.finetuning.recipes import get_finetuning
from llm_from_scratch.recipes.opening import open_any
from llm_from_scratch.training import trainer
from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.log import RunLog
from tests.recipes.finetune_bases import fields_of, write_bases, write_data
from tests.test_cli import call, refused


def arguments(folder, task, **changes):
    name, fields = fields_of(folder, task, **changes)
    options = [f"--{field.replace('_', '-')}={value}" for field, value in fields.items()]
    return ["finetune", name, *(option.replace("=None", "=none") for option in options)]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Bases, data, and two runs made through the command line."""
    folder = tmp_path_factory.mktemp("commands")
    write_bases(folder)
    write_data(folder)
    for task, out in (("classify", "films"), ("instruct", "talks")):
        changes = {"method": "lora", "rank": 2, "learning_rate": 0.02}
        result = call(*arguments(folder, task, **changes), "--out", folder / out)
        assert result.exit_code == 0, result.output
        (folder / f"{out}.said").write_text(result.stdout, encoding="utf-8")
    return folder


def test_the_report_names_what_changed_and_the_next_command(here):
    said = (here / "films.said").read_text(encoding="utf-8")
    record = json.loads((here / "films/record.json").read_text(encoding="utf-8"))
    scores = record["losses"]
    assert f"Validation loss {scores['validation_before_training']:.4f} before" in said
    assert f"Test accuracy: {scores['test_accuracy']:.2%}." in said
    assert f"llm-scratch classify {here / 'films'} 'a text'" in said
    assert f"llm-scratch chat {here / 'talks'}" in (here / "talks.said").read_text(encoding="utf-8")
    share = record["trained_parameters"] / record["parameters"]
    assert record["trained_share"] == round(share, 6)
    assert 0 < share < 0.5
    assert record["command"].startswith("llm-scratch finetune sms_spam --base=")
    assert {"commit", "hardware", "versions", "date"} <= record.keys()
    assert "Pairs told apart: 75.00%" in in_words(
        get_finetuning("smollm2_preferences"),
        {**record, "losses": {**scores, "pairs_told_apart": 0.75}},
        here / "films",
    )


def test_classify_names_label_and_probability(here):
    model, base, labels = open_classifier(here / "films")
    texts = ["the film is great", "the very dull plot is poor and awful"]
    result = call("classify", here / "films", *texts)
    assert result.exit_code == 0, result.output
    for line, text in zip(result.stdout.splitlines(), texts, strict=True):
        label, share, shown = line.split("\t")
        logits_1K = model(torch.tensor([encode_text(base, text, 30)]))
        shares_K = logits_1K.detach().softmax(dim=-1)[0]
        assert label == labels[int(shares_K.argmax())]
        assert float(share) == pytest.approx(shares_K.max().item(), abs=6e-4)
        assert shown == text


def test_classify_reads_lines_where_no_text_is_given(here):
    from typer.testing import CliRunner

    from llm_from_scratch import cli

    lines = [f"the film number {n} is great" for n in range(40)] + ["a\x1b[2Jb", "", "the end"]
    result = CliRunner().invoke(cli.app, ["classify", str(here / "films")], input="\n".join(lines) + "\n")
    assert result.exit_code == 0, result.output
    shown = [line.split("\t")[2] for line in result.stdout.splitlines()]
    assert shown == [line.replace("\x1b", "\ufffd") for line in lines]
    alone = call("classify", here / "films", lines[17]).stdout
    assert alone == result.stdout.splitlines(keepends=True)[17]


def test_a_tuned_model_is_exported_whole(here, tmp_path):
    assert call("export", here / "talks", tmp_path / "whole").exit_code == 0
    written, (opened, _) = load_folder(tmp_path / "whole"), open_any(str(here / "talks"))
    ids_BT = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(written.model(ids_BT), opened.model(ids_BT), atol=1e-5, rtol=0)
    assert written.chat_template == opened.chat_template
    by_adapter, _ = open_any(str(here / "talks/adapter"))
    torch.testing.assert_close(by_adapter.model(ids_BT), opened.model(ids_BT), atol=1e-5, rtol=0)
    assert call("sample", here / "talks", "--prompt", "film", "--max-new-tokens", 3).exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_saves_and_the_printed_command_goes_on(here, tmp_path, monkeypatch):
    take = trainer.Trainer.train_step

    def interrupted(self):
        record = take(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    command = arguments(here, "instruct", method="lora", rank=2)
    assert call(*command, "--out", tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "train_step", interrupted)
        result = call(*command, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert load_checkpoint(tmp_path / "run").step == 3
    again = result.stdout.strip().splitlines()[-1].strip()
    assert again == f"llm-scratch finetune smollm2_tasks --out {tmp_path / 'run'} --resume"
    resumed = call(*shlex.split(again)[1:])
    assert resumed.exit_code == 0
    assert "Resuming after step 3" in resumed.stdout
    one, other = (
        [(r["step"], r.get("loss")) for r in RunLog(tmp_path / name / "log.jsonl").read()]
        for name in ("run", "whole")
    )
    assert one == other
    assert "finished already" in call(*shlex.split(again)[1:]).stdout
    assert "Continue it with --resume" in refused(*command, "--out", tmp_path / "run")


def test_ctrl_c_before_there_is_a_folder_prints_the_whole_command(here, tmp_path, monkeypatch):
    from llm_from_scratch.recipes.finetuning import run

    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "open_base", interrupted)
    result = call(*arguments(here, "instruct"), "--out", tmp_path / "run")
    assert result.exit_code == 130
    printed = shlex.split(result.stdout.strip().splitlines()[-1])
    assert printed[:3] == ["llm-scratch", "finetune", "smollm2_tasks"]
    assert {f"--base={here / 'decoder'}", "--steps=6", "--out"} <= set(printed)
    assert "--resume" not in printed


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(here, tmp_path, monkeypatch):
    save = trainer.save_checkpoint

    def full(run, *, step, **rest):
        if step == 4:
            raise OSError(28, "the disk is full", str(run))
        return save(run, step=step, **rest)

    monkeypatch.setattr(trainer, "save_checkpoint", full)
    result = call(*arguments(here, "continue"), "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"error: the disk is full: {tmp_path / 'run'}"
    assert load_checkpoint(tmp_path / "run").step == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["finetune"], "finetune takes the name of one recipe, got none"),
        (["finetune", "sms_span"], "no fine-tuning recipe 'sms_span'; did you mean sms_spam?"),
        (["finetune", "laptop"], "laptop is a recipe of `llm-scratch train`"),
        (["finetune", "sms_spam", "--rnak", "3"], "did you mean rank"),
        (["finetune", "sms_spam", "--rank", "many"], "rank takes a whole number, got 'many'"),
        (["finetune", "sms_spam", "--rank", "0", "--method", "lora"], "rank must be"),
        (["finetune", "sms_spam", "--method", "qlora"], "method takes one of full, lora, head"),
        (["finetune", "sms_spam", "--strategy", "tensor"], "use ddp or fsdp"),
        (["finetune", "sms_spam", "--checkpoint", "whole"], "--checkpoint must be gathered or sharded"),
        (["finetune", "sms_spam", "--data", "mine.csv"], "there is no file mine.csv"),
        (["finetune", "sms_spam", "--base", "nowhere"], "--base: there is no run folder 'nowhere'"),
        (["classify", "nowhere", "a text"], "nowhere is not a run folder"),
        (["train", "sms_spam"], "no recipe 'sms_spam'"),
    ],
)
def test_mistakes_are_one_line(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*words)
    assert not (tmp_path / "runs").exists()


def test_a_table_with_a_wrong_line_is_one_line(here, tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\nfine,good\nbad,\n", encoding="utf-8")
    command = arguments(here, "classify", data=str(tmp_path / "mine.csv"))
    assert "mine.csv, line 3: the label is empty" in refused(*command, "--out", tmp_path / "run")
    (tmp_path / "mine.csv").write_text("words,label\nfine,good\n", encoding="utf-8")
    assert "no column is named 'text'" in refused(*command, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_command_says_what_a_run_is_not(here):
    assert "holds a classifier, which writes no text" in refused("chat", here / "films")
    assert "holds a classifier, which writes no text" in refused("sample", here / "films")
    assert "holds a language model, no classifier" in refused("classify", here / "talks", "a text")
    assert "holds a run of `llm-scratch finetune sms_spam`" in refused(
        "train", "laptop", "--resume", "--out", here / "films"
    )
    assert "is not that of a run of `llm-scratch finetune`" in refused("classify", here / "decoder", "a text")


def test_recipes_lists_those_of_finetuning_too():
    listed = call("recipes").stdout
    assert re.search(r"sotu_century +finetune: laptop, 400 steps", listed)
    assert re.search(r"--layer-decay +1\.0", call("recipes", "film_sentiment").stdout)
    assert "Recipes: film_sentiment" in call("finetune", "--help").stdout
