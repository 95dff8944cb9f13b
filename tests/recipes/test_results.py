"""Publishing a run, and the results that are committed."""

import json

import pytest
import torch

from llm_from_scratch.recipes import get, load_result, result_names, results, with_changes
from llm_from_scratch.recipes.opening import open_trained
from llm_from_scratch.recipes.publish import main, publish
from llm_from_scratch.recipes.run import score_split, train
from llm_from_scratch.training.checkpoint import load_run
from tests.recipes.conftest import TINY


def test_a_published_run_opens_by_its_name(tmp_path, monkeypatch):
    train(with_changes(get("laptop"), TINY), out=tmp_path / "run")
    publish(tmp_path / "run", "laptop", tmp_path / "results")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    model, tokenizer, record = load_result("laptop")
    trained, _, _ = load_run(tmp_path / "run")
    for ours, theirs in zip(model.parameters(), trained.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    assert not model.training
    assert tokenizer.vocab_size == model.config.vocab_size
    rounded = score_split(model, tokenizer, "sotu")
    assert record["losses"]["validation_whole_split_float16"] == round(rounded.nats_per_token, 4)
    assert {p.name for p in (tmp_path / "results" / "laptop").iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "record.json",
    }


def test_unfinished_and_foreign_runs_are_not_published(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        publish(tmp_path, "laptop", tmp_path / "results")
    (tmp_path / "record.json").write_text(json.dumps({"recipe": "laptop"}), encoding="utf-8")
    with pytest.raises(ValueError, match="a run of laptop, not of shakespeare_char"):
        publish(tmp_path, "shakespeare_char", tmp_path / "results")
    with pytest.raises(SystemExit):
        main(["--run", str(tmp_path)])


@pytest.mark.parametrize("name", result_names())
def test_committed_results_are_small_and_say_where_they_come_from(name):
    trained = open_trained(name)
    record = json.loads((results.RESULTS / name / "record.json").read_text(encoding="utf-8"))
    assert (results.RESULTS / name / "model.safetensors").stat().st_size <= 5_000_000
    assert record["command"] == f"llm-scratch train {name}"
    assert record["commit"]
    assert record["seconds"]["total"] > 0
    assert record["losses"]["validation_whole_split"] < record["losses"]["validation_before_training"] - 1
    assert (
        abs(record["losses"]["validation_whole_split_float16"] - record["losses"]["validation_whole_split"])
        < 0.002
    )
    assert record["parameters"] == trained.model.num_parameters()
    recipe = get(name)
    assert trained.model.config == recipe.model_config(trained.tokenizer.vocab_size)


def test_unknown_results_name_those_there_are():
    with pytest.raises(ValueError, match="no committed result 'nothing'"):
        load_result("nothing")
    with pytest.raises(ValueError, match="no committed result"):
        load_result("../results/laptop")
