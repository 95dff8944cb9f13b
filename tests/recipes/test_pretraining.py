"""The two recipes of chapter 10: whole, on a corpus of a few pages, and what is stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_from_scratch.data.corpora import Corpus
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes import get, pretraining, pretraining_data, publish, with_changes
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.training.validation import validation_batches
from tests.recipes.conftest import small_corpus

SMALL = {
    "depth": 1,
    "d_model": 12,
    "num_heads": 3,
    "context_length": 11,
    "batch_size": 3,
    "steps": 4,
    "device": "cpu",
}


def paragraphs_of_two_centuries(name):
    """Sixty documents of six paragraphs each, so that every era has some to validate on."""
    pages = small_corpus(name).documents
    documents = []
    for i in range(60):
        words = pages[i % 20].text.split()
        text = "\n\n".join(" ".join(words[j : j + 20]) for j in range(0, 120, 20))
        documents.append(replace(pages[0], text=text, year=1790 + 4 * i))
    return Corpus(name=name, documents=tuple(documents))


@pytest.fixture
def corpora(monkeypatch):
    for module in (pretraining, pretraining_data):
        monkeypatch.setattr(module, "load", paragraphs_of_two_centuries)


def test_the_run_is_the_recipes_own(corpora, tmp_path):
    recipe = with_changes(get("laptop"), SMALL)
    record = pretraining.make(
        tmp_path, say=lambda line: None, recipe=recipe, checkpoints=(0, 2, 4), probe_batches=2
    )
    assert record == pretraining.load_record(tmp_path)
    assert [entry["step"] for entry in record["checkpoints"]] == [0, 2, 4]
    assert [entry["tokens"] for entry in record["checkpoints"]] == [0, 66, 132]
    total = sum(record["kind_counts"].values())
    for entry in [*record["checkpoints"], *record["ngrams"]]:  # the parts add up to the whole
        parts = sum(entry["by_kind"][kind] * count for kind, count in record["kind_counts"].items())
        assert parts / total == pytest.approx(entry["loss"], abs=1e-3)
    assert len({len(line) for line in pretraining.comparison_table(record).splitlines()}) <= 2
    losses = [entry["loss"] for entry in record["checkpoints"]]
    assert losses[-1] < losses[0]
    assert all(len(entry["samples"]) == len(pretraining.PROMPTS) for entry in record["checkpoints"])


def test_places_of_the_probe():
    stream = np.random.default_rng(0).integers(0, 50, size=1000)
    probe = validation_batches(stream, context_length=7, batch_size=3, count=5)
    targets = np.concatenate([targets_BT.flatten().numpy() for _, targets_BT in probe])
    places = pretraining.probe_places(stream, probe, 21)
    assert (stream[places] == targets).all()
    assert len(set(places)) == len(places)
    with pytest.raises(ValueError, match="does not lie in the stream"):
        pretraining.probe_places(stream + 1, probe, 21)


def test_windows_in_order_are_the_streams_and_end():
    stream = np.arange(100, 200)
    windows = pretraining_data.WindowsInOrder(stream, np.array([3, 50, 7]), context_length=4, batch_size=2)
    inputs_BT, targets_BT = next(windows)
    assert inputs_BT.tolist() == [[103, 104, 105, 106], [150, 151, 152, 153]]
    assert (targets_BT == inputs_BT + 1).all()
    with pytest.raises(StopIteration):
        next(windows)


def test_within_documents_is_a_decoder_with_the_mask():
    torch.manual_seed(0)
    config = DecoderConfig.llama(vocab_size=11, context_length=9, d_model=12, num_layers=1, num_heads=3)
    decoder = Decoder(config).eval()
    model = pretraining_data.WithinDocuments(decoder, 10)
    ids_BT = torch.tensor([[10, 1, 2, 10, 3, 4]])
    logits_BTV = model(ids_BT)
    torch.testing.assert_close(logits_BTV[:, 3:], decoder(ids_BT[:, 3:]), rtol=0, atol=1e-5)
    assert model(ids_BT, ids_BT)[1].item() > 0
    assert next(BatchLoader(np.arange(20) % 11, context_length=9, batch_size=1, seed=0))[0].shape == (1, 9)


def test_every_experiment_on_a_few_pages(corpora, tmp_path):
    settings = pretraining_data.Settings(
        d_model=8,
        num_layers=1,
        num_heads=1,
        context_length=11,
        training=replace(pretraining_data.TRAINING, steps=4),
        eval_batches=1,
        points=2,
        slices=(300, 600),
        repeated=(400, 3),
        copies=(0, 2),
        passages=1,
        passage_lengths=(4, 5),
        memory_steps=3,
        order_steps=3,
        boundary_steps=3,
        seeds=(1, 2),
    )
    record = pretraining_data.make(tmp_path, say=lambda line: None, settings=settings)
    assert record == pretraining_data.load_record(tmp_path)
    names = [run["experiment"] for run in record["runs"]]
    assert [names.count(name) for name in pretraining_data.EXPERIMENTS] == [3, 2, 1, 6, 4]
    (memory,) = pretraining_data.runs_of("memorisation", record)
    assert {look["copies"] for look in memory["looks"]} == {0, 2}
    ordered = pretraining_data.runs_of("order", record)[:3]
    assert len({str(run["curve"][0]) for run in ordered}) == 1  # the same weights at first
    assert len({str(run["curve"][-1]) for run in ordered}) == 3
    table = pretraining_data.comparison_table(record).splitlines()
    assert len({len(line) for line in table}) == 1
    with pytest.raises(ValueError, match="no experiment 'speed'"):
        pretraining_data.runs_of("speed", record)


def test_no_record(tmp_path):
    for module in (pretraining, pretraining_data):
        with pytest.raises(FileNotFoundError, match=f"publish {module.NAME}` makes it"):
            module.load_record(tmp_path)
        assert module.NAME in publish.COMPARISONS


def test_the_stored_run_ends_where_the_laptop_recipe_ends():
    record = pretraining.load_record()
    _, _, laptop = load_result("laptop")
    assert record["parameters"] == laptop["parameters"]
    assert record["checkpoints"][-1]["tokens"] == laptop["tokens_trained_on"]
    assert record["checkpoints"][-1]["loss"] == pytest.approx(
        laptop["losses"]["validation_best_windows"], abs=0.1
    )
