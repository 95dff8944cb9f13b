import math

import pytest
import torch

from llm_from_scratch.decoding.rerank import best_of_n, rerank


def test_the_order_is_that_of_the_scores_and_stable():
    calls = []

    def scorer(word):
        calls.append(word)
        return torch.tensor(len(word))

    ranked = rerank((word for word in ["bb", "a", "ccc", "dd", ""]), scorer)
    assert [(r.score, r.candidate, r.index) for r in ranked] == [
        (3.0, "ccc", 2), (2.0, "bb", 0), (2.0, "dd", 3), (1.0, "a", 1), (0.0, "", 4)
    ]  # fmt: skip
    assert calls == ["bb", "a", "ccc", "dd", ""]  # each once
    assert rerank([1, 2], lambda x: math.inf * (x - 1.5))[0].candidate == 2
    assert [r.candidate for r in rerank([{"a": 1}, {"b": 2}], lambda d: 0.0)] == [{"a": 1}, {"b": 2}]


def test_more_candidates_score_higher():
    def draw(seed):
        return torch.randn(1, generator=torch.Generator().manual_seed(seed)).item()

    best = [best_of_n(draw, float, n=n, seed=3)[0].score for n in (1, 4, 16, 64)]
    assert best == sorted(best)
    assert best[0] < best[-1]
    assert [r.index for r in sorted(best_of_n(draw, float, n=5), key=lambda r: r.index)] == list(range(5))
    assert best_of_n(draw, float, n=4, seed=9) == best_of_n(draw, float, n=4, seed=9)
    assert best_of_n(lambda seed: seed, float, n=3, seed=7)[0].candidate == 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rerank([], len), "no candidate to rank; draw at least one"),
        (lambda: rerank(["a"], lambda _: math.nan), "score of candidate 0 is NaN"),
        (lambda: rerank(["a"], lambda _: None), "one number, got None for candidate 0"),
        (lambda: rerank(["a"], lambda _: torch.zeros(2)), "one number, got tensor"),
        (lambda: best_of_n(int, float, n=0), "n must be a whole number of at least 1, got 0"),
        (lambda: best_of_n(int, float, n=2.0), "got 2.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
