"""Folders of transformers, read and written: the same results, and the same bits on the way back."""

import json

import pytest
import safetensors.torch
import torch

from llm_from_scratch.interop import parity
from llm_from_scratch.interop.hugging_face import load_folder, save_folder


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(params=parity.CASES, ids=lambda case: f"{case.family}: {case.what}", scope="module")
def folder_and_theirs(request, tmp_path_factory):
    """A small random model of transformers, and the folder that it was saved to."""
    theirs = request.param.build()
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return folder, theirs


def weights_of(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= safetensors.torch.load_file(path)
    return found


def same_bits(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name


def test_results_and_gradients(folder_and_theirs):
    folder, theirs = folder_and_theirs
    ours = load_folder(folder).model
    pairs = parity.results(ours, theirs)
    for mine, expected in pairs:
        assert expected.std() > 0.1
        torch.testing.assert_close(mine, expected, rtol=parity.BOUND, atol=parity.BOUND)
    assert parity.gradient_difference(ours, theirs, pairs) < parity.GRADIENT_BOUND
    assert sum(p.numel() for p in ours.parameters()) >= 0.95 * theirs.num_parameters()


def test_theirs_to_ours_to_theirs(folder_and_theirs, tmp_path):
    """The same names and the same bits; transformers misses nothing and meets nothing unexpected."""
    folder, theirs = folder_and_theirs
    save_folder(load_folder(folder).model, tmp_path)
    expected = weights_of(folder)
    written = weights_of(tmp_path)
    if "cls.predictions.decoder.bias" in expected:  # untied BERT: a bias that no code of theirs reads
        expected["cls.predictions.bias"] = expected["cls.predictions.decoder.bias"]
    same_bits(written, expected)
    again, info = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    again = again.eval()
    ours = load_folder(tmp_path).model
    for mine, theirs_again in parity.results(ours, again):
        torch.testing.assert_close(mine, theirs_again, rtol=1e-5, atol=1e-5)
    before, after = (json.loads((f / "config.json").read_text(encoding="utf-8")) for f in (folder, tmp_path))
    for name in before.keys() & after.keys() - {"architectures", "tie_word_embeddings"}:
        if "token_id" not in name and name != "max_window_layers":
            assert before[name] == after[name] or before[name] is None, name


def test_ours_to_theirs_to_ours(folder_and_theirs, tmp_path):
    folder, _ = folder_and_theirs
    ours = load_folder(folder).model
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    save_folder(ours, tmp_path / "one")
    again = load_folder(tmp_path / "one").model
    assert again.config == ours.config
    same_bits(dict(again.state_dict()), dict(ours.state_dict()))
    save_folder(again, tmp_path / "two")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("case", [parity.CASES[i] for i in (0, 3, 10, 13)], ids=lambda case: case.family)
def test_in_several_files(case, tmp_path):
    """Split by transformers, and split by us: the same model, and no file is left from before."""
    theirs = case.build()
    theirs.save_pretrained(tmp_path / "whole")
    expected = load_folder(tmp_path / "whole").model
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    same_bits(dict(load_folder(tmp_path / "theirs").model.state_dict()), dict(expected.state_dict()))
    save_folder(expected, tmp_path / "ours")
    save_folder(expected, tmp_path / "ours", max_shard_bytes=30_000)
    shards = sorted(p.name for p in (tmp_path / "ours").glob("*.safetensors"))
    assert len(shards) > 1
    assert "model.safetensors" not in shards
    same_bits(dict(load_folder(tmp_path / "ours").model.state_dict()), dict(expected.state_dict()))
    _, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    save_folder(expected, tmp_path / "ours")
    assert [p.name for p in (tmp_path / "ours").glob("*.safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats(dtype, tmp_path):
    """Stored in a format and read in it: the same bits. Read in float32: widened."""
    theirs = parity.CASES[2].build().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_folder(tmp_path / "theirs", dtype=dtype)
    assert all(p.dtype == dtype for p in ours.model.parameters())
    assert ours.model.rope_cos_TF.dtype == torch.float32
    save_folder(ours.model, tmp_path / "ours")
    same_bits(weights_of(tmp_path / "ours"), weights_of(tmp_path / "theirs"))
    wide = load_folder(tmp_path / "theirs").model
    assert torch.equal(wide.norm.weight, ours.model.norm.weight.float())


def test_the_released_layout_of_gpt2(tmp_path):
    """Without the prefix, and with the masks that the first files stored."""
    theirs = parity.CASES[0].build()
    theirs.save_pretrained(tmp_path)
    expected = load_folder(tmp_path).model.state_dict()
    tensors = {name.removeprefix("transformer."): t for name, t in weights_of(tmp_path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 23, 23).tril()
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    same_bits(dict(load_folder(tmp_path).model.state_dict()), dict(expected))
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"ties 'lm_head.weight' to 'wte.weight', and the two\s+differ"):
        load_folder(tmp_path)


def test_the_released_layout_of_bert(tmp_path):
    """Norms whose parts are called gamma and beta, copies of the tied matrix, and stored positions."""
    parity.CASES[10].build().save_pretrained(tmp_path)
    expected = load_folder(tmp_path).model.state_dict()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in weights_of(tmp_path).items():
        for new, before in old.items():
            name = name.replace(new, before)
        tensors[name] = tensor
    tensors["bert.embeddings.position_ids"] = torch.arange(31)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    same_bits(dict(load_folder(tmp_path).model.state_dict()), dict(expected))
    tensors["bert.embeddings.LayerNorm.weight"] = torch.ones(35)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="twice, once under its old name"):
        load_folder(tmp_path)


def test_t5_with_an_output_layer_of_its_own(tmp_path):
    """As in the released files of version 1.1: lm_head.weight is there, tie_word_embeddings is false."""
    theirs = parity.CASES[14].build()
    theirs.save_pretrained(tmp_path)
    tensors = weights_of(tmp_path)
    torch.manual_seed(5)
    tensors["lm_head.weight"] = torch.randn(109, 26)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["scale_decoder_outputs"]
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"tie_word_embeddings": False}), encoding="utf-8"
    )
    ours = load_folder(tmp_path).model
    assert not ours.config.tie_embeddings
    assert not ours.config.scale_logits
    expected = theirs.get_encoder()(input_ids=torch.tensor([[4, 5, 6]])).last_hidden_state
    torch.testing.assert_close(ours.encode(torch.tensor([[4, 5, 6]])), expected, rtol=1e-5, atol=1e-5)
    hidden = theirs.get_decoder()(input_ids=torch.tensor([[0, 7]]), encoder_hidden_states=expected)
    logits = hidden.last_hidden_state @ tensors["lm_head.weight"].T
    ours_logits = ours(torch.tensor([[4, 5, 6]]), torch.tensor([[0, 7]]))
    torch.testing.assert_close(ours_logits, logits, rtol=1e-5, atol=1e-4)
    save_folder(ours, tmp_path / "again")
    same_bits(weights_of(tmp_path / "again"), tensors)


def test_old_and_new_names_of_the_rotary_base(tmp_path):
    """The base in a field of its own, as in files of transformers 4."""
    parity.CASES[4].build().save_pretrained(tmp_path)
    expected = load_folder(tmp_path).config
    assert expected.rope_base == 500.0
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["rope_parameters"]
    config |= {"rope_theta": 500.0, "rope_scaling": None}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_folder(tmp_path).config == expected


def test_the_table_is_printed_and_fails_above_the_bound(monkeypatch, capsys):
    rows = [parity.compare(case) for case in parity.CASES[:2]]
    monkeypatch.setattr(parity, "table", lambda: rows)
    assert parity.main() == 0
    out = capsys.readouterr().out
    assert "GPT-2    tied output layer               3 x 35, 5 " in out
    monkeypatch.setattr(parity, "BOUND", rows[0].logits / 2)
    assert parity.main() == 1
