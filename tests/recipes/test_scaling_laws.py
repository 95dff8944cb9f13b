"""The recipe of the scaling laws: whole, on a few pages, and what is stored."""

import numpy as np
import pytest
import torch

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes import publish, scaling_laws
from llm_from_scratch.training.planning.scaling import isoflop_fit, power_law
from llm_from_scratch.training.planning.speed import training_flops_per_token
from tests.recipes.conftest import small_corpus

SMALL = scaling_laws.Settings(
    sizes=((4, 1, 1), (6, 1, 1), (8, 1, 1)),
    budgets=(2e7, 4e7),
    context_length=12,
    batch_size=2,
    fewest_steps=4,
    warmup_steps=1,
    eval_batches=2,
    swept=((4, 1, 1), (8, 1, 1)),
    rates=(4e-3, 8e-3),
    sweep_steps=4,
    repeated=(6, 1, 1),
    repeated_budget=2e7,
    seeds=(1, 2),
)


@pytest.fixture(autouse=True)
def _pages(monkeypatch):
    monkeypatch.setattr(scaling_laws, "load", small_corpus)


def test_every_size_meets_every_budget(tmp_path):
    record = scaling_laws.make(tmp_path, say=lambda line: None, settings=SMALL)
    assert record == scaling_laws.load_record(tmp_path)
    for run in record["runs"]:
        assert run["tokens"] * run["flops_per_token"] == pytest.approx(run["budget"], rel=0.1)
        assert run["tokens"] <= record["training_bytes"]
        assert run["parameters"] - run["non_embedding"] == 256 * run["d_model"]
    assert len(scaling_laws.isoflop_runs(record)) + 1 == len(record["runs"])  # one was repeated
    assert len(record["sweep"]) == 4
    table = scaling_laws.comparison_table(record).splitlines()
    assert len(table) == 4
    assert len({len(line) for line in table}) == 1


def test_cooling_a_copy_down_leaves_the_run_alone():
    bench = scaling_laws.Bench(SMALL)
    straight = scaling_laws.Run(bench, (6, 1, 1), 8e-3, 1)
    expected = straight.loss_after(30)
    stopped = scaling_laws.Run(bench, (6, 1, 1), 8e-3, 1)
    assert stopped.loss_after(10) != expected
    assert stopped.step == 8  # where the copy left the plateau
    assert stopped.loss_after(30) == expected


def test_windows_are_read_at_most_once():
    bench = scaling_laws.Bench(SMALL)
    assert len(set(bench.starts.tolist())) == len(bench.starts)
    assert (np.diff(np.sort(bench.starts)) == SMALL.context_length).all()
    assert bench.steps((4, 1, 1), 1e12) == 0  # more than there are data
    assert bench.steps((4, 1, 1), 1e3) == 0


def test_the_first_weights_spread_with_the_width():
    torch.manual_seed(0)
    model = Decoder(scaling_laws.Bench(SMALL).config((64, 2, 2)))
    scaling_laws.widen_start(model)
    assert model.token_embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert (model.norm.weight == 1).all()


def test_rates_follow_the_best_of_the_sweep():
    sweep = [
        {"parameters": size, "rate": rate, "loss": abs(np.log(rate * size**0.5))}
        for size in (100, 10_000)
        for rate in (0.001, 0.01, 0.1)
    ]
    factor, exponent = scaling_laws.rate_rule(sweep)
    assert (factor, exponent) == pytest.approx((1.0, -0.5))


def test_no_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish scaling_laws` makes it"):
        scaling_laws.load_record(tmp_path)
    assert scaling_laws.NAME in publish.COMPARISONS


def test_the_stored_record_holds_a_scaling_law():
    record = scaling_laws.load_record()
    runs = scaling_laws.isoflop_runs(record)
    assert len({run["parameters"] for run in runs}) >= 6
    assert max(run["tokens"] for run in runs) < record["training_bytes"]  # less than one pass
    columns = (np.array([run[key] for run in runs]) for key in ("budget", "parameters", "loss"))
    budgets, best, curves = isoflop_fit(*columns)
    assert len(budgets) >= 3
    assert (np.diff(best) > 0).all()  # more operations, a larger best model
    lowest = [np.polyval(curve, np.log(size)) for curve, size in zip(curves, best, strict=True)]
    assert (np.diff(lowest) < 0).all()
    assert 0.2 < power_law(budgets, best)[1] < 1.0
    config = scaling_laws.Bench(scaling_laws.Settings()).config((48, 2, 2))
    (one, *_) = [run for run in runs if run["d_model"] == 48]
    assert one["flops_per_token"] == training_flops_per_token(config)
