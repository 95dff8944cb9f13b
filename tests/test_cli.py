"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import typer.testing

from llm_from_scratch import cli
from llm_from_scratch.recipes.record import command_line
from llm_from_scratch.serving.terminal import CONTROL_SIGNS
from tests.recipes.conftest import TINY_ARGUMENTS, _small_corpora, small_corpus  # noqa: F401

runner = typer.testing.CliRunner()


def call(*arguments):
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    """Call, check that it is one line on stderr and exit code 2, and return the line."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One small run of each tokenizer, made through the command line."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        from llm_from_scratch.recipes import run, text

        patch.setattr(run, "load", small_corpus)
        patch.setattr(text, "load", small_corpus)
        result = call("train", "laptop", *TINY_ARGUMENTS, "--out", folder / "words")
        assert result.exit_code == 0, result.output
        settings = [
            "--steps",
            "3",
            "--d-model=8",
            "--num-layers",
            "1",
            "--num-heads",
            "2",
            "--eval-batches",
            "1",
            "--checkpoint",
            "sharded",
        ]
        result = call("train", "shakespeare_char", *settings, "--out", folder / "characters")
        assert result.exit_code == 0, result.output
    return folder


HELP = """
import sys
from llm_from_scratch.cli import app
try:
    app(["--help"])
finally:
    print("torch" in sys.modules)
"""


def test_help_names_every_command_without_loading_torch():
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("False")
    names = "train finetune classify plan data sample evaluate serve chat export recipes grade"
    for command in names.split():
        assert re.search(rf"^  {command} +[A-Z]", result.stdout, re.MULTILINE)
    assert "\x1b" not in result.stdout


def test_train_reports_losses_and_the_next_command(trained, tmp_path):
    result = call("train", "laptop", *TINY_ARGUMENTS, "--out", tmp_path / "a b")
    assert result.exit_code == 0
    record = json.loads((tmp_path / "a b" / "record.json").read_text(encoding="utf-8"))
    assert f"loss {record['losses']['validation_whole_split']:.4f} nats a token" in result.stdout
    assert f"llm-scratch sample '{tmp_path / 'a b'}'" in result.stdout
    assert record["command"].startswith("llm-scratch train laptop --vocab-size=300 ")
    assert "--steps=6" in record["command"]


def test_evaluate_prints_what_training_recorded(trained):
    result = call("evaluate", trained / "words")
    record = json.loads((trained / "words" / "record.json").read_text(encoding="utf-8"))["losses"]
    assert result.exit_code == 0
    printed = dict(re.findall(r"^(loss|perplexity|bits per byte) +([\d.]+)", result.stdout, re.MULTILINE))
    assert float(printed["loss"]) == record["validation_whole_split"]
    assert float(printed["perplexity"]) == record["perplexity"]
    assert float(printed["bits per byte"]) == record["bits_per_byte"]


def test_a_smaller_stride_scores_the_same_tokens(trained):
    whole, half = (call("evaluate", trained / "words", "--stride", stride).stdout for stride in (11, 5))
    scored = [re.search(r"scored .*", text)[0] for text in (whole, half)]
    assert scored[0] == scored[1]
    assert "stride must lie in [1, 11]" in refused("evaluate", trained / "words", "--stride", 12)


def test_sample_continues_the_prompt_and_repeats_with_a_seed(trained):
    arguments = ("sample", trained / "words", "--prompt", "the state", "--seed", 3, "--max-new-tokens", 12)
    first, second = call(*arguments), call(*arguments)
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("the state")
    assert len(first.stdout) > len("the state") + 1
    assert "\x1b" not in first.stdout
    other = call(*arguments[:-4], "--seed", 4, "--max-new-tokens", 12)
    assert other.stdout != first.stdout
    greedy = [call(*arguments[:-4], "--temperature", 0, "--seed", seed).stdout for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    settings = ("--top-k", 5, "--top-p", 0.9, "--min-p", 0.05)
    assert call("sample", trained / "words", *settings, "--checkpoint", "last").exit_code == 0


def test_sample_names_a_character_that_the_vocabulary_lacks(trained):
    assert call("sample", trained / "characters", "--max-new-tokens", 5).exit_code == 0
    assert "'€'" in refused("sample", trained / "characters", "--prompt", "peace €")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "takes the name of one recipe, got none"),
        (["train", "laptop", "extra"], "got laptop, extra"),
        (["train", "gpt5"], "no recipe 'gpt5'; the recipes are laptop"),
        (["train", "laptop", "--depht", "3"], "did you mean depth"),
        (["train", "laptop", "--steps", "many"], "steps takes a whole number, got 'many'"),
        (["train", "laptop", "--steps"], "--steps needs a value"),
        (["train", "laptop", "--steps", "--depth", "3"], "--steps needs a value"),
        (["train", "laptop", "--d-model", "13", "--num-heads", "3"], "d_model=13 is not divisible"),
        (["train", "laptop", "--device", "tpu"], 'got "tpu"'),
        (["sample", "nowhere"], "no run folder 'nowhere' and no committed result"),
        (["evaluate", "nowhere"], "no run folder 'nowhere'"),
        (["recipes", "nothing"], "no recipe 'nothing'"),
    ],
)
def test_mistakes_are_one_line(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)


def test_sampling_settings_out_of_range_are_one_line(trained):
    for setting in (["--temperature", -1], ["--top-k", 0], ["--top-p", 1.5], ["--checkpoint", "worst"]):
        refused("sample", trained / "words", *setting)


def test_an_existing_run_needs_resume_and_the_same_fields(trained):
    folder = trained / "words"
    assert "Continue it with --resume" in refused("train", "laptop", *TINY_ARGUMENTS, "--out", folder)
    changed = refused("train", "laptop", "--out", folder, "--resume", "--learning-rate", "0.5")
    assert "recipe.learning_rate = 0.00" in changed
    assert "not 0.5" in changed
    other = refused("train", "shakespeare_char", "--out", folder, "--resume")
    assert "holds a run of recipe laptop, not shakespeare_char" in other
    finished = call("train", "laptop", "--out", folder, "--resume")
    assert finished.exit_code == 0
    assert "finished already" in finished.stdout


def test_a_run_with_sharded_checkpoints_is_used_as_any_other(trained, tmp_path):
    run = trained / "characters"
    assert list(run.glob("checkpoints/*/model-00001-of-00001.safetensors"))
    sampled = call("sample", run, "--max-new-tokens", 3, "--seed", 1)
    assert sampled.exit_code == 0, sampled.output
    scores = json.loads((run / "record.json").read_text(encoding="utf-8"))["losses"]
    assert f"loss           {scores['validation_whole_split']:.4f} nats" in call("evaluate", run).stdout
    refusal = refused("train", "laptop", *TINY_ARGUMENTS, "--out", tmp_path / "x", "--checkpoint", "whole")
    assert '--checkpoint must be gathered or sharded, got "whole"' in refusal
    assert not (tmp_path / "x").exists()


def test_damaged_runs_are_one_line(trained, tmp_path):
    import shutil

    for name in ("config.json", "tokenizer.json", "checkpoints.json"):
        folder = tmp_path / name
        shutil.copytree(trained / "words", folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        assert name in refused("sample", folder)
        (folder / name).unlink()
        refused("evaluate", folder)


def test_recipes_lists_sizes_and_fields():
    result = call("recipes")
    assert re.search(r"shakespeare_char +804,096 parameters, 2,000 steps", result.stdout)
    assert re.search(r"--learning-rate +0\.001", call("recipes", "shakespeare_char").stdout)


def test_pieces_of_a_command_can_be_pasted():
    assert shlex.split(command_line("train", "a b")) == ["llm-scratch", "train", "a b"]


def test_control_signs_do_not_reach_the_terminal():
    assert "a\x1b[2J\x07\n\té\x9b".translate(CONTROL_SIGNS) == "a\ufffd[2J\ufffd\n\té\ufffd"


def test_ctrl_c_outside_the_steps_prints_the_command_that_resumes(tmp_path, monkeypatch):
    from llm_from_scratch.recipes import run

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "open_tokenizer", interrupted)
    folder = tmp_path / "run"
    result = call("train", "laptop", *TINY_ARGUMENTS, "--out", folder)
    assert result.exit_code == 130
    assert (
        result.stdout.strip().splitlines()[-1].strip() == f"llm-scratch train laptop --out {folder} --resume"
    )
    monkeypatch.undo()
    monkeypatch.setattr(run, "load", small_corpus)
    assert call("train", "laptop", "--out", folder, "--resume").exit_code == 0  # its fields were kept
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["recipe"]["depth"] == 1


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from llm_from_scratch.training import trainer
    from llm_from_scratch.training.checkpoint import load_checkpoint

    save = trainer.save_checkpoint

    def full(run, *, step, **rest):
        if step == 4:
            raise OSError(28, "the disk is full", str(run))
        return save(run, step=step, **rest)

    monkeypatch.setattr(trainer, "save_checkpoint", full)
    folder = tmp_path / "run"
    result = call("train", "laptop", *TINY_ARGUMENTS, "--out", folder)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"error: the disk is full: {folder}"
    assert load_checkpoint(folder).step == 2
    monkeypatch.setattr(trainer, "save_checkpoint", save)
    assert call("train", "laptop", "--out", folder, "--resume").exit_code == 0


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(AssertionError, match="mine"), cli.plain_errors():
        raise AssertionError("mine")


DRIVER = """
import sys
from llm_from_scratch.recipes import run, text
from tests.recipes.conftest import small_corpus
run.load = text.load = small_corpus
from llm_from_scratch.cli import app
app(sys.argv[1:])
"""


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for_step(folder, step):
    for _ in range(1200):
        try:
            if f'"step": {step},' in (folder / "log.jsonl").read_text(encoding="utf-8"):
                return
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"no step {step} in a minute")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=(pytest.mark.slow, pytest.mark.alone))]
)
def test_interrupting_saves_and_prints_the_command_that_resumes(tmp_path, number):
    folder = tmp_path / "run"
    arguments = [*TINY_ARGUMENTS, "--steps", "100000", "--eval-every", "1000000"]
    with start("train", "laptop", *arguments, "--out", folder) as process:
        wait_for_step(folder, 5)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    resume = out.strip().splitlines()[-1].strip()
    assert resume == f"llm-scratch train laptop --out {folder} --resume"
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    saved = json.loads((folder / "checkpoints.json").read_text(encoding="utf-8"))["last"]
    assert saved == f"step-{steps[-1]:06d}"
    with start(*shlex.split(resume)[1:]) as process:
        wait_for_step(folder, steps[-1] + 3)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0].count(f"Resuming after step {steps[-1]:,}") == 1
    again = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert again == list(range(again[-1] + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-heads", "3", "--d-model", "160"], "num_heads"),
        (["--precision", "float12"], "float12"),
        (["--device", "cpu:x"], "cpu:x"),
        (["--vocab-size", "none"], "vocab_size"),
        (["--vocab-size", "100"], "257"),
        (["--seed", str(2**63)], "seed"),
    ],
)
def test_a_bad_option_leaves_the_folder_free_for_the_next_run(tmp_path, options, message):
    assert message in refused("train", "laptop", *options, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_configuration_without_its_recipe_is_named(trained, tmp_path):
    shutil.copytree(trained / "words", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    for section in (None, 5, {"name": "laptop"}):
        (tmp_path / "run" / "config.json").write_text(
            json.dumps({**config, "recipe": section}), encoding="utf-8"
        )
        assert "names no recipe" in refused("evaluate", tmp_path / "run")
        assert "names no recipe" in refused("train", "laptop", "--resume", "--out", tmp_path / "run")


def test_a_committed_result_has_no_last_checkpoint():
    assert "best checkpoint only" in refused("sample", "laptop", "--prompt", "The", "--checkpoint", "last")


@pytest.mark.parametrize("settings", [["--temperature", "1e-320"], ["--seed", "18446744073709551616"]])
def test_extreme_numbers_when_sampling(trained, settings):
    result = call("sample", trained / "words", "--prompt", "the", "--max-new-tokens", "2", *settings)
    assert (result.exit_code, "Traceback" in result.output) in ((0, False), (2, False))
    assert result.exit_code == 0 or "64 bits" in result.stderr


def test_plan_prints_predictions_and_assumptions():
    result = call("plan", "llama_1b_fsdp", "--gpus", 16, "--device", "h200", "--mfu", 0.35, "--batch-size=16")
    assert result.exit_code == 0, result.output
    for words in ("16 x NVIDIA H200", "Predicted memory", "Predicted speed", "35% of the peak", "data sheet"):
        assert words in result.output
    script = call("plan", "llama_8b_multinode", "--slurm").stdout
    assert script.startswith("#!/bin/bash\n")
    assert "no device is called 'tpu'" in refused("plan", "laptop", "--device", "tpu")


def test_train_refuses_what_the_machine_cannot_hold(tmp_path):
    refusal = refused("train", "llama_8b_multinode", "--device", "cpu", "--out", tmp_path / "run")
    assert "needs a predicted" in refusal
    assert not (tmp_path / "run").exists()
