"""The command that compares decoding with transformers: green as it is, red when a step is broken."""

import math

import pytest
import torch

from llm_from_scratch.decoding import parity
from llm_from_scratch.decoding.search import beam_search


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(parity, "SEEDS", range(2))
    monkeypatch.setattr(parity, "DRAWS", 1_000)


def test_the_command_prints_every_step_and_is_green():
    lines = []
    assert parity.main(lines.append) == 0
    text = "\n".join(lines)
    for name in (
        "temperature",
        "min-p",
        "typical",
        "bad words",
        "five of them in a row",
        "beam search, Llama",
    ):
        assert name in text
    assert "inf" not in text


@pytest.mark.parametrize("name", ["keep_top_k", "keep_min_p", "keep_typical", "forbid_sequences"])
def test_a_step_that_does_nothing_is_told(monkeypatch, name):
    monkeypatch.setattr(parity, name, lambda *scores, **settings: scores[-1])
    assert max(row.figure for row in parity.compare_steps()) == math.inf


def test_a_penalty_of_another_size_is_told(monkeypatch):
    true = parity.penalise_repetition
    monkeypatch.setattr(
        parity, "penalise_repetition", lambda i, x, penalty: true(i, x, penalty=penalty + 0.01)
    )
    assert max(row.figure for row in parity.compare_steps()) > parity.BOUND


def test_a_search_that_favours_length_is_told(monkeypatch):
    def other(*arguments, length_penalty, **settings):
        return beam_search(*arguments, length_penalty=length_penalty + 0.1, **settings)

    monkeypatch.setattr(parity, "beam_search", other)
    assert max(row.figure for row in parity.compare_beams()) > parity.BEAM_BOUND


def test_a_sampler_at_the_wrong_temperature_is_told(monkeypatch):
    true = parity.draw_token
    monkeypatch.setattr(
        parity, "draw_token", lambda logits, *rest, **settings: true(1.5 * logits, *rest, **settings)
    )
    assert min(row.figure for row in parity.compare_frequencies()) < parity.LEAST_P


def test_p_value():
    counts, probs = torch.tensor([30, 70]), torch.tensor([0.4, 0.6])
    exact = math.erfc(math.sqrt((100 / 24) / 2))  # one degree of freedom: the tail of a squared normal number
    assert parity.p_value(counts, probs) == pytest.approx(exact)
    assert parity.p_value(torch.tensor([1, 99, 1]), torch.tensor([0.5, 0.5, 0.0])) == 0.0
