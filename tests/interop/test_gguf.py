"""GGUF: every number as the `gguf` package reads it, and the model as transformers computes it."""

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES
from gguf_fuzzing import CONTEXT, SPECIAL, C, D, F, H, K, L, V, put, vocabulary, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.interop.empty import build_empty
from llm_from_scratch.interop.gguf import GGUFFile, dequantise, load_gguf
from llm_from_scratch.interop.gguf.dequantise import READABLE
from llm_from_scratch.interop.gguf.types import TENSOR_TYPES
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

QUANTISED = ("Q8_0", "Q4_0", "Q4_1")


def same_bits(a, b):
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


# Numbers


@pytest.mark.parametrize("kind", QUANTISED)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_blocks=st.integers(1, 13))
def test_random_blocks_are_dequantised_bit_for_bit(kind, seed, num_blocks):
    """Any bytes are a block: scales of both signs, zero, subnormal and infinite ones included."""
    number = gguf.GGMLQuantizationType[kind]
    data = np.random.default_rng(seed).integers(256, size=num_blocks * GGML_QUANT_SIZES[number][1])
    data = data.astype(np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(data, number)
    found = dequantise(data, kind)
    finite = np.isfinite(expected)
    assert same_bits(found[finite], expected[finite])
    assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("kind", READABLE)
def test_quantised_numbers_come_back(kind):
    number = gguf.GGMLQuantizationType[kind]
    x = np.random.default_rng(3).normal(size=(7, 64)).astype(np.float32)
    data = quants.quantize(x, number)
    found = dequantise(data.view(np.uint8).reshape(-1), kind)
    assert same_bits(found, quants.dequantize(data, number).reshape(-1).astype(np.float32))
    step = {"F32": 0, "F16": 2**-9, "BF16": 2**-6, "Q8_0": 0.02, "Q4_0": 0.5, "Q4_1": 0.25}[kind]
    assert np.abs(found - x.reshape(-1)).max() <= step


def test_bytes_that_end_inside_a_block_are_refused():
    with pytest.raises(ValueError, match="33 bytes are no whole number of Q8_0 blocks"):
        dequantise(np.zeros(33, dtype=np.uint8), "Q8_0")
    with pytest.raises(ValueError, match=r"Q6_K, which is not read here; F32, .*llama-quantize"):
        dequantise(np.zeros(210, dtype=np.uint8), "Q6_K")


def test_the_sizes_of_all_types_are_those_of_ggml():
    for number, kind in TENSOR_TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == kind.name
        assert GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (kind.block_numbers, kind.block_bytes)


# The file

METADATA = {
    "a.u8": ("uint8", 255),
    "a.i8": ("int8", -128),
    "a.u16": ("uint16", 65535),
    "a.i16": ("int16", -32768),
    "a.u32": ("uint32", 2**32 - 1),
    "a.i32": ("int32", -(2**31)),
    "a.u64": ("uint64", 2**64 - 1),
    "a.i64": ("int64", -(2**63)),
    "a.f32": ("float32", 0.1),
    "a.f64": ("float64", 0.1),
    "a.yes": ("bool", True),
    "a.no": ("bool", False),
    "a.text": ("string", "naïve 语 😀\x00\n"),
    "a.numbers": ("array", [3, 5, 7]),
    "a.floats": ("array", [0.5, -1.5]),
    "a.texts": ("array", ["", "ü", "long " * 99]),
    "a.truths": ("array", [True, False, True]),
    "a.nested": ("array", [[1, 2], [3]]),
}


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_of_every_type(tmp_path, version):
    path = tmp_path / "metadata.gguf"
    write_gguf(path, extra={key: put(*value) for key, value in METADATA.items()})
    if version == 2:
        content = path.read_bytes()
        path.write_bytes(content[:4] + b"\x02\0\0\0" + content[8:])
    with GGUFFile(path) as file:
        assert file.version == version
        for key, (kind, value) in METADATA.items():
            found = file.metadata[key]
            found = found.tolist() if isinstance(found, np.ndarray) else found
            if key == "a.nested":
                found = [each.tolist() for each in found]
            assert found == (np.float32(value).item() if kind == "float32" else value), key
            assert type(found) is type(value)
        for name, field in gguf.GGUFReader(path).fields.items():
            if not name.startswith(("GGUF.", "a.nested")):
                found = file.metadata[name]
                assert (found.tolist() if isinstance(found, np.ndarray) else found) == field.contents(), name


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors_lie_where_the_package_finds_them(tmp_path, alignment):
    path = tmp_path / "aligned.gguf"
    write_gguf(path, quantisation="Q8_0", extra={"": lambda writer, _: align(writer, alignment)})
    theirs = gguf.GGUFReader(path)
    with GGUFFile(path) as file:
        assert list(file.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert (info.offset, info.num_bytes) == (tensor.data_offset, tensor.n_bytes)
            assert info.shape == tuple(int(n) for n in tensor.shape[::-1])
            expected = quants.dequantize(tensor.data, tensor.tensor_type).reshape(info.shape)
            assert same_bits(file.read(tensor.name), np.ascontiguousarray(expected))
        embedding = file.read("token_embd.weight")
        assert same_bits(file.read("token_embd.weight", 3, 11), embedding[3:11])
        assert file.read("token_embd.weight", 120, 999).shape == (V - 120, C)
        with pytest.raises(ValueError, match="tensor 'missing' is not there"):
            file.read("missing")


def align(writer, alignment):
    writer.data_alignment = alignment
    writer.add_custom_alignment(alignment)


@pytest.mark.slow
def test_every_tensor_of_smollm2_is_as_the_package_dequantises_it():
    theirs = gguf.GGUFReader(fetch("smollm2"))
    with GGUFFile(fetch("smollm2")) as file:
        assert len(file.tensors) == len(theirs.tensors) == 272
        for tensor in theirs.tensors:
            expected = quants.dequantize(tensor.data, tensor.tensor_type)
            found = file.read(tensor.name)
            assert same_bits(found.reshape(-1), np.ascontiguousarray(expected).reshape(-1)), tensor.name


# The model


def reference(held, tied):
    """Transformers' Llama with the file's numbers; queries and keys reordered by an index, not our way."""
    config = LlamaConfig(
        vocab_size=V, hidden_size=C, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
        num_key_value_heads=K, head_dim=D, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, tie_word_embeddings=tied,
        attention_bias=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    names = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    state = {}
    for name, x in held.items():
        stem = name.removesuffix(".weight")
        if stem in outer:
            state[f"{outer[stem]}.weight"] = torch.from_numpy(x)
            continue
        _, i, part = stem.split(".")
        if part in ("attn_q", "attn_k"):
            rows = range(x.shape[0])
            x = x[[row // D * D + (row % D % (D // 2)) * 2 + row % D // (D // 2) for row in rows]]
        state[f"model.layers.{i}.{names[part]}.weight"] = torch.from_numpy(x)
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    ("quantisation", "tied"), [("F32", True), ("F16", False), ("Q8_0", True), ("Q4_0", False), ("Q4_1", True)]
)
def test_the_logits_are_those_of_transformers(tmp_path, quantisation, tied):
    path = tmp_path / "tiny.gguf"
    held = write_gguf(path, quantisation=quantisation, tied=tied, seed=11)
    loaded = load_gguf(path)
    assert loaded.config.tie_embeddings is tied
    assert not loaded.model.training
    ids_BT = torch.randint(V, (3, 19), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        ours, theirs = loaded.model(ids_BT), reference(held, tied)(ids_BT).logits
    assert theirs.abs().max() > 1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_the_file_carries_besides_the_weights(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    loaded = load_gguf(path)
    assert loaded.config.to_dict() == DecoderConfig.llama(
        vocab_size=V, context_length=CONTEXT, d_model=C, num_layers=L, num_heads=H, num_kv_heads=K, d_ff=F,
        rope_base=5000.0, norm_eps=loaded.config.norm_eps, tie_embeddings=True, d_head=D,
    ).to_dict()  # fmt: skip
    assert loaded.config.norm_eps == pytest.approx(1e-5, rel=1e-6)
    assert loaded.special_tokens == {"eos_token": SPECIAL[0]}
    assert loaded.chat_template.startswith("{% for m in messages %}")
    ids = loaded.tokenizer.encode("and the<|end|>", allowed_special="all")
    assert [vocabulary()[i] for i in ids] == ["and", "Ġthe", "<|end|>"]


def test_other_number_formats(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, quantisation="Q8_0")
    whole, half = load_gguf(path).model, load_gguf(path, dtype=torch.bfloat16).model
    assert half.token_embedding.weight.dtype == torch.bfloat16
    assert half.rope_cos_TF.dtype == torch.float32
    assert torch.equal(half.output_weight, whole.output_weight.to(torch.bfloat16))


def test_loading_draws_no_random_number(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    state = torch.get_rng_state()
    first, second = load_gguf(path).model, load_gguf(path).model
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_empty_model_gets_every_weight_of_its_kind():
    config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    state = Decoder(config).state_dict()
    empty = build_empty(lambda: Decoder(config))
    empty.load_state_dict(state)
    for name, tensor in empty.state_dict().items():
        assert torch.equal(tensor, state[name])
