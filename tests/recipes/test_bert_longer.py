"""The small BERT trained longer: the same data and model as in the comparison, more steps."""

from dataclasses import asdict, replace

import pytest

from llm_from_scratch.data import corpora
from llm_from_scratch.data.sentence_pairs import encode_documents
from llm_from_scratch.recipes import bert_longer as recipe
from llm_from_scratch.recipes import bert_small, publish
from llm_from_scratch.recipes.bert_longer import BertLongerConfig
from tests.recipes.test_bert_small import TINY, few_speeches  # noqa: F401  (the fixture)


def test_what_is_kept_opens_again(tmp_path):
    shared = {k: getattr(TINY, k) for k in asdict(TINY) if k not in ("training", "seeds")}
    config = BertLongerConfig(**shared, training=replace(TINY.training, steps=6))
    record = recipe.make(tmp_path, say=lambda line: None, config=config)
    assert record == recipe.load_record(tmp_path) | {"runs": record["runs"], "config": record["config"]}
    model, tokenizer = recipe.load_model(tmp_path)
    (run,) = record["runs"]
    assert (run["nsp"], run["seed"], run["steps"]) == (True, 0, 6)
    assert list(run["masked_loss_by_step"]) == [0, 2, 4, 6]
    found = bert_small.score(model, bert_small.prepare(config), config, nsp=True)
    assert found == {name: run[f"{name}_float16"] for name in found}
    assert tokenizer.vocab_size == model.encoder.config.vocab_size
    assert "scored" in recipe.figures_table(record)


def test_only_steps_and_seeds_differ_from_the_comparison():
    longer, shorter = asdict(BertLongerConfig()), asdict(bert_small.BertSmallConfig())
    assert {name for name in shorter if longer[name] != shorter[name]} == {"training", "seeds"}
    changed = {n for n, value in shorter["training"].items() if longer["training"][n] != value}
    assert changed == {"steps", "eval_every"}
    assert longer["training"]["steps"] > 2 * shorter["training"]["steps"]


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish bert_longer"):
        recipe.load_record(tmp_path)


def test_the_committed_record_holds_what_the_book_says():
    assert recipe.NAME in publish.COMPARISONS
    record, shorter = recipe.load_record(), bert_small.load_record()
    assert record["command"].endswith("publish bert_longer")
    assert record["commit"]
    assert not record["commit"].endswith("+")
    (run,), kept = record["runs"], shorter["kept"]
    assert run["parameters"] == kept["parameters"]
    assert run["masked_loss_by_step"]["0"] == kept["masked_loss_by_step"]["0"]  # the same first weights
    assert run["masked_loss"] < kept["masked_loss"] - 0.5
    assert abs(run["masked_loss_float16"] - run["masked_loss"]) < 0.002
    folder = recipe.RESULTS / recipe.NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


def test_the_committed_model_scores_what_the_record_says():
    (run,) = recipe.load_record()["runs"]
    model, tokenizer = recipe.load_model()
    held_out = [document.text for document in corpora.load("sotu").split()[1].documents]
    encoded = encode_documents(held_out, tokenizer.encode)
    data = bert_small.Data(tokenizer=tokenizer, train=[], held_out=encoded)
    found = bert_small.score(model, data, BertLongerConfig(), nsp=True)
    for name, value in found.items():
        assert abs(value - run[f"{name}_float16"]) < 0.002
