"""The speed run: its size, its trials on a tiny corpus, and what the stored record says."""

import json

import pytest

from llm_from_scratch.recipes import get, publish, speedrun_trials, with_changes
from llm_from_scratch.recipes.recipe import num_parameters
from llm_from_scratch.recipes.shakespeare_speedrun import EQUAL_TIME, TARGET_LOSS
from llm_from_scratch.recipes.speedrun_trials import TRIALS, Trial, comparison_table, load_record, recipe_of
from tests.recipes.conftest import small_corpus

SMALL = {
    "steps": 3, "batch_size": 2, "context_length": 11, "d_model": 12, "num_heads": 3, "bigram_rows": 100,
    "trigram_rows": 50, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, EQUAL_TIME], ids=["short", "equal time"])
def test_at_most_a_million_and_a_half_numbers_every_table_counted(changes):
    recipe = with_changes(get("shakespeare_speedrun"), changes)
    assert num_parameters(recipe) <= 1_500_000
    assert recipe.model_config(65).ngram_rows == (66**2, 4096)  # a row for each pair, the start included


def test_triples_come_on_top_of_pairs():
    recipe = get("shakespeare_speedrun")
    assert with_changes(recipe, {"bigram_rows": 0, "trigram_rows": 0}).model_config(65).ngram_rows == ()
    with pytest.raises(ValueError, match="trigram_rows=4096 comes on top of bigram_rows"):
        with_changes(recipe, {"bigram_rows": 0}).model_config(65)


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_each_trial_changes_what_it_says(trial):
    recipe, usual = recipe_of(trial), get("shakespeare_speedrun")
    assert (recipe == usual) == (not trial.changes)
    recipe.model_config(65)


def test_trials_run_resume_and_leave_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(speedrun_trials, "load", small_corpus)
    trials = [Trial(name="small", changes=SMALL), Trial(name="bad", changes={**SMALL, "steps": 0})]
    say = []
    with pytest.raises(ValueError, match="steps must be 1 or more"):
        speedrun_trials.make(tmp_path, say=say.append, trials=trials, rounds=1)
    assert not (tmp_path / "record.json").exists()
    trials[1] = Trial(name="AdamW", changes={**SMALL, "optimizer": "adamw"})
    monkeypatch.setattr(
        speedrun_trials, "run_trial",
        lambda trial, *rest, run=speedrun_trials.run_trial: say.append(trial.name) or run(trial, *rest),
    )  # fmt: skip
    record = speedrun_trials.make(tmp_path, say=lambda line: None, trials=trials, rounds=1)
    assert say[-1] == "AdamW"
    assert "small" not in say  # the first was done already
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert load_record(tmp_path) == json.loads(json.dumps(record))
    small, adamw = record["trials"]
    assert small["tokens"] == 3 * 2 * 11
    assert small["loss"] != adamw["loss"]
    assert min(entry["step_ratio"] for entry in record["trials"]) > 0
    assert len(comparison_table(record).splitlines()) == 3


def test_the_loss_is_that_of_the_whole_split(tmp_path, monkeypatch):
    from llm_from_scratch.evaluation import evaluate

    monkeypatch.setattr(speedrun_trials, "load", small_corpus)
    data, recipe = speedrun_trials.Shakespeare(), with_changes(get("shakespeare_speedrun"), SMALL)
    trainer = data.trainer(recipe, tmp_path)
    trainer.train_step()
    data.validation = data.validation[: 3 * recipe.context_length + 1]  # whole windows only
    score = evaluate(trainer.model, data.validation, stride=recipe.context_length)
    assert score.num_tokens == len(data.validation) - 1  # all but the first, before which there is nothing
    assert data.score(trainer, recipe) == pytest.approx(score.nats_per_token, abs=1e-5)


def test_the_stored_record_holds_every_trial_and_the_recipe_beats_the_baseline():
    record = load_record()
    assert record["command"] == "python -m llm_from_scratch.recipes.publish speedrun_trials"
    assert "speedrun_trials" in publish.COMPARISONS
    assert record["hardware"]["threads"] == 1
    assert record["commit"]
    assert [entry["name"] for entry in record["trials"]] == [trial.name for trial in TRIALS]
    seeds = [entry for entry in record["trials"] if entry["name"].startswith("the recipe")]
    assert len(seeds) == 3
    for entry in seeds:
        assert entry["loss"] <= TARGET_LOSS
        assert entry["parameters"] <= 1_500_000
        assert entry["steps"] == get("shakespeare_speedrun").training.steps
    assert max(map(len, comparison_table(record).splitlines())) <= 80
