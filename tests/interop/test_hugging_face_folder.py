"""What `load_folder` and `save_folder` refuse, and what their errors say."""

import json
import os
import struct
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from llm_from_scratch.interop import hugging_face
from llm_from_scratch.interop.hugging_face import from_hub, load_folder, save_folder
from llm_from_scratch.interop.hugging_face.tensor_files import read_header
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer

SIZES = {"vocab_size": 31, "d_model": 12, "num_layers": 2, "num_heads": 3}
LLAMA = DecoderConfig.llama(**SIZES, context_length=17, num_kv_heads=1, d_ff=13)


@pytest.fixture
def llama(tmp_path):
    torch.manual_seed(1)
    save_folder(Decoder(LLAMA), tmp_path)
    return tmp_path


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}), encoding="utf-8")


def edit_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


# config.json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'model_type' is 'mamba'; read here are gpt2, llama, mistral"),
        ({"model_type": "gone"}, "'model_type' is missing"),
        ({"hidden_act": "relu"}, "'hidden_act' is 'relu'; only 'silu' is supported"),
        ({"attention_bias": True}, "'attention_bias' is True; only False is supported"),
        (
            {"rope_parameters": {"rope_type": "longrope", "factor": 8.0}},
            "'rope_parameters' asks for the kind 'longrope'",
        ),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "'rope_scaling' asks for the kind 'ntk'"),
        (
            {"rope_scaling": {"type": "default", "factor": 2.0}},
            "in 'rope_scaling': the field 'factor' is 2.0",
        ),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is 0.5"),
        ({"hidden_size": "gone"}, "'hidden_size' is missing, expected a whole number"),
        ({"hidden_size": "12"}, "'hidden_size' is '12', expected a whole number"),
        ({"hidden_size": True}, "'hidden_size' is True"),
        ({"hidden_size": 10**12}, "'hidden_size' is 1000000000000; it must lie between"),
        ({"vocab_size": -1}, "'vocab_size' is -1"),
        ({"num_hidden_layers": 8000}, r"speaks of 8000 layers; there are \d+ tensors"),
        ({"num_attention_heads": 5, "head_dim": None}, "d_model=12 is not divisible by num_heads=5"),
        ({"num_key_value_heads": 2}, "num_heads=3 is not a multiple of num_kv_heads=2"),
        (
            {"max_position_embeddings": 10**9},
            r"'max_position_embeddings' is 1000000000; a table .*context_length=",
        ),
        ({"rms_norm_eps": 0}, "'rms_norm_eps' is 0; it must be positive"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config' is .*; only False"),
        ({"never_heard_of": 3}, r"'never_heard_of' is 3, and is not known .*ignore=\['never_heard_of'\]"),
        ({"vocab_size": 37}, r"'model.embed_tokens.weight' has the shape \[31, 12\], .* makes it \[37, 12\]"),
        (
            {"intermediate_size": 17},
            r"'model.layers.0.mlp.gate_proj.weight' has the shape \[13, 12\].*\[17, 12\]",
        ),
        ({"num_hidden_layers": 3}, r"lacks 9 of the \d+ tensors .* model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, r"has 9 tensors more .* model.layers.1.*ignore="),
        (
            {"tie_word_embeddings": True},
            "'lm_head.weight' to 'model.embed_tokens.weight', and the two differ",
        ),
        (
            {"model_type": "qwen2", "attention_bias": "gone", "mlp_bias": "gone"},
            r"lacks 6 .*self_attn.q_proj.bias",
        ),
        ({"model_type": "gpt2"}, "'n_embd' is missing"),
        ({"model_type": "mistral", "layer_types": ["full_attention"]}, "'layer_types' is .*expected 2 kinds"),
        (
            {
                "model_type": "mistral",
                "sliding_window": 3,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            "'layer_types' gives some layers a window",
        ),
    ],
)
def test_fields_are_named(llama, changes, message):
    edit_config(llama, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_folder(llama)
    assert str(llama) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_that_are_ignored_on_request(llama):
    edit_config(llama, never_heard_of=3, quantization_config={"bits": 4})
    load_folder(llama, ignore=["never_heard_of", "quantization_config"])


def test_a_shorter_context(llama):
    edit_config(llama, max_position_embeddings=10**9)
    model = load_folder(llama, context_length=11).model
    assert model.config.context_length == 11
    with pytest.raises(ValueError, match="12 tokens are longer"):
        model(torch.zeros(1, 12, dtype=torch.long))
    with pytest.raises(ValueError, match="context_length=0 must lie between 1 and"):
        load_folder(llama, context_length=0)


def test_a_context_that_was_learned_cannot_be_changed(tmp_path):
    save_folder(Decoder(DecoderConfig.gpt2(**SIZES, context_length=17)), tmp_path)
    with pytest.raises(ValueError, match="context_length=11 differs from the 17 positions"):
        load_folder(tmp_path, context_length=11)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is damaged"),
        (b"[]", "holds a list, expected an object"),
        (b'{"model_type": "llama", "model_type": "gpt2"}', "'model_type' stands there twice"),
        (b'{"x": NaN}', "NaN is not a JSON number"),
        (b"\xff\xfe", "config.json is damaged"),
        (b'{"x":' * 100_000, "config.json is damaged"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "config.json is damaged"),
    ],
)
def test_a_damaged_config(llama, content, message):
    (llama / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_folder(llama)


def test_missing_files(llama, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder; from_hub"):
        load_folder(tmp_path / "nowhere")
    (llama / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    (llama / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"It has pytorch_model.bin: pickles run code"):
        load_folder(llama)
    (llama / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config.json"):
        load_folder(llama)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, "float32"])
def test_number_formats_that_are_none(llama, dtype):
    with pytest.raises(ValueError, match="must be a floating-point format"):
        load_folder(llama, dtype=dtype)


# Tensors


def test_tensors_that_are_missing_extra_or_of_another_kind(llama):
    edit_tensors(llama, lambda t: t.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 of the 21 tensors .* model.norm.weight"):
        load_folder(llama)
    edit_tensors(
        llama, lambda t: t.update({"model.norm.weight": torch.ones(12), "classifier": torch.ones(2)})
    )
    with pytest.raises(ValueError, match=r"has 1 tensors more .* classifier; .*ignore=\['classifier'\]"):
        load_folder(llama)
    load_folder(llama, ignore=["classifier"])
    edit_tensors(llama, lambda t: t.update({"model.norm.weight": torch.ones(12, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"'model.norm.weight' holds I8 numbers; .*Quantised"):
        load_folder(llama, ignore=["classifier"])
    edit_tensors(llama, lambda t: t.update({"model.norm.weight": torch.ones(12, 1)}))
    with pytest.raises(ValueError, match=r"'model.norm.weight' has the shape \[12, 1\].* makes it \[12\]"):
        load_folder(llama, ignore=["classifier"])


def stored(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def described(kind="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes long, too short"),
        (b"1234567", "7 bytes long, too short"),
        (stored({}, length=2**64 - 1), r"header has 18446744073709551615 bytes; the file leaves room for 2"),
        (stored({}, length=3), "leaves room for 2"),
        (stored(b"[]"), "holds a list"),
        (stored(b"{"), "the header of .* is damaged"),
        (stored(b'{"a": {}, "a": {}}'), "'a' stands there twice"),
        (stored({"a": []}), "'a' must be described by dtype, shape and data_offsets"),
        (stored({"a": {**described(), "more": 1}}, bytes(8)), "must be described by"),
        (stored({"a": described("F33")}, bytes(8)), "number format 'F33'; known are"),
        (stored({"a": described(shape=(2.0,))}, bytes(8)), "expected up to 8 whole numbers"),
        (stored({"a": described(shape=(-2,))}, bytes(8)), "expected up to 8 whole numbers"),
        (stored({"a": described(shape=(1,) * 99)}, bytes(8)), "expected up to 8 whole numbers"),
        (
            stored({"a": described(shape=(2**40, 2**40))}, bytes(8)),
            "takes 4835703278458516698824704 bytes; 8 are",
        ),
        (stored({"a": described(offsets=(0, 16))}, bytes(8)), "the file has 8 bytes of tensors"),
        (stored({"a": described(offsets=(8, 0))}, bytes(8)), "lies at bytes"),
        (stored({"a": described(offsets=(0, 4))}, bytes(4)), "takes 8 bytes; 4 are"),
        (stored({"a": described(), "b": described()}, bytes(8)), "'b' overlaps another one"),
        (
            stored({"a": described(), "b": described(offsets=(9, 17))}, bytes(17)),
            "'b' leaves 1 bytes before it",
        ),
        (stored({"a": described()}, bytes(9)), "ends with 1 bytes that belong to no tensor"),
    ],
)
def test_damaged_headers(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_header(tmp_path / "model.safetensors")


def test_headers_agree_with_the_library(llama):
    entries = read_header(llama / "model.safetensors")
    with safetensors.safe_open(llama / "model.safetensors", "pt") as file:
        assert entries.keys() == set(file.keys())
        for name, entry in entries.items():
            view = file.get_slice(name)
            assert (list(entry.shape), entry.format) == (view.get_shape(), view.get_dtype())


# Several files


@pytest.fixture
def sharded(tmp_path):
    save_folder(Decoder(LLAMA), tmp_path, max_shard_bytes=4000)
    return tmp_path


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    change(index["weight_map"], index)
    path.write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "C:\\x.safetensors",
        "..",
        "",
        "model.bin",
        5,
        None,
        ["x.safetensors"],
        "a\0.safetensors",
        "x" * 300 + ".safetensors",
        "C:x.safetensors",
    ],
)
def test_no_path_leads_out_of_the_folder(sharded, name):
    edit_index(sharded, lambda names, _: names.update({"model.norm.weight": name}))
    with pytest.raises(ValueError, match=r"'model.norm.weight' is said to lie in .*only a file name"):
        load_folder(sharded)


def test_an_index_that_does_not_fit(sharded):
    files = sorted({p.name for p in sharded.glob("*.safetensors")})
    original = (sharded / "model.safetensors.index.json").read_bytes()

    def again(change, kind, message):
        (sharded / "model.safetensors.index.json").write_bytes(original)
        edit_index(sharded, change)
        with pytest.raises(kind, match=message):
            load_folder(sharded)

    again(lambda names, _: names.pop("model.norm.weight"), ValueError, "does not list it")
    again(
        lambda names, _: names.update({"more": files[0]}),
        ValueError,
        "lists the tensor 'more' in .* where it is not",
    )
    again(
        lambda names, _: names.update({"model.norm.weight": files[-1]}),
        ValueError,
        f"lists it in {files[-1]!r}",
    )
    again(
        lambda names, _: names.update({"x": "gone.safetensors"}),
        FileNotFoundError,
        "names 'gone.safetensors'",
    )
    again(lambda _, index: index.update(weight_map=[]), ValueError, "'weight_map' is")
    again(lambda _, index: index.update(weight_map={}), ValueError, "'weight_map' is")


# Writing


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            DecoderConfig.gpt2(**SIZES, context_length=17, positions="alibi"),
            "positions='alibi' is not Llama's",
        ),
        (
            DecoderConfig.gpt2(**SIZES, context_length=17, bias=False),
            "bias=False has no field in GPT-2's config",
        ),
        (DecoderConfig.gpt2(**SIZES, context_length=17, num_kv_heads=1), "num_kv_heads=1 has no field"),
        (DecoderConfig.gpt2(**SIZES, context_length=17, norm="rms"), "norm='rms' is not GPT-2's"),
        (
            DecoderConfig.llama(**SIZES, context_length=17, rotary_fraction=0.5),
            "rotary_fraction=0.5 has no field",
        ),
        (
            DecoderConfig.llama(**SIZES, context_length=17, qk_norm=True, bias=True),
            "no family .* qk_norm=True",
        ),
    ],
)
def test_models_without_a_family_are_not_written(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        save_folder(Decoder(config), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_other_models_and_tokenizers_are_not_written(tmp_path):
    transformer = EncoderDecoder(EncoderDecoderConfig.transformer(**SIZES, context_length=17))
    with pytest.raises(ValueError, match=r"positions='sinusoidal' is not T5's 'relative'"):
        save_folder(transformer, tmp_path / "model")
    with pytest.raises(ValueError, match="a Linear has no family"):
        save_folder(nn.Linear(2, 2), tmp_path / "model")
    with pytest.raises(ValueError, match="norm_first=True has no field in BERT's"):
        save_folder(
            Encoder(EncoderConfig.bert(**SIZES, context_length=17, norm_first=True)), tmp_path / "model"
        )
    config = EncoderConfig.bert(**SIZES, context_length=17, next_sentence_head=False)
    with pytest.raises(ValueError, match="no BERT with pooler=True"):
        save_folder(Encoder(config), tmp_path / "model")
    with pytest.raises(ValueError, match="CharacterTokenizer has no files"):
        save_folder(Decoder(LLAMA), tmp_path / "model", CharacterTokenizer.train("abc"))
    assert not (tmp_path / "model").exists()


def test_everything_that_was_saved_comes_back(tmp_path):
    tokenizer = BytePairTokenizer.train("low lower lowest", vocab_size=263, special_tokens=["<|endoftext|>"])
    model = Decoder(DecoderConfig.gpt2(**{**SIZES, "vocab_size": 263}, context_length=17))
    save_folder(model, tmp_path, tokenizer, chat_template="{{ x }}")
    loaded = load_folder(tmp_path)
    assert loaded.config == model.config
    assert loaded.chat_template == "{{ x }}"
    assert loaded.special_tokens == {"eos_token": "<|endoftext|>"}
    assert loaded.tokenizer.encode("lowest low") == tokenizer.encode("lowest low")
    assert not loaded.model.training
    assert load_folder(tmp_path, tokenizer=False).tokenizer is None


def test_roles_of_tokens_come_back(tmp_path):
    roles = {"bos_token": "<a>", "eos_token": "<b>"}
    tokenizer = BytePairTokenizer.train("low lower", vocab_size=260, special_tokens=["<a>", "<b>"])
    model = Decoder(DecoderConfig.gpt2(**{**SIZES, "vocab_size": 263}, context_length=17))
    save_folder(model, tmp_path, tokenizer, special_tokens=roles)
    assert load_folder(tmp_path).special_tokens == roles
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (258, 259)
    with pytest.raises(ValueError, match="'end' is no role of a token; there are bos_token"):
        save_folder(model, tmp_path, tokenizer, special_tokens={"end": "<b>"})
    with pytest.raises(ValueError, match="eos_token='<c>' is none of this tokenizer's special tokens"):
        save_folder(model, tmp_path, tokenizer, special_tokens={"eos_token": "<c>"})
    with pytest.raises(ValueError, match="stored with a tokenizer: pass it as well"):
        save_folder(model, tmp_path, chat_template="x")


def test_a_tokenizer_of_another_model(tmp_path):
    tokenizer = BytePairTokenizer.train("low lower lowest", vocab_size=260)
    save_folder(Decoder(LLAMA), tmp_path, tokenizer)
    with pytest.raises(ValueError, match=r"has 260 tokens, and the model reads 31: .*tokenizer=False"):
        load_folder(tmp_path)
    load_folder(tmp_path, tokenizer=False)


def test_loading_draws_no_random_number_and_leaves_gradients_possible(llama):
    state = torch.get_rng_state()
    model = load_folder(llama).model
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


# The Hub


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(OSError, match=r"'a/b' is not in the local cache.*pass it to load_folder"):
        from_hub("a/b")


def test_from_hub_downloads_and_loads(monkeypatch, llama):
    asked = {}

    def download(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(llama)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert from_hub("a/b", revision="main", context_length=5).config.context_length == 5
    assert (asked["name"], asked["revision"]) == ("a/b", "main")
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["patterns"])


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match=r"'a/b/c/\.\.' is no name of a model"):
        from_hub("a/b/c/..")


def test_the_hub_library_is_not_needed_for_folders():
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; sys.modules['transformers'] = None\n"
        "from llm_from_scratch.interop.hugging_face import from_hub, load_folder\n"
        "try: from_hub('a/b')\n"
        "except ValueError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "from_hub needs huggingface_hub: pip install" in run.stdout, run.stderr
    assert hugging_face.__all__ == ["from_hub", "load_folder", "save_folder"]


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX")
def test_a_named_pipe_does_not_make_it_wait(llama):
    (llama / "config.json").unlink()
    os.mkfifo(llama / "config.json")
    with pytest.raises(FileNotFoundError):
        load_folder(llama)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"]
)
@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_link_that_leads_nowhere_is_not_passed_over(llama, name, what):
    """As in a cache that was cleared in part: without its tokenizer the model is not what was asked for."""
    (llama / name).unlink(missing_ok=True)
    if what == "link":
        (llama / name).symlink_to(llama / "gone")
    else:
        (llama / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is no file, or a link to none"):
        load_folder(llama)


def test_names_that_cannot_be_printed(llama):
    path = llama / "model.safetensors"
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    header["\ud800\x1b[31m"] = described(shape=(0,), offsets=(0, 0))
    path.write_bytes(stored(header, path.read_bytes()[8 + length :]))
    with pytest.raises(ValueError, match="1 tensors more than") as caught:
        load_folder(llama)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("templates", ["[{}]", '[{"name": [1], "template": 2}]', "[1]", "[]"])
def test_lists_of_templates_without_a_default(llama, templates):
    (llama / "tokenizer_config.json").write_text(f'{{"chat_template": {templates}}}', encoding="utf-8")
    assert load_folder(llama).chat_template is None


def test_a_vocabulary_that_is_too_long(llama, monkeypatch):
    monkeypatch.setattr("llm_from_scratch.interop.hugging_face.tokenizer.MAX_JSON_BYTES", 9)
    (llama / "vocab.txt").write_text("[UNK]\na\nb\n", encoding="utf-8", newline="\n")
    with pytest.raises(ValueError, match=r"vocab\.txt is 10 bytes long; the limit is 9"):
        load_folder(llama)
