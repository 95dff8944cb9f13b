"""Quantised matrices: within their bound of the original, stored as small as promised, opened as written."""

import copy

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llm_from_scratch.evaluation import perplexity
from llm_from_scratch.inference import (
    CachedModel,
    WeightOnlyEmbedding,
    WeightOnlyLinear,
    generate,
    load_quantised,
    quantise_weights,
    save_quantised,
    weight_bytes,
)
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.weight_only import dequantise_int4, quantise_int4, quantise_int8
from tests.inference.test_kv_cache import MODELS, SIZES, build, ids_like


def matrix(N, C, seed=0):
    return torch.randn(N, C, generator=torch.Generator().manual_seed(seed))


@given(N=st.integers(1, 5), C=st.integers(1, 131), seed=st.integers(0, 9))
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_every_weight_is_within_half_a_step(N, C, seed):
    weight_NC = matrix(N, C, seed) * 10.0 ** (seed - 5)
    q_NC, scale_N = quantise_int8(weight_NC)
    assert q_NC.abs().max() == 127  # the whole range is used
    assert ((q_NC * scale_N[:, None] - weight_NC).abs() <= 0.501 * scale_N[:, None]).all()
    for group_size in (32, 64, 128):
        packed, scale_NG, minimum_NG = quantise_int4(weight_NC, group_size=group_size)
        groups = -(-C // group_size)
        assert packed.shape == (N, groups * group_size // 2)
        assert scale_NG.shape == minimum_NG.shape == (N, groups)
        back_NC = dequantise_int4(packed, scale_NG, minimum_NG, columns=C)
        step_NC = scale_NG.float().repeat_interleave(group_size, dim=1)[:, :C]
        rounding = minimum_NG.float().abs().repeat_interleave(group_size, dim=1)[:, :C] / 1024 + 1e-6
        assert ((back_NC - weight_NC).abs() <= 0.51 * step_NC + rounding).all()


def test_numbers_on_the_grid_come_back_exactly():
    q_NC = torch.randint(0, 16, (7, 96), generator=torch.Generator().manual_seed(1))
    q_NC[:, ::32], q_NC[:, 1::32] = 0, 15
    weight_NC = q_NC * 0.25 - 3.0
    assert torch.equal(dequantise_int4(*quantise_int4(weight_NC), columns=96), weight_NC)
    assert torch.equal(
        dequantise_int4(*quantise_int4(torch.full((2, 5), 0.5)), columns=5), torch.full((2, 5), 0.5)
    )
    assert quantise_int8(torch.zeros(2, 3))[0].eq(0).all()


def test_the_layout_of_four_bits():
    """Byte j of 32 columns: column j below, column j + 16 above."""
    packed, _, _ = quantise_int4(torch.cat((torch.arange(16.0), torch.arange(15.0, -1, -1)))[None])
    assert packed[0].tolist() == [j | (15 - j) << 4 for j in range(16)]


def test_four_bits_equal_those_of_gguf():
    """The numbers and scales of the gguf package's Q4_1, which chooses them alike, on its own reading."""
    gguf = pytest.importorskip("gguf")
    weight_NC = matrix(11, 96)
    theirs = gguf.quants.dequantize(
        gguf.quants.quantize(weight_NC.numpy(), gguf.GGMLQuantizationType.Q4_1),
        gguf.GGMLQuantizationType.Q4_1,
    )
    ours = dequantise_int4(*quantise_int4(weight_NC), columns=96)
    assert (ours - torch.from_numpy(theirs)).abs().max() < 0.02  # they round q before the scale is rounded
    assert (ours - weight_NC).abs().mean() <= 1.01 * (torch.from_numpy(theirs) - weight_NC).abs().mean()


@pytest.mark.parametrize("bits", [8, 4])
def test_layers_multiply_with_the_widened_matrix(bits):
    torch.manual_seed(0)
    linear, table = nn.Linear(72, 5), nn.Embedding(7, 72)
    x, ids = torch.randn(2, 3, 72), torch.tensor([[6, 0], [1, 6]])
    small = WeightOnlyLinear(linear, bits=bits)
    assert torch.equal(small(x), nn.functional.linear(x, small.weight, linear.bias))
    assert (small(x) - linear(x)).abs().max() < (0.02 if bits == 8 else 0.3)
    rows = WeightOnlyEmbedding(table, bits=bits)
    assert torch.equal(rows(ids), rows.weight[ids])
    numbers = 5 * 72 + 5 * 4 if bits == 8 else 5 * 3 * (16 + 4)
    assert small.num_bytes == numbers + 5 * 4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_is_that_of_widened_matrices(name, bits):
    """Everywhere a Decoder is used, the original untouched, and nothing shared with it."""
    model = MODELS[name]
    before = copy.deepcopy(model.state_dict())
    small = quantise_weights(model, bits=bits)
    widened = copy.deepcopy(model)
    for part, source in zip(
        [p for p in widened.modules() if isinstance(p, nn.Linear)],
        [p for p in small.modules() if isinstance(p, WeightOnlyLinear)],
        strict=True,
    ):
        part.weight.data = source.weight
    widened.token_embedding.weight.data = small.token_embedding.weight
    ids_BT = ids_like(2, 17)
    with torch.no_grad():
        expected = widened(ids_BT)
        torch.testing.assert_close(small(ids_BT), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(CachedModel(small)(ids_BT), expected[:, -1:], rtol=1e-5, atol=1e-5)
    assert generate(small, [1, 2, 3], max_new_tokens=9, temperature=0)
    assert perplexity(small, ids_like(1, 29)[0]) > 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    addresses = {p.data_ptr() for p in model.parameters()}
    assert not any(t.data_ptr() in addresses for t in small.state_dict().values())


def test_memory():
    config = DecoderConfig.llama(
        vocab_size=101, context_length=8, d_model=64, num_layers=2, num_heads=2, d_ff=96, tie_embeddings=True
    )
    model = Decoder(config).eval()
    blocks, table, norms = 2 * (192 * 64 + 64 * 64 + 3 * 64 * 96), 101 * 64, 5 * 64
    rows = 2 * (192 + 64 + 2 * 96 + 64)
    assert weight_bytes(model) == 4 * (blocks + table + norms)
    assert weight_bytes(quantise_weights(model, bits=8)) == blocks + table + 4 * (rows + 101 + norms)
    four = weight_bytes(quantise_weights(model, bits=4, group_size=32))
    assert four == blocks * 5 // 8 + table + 4 * (101 + norms)


@pytest.mark.parametrize("name", ["gpt2", "everything"])
@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group_size": 64, "embedding_bits": 4}])
def test_stored_and_opened(name, settings, tmp_path):
    small = quantise_weights(MODELS[name], **settings)
    save_quantised(small, tmp_path / "small.safetensors")
    opened = load_quantised(tmp_path / "small.safetensors")
    assert opened.config == small.config
    assert not opened.training
    with torch.no_grad():
        assert torch.equal(opened(ids_like(2, 11)), small(ids_like(2, 11)))


def test_damaged_files(tmp_path):
    path = tmp_path / "small.safetensors"
    with pytest.raises(FileNotFoundError, match="save_quantised"):
        load_quantised(path)
    save_quantised(quantise_weights(MODELS["llama"]), path)
    content = path.read_bytes()
    for damaged in (content[:-5], content[:40], b"", content.replace(b"only 1", b"only 9")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no intact file"):
            load_quantised(path)


def test_wrong_input():
    model = build(DecoderConfig.llama(**SIZES))
    for settings, message in (
        ({"bits": 5}, "bits must be 8 or 4, got 5"),
        ({"bits": 4, "group_size": 20}, "group_size must be 32, 64.*got 20"),
        ({"bits": 4, "group_size": 96}, "a power of 2, got 96"),
        ({"embedding_bits": 2}, "bits must be 8 or 4, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            quantise_weights(model, **settings)
    with pytest.raises(ValueError, match="quantised already"):
        quantise_weights(quantise_weights(model))
    with pytest.raises(ValueError, match=r"float32.*model.float\(\)"):
        quantise_weights(copy.deepcopy(model).double())
    with pytest.raises(ValueError, match="Decoder are quantised, got Linear"):
        quantise_weights(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="not quantised"):
        save_quantised(model, "nowhere")
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise_int8(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match="beyond the 65504"):
        quantise_int4(torch.tensor([[1.0, 1e6]]))
    with pytest.raises(ValueError, match="a matrix of floats"):
        quantise_int8(torch.zeros(3))
