import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from llm_from_scratch.decoding.logits import (
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)
from llm_from_scratch.decoding.sampling import next_token_probabilities


def scores(seed, B=3, V=101, spread=3.0):
    return spread * torch.randn(B, V, generator=torch.Generator().manual_seed(seed))


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours.isinf(), theirs.isinf())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("value", [0.1, 0.7, 1.0, 1.9])
def test_temperature_equals_transformers(seed, value):
    x = scores(seed)
    same(apply_temperature(x, temperature=value), TemperatureLogitsWarper(value)(None, x.clone()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("value", [1, 2, 40, 100, 101, 1000])
def test_top_k_equals_transformers(seed, value):
    x = scores(seed)
    kept = keep_top_k(x, top_k=value)
    same(kept, TopKLogitsWarper(value)(None, x.clone()))
    assert (kept.isfinite().sum(-1) == min(value, 101)).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("value", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_top_p_equals_transformers(seed, value):
    x = scores(seed)
    same(keep_top_p(x, top_p=value), TopPLogitsWarper(value)(None, x.clone()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("value", [0.0, 0.02, 0.1, 0.5, 1.0])
def test_min_p_equals_transformers(seed, value):
    x = scores(seed)
    same(keep_min_p(x, min_p=value), MinPLogitsWarper(value)(None, x.clone()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e-9, 0.2, 0.5, 0.9, 0.999])
def test_typical_equals_transformers(value, dtype):
    some = 0
    for seed in range(5):
        x = scores(seed).to(dtype)
        x[:, 1::5] = x[:, 1::5].round()  # ties
        x[:, 2::9] = -math.inf
        x[0, 3:] = -math.inf
        x[1, 8] = 50.0
        before = x.clone()
        kept = keep_typical(x, typical_p=value)
        same(kept, TypicalLogitsWarper(value)(None, x.clone()))
        assert torch.equal(x, before)
        some += (kept != x).sum()
    assert some > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_impossible_tokens_and_extreme_settings_equal_transformers(dtype):
    for seed in range(3):
        x = scores(seed).to(dtype)
        x[:, 2::9] = -math.inf
        x[0, 1:] = -math.inf
        x[1, 8] = 80.0
        for value in (1e-9, 1e-3, 1 - 1e-5):
            same(keep_top_p(x, top_p=value), TopPLogitsWarper(value)(None, x.clone()))
        same(keep_top_p(x[2:], top_p=1.0), x[2:])
        for value in (1e-6, 1e6):
            same(apply_temperature(x, temperature=value), TemperatureLogitsWarper(value)(None, x.clone()))
        for value in (1, 3, 5000):
            same(keep_top_k(x, top_k=value), TopKLogitsWarper(value)(None, x.clone()))
        x[2] = x[2].round()  # with ties, which top-k and top-p break by the lower id
        for value in (0.0, 1e-30, 1e-5, 0.3, 1.0):
            same(keep_min_p(x, min_p=value), MinPLogitsWarper(value)(None, x.clone()))


def test_top_p_of_one_keeps_every_token():
    x = scores(0, V=50_021)
    assert torch.equal(keep_top_p(x, top_p=1.0), x)


def test_typical_may_drop_the_most_likely_token():
    x = torch.tensor([[0.4] + [0.6 / 12] * 12]).log()
    assert keep_typical(x, typical_p=0.5).isfinite().tolist() == [[False] + [True] * 12]
    assert keep_typical(x, typical_p=0.7).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_keep_what_float32_keeps(dtype):
    for seed in range(3):
        x = scores(seed, V=5003).to(dtype)
        x[:, 5::11] = -math.inf
        reference = x.float() if dtype != torch.float64 else x
        pairs = [
            (keep_top_p(x, top_p=0.97), TopPLogitsWarper(0.97)),
            (keep_typical(x, typical_p=0.9), TypicalLogitsWarper(0.9)),
            (keep_min_p(x.float(), min_p=0.01).to(dtype), MinPLogitsWarper(0.01)),
        ]
        for kept, theirs in pairs:
            expected = theirs(None, reference.clone())
            assert kept.dtype == dtype
            differ = (kept.isfinite() != expected.isfinite()).sum()
            assert differ <= (20 if dtype == torch.bfloat16 else 3)  # ties at the border; rounded sums
            stays = kept.isfinite()
            assert torch.equal(kept[stays], x[stays])
            assert 1 < stays.sum() < 0.6 * stays.numel()
        same(apply_temperature(x, temperature=0.3), TemperatureLogitsWarper(0.3)(None, x.clone()))
        kth_B1 = x.sort(descending=True).values[:, 40:41]
        kept = keep_top_k(x, top_k=41)
        assert (kept.isfinite().sum(-1) == 41).all()
        assert (TopKLogitsWarper(41)(None, x.clone()).isfinite() == (x >= kth_B1)).all()
        assert (kept.isfinite() <= (x >= kth_B1)).all()


def test_all_together_equal_transformers_in_their_order():
    x = scores(7)
    chain = [
        TemperatureLogitsWarper(1.3),
        TopKLogitsWarper(30),
        TopPLogitsWarper(0.9),
        MinPLogitsWarper(0.05),
    ]
    expected = x.clone()
    for step in chain:
        expected = step(None, expected)
    ours = next_token_probabilities(x, temperature=1.3, top_k=30, top_p=0.9, min_p=0.05)
    torch.testing.assert_close(ours, expected.softmax(-1), rtol=1e-6, atol=1e-6)
    assert 1 < (ours > 0).sum(-1).min() <= (ours > 0).sum(-1).max() < 30


whole = st.integers(-9, 9).map(float)  # many ties
rows = st.lists(whole | st.just(-math.inf), min_size=1, max_size=9).filter(lambda row: max(row) > -math.inf)


@settings(max_examples=200, deadline=None)
@given(row=rows, k=st.integers(1, 10), p=st.floats(1e-9, 1.0), ratio=st.floats(0.0, 1.0))
def test_the_most_likely_stays_and_nothing_kept_changes(row, k, p, ratio):
    x = torch.tensor(row)
    before = x.clone()
    for kept in (keep_top_k(x, top_k=k), keep_top_p(x, top_p=p), keep_min_p(x, min_p=ratio)):
        stays = kept.isfinite()
        assert stays[x.argmax()]
        assert torch.equal(kept[stays], x[stays])
        assert torch.equal(x, before)  # the input is untouched
        dropped = x[~stays]
        assert dropped.numel() == 0 or dropped.max() <= kept[stays].min()


@settings(max_examples=200, deadline=None)
@given(row=rows, p=st.floats(1e-6, 1.0))
def test_top_p_keeps_the_fewest_that_reach_it(row, p):
    probs = torch.tensor(row, dtype=torch.float64).softmax(-1)
    stays = keep_top_p(torch.tensor(row, dtype=torch.float64), top_p=p).isfinite()
    total = probs[stays].sum()
    assert total >= p - 1e-9
    if stays.sum() > 1:
        assert total - probs[stays].min() < p + 1e-9


def test_ties_at_the_border_keep_the_lower_id():
    x = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    assert keep_top_k(x, top_k=2).isfinite().tolist() == [[False, True, True, False, False]]
    even = torch.zeros(1, 4)
    assert keep_top_p(even, top_p=0.5).isfinite().tolist() == [[True, True, False, False]]
    assert keep_top_p(even, top_p=0.51).isfinite().tolist() == [[True, True, True, False]]
    assert keep_min_p(x, min_p=1.0).isfinite().tolist() == [[False, True, True, True, False]]
    wide = torch.zeros(1, 5003)
    assert keep_top_k(wide, top_k=7).isfinite().nonzero()[:, 1].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: apply_temperature(x, temperature=0.0), r"temperature .* got 0.0; sample\(temperature=0\)"),
        (lambda x: apply_temperature(x, temperature=-1.0), "got -1.0"),
        (lambda x: apply_temperature(x, temperature=math.nan), "got nan"),
        (lambda x: apply_temperature(x, temperature=math.inf), "got inf"),
        (lambda x: keep_top_k(x, top_k=0), "top_k must be a whole number of at least 1, got 0"),
        (lambda x: keep_top_k(x, top_k=2.0), "got 2.0"),
        (lambda x: keep_top_p(x, top_p=0.0), r"top_p must be in \(0, 1\], got 0.0"),
        (lambda x: keep_top_p(x, top_p=1.1), "got 1.1"),
        (lambda x: keep_top_p(x, top_p=math.nan), "got nan"),
        (lambda x: keep_min_p(x, min_p=-0.1), r"min_p must be in \[0, 1\], got -0.1"),
        (lambda x: keep_min_p(x, min_p=1.5), "got 1.5"),
        (lambda x: keep_typical(x, typical_p=0.0), r"typical_p must be in \(0, 1\), got 0.0; None"),
        (lambda x: keep_typical(x, typical_p=1.0), "got 1.0"),
        (lambda x: keep_typical(x, typical_p=math.nan), "got nan"),
    ],
)
def test_settings_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3))
