"""The small BERT trained longer: the same data and model as in the comparison, more steps."""

from dataclasses import asdict, replace

import pytest

from llm_from_scratch.recipes import bert_longer as recipe
from llm_from_scratch.recipes import bert_small
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
