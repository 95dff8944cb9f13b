"""The compiled step gives the scores of the model, and greedy generation the tokens of transformers."""

import copy
import functools
import platform
import warnings
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.decoding import greedy_search, sample
from llm_from_scratch.inference import FastDecoder, NativeStep, SlotCache, quantise_weights, ragged_forward
from llm_from_scratch.inference import native_library as native
from llm_from_scratch.inference.native_step import matrix_of
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.weight_only import WeightOnlyLinear
from tests.inference.test_generate import FOLDERS
from tests.inference.test_kv_cache import MODELS, SIZES, build, ids_like

try:
    native.native_library()
    REASON = ""
except native.NoCompilerError as error:
    REASON = str(error)
compiled = pytest.mark.skipif(bool(REASON), reason=REASON)
EXTRA = {
    "untied biases, exact gelu": DecoderConfig.gpt2(
        **{**SIZES, "num_heads": 3}, tie_embeddings=False, feedforward="gelu_exact", d_ff=71
    ),
    "one layer, one head": DecoderConfig.llama(
        vocab_size=31, context_length=29, d_model=34, num_layers=1, num_heads=1, d_ff=33
    ),
    "wide": DecoderConfig.llama(
        vocab_size=31,
        context_length=29,
        d_model=160,
        num_layers=2,
        num_heads=5,
        d_ff=432,
        tie_embeddings=True,
    ),
}
ALL = MODELS | {name: build(config) for name, config in EXTRA.items()}
FORMATS = {
    "fp32": {},
    "int8": {"bits": 8},
    "int4": {"bits": 4},
    "int4 in groups of 64": {"bits": 4, "group_size": 64, "embedding_bits": 4},
}


def test_a_quantised_copy_keeps_the_mode():
    """Where one part is in training mode, each token would pay for switching all of them to and fro."""
    for model in (ALL["wide"].eval(), copy.deepcopy(ALL["wide"]).train()):
        parts = quantise_weights(model, bits=8).modules()
        assert {part.training for part in parts} == {model.training}


def close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)


# Registers of 16, 8 and 4 numbers, and this machine's own: each has code of its own in product.h.
PROCESSORS = ["native"]
if platform.machine() == "x86_64":
    PROCESSORS += ["x86-64-v3", "x86-64"]
    cpuinfo = Path("/proc/cpuinfo")
    PROCESSORS += ["x86-64-v4"] if cpuinfo.is_file() and "avx512bw" in cpuinfo.read_text() else []


@functools.cache
def library_for(processor):
    """The library compiled for a processor that this one can stand in for."""
    flags = native.FLAGS
    try:
        native.FLAGS = tuple(f"-march={processor}" if f == "-march=native" else f for f in flags)
        return native.native_library.__wrapped__()
    finally:
        native.FLAGS = flags


@compiled
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("bits", [0, 8, 4])
@given(N=st.integers(1, 19), C=st.integers(1, 131), B=st.integers(1, 19), bias=st.booleans())
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_a_product_is_that_of_the_definition(processor, bits, N, C, B, bias):
    layer = torch.nn.Linear(C, N, bias=bias)
    layer = WeightOnlyLinear(layer, bits=bits, group_size=32 << N % 3) if bits else layer
    x_BC = torch.zeros(B, -(-C // 32) * 32)
    x_BC[:, :C] = torch.randn(B, C)
    y_BN = torch.full((B, N), torch.nan)
    struct = matrix_of(layer, kept := [])
    library_for(processor).multiply(struct, B, x_BC.data_ptr(), x_BC.shape[1], y_BN.data_ptr(), 2)
    assert kept
    with torch.no_grad():
        torch.testing.assert_close(y_BN, layer(x_BC[:, :C]), rtol=1e-5, atol=1e-5)


@compiled
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("B", [1, 3])
def test_token_by_token_to_the_end_of_the_context(name, kind, B):
    model = ALL[name]
    model = quantise_weights(model, **FORMATS[kind]) if FORMATS[kind] else model
    fast, ids_BT = FastDecoder(model), ids_like(B, 29)
    assert fast.compiled
    with torch.no_grad():
        expected = model(ids_BT)
        assert expected.std() > 0.5
        for T in range(1, 30):
            close(fast(ids_BT[:, :T]), expected[:, T - 1 : T])
    assert fast.tokens_read == 29


@compiled
@pytest.mark.parametrize("name", ALL)
def test_texts_of_different_lengths(name):
    """B texts in slots in any order, each with a length of its own: as the scheduler reads them."""
    model = ALL[name]
    step, theirs = NativeStep(model), SlotCache.for_model(model, num_slots=5, max_length=23)
    ours = SlotCache.for_model(model, num_slots=5, max_length=23)
    texts = {
        4: ids_like(1, 20, 1)[0].tolist(),
        0: ids_like(1, 3, 2)[0].tolist(),
        2: ids_like(1, 9, 3)[0].tolist(),
    }
    for cache in (ours, theirs):
        ragged_forward(model, list(texts.items()), cache)
    for new in ([1, 2, 3], [30, 7, 7]):
        pieces = [(slot, [token]) for slot, token in zip(texts, new, strict=True)]
        expected = ragged_forward(model, pieces, theirs)
        lengths = [ours.lengths[slot] for slot in texts]
        found = step(
            new, ours.keys_LBKSD, ours.values_LBKSD, slots=list(texts), stored=lengths, positions=lengths
        )
        for slot in texts:
            ours.lengths[slot] += 1
        close(found, expected)
    torch.testing.assert_close(ours.keys_LBKSD, theirs.keys_LBKSD, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.values_LBKSD, theirs.values_LBKSD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=compiled)])
def test_weights_by_name(kind, compile):
    model, ids_BT = MODELS["llama"], ids_like(1, 13)
    before = copy.deepcopy(model.state_dict())
    fast = FastDecoder(model, weights=kind, compile=compile)
    with torch.no_grad():
        expected = quantise_weights(model, bits=int(kind[3:]))(ids_BT)
        for T in (7, 8, 9):
            close(fast(ids_BT[:, :T]), expected[:, T - 1 : T])
        assert (expected - model(ids_BT)).abs().max() > 0.05  # quantised indeed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@compiled
def test_without_a_compiler_the_same_scores_and_a_warning(monkeypatch, tmp_path):
    model, ids_BT = MODELS["everything"], ids_like(2, 11)
    expected = FastDecoder(model)(ids_BT[:, :10]), FastDecoder(model)(ids_BT)
    native.native_library.cache_clear()
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    try:
        with pytest.warns(UserWarning, match=r"read by torch.*there is no C\+\+ compiler here"):
            fast = FastDecoder(model, compile=True)
        with pytest.warns(UserWarning, match=r"take weights='fp32'"):
            FastDecoder(model, weights="int8", compile=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not FastDecoder(model, compile="auto").compiled
            assert not FastDecoder(model, compile=False).compiled
        close(fast(ids_BT[:, :10]), expected[0])
        close(fast(ids_BT), expected[1])
        monkeypatch.undo()
        broken = tmp_path / "c++"
        broken.write_text("#!/bin/sh\necho cannot compile this >&2\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))
        with pytest.warns(UserWarning, match="cannot compile this"):
            FastDecoder(model, compile=True)
    finally:
        native.native_library.cache_clear()


@compiled
def test_changed_weights():
    model, ids_BT = build(DecoderConfig.llama(**SIZES), seed=4), ids_like(1, 9)
    plain, small = FastDecoder(model), FastDecoder(model, weights="int8")
    _ = plain(ids_BT), small(ids_BT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    for fast in (plain, small):
        fast.reset()
    with torch.no_grad():
        for T in (8, 9):
            close(plain(ids_BT[:, :T]), model(ids_BT)[:, T - 1 : T])
            close(small(ids_BT[:, :T]), quantise_weights(model)(ids_BT)[:, T - 1 : T])


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=compiled)])
def test_sampling_and_search_take_it(compile):
    model = build(DecoderConfig.gpt2(**SIZES, dropout=0.4)).train()
    fast = FastDecoder(model, compile=compile)
    assert greedy_search(fast, [1, 2, 3], max_new_tokens=17) == greedy_search(
        model, [1, 2, 3], max_new_tokens=17
    )
    for settings in ({"temperature": 0}, {"seed": 3}, {"seed": 4, "top_p": 0.9}):  # past the context, too
        expected = sample(model, [5, 6], max_new_tokens=40, **settings)
        assert sample(fast, [5, 6], max_new_tokens=40, **settings) == expected
    assert model.training


@compiled
@pytest.mark.parametrize("family", FOLDERS)
def test_the_tokens_of_transformers(family, tmp_path):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = build(FOLDERS[family], seed=3)
    save_folder(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[1, 2, 3]])
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 3:].tolist()
    assert sample(FastDecoder(model), [1, 2, 3], max_new_tokens=20, temperature=0) == expected


def test_wrong_input():
    model = build(DecoderConfig.llama(**SIZES))
    for settings, message in (
        ({"weights": "int2"}, "weights must be one of fp32, int8, int4, got 'int2'"),
        ({"compile": "yes"}, "compile must be True, False or 'auto', got 'yes'"),
        ({"room": -1}, "room must"),
        ({"weights": "int4", "group_size": 7}, "group_size must be 32, 64.*got 7"),
    ):
        with pytest.raises(ValueError, match=message):
            FastDecoder(model, **settings)
    with pytest.raises(ValueError, match="serves a Decoder, got Linear"):
        FastDecoder(torch.nn.Linear(2, 2))


@compiled
def test_wrong_input_of_the_step():
    model = build(DecoderConfig.llama(**SIZES))
    with pytest.raises(ValueError, match=r"float32 on the CPU.*bfloat16"):
        FastDecoder(Decoder(model.config).bfloat16())
    step, cache = NativeStep(model), SlotCache.for_model(model, num_slots=2, max_length=7)
    keys, values = cache.keys_LBKSD, cache.values_LBKSD
    good = {"slots": [0, 1], "stored": [0, 3], "positions": [0, 3]}
    for change, message in (
        ({"slots": [0, 2]}, "do not fit a cache of 2 x 7"),
        ({"slots": [1, 1]}, "repeat"),
        ({"stored": [0, 7]}, "do not fit"),
        ({"positions": [0, 29]}, "exceed the context"),
    ):
        with pytest.raises(ValueError, match=message):
            step([1, 2], keys, values, **{**good, **change})
    with pytest.raises(ValueError, match="built for another model"):
        step([1, 2], keys[:2], values[:2], **good)
    with pytest.raises(ValueError, match=r"the cache is torch\.float64"):
        step([1, 2], keys.double(), values.double(), **good)
