"""A cache of few bits: the same behaviour as `KVCache`, scores within bounds, bytes as counted."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.inference import KVCache, QuantisedCache, generate, speculative_generate
from llm_from_scratch.inference.drafts import PromptLookup
from llm_from_scratch.inference.group_rounding import restore_groups, round_groups
from llm_from_scratch.models.decoder import DecoderConfig
from tests.small_decoders import build, ids_like, in_pieces

SIZES = {"vocab_size": 31, "context_length": 97, "d_model": 36, "num_layers": 3, "num_heads": 6}
FAMILIES = {
    "gpt2": DecoderConfig.gpt2(**SIZES),
    "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "window": DecoderConfig.llama(**SIZES, num_kv_heads=3, sliding_window=11),
    "window of one": DecoderConfig.llama(**SIZES, sliding_window=1),
}


MODELS = {name: build(config, noise=0.1) for name, config in FAMILIES.items()}


def numbers_without_error(L, B, K, T, D, generator):
    """Keys of 0 and 255 alone, values from 0 to 255 with both in each row: eight bits hold them exactly."""
    keys = 255.0 * torch.randint(2, (L, B, K, T, D), generator=generator)
    values = torch.randint(256, (L, B, K, T, D), generator=generator).float()
    values[..., 0], values[..., 1] = 0.0, 255.0
    return keys, values


@pytest.mark.parametrize("window", [None, 1, 2, 7, 30])
@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_same_behaviour(window, data):
    """Any course of passes, failed passes and cuts: what is looked at equals the plain cache's."""
    config = DecoderConfig.llama(**{**SIZES, "num_layers": 2}, num_kv_heads=2, sliding_window=window)
    sizes = {
        "batch_size": data.draw(st.integers(1, 2)),
        "max_length": data.draw(st.integers(1, 97)),
        "rollback": data.draw(st.sampled_from([0, 1, 5, 16])),
    }
    plain = KVCache(config, **sizes)
    cache = QuantisedCache(config, bits=8, group_length=data.draw(st.sampled_from([1, 2, 5, 8])), **sizes)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    taken = 0  # tokens taken back and not read again: with a window, at most `rollback` in all
    for _ in range(data.draw(st.integers(1, 12))):
        step = data.draw(st.integers(1, 40))
        action = data.draw(st.sampled_from(["read", "read", "read", "fail", "cut"]))
        if action == "cut":
            back = data.draw(st.integers(0, min(plain.length, sizes["rollback"] - taken if window else 97)))
            taken += back
            plain.truncate(plain.length - back)
            cache.truncate(cache.length - back)
        elif plain.length + step > plain.max_length:
            for each in (plain, cache):
                with pytest.raises(ValueError, match=f"exceed max_length={plain.max_length}"):
                    each.begin(step)
        else:
            keys, values = numbers_without_error(2, sizes["batch_size"], 2, step, 6, generator)
            plain.begin(step)
            cache.begin(step)
            for layer in range(1 if action == "fail" else 2):
                expected = plain.append(layer, keys[layer], values[layer])
                found = cache.append(layer, keys[layer], values[layer])
                assert torch.equal(found[0], expected[0])
                assert torch.equal(found[1], expected[1])
            if action != "fail":
                plain.commit(step)
                cache.commit(step)
                taken = max(0, taken - step)
        assert cache.length == plain.length
        assert cache.stored - cache.rounded <= cache.group_length + cache.rollback - 1
        assert cache.stored >= min(plain.length, (window or 98) - 1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_scores_are_close(name, bits):
    """Each halving of the bits costs; eight are hardly seen."""
    model, ids_BT = MODELS[name], ids_like(2, 97)
    cache = QuantisedCache.for_model(model, batch_size=2, bits=bits, group_length=8, rollback=2)
    found = in_pieces(model, ids_BT, [41] + [1] * 20 + [30, 6], cache)
    with torch.no_grad():
        expected = model(ids_BT)
    error = float((found - expected).norm() / expected.norm())
    if name == "window of one":
        assert error < 1e-5  # nothing rounded is ever looked at
    else:
        assert error < {8: 0.01, 4: 0.15, 2: 0.8}[bits]
        assert error > {8: 1e-4, 4: 3e-3, 2: 1e-2}[bits]  # the rounded numbers are those looked at
        assert cache.rounded > 0


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("groups", ["channel", "token"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_error_is_at_most_half_a_step(bits, groups, data):
    size, offset = data.draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30])), data.draw(st.floats(-9, 9))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    x_BGD = size * (offset + torch.randn(3, 8, 7, generator=generator))
    found = round_groups(x_BGD, bits=bits, groups=groups)
    restored = restore_groups(found, bits=bits, dtype=torch.float32)
    error = (restored.double() - x_BGD.double()).abs()
    dim = {"channel": -2, "token": -1}[groups]
    span = x_BGD.double().amax(dim, keepdim=True) - x_BGD.double().amin(dim, keepdim=True)
    least = x_BGD.double().amin(dim, keepdim=True).abs()
    allowed = 0.5 * (1 + 2**-7) * (span + 2**-7 * least) / (2**bits - 1)
    assert bool((error <= allowed + 1e-6 * (span + least)).all())
    assert found.codes.numel() * 8 == x_BGD.numel() * bits
    assert float(error.max()) > 0


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("groups", ["channel", "token"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.1415927, 1e-42, 65504.0, 3.0e38, -3.0e38])
def test_constants(value, bits, groups):
    x_GD = torch.full((8, 5), value)
    restored = restore_groups(round_groups(x_GD, bits=bits, groups=groups), bits=bits, dtype=x_GD.dtype)
    assert bool(((restored - value).abs() <= abs(value) * 2**-8 + 1e-40).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_none(value):
    """Diverged weights are not hidden; other groups do not suffer."""
    x_GD = torch.ones(8, 5)
    x_GD[3, 2] = value
    restored = restore_groups(round_groups(x_GD, bits=4, groups="channel"), bits=4, dtype=x_GD.dtype)
    assert not restored[3, 2].isfinite()
    assert bool((restored[:, [0, 1, 3, 4]] == 1.0).all())


def test_an_outlying_column_spoils_only_itself():
    """Why keys share a span by channel: a column a hundred times as large would take all the levels."""
    x_GD = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    x_GD[:, 3] *= 100
    errors = {}
    for groups in ("channel", "token"):
        restored = restore_groups(round_groups(x_GD, bits=4, groups=groups), bits=4, dtype=x_GD.dtype)
        errors[groups] = float((restored - x_GD)[:, :3].square().mean())
    assert errors["token"] > 100 * errors["channel"]


def test_huge_keys_and_nan_in_the_cache():
    cache = QuantisedCache(FAMILIES["llama"], bits=4, group_length=4, rollback=0)
    k_BKTD = torch.zeros(1, 2, 9, 6)
    k_BKTD[0, 0, 1, 2], k_BKTD[0, 1, 2, 3] = 1e38, math.nan
    for T in (k_BKTD, k_BKTD[:, :, :1]):
        cache.begin(T.shape[2])
        for layer in range(3):
            keys, _ = cache.append(layer, T, T)
        cache.commit(T.shape[2])
    assert cache.rounded == 8
    assert keys[0, 0, 1, 2] == pytest.approx(1e38, rel=0.01)
    assert bool(keys[0, 1, 2, 3].isnan())
    assert bool((keys[0, 0, :, [0, 1, 3, 4, 5]] == 0).all())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_bytes_are_those_of_the_formula(name, bits):
    config = FAMILIES[name]
    cache = QuantisedCache(config, bits=bits, batch_size=5, max_length=83, group_length=8, rollback=3)
    past = 83 if config.sliding_window is None else config.sliding_window - 1
    N, LBK, D, G = min(83 // 8, math.ceil(past / 8)), 3 * 5 * config.num_kv_heads, 6, 8
    codes, spans, recent = 2 * N * G * D * bits // 8, 4 * (N * D + N * G), 2 * (G + 3 - 1) * D * 4
    assert cache.num_bytes == LBK * (codes + spans + recent)
    storages = {}  # measured: the memory that its tensors hold
    for value in (cache._recent, *cache._rounded[0], *cache._rounded[1]):
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    assert sum(storages.values()) - storages.get(0, 0) == cache.num_bytes


def test_less_memory_than_the_plain_cache():
    config = DecoderConfig.llama(
        vocab_size=11, context_length=2048, d_model=256, num_layers=2, num_heads=4, num_kv_heads=2
    )
    plain = KVCache(config).num_bytes
    shares = {bits: QuantisedCache(config, bits=bits).num_bytes / plain for bits in (8, 4, 2)}
    assert shares[8] < 0.31
    assert shares[4] < 0.19
    assert shares[2] < 0.13


def test_generation_takes_it():
    model = MODELS["llama"]
    for bits in (8, 4):
        new_cache = partial(QuantisedCache.for_model, bits=bits, group_length=8, rollback=4)
        tokens = generate(model, [1, 2, 3], max_new_tokens=110, temperature=0, new_cache=new_cache)
        assert len(tokens) == 110  # past the context too
    few = {"max_new_tokens": 8, "temperature": 0}
    eight = partial(QuantisedCache.for_model, bits=8)
    assert generate(model, [1, 2, 3], new_cache=eight, **few) == generate(model, [1, 2, 3], **few)
    assert speculative_generate(model, [1, 2, 3], draft=PromptLookup(), new_cache=eight, **few) == generate(
        model, [1, 2, 3], **few
    )


def test_a_bfloat16_model():
    model, ids_BT = build(FAMILIES["llama"], noise=0.1).to(torch.bfloat16), ids_like(1, 40)
    cache = QuantisedCache.for_model(model, group_length=8, rollback=0)
    logits = in_pieces(model, ids_BT, [30, 9, 1], cache)
    assert logits.dtype == torch.bfloat16
    with torch.no_grad():
        error = (logits - model(ids_BT)).float().norm() / logits.float().norm()
    assert error < 0.1


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bits": 3}, r"bits must be one of \(8, 4, 2\), got 3"),
        ({"bits": 8.0}, r"bits must be .* got 8.0"),
        ({"group_length": 0}, "group_length must be a whole number .* got 0"),
        ({"group_length": 7, "bits": 4}, "got 7; take a multiple of 2"),
        ({"key_groups": "row"}, "key_groups must be one of .* got 'row'"),
        ({"max_length": 98}, "max_length=98 .* context_length=97"),
        ({"rollback": -1}, "rollback must be .* got -1"),
    ],
)
def test_choices_out_of_range(choices, message):
    with pytest.raises(ValueError, match=message):
        QuantisedCache(FAMILIES["llama"], **choices)


def test_wrong_calls():
    cache = QuantisedCache(FAMILIES["llama"])
    k_BKTD = torch.zeros(1, 2, 3, 6)
    with pytest.raises(ValueError, match="layer 3 is none of the 3 layers"):
        cache.append(3, k_BKTD, k_BKTD)
    with pytest.raises(ValueError, match="holds 0 tokens and cannot be cut to 1"):
        cache.truncate(1)
    with pytest.raises(ValueError, match="new tokens must be a whole number of at least 1, got 0"):
        cache.begin(0)
    with pytest.raises(ValueError, match="9 rows do not fill bytes of 2 codes"):
        round_groups(torch.zeros(9, 2), bits=4, groups="channel")
