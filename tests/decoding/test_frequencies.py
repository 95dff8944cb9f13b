"""What is drawn, counted, against the probabilities worked out in plain Python: chi-square tests.

The chi-square statistic sums ``(count - expected)^2 / expected`` over the tokens. If the draws follow
the expected probabilities it exceeds LIMIT once in a thousand runs; the seeds are fixed, so a test
that is green stays green. The last tests break a sampler and see that the statistic tells.
"""

import math
from functools import partial

import pytest
import torch

from llm_from_scratch.decoding import sampling
from llm_from_scratch.decoding.bad_words import forbid_sequences
from llm_from_scratch.decoding.logits import keep_top_k, keep_typical
from llm_from_scratch.decoding.pipeline import scores_only
from llm_from_scratch.decoding.repetition import (
    forbid_repeated_ngrams,
    penalise_presence_and_frequency,
    penalise_repetition,
)

P = [0.34, 0.22, 0.15, 0.11, 0.09, 0.06, 0.03]
SCORES = [math.log(p) + 2 for p in P]  # some positive, some negative
PROMPT = [2, 0, 5, 0]
N = 2_000
LIMIT = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}  # by degrees of freedom


def model(ids_BT):
    return torch.tensor(SCORES).expand(*ids_BT.shape, 7)


def draw(**settings):
    """The first token after the prompt, drawn N times with as many seeds."""
    tokens = [sampling.sample(model, PROMPT, max_new_tokens=1, seed=i, **settings)[0] for i in range(N)]
    return [tokens.count(i) for i in range(7)]


def shares(weights):
    return [w / sum(weights) for w in weights]


def softmax(scores):
    return shares([math.exp(s) for s in scores])


def chi_square(counts, expected):
    """The statistic divided by its limit: above 1 is red. A token that cannot be drawn makes it infinite."""
    assert sum(counts) == N
    if any(count and not p for count, p in zip(counts, expected, strict=True)):
        return math.inf
    possible = [(count, N * p) for count, p in zip(counts, expected, strict=True) if p]
    assert min(e for _, e in possible) > 5  # below, the limit does not hold
    return sum((count - e) ** 2 / e for count, e in possible) / LIMIT[len(possible) - 1]


def only(*kept):
    return shares([p if i in kept else 0.0 for i, p in enumerate(P)])


CASES = {
    "as they are": ({}, P),
    "temperature": ({"temperature": 1.7}, shares([p ** (1 / 1.7) for p in P])),
    "top-k": ({"top_k": 3}, only(0, 1, 2)),
    "top-p": ({"top_p": 0.7}, only(0, 1, 2)),  # 0.34 + 0.22 + 0.15 is the first sum to reach it
    "min-p": ({"min_p": 0.3}, only(0, 1, 2, 3)),  # 0.3 * 0.34 = 0.102
    "temperature before top-p": (
        {"temperature": 2.0, "top_p": 0.7},  # the square roots: 0.58, 0.47, 0.39, 0.33 of 2.49
        shares([math.sqrt(p) if i < 4 else 0.0 for i, p in enumerate(P)]),
    ),
    "typical": (  # entropy 1.72; surprises 1.08, 1.51, 1.90, 2.21, ...: closest are tokens 2, 1, 3
        {"pipeline": [scores_only(keep_typical, typical_p=0.45)]},
        only(1, 2, 3),
    ),
    "repetition penalty": (
        {"pipeline": [partial(penalise_repetition, penalty=1.5)]},
        softmax([s if i not in PROMPT else s / 1.5 if s > 0 else s * 1.5 for i, s in enumerate(SCORES)]),
    ),
    "presence and frequency": (
        {"pipeline": [partial(penalise_presence_and_frequency, presence=0.4, frequency=0.3)]},
        softmax([s - 0.4 * (i in PROMPT) - 0.3 * PROMPT.count(i) for i, s in enumerate(SCORES)]),
    ),
    "no 2-gram twice": ({"pipeline": [partial(forbid_repeated_ngrams, size=2)]}, only(0, 1, 2, 3, 4, 6)),
    "bad words": (
        {"pipeline": [partial(forbid_sequences, sequences=[[1], [5, 0, 3], [5, 4]])]},
        only(0, 2, 4, 5, 6),
    ),
    "penalty before top-k": (
        {"pipeline": [partial(penalise_presence_and_frequency, presence=9.0)], "top_k": 2},
        only(1, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_frequencies_are_the_probabilities(case):
    settings, expected = CASES[case]
    assert chi_square(draw(**settings), expected) < 1


def test_of_each_position_of_a_text():
    """A text of two tokens: the joint frequencies are the products of the probabilities."""
    table = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]
    texts = [
        tuple(sampling.sample(lambda i: torch.tensor(table).log()[i], [0], max_new_tokens=2, seed=s))
        for s in range(N)
    ]
    statistic = 0.0
    for a in range(3):
        for b in range(3):
            expected = N * table[0][a] * table[a][b]
            statistic += (texts.count((a, b)) - expected) ** 2 / expected
    assert statistic < 26.12  # 8 degrees of freedom


def one_too_many(logits_BV, *, top_k):
    return keep_top_k(logits_BV, top_k=top_k + 1)


def one_too_few(logits_BV, *, top_k):
    return keep_top_k(logits_BV, top_k=top_k - 1)


def not_renormalised(logits_BV, **settings):
    """What was cut off goes to the most likely token instead of to all that stay."""
    cut_BV = true_probabilities(logits_BV, **settings)
    probs_BV = logits_BV.softmax(-1) * (cut_BV > 0)
    probs_BV[..., 0] += 1 - probs_BV.sum(-1)
    return probs_BV


true_probabilities = sampling.next_token_probabilities


@pytest.mark.parametrize(
    ("name", "broken", "case"),
    [
        ("keep_top_k", one_too_many, "top-k"),
        ("keep_top_k", one_too_few, "top-k"),
        ("apply_temperature", lambda x, temperature: x * temperature, "temperature"),
        ("apply_temperature", lambda x, temperature: x, "temperature"),
        ("next_token_probabilities", not_renormalised, "top-p"),
        ("next_token_probabilities", not_renormalised, "min-p"),
        ("run_pipeline", lambda pipeline, ids, x: x, "repetition penalty"),
    ],
)
def test_a_broken_sampler_is_told(monkeypatch, name, broken, case):
    settings, expected = CASES[case]
    monkeypatch.setattr(sampling, name, broken)
    assert chi_square(draw(**settings), expected) > 1
