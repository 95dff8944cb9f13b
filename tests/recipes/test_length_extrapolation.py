"""Positional schemes beyond their training length: the ways of reading on, the measurement, the record."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.positions import rotary_angles
from llm_from_scratch.recipes import length_extrapolation, publish
from llm_from_scratch.recipes.length_extrapolation import (
    SCHEMES,
    Comparison,
    clamped,
    extrapolation_table,
    held_out_windows,
    interpolated,
    lengthened,
    load_record,
    loss_by_position,
    make,
    model_config,
    readers,
)
from tests.recipes.conftest import small_corpus

TINY = Comparison(
    train_length=8, factor=4, num_windows=3, bin_size=4, d_model=12, num_layers=2, num_heads=2,
    training=replace(Comparison().training, steps=3, batch_size=2, eval_every=3, eval_batches=2),
)  # fmt: skip


def model_of(scheme, comparison=TINY, vocab_size=31):
    torch.manual_seed(0)
    model = Decoder(model_config(comparison, scheme, vocab_size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids(T, seed=0):
    return torch.randint(31, (2, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_way_of_reading_agrees_within_the_training_length(scheme):
    model = model_of(scheme)
    for name, reader in readers(model, TINY).items():
        assert not reader.training
        assert reader.config.context_length == (8 if name == "learned" else 32)
        same = torch.allclose(reader(ids(8)), model(ids(8)), atol=1e-5)
        assert same == (name not in ("rope_interpolated", "rope_ntk"))  # these two change every angle


def test_learned_positions_are_refused_or_clamped():
    model = model_of("learned")
    with pytest.raises(ValueError, match="learned positions end at 8 tokens"):
        lengthened(model, 4)
    table = clamped(model, 4).position_embedding.weight
    assert torch.equal(table[:8], model.position_embedding.weight)
    assert (table[8:] == model.position_embedding.weight[-1]).all()


def test_interpolation_turns_a_position_as_its_fourth_part():
    model = model_of("rope")
    stretched = interpolated(model, 4)
    torch.testing.assert_close(stretched.rope_cos_TF[::4], model.rope_cos_TF)
    torch.testing.assert_close(stretched.rope_sin_TF[::4], model.rope_sin_TF)
    halfway = rotary_angles(torch.tensor([0.5]), 6)
    torch.testing.assert_close(stretched.rope_sin_TF[2:3], halfway.sin())


def test_ntk_leaves_the_first_pair_alone_and_slows_the_last_by_the_factor():
    ntk, rope = (readers(model_of("rope"), TINY)[name] for name in ("rope_ntk", "rope"))
    before, after = (rotary_angles(torch.ones(1), 6, base=m.config.rope_base)[0] for m in (rope, ntk))
    torch.testing.assert_close((before / after)[[0, -1]], torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(ntk.rope_sin_TF[1], after.sin())


def test_loss_by_position_by_hand():
    model, windows = model_of("alibi"), ids(9)
    found = loss_by_position(model, windows, batch_size=1)
    with torch.no_grad():
        log_p = model(windows[:, :-1]).double().log_softmax(-1)
    for t in range(8):
        by_hand = -sum(log_p[b, t, windows[b, t + 1]].item() for b in range(2)) / 2
        assert math.isclose(found[t], by_hand, rel_tol=1e-5)


def test_windows_are_spread_over_the_split():
    windows = held_out_windows(np.arange(100), length=9, count=4)
    assert windows[:, 0].tolist() == [0, 22, 45, 68]
    assert (windows.diff() == 1).all()
    assert windows.shape == (4, 10)
    assert held_out_windows(np.arange(10), length=9, count=2)[:, 0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="has 9 tokens; a window needs 10"):
        held_out_windows(np.arange(9), length=9, count=1)


@pytest.fixture
def small_record(tmp_path, monkeypatch):
    monkeypatch.setattr(length_extrapolation, "load", small_corpus)
    lines = []
    return make(tmp_path / "results", say=lines.append, comparison=TINY), tmp_path / "results", lines


def test_a_small_run(small_record):
    record, folder, lines = small_record
    names = [entry["scheme"] for entry in record["models"]]
    assert names == [
        "none", "learned", "learned_clamped", "sinusoidal", "relative", "alibi",
        "rope", "rope_interpolated", "rope_ntk",
    ]  # fmt: skip
    assert len(lines) == len(names)
    assert load_record(folder) == json.loads(json.dumps(record))
    for entry in record["models"]:
        refused = entry["scheme"] == "learned"
        assert list(entry["nats_by_length"]) == (["1-8"] if refused else ["1-8", "9-16", "17-32"])
        assert len(entry["nats_by_bin"]) == (2 if refused else 8)
        assert entry["nats_by_length"]["1-8"] == pytest.approx(np.mean(entry["nats_by_bin"][:2]), abs=2e-4)
        if not refused:
            last = np.mean(entry["nats_by_bin"][4:])
            assert entry["nats_by_length"]["17-32"] == pytest.approx(last, abs=2e-4)
    assert record["characters_trained_on"] == 3 * 2 * 8
    table = extrapolation_table(record).splitlines()
    assert len(table) == 10
    assert table[2].split()[-2:] == ["refused", "refused"]


def test_damaged_and_missing_records_are_named(small_record, tmp_path):
    _, folder, _ = small_record
    with pytest.raises(FileNotFoundError, match="publish length_extrapolation` makes it"):
        load_record(tmp_path)
    path = folder / "record.json"
    whole = path.read_text(encoding="utf-8")
    for damaged in (
        whole[:100],
        "[]",
        "{}",
        whole.replace("nats_by_bin", "nats"),
        whole.replace("bin_size", "b"),
    ):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match="is damaged"):
            load_record(folder)


def test_the_committed_record_is_of_these_settings():
    """What the chapter says of the record in words, so that a new run cannot contradict it silently."""
    record = load_record()
    defaults = Comparison()
    assert record["settings"]["train_length"] == defaults.train_length
    assert record["settings"]["training"]["steps"] == defaults.training.steps
    assert record["command"] == "python -m llm_from_scratch.recipes.publish length_extrapolation"
    losses = {entry["scheme"]: list(entry["nats_by_length"].values()) for entry in record["models"]}
    for entry in record["models"]:
        scheme = entry["scheme"].split("_")[0]
        config = model_config(defaults, scheme, record["vocab_size"])
        with torch.device("meta"):
            assert entry["parameters"] == Decoder(config).num_parameters()
    assert len(losses["learned"]) == 1
    # What the chapter says in words: who breaks at once, who holds for a while, who does not notice.
    bins = {entry["scheme"]: entry["nats_by_bin"] for entry in record["models"]}
    jump = {name: losses[8] - losses[7] for name, losses in bins.items() if len(losses) > 8}
    assert all(jump[name] > 1.4 for name in ("learned_clamped", "sinusoidal"))
    assert all(jump[name] < 0.1 for name in ("none", "relative", "alibi", "rope"))
    assert max(losses["alibi"]) - min(losses["alibi"]) < 0.03
    others = [nats[2] for name, nats in losses.items() if name not in ("alibi", "learned")]
    assert losses["alibi"][2] < min(others)
    assert losses["rope"][0] + 0.3 < losses["rope"][1] < losses["rope"][2] - 0.3
    assert max(bins["rope"][:11]) < 1.5 < 1.9 < min(bins["rope"][11:])  # up to position 176
    assert losses["relative"][0] + 0.05 < losses["relative"][1] < losses["relative"][2] - 0.3
    assert losses["none"][0] == max(nats[0] for name, nats in losses.items() if name != "rope_interpolated")
    assert bins["none"][7] - bins["none"][0] > 0.1  # rises within the training length already
    assert losses["rope_interpolated"][0] > losses["rope"][0] + 1.5
    assert 0 < losses["rope_ntk"][0] - losses["rope"][0] < 0.03
    assert losses["rope_ntk"][1] < losses["rope_ntk"][0] < losses["rope_ntk"][2] - 0.4
    on_the_way = {entry["scheme"]: entry["validation_loss"] for entry in record["models"]}
    lead = {step: on_the_way["learned"][step] - on_the_way["rope"][step] for step in ("500", "1500")}
    assert lead["500"] > 0.5 > 0.2 > lead["1500"] > 0
    assert "length_extrapolation" in publish.COMPARISONS
