"""Scaled rotary positions: logits equal transformers' within and beyond the original length, both ways."""

import json

import pytest
import torch

from llm_from_scratch.inference import generate
from llm_from_scratch.interop.hugging_face import load_folder, save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.positions import rotary_angles
from llm_from_scratch.nn.rope_scaling import RopeScaling

SIZES = {
    "vocab_size": 41, "hidden_size": 60, "intermediate_size": 29, "num_hidden_layers": 2,
    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 22, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
CASES = {
    "linear": (131, {"rope_type": "linear", "factor": 4.0}),
    "dynamic": (131, {"rope_type": "dynamic", "factor": 4.0}),
    "llama3": (
        131,
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 37},
    ),
    "llama3, other turns": (
        131,
        {"rope_type": "llama3", "factor": 3.0, "low_freq_factor": 0.4, "high_freq_factor": 1.7,
         "original_max_position_embeddings": 83},
    ),
    "yarn": (131, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 37}),
    "yarn, its own numbers": (
        131,
        {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 53, "beta_fast": 9.0,
         "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False},
    ),
    "yarn, a ramp inside": (  # from pair 2 (of 2.3) to pair 5 (of 4.98)
        131,
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 83, "beta_fast": 4.0,
         "beta_slow": 1.0},
    ),
    "yarn, two scales": (
        131,
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 17, "mscale": 0.7,
         "mscale_all_dim": 1.2},
    ),
}  # fmt: skip


def their_model(length, rope, seed=0):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **SIZES,
        max_position_embeddings=length,
        rope_parameters={"rope_theta": 300.0, **rope},
        attn_implementation="eager",
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ids_like(T, seed=0):
    return torch.randint(41, (2, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name, tmp_path):
    """131 tokens: several times the original length of most cases."""
    length, rope = CASES[name]
    theirs = their_model(length, rope)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_folder(tmp_path / "theirs").model
    assert ours.config.rope_scaling.kind == rope["rope_type"]
    ids_BT = ids_like(length)
    with torch.no_grad():
        expected = theirs(ids_BT).logits
        torch.testing.assert_close(ours(ids_BT), expected, rtol=1e-5, atol=1e-5)
        plain = their_model(length, {"rope_type": "default"})(ids_BT).logits
    if name != "dynamic":  # which changes nothing within its length
        assert (plain - expected).abs().max() > 0.01

    from transformers import AutoModelForCausalLM

    save_folder(ours, tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert again.config.rope_parameters["rope_type"] == rope["rope_type"]
    with torch.no_grad():
        torch.testing.assert_close(again(ids_BT).logits, expected, rtol=1e-5, atol=1e-5)
    assert load_folder(tmp_path / "ours").model.config == ours.config


@pytest.mark.parametrize("name", ["linear", "llama3", "yarn"])
def test_generation_with_a_cache(name, tmp_path):
    length, rope = CASES[name]
    theirs = their_model(length, rope, seed=2)
    theirs.save_pretrained(tmp_path)
    prompt = ids_like(29)[0].tolist()
    expected = theirs.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 29), max_new_tokens=90, do_sample=False,
        pad_token_id=0,
    )[0, 29:].tolist()  # fmt: skip
    assert generate(load_folder(tmp_path).model, prompt, max_new_tokens=90, temperature=0) == expected


def change_config(folder, **fields):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in fields.items():
        config.pop(name, None)
        if value is not None:
            config[name] = value
    path.write_text(json.dumps(config))


@pytest.fixture
def folder(tmp_path):
    their_model(37, {"rope_type": "default"}).save_pretrained(tmp_path)
    return tmp_path


def test_older_configs_and_longer_texts(folder):
    """Qwen2.5's way: the table by its older name, the length that of training; more must be asked for."""
    scaling = {"type": "yarn", "factor": 3.0, "original_max_position_embeddings": 37}
    change_config(folder, rope_parameters=None, rope_theta=300.0, rope_scaling=scaling)
    assert load_folder(folder).model.config.context_length == 37
    ours = load_folder(folder, context_length=111).model
    assert ours.config.context_length == 111

    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids_BT = ids_like(111)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids_BT), theirs(ids_BT).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="context_length=112 must lie between 1 and the model's 111 tokens"):
        load_folder(folder, context_length=112)
    change_config(folder, rope_scaling={"type": "dynamic", "factor": 3.0})
    with pytest.raises(ValueError, match="context_length=38 must lie between 1 and the model's 37 tokens"):
        load_folder(folder, context_length=38)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "asks for the kind 'longrope'; read here are linear",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "in 'rope_parameters': the field 'factor' is missing"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": -1.0}},
            "'factor' is -1.0; it must be positive",
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}},
            "'beta_fast' is 3.0, and is not known",
        ),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "'low_freq_factor' is missing"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 0.5}}, "low_freq_factor=1.0 must be below"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0.5}},
            "beta_slow=1.0 must not exceed beta_fast=0.5",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": "no"}},
            "'truncate' is 'no', expected true or false",
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}},
            "asks for both 'linear' and 'yarn'",
        ),
        (
            {
                "rope_parameters": {"rope_type": "linear", "factor": 2.0},
                "rope_scaling": {"type": "linear", "factor": 3.0},
            },
            "ask for different scalings",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 0.5}}, "rotary base above 1"),
    ],
)
def test_configs_that_do_not_fit(folder, fields, message):
    change_config(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


def test_the_meaning_of_the_kinds():
    """Fast pairs stay, slow ones are divided, none is sped up."""
    positions_T = torch.tensor([1.0])
    plain = rotary_angles(positions_T, 32, base=10_000.0)[0]
    for kind in ("llama3", "yarn"):
        scaling = RopeScaling(kind=kind, factor=8.0, original_length=512)
        ratio = rotary_angles(positions_T, 32, base=10_000.0, scaling=scaling)[0] / plain
        assert ratio[0] == 1
        assert ratio[-1] == pytest.approx(1 / 8)
        assert bool((ratio.diff() <= 0).all())
    assert RopeScaling(kind="yarn", factor=8.0, original_length=512).attention_factor == pytest.approx(
        1.2079, abs=1e-4
    )


def test_the_config_keeps_it():
    scaling = RopeScaling(kind="llama3", factor=8.0, original_length=37)
    config = DecoderConfig.llama(
        vocab_size=11, context_length=97, d_model=12, num_layers=1, num_heads=2, rope_scaling=scaling
    )
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Decoder(config)(torch.zeros(1, 97, dtype=torch.long)).shape == (1, 97, 11)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "ntk", "factor": 2.0}, r"'ntk' is unknown; choose one of \('linear'"),
        ({"kind": "linear", "factor": 0.0}, "factor of rope scaling must be a positive number, got 0.0"),
        ({"kind": "linear", "factor": True}, "factor .* got True"),
        ({"kind": "llama3", "factor": 2.0}, "'llama3' needs original_length"),
        ({"kind": "linear", "factor": 2.0, "attention_factor": 1.1}, "belongs to 'yarn' alone"),
    ],
)
def test_scalings_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        RopeScaling(**fields)


def test_scaling_belongs_to_rotary_positions():
    sizes = {"vocab_size": 11, "context_length": 7, "d_model": 12, "num_layers": 1, "num_heads": 2}
    with pytest.raises(ValueError, match="rope_scaling needs positions='rope', got positions='learned'"):
        DecoderConfig.gpt2(**sizes, rope_scaling=RopeScaling(kind="linear", factor=2.0))
    with pytest.raises(ValueError, match="rope_scaling must be None or a RopeScaling, got 'linear'"):
        DecoderConfig.llama(**sizes, rope_scaling="linear")
    with pytest.raises(ValueError, match="unknown fields"):
        DecoderConfig.llama(**sizes, rope_scaling={"kind": "linear", "factor": 2.0, "speed": 1})
