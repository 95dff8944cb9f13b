"""Texts drawn under JSON schemas are valid, also where a model would rather write something else."""

import pytest

from llm_from_scratch.inference import FastDecoder
from llm_from_scratch.interop.smollm2 import load_smollm2
from llm_from_scratch.recipes import constrained_json, publish
from llm_from_scratch.recipes.constrained_json import SCHEMAS, EqualScores, count_valid, counts_table
from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer

TEXT = ['the quick brown fox, {"name": [1, 2.5], "ok": true} naïve 東京'] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return BytePairTokenizer.train(TEXT, vocab_size=300, special_tokens=["<|pad|>", "<|endoftext|>"])


@pytest.mark.parametrize("samples", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_all_samples_of_equal_scores_are_valid(tokenizer, samples):
    counts = count_valid(EqualScores(tokenizer.vocab_size), tokenizer, samples=samples, max_new_tokens=110)
    assert all(valid == drawn == samples // 5 for valid, drawn in counts.values()), counts


def test_an_invalid_text_is_not_counted(tokenizer, monkeypatch):
    monkeypatch.setattr(constrained_json, "sample", lambda *_, **__: tokenizer.encode('{"name": "x"}'))
    counts = count_valid(EqualScores(tokenizer.vocab_size), tokenizer, samples=5, max_new_tokens=110)
    assert counts == {name: (int(name == "any JSON"), 1) for name in SCHEMAS}


@pytest.mark.slow
def test_samples_of_smollm2_at_temperature_1_5_are_valid():
    loaded = load_smollm2()
    counts = count_valid(FastDecoder(loaded.model), loaded.tokenizer, samples=30)
    assert all(valid == drawn for valid, drawn in counts.values()), counts


def test_the_stored_record():
    """Chapter 13 quotes it: every text was valid."""
    counts = constrained_json.load_record()["counts"]
    assert {count["source"] for count in counts} == {"equal scores", "SmolLM2"}
    assert all(count["valid"] == count["drawn"] == 100 for count in counts)


def test_the_table_adds_up():
    counts = [
        {"source": source, "schema": schema, "valid": valid, "drawn": 3}
        for source, valid in (("a", 3), ("b", 1))
        for schema in ("x", "y")
    ]
    last = counts_table({"counts": counts}).splitlines()[-1]
    assert last.split() == ["all", "6", "of", "6", "2", "of", "6"]
    assert "constrained_json" in publish.COMPARISONS
