"""Fits of scaling laws: known laws come back, intervals hold them, mistakes are refused."""

import numpy as np
import pytest

from llm_from_scratch.training.planning.scaling import (
    ScalingLaw,
    bootstrap,
    fit_law,
    isoflop_fit,
    power_law,
)

LAW = ScalingLaw(E=1.2, A=8.0, a=0.35, B=30.0, b=0.3)


def runs_of(law, noise, seed=0):
    """Seven sizes around the best one at each of four budgets, C = 6 N D."""
    budgets = np.repeat(np.geomspace(1e11, 5e12, 4), 7)
    sizes = law.best_parameters(budgets) * np.tile(np.geomspace(0.12, 8.0, 7), 4)
    tokens = budgets / (6 * sizes)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(sizes)))
    return budgets, sizes, tokens, law(sizes, tokens) * scatter


def test_a_law_without_noise_comes_back():
    _, sizes, tokens, losses = runs_of(LAW, 0.0)
    fitted = fit_law(sizes, tokens, losses)
    for name in ("E", "A", "a", "B", "b"):
        assert getattr(fitted, name) == pytest.approx(getattr(LAW, name), rel=0.02)
    assert fitted.exponent == pytest.approx(LAW.exponent, abs=0.002)


@pytest.mark.parametrize("seed", range(3))
def test_with_noise_both_ways_find_the_exponent_and_the_interval_holds_it(seed):
    budgets, sizes, tokens, losses = runs_of(LAW, 0.002, seed)
    fitted = fit_law(sizes, tokens, losses)
    assert fitted.exponent == pytest.approx(LAW.exponent, abs=0.05)

    def valleys(i):
        found, best, _ = isoflop_fit(budgets[i], sizes[i], losses[i])
        if len(found) < 3:
            raise ValueError("too few")
        return power_law(found, best)[1]

    assert valleys(np.arange(len(sizes))) == pytest.approx(LAW.exponent, abs=0.05)
    drawn = bootstrap(valleys, len(sizes), draws=60)
    assert drawn[0] < LAW.exponent < drawn[-1]
    assert (np.diff(drawn) >= 0).all()
    again = [
        fit_law(sizes[i], tokens[i], losses[i], start=fitted).exponent
        for i in np.random.default_rng(seed).integers(len(sizes), size=(20, len(sizes)))
    ]
    assert min(again) < LAW.exponent < max(again)


def test_one_run_that_went_wrong_hardly_moves_the_fit():
    _, sizes, tokens, losses = runs_of(LAW, 0.0)
    losses = losses.copy()
    losses[11] *= 1.5
    assert fit_law(sizes, tokens, losses).exponent == pytest.approx(LAW.exponent, abs=0.01)


def test_the_best_size_is_the_lowest_point():
    sizes = np.geomspace(1e3, 1e7, 4001)
    for flops in (1e11, 3e13):
        losses = LAW(sizes, flops / (6 * sizes))
        assert sizes[losses.argmin()] == pytest.approx(LAW.best_parameters(flops), rel=0.005)


def test_valleys_without_a_bottom_are_left_out():
    x = np.exp(np.array([9.0, 10.0, 11.0] * 3 + [9.0, 10.0]))
    losses = np.array([2.0, 1.0, 2.0, 3.0, 2.0, 1.5, 1.0, 2.0, 1.0, 1.0, 1.0])
    budgets = np.array([1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [4.0] * 2)
    found, best, curves = isoflop_fit(budgets, x, losses)
    assert found.tolist() == [1.0]
    assert best == pytest.approx([np.exp(10.0)])
    assert curves.shape == (1, 3)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="of six runs or more"):
        fit_law(np.ones(5), np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="above 0 and finite"):
        fit_law(np.ones(6), np.ones(6), np.zeros(6))
    with pytest.raises(ValueError, match="three sizes"):
        isoflop_fit(np.ones(2), np.array([1.0, 2.0]), np.ones(2))
    with pytest.raises(ValueError, match="only 0 of 50 draws"):
        bootstrap(lambda i: float("nan"), 4, draws=5)
