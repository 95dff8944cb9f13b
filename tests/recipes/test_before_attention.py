"""The comparison of models before attention: made in small, and as it is stored."""

import json
from dataclasses import replace

import pytest
import torch

from llm_from_scratch.data.corpora import load
from llm_from_scratch.evaluation import evaluate
from llm_from_scratch.models.fixed_window import FixedWindow, FixedWindowConfig
from llm_from_scratch.recipes import before_attention as comparison
from llm_from_scratch.recipes import load_result, publish
from llm_from_scratch.recipes.text import encode, scored_split
from tests.recipes.conftest import small_corpus

TINY = replace(comparison.TRAINING, steps=4, batch_size=2, eval_every=2, eval_batches=1)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A comparison of two small models on twenty short documents."""
    monkeypatch.setattr(comparison, "load", small_corpus)
    monkeypatch.setattr(comparison, "NGRAM_ORDERS", (2, 3))
    contenders = {
        "fixed_window": comparison.Contender(
            label="window",
            build=lambda V: FixedWindow(FixedWindowConfig(vocab_size=V, window=2, d_model=5, d_hidden=7)),
            learning_rates=(1e-9, 1e-2),
        ),
        "gru": comparison.Contender(
            label="GRU", build=comparison._recurrent("gru", 6), learning_rates=(1e-2,)
        ),
    }
    record = comparison.make(
        tmp_path, say=lambda line: None, contenders=contenders, training=TINY, trial_steps=2
    )
    return record, tmp_path


def test_every_model_of_a_made_comparison_scores_the_same_tokens(made):
    record, folder = made
    names = [model["name"] for model in record["models"]]
    assert names == [
        "kneser_ney_2",
        "kneser_ney_3",
        "kneser_ney_3_two_thirds",
        "fixed_window",
        "gru",
        "transformer",
    ]
    assert len({model["tokens_scored"] for model in record["models"]}) == 1
    by_name = {model["name"]: model for model in record["models"]}
    assert by_name["fixed_window"]["learning_rate"] == 1e-2, "the rate that learns nothing was chosen"
    assert by_name["fixed_window"]["tokens_read"] == 4 * 2 * comparison.CONTEXT_LENGTH
    assert by_name["kneser_ney_3_two_thirds"]["tokens_read"] < by_name["kneser_ney_3"]["tokens_read"]
    assert comparison.load_record(folder) == record
    assert {path.name for path in folder.iterdir()} == {
        "record.json",
        "fixed_window.safetensors",
        "gru.safetensors",
    }


def test_the_state_is_carried_over_the_whole_split(made, monkeypatch):
    """In pieces of 1,024 tokens as in one pass: the same probabilities."""
    _, tokenizer, _ = load_result("laptop")
    torch.manual_seed(3)
    model = comparison._recurrent("lstm", 6)(tokenizer.vocab_size).eval()
    scored = scored_split(tokenizer, "sotu")  # of the small corpus
    scored = replace(scored, tokens=scored.tokens.repeat(3))
    whole = evaluate(
        model,
        scored.tokens,
        start_id=scored.start_id,
        num_bytes=scored.num_bytes,
        context_length=len(scored.tokens),
    )
    carried = comparison._score_carried(model, scored)
    assert len(scored.tokens) > 1024
    assert carried.num_tokens == whole.num_tokens
    assert carried.nats_per_token == pytest.approx(whole.nats_per_token, abs=1e-6)


@pytest.fixture(scope="module")
def stored():
    return comparison.load_record()


def test_the_stored_record_says_where_it_comes_from_and_compares_like_with_like(stored):
    assert stored["command"] == comparison.COMMAND
    assert stored["commit"]
    assert stored["hardware"]["processor"]
    assert {model["tokens_scored"] for model in stored["models"]} == {270039}
    trained = [model for model in stored["models"] if model["name"] in comparison.CONTENDERS]
    assert [model["name"] for model in trained] == list(comparison.CONTENDERS)
    assert {model["tokens_read"] for model in stored["models"][-6:]} == {1740800}
    for model in trained:
        assert str(model["learning_rate"]) in {str(float(rate)) for rate in model["trials"]}
        if model["name"] != "neural_bigram":  # its table is vocabulary times vocabulary
            assert abs(model["parameters"] / 1895840 - 1) < 0.02
    transformer = stored["models"][-1]
    _, _, laptop = load_result("laptop")
    assert transformer["nats_per_token"] == pytest.approx(
        laptop["losses"]["validation_whole_split"], abs=2e-4
    )


@pytest.mark.parametrize("name", comparison.KEPT)
def test_the_kept_weights_score_what_the_record_says(name, stored):
    """On the whole split it takes half a minute; here on its first 20,000 tokens, against a bound."""
    model, tokenizer = comparison.load_model(name)
    assert not model.training
    _, validation = load("sotu").split()
    tokens = encode(tokenizer, replace(validation, documents=validation.documents[-2:]))[:20_000]
    score = evaluate(
        model, tokens, start_id=tokenizer.special_ids["<|endoftext|>"], context_length=128, stride=128
    )
    (entry,) = [model for model in stored["models"] if model["name"] == name]
    assert abs(score.nats_per_token - entry["nats_per_token"]) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", comparison.KEPT)
def test_the_kept_weights_score_the_recorded_loss_on_the_whole_split(name, stored, monkeypatch):
    from llm_from_scratch.recipes import text

    monkeypatch.setattr(text, "load", load)
    model, tokenizer = comparison.load_model(name)
    score = comparison._score(model, scored_split(tokenizer, "sotu"))
    (entry,) = [model for model in stored["models"] if model["name"] == name]
    assert score.nats_per_token == pytest.approx(entry["nats_per_token"], abs=2e-3)  # rounded to float16
    assert score.num_tokens == entry["tokens_scored"]


def test_the_table_is_sorted_and_holds_every_model(stored, capsys):
    assert comparison.main(["--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(stored["models"]) + 2
    perplexities = [float(line.split()[-2].replace(",", "")) for line in lines[1:-1]]
    assert perplexities == sorted(perplexities, reverse=True)
    assert stored["commit"] in lines[-1]
    with pytest.raises(SystemExit):
        comparison.main([])


def test_a_missing_or_damaged_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish before_attention"):
        comparison.load_record(tmp_path)
    for content in ("{", "[]", json.dumps({"models": [{"label": "x"}]})):
        (tmp_path / "record.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="damaged"):
            comparison.load_record(tmp_path)


def test_weights_that_are_not_kept_are_named(tmp_path):
    with pytest.raises(ValueError, match="'rnn' are not kept"):
        comparison.load_model("rnn")
    (tmp_path / "gru.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        comparison.load_model("gru", tmp_path)


def test_publish_makes_comparisons_and_recipes_by_name(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(comparison, "make", lambda folder, *, say: calls.append(folder))
    monkeypatch.setattr(publish, "RESULTS", tmp_path)
    assert publish.main(["before_attention"]) == 0
    assert calls == [tmp_path / "before_attention"]
    with pytest.raises(SystemExit):
        publish.main(["before_attention", "--run", str(tmp_path)])
    assert "that of a recipe" in capsys.readouterr().err
