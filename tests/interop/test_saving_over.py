"""`save_folder` into a folder that holds something: the old model, the new one, or a clear error."""

import errno
import json
import os
import shutil

import pytest
import torch

from llm_from_scratch import files
from llm_from_scratch.interop.hugging_face import load_folder, save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.tokenizers import BytePairTokenizer

SIZES = {"vocab_size": 263, "d_model": 12, "num_layers": 2, "num_heads": 3, "context_length": 17}
TOKENIZER = BytePairTokenizer.train("low lower", vocab_size=260, special_tokens=["<a>", "<b>"])


def model_of(value, **fields):
    """All weights are ``value``, so that a mixture shows."""
    model = Decoder(DecoderConfig.llama(**SIZES, d_ff=13, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def value_of(folder):
    """What stands in all weights, which must agree with the config."""
    loaded = load_folder(folder)
    values = {v for parameter in loaded.model.parameters() for v in parameter.flatten().tolist()}
    assert len(values) == 1, f"a mixture of {values}"
    (value,) = values
    assert loaded.config.rope_base == 100.0 * value
    return value


@pytest.mark.parametrize("shards", [(1, 1), (3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_interrupted_at_any_step(tmp_path, monkeypatch, shards, error):
    before, after = ({"max_shard_bytes": 10**9 if n == 1 else 10_000} for n in shards)
    rename = os.replace
    save_folder(model_of(1.0, rope_base=100.0), tmp_path / "start", TOKENIZER, **before)
    assert (tmp_path / "start" / "model.safetensors").exists() == (shards[0] == 1)
    for step in range(99):
        folder = tmp_path / f"folder {step}"
        shutil.copytree(tmp_path / "start", folder)
        calls = iter(range(999))

        def rename_or_stop(source, target, calls=calls, step=step):
            if next(calls) == step:
                raise error
            rename(source, target)

        monkeypatch.setattr(os, "replace", rename_or_stop)
        try:
            save_folder(model_of(2.0, rope_base=200.0), folder, TOKENIZER, **after)
        except (KeyboardInterrupt, OSError):
            monkeypatch.undo()
            if (folder / "config.json").exists():
                assert value_of(folder) == 1.0
            else:
                with pytest.raises(FileNotFoundError, match=r"there is no config\.json"):
                    load_folder(folder)
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
            save_folder(model_of(2.0, rope_base=200.0), folder, TOKENIZER, **after)
            assert value_of(folder) == 2.0
        else:
            monkeypatch.undo()
            assert value_of(folder) == 2.0
            break
    assert step > 5


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    save_folder(model_of(1.0, rope_base=100.0), tmp_path, TOKENIZER, max_shard_bytes=10_000)
    listed = sorted(path.name for path in tmp_path.iterdir())
    flush, calls = files._flush_file, iter(range(999))

    def full(path):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(files, "_flush_file", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_folder(model_of(2.0, rope_base=200.0), tmp_path, TOKENIZER, max_shard_bytes=10_000)
    assert value_of(tmp_path) == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == listed


def test_an_earlier_tokenizer_leaves_nothing_behind(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("old", encoding="utf-8")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<a>"}), encoding="utf-8")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}), encoding="utf-8")
    model = model_of(1.0, rope_base=100.0)
    save_folder(model, tmp_path)
    assert (tmp_path / "chat_template.jinja").exists(), "without a tokenizer, its files stay"
    save_folder(model, tmp_path, TOKENIZER, special_tokens={"eos_token": "<b>"})
    loaded = load_folder(tmp_path)
    assert (loaded.chat_template, loaded.special_tokens) == (None, {"eos_token": "<b>"})
    assert not (tmp_path / "generation_config.json").exists()


def test_other_files_stay(tmp_path):
    others = ["model_of_mine.safetensors", "model-best.safetensors", "README.md", "training_args.bin"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    for shard_bytes in (10_000, 10**9):
        save_folder(model_of(1.0, rope_base=100.0), tmp_path, TOKENIZER, max_shard_bytes=shard_bytes)
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)
    assert value_of(tmp_path) == 1.0
    expected = {*others, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_into_a_cache_is_replaced_and_not_what_it_leads_to(tmp_path):
    save_folder(model_of(1.0, rope_base=100.0), tmp_path / "cache")
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "cache").iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    save_folder(model_of(2.0, rope_base=200.0), tmp_path / "model")
    assert (value_of(tmp_path / "cache"), value_of(tmp_path / "model")) == (1.0, 2.0)


def test_a_folder_in_the_place_of_a_file(tmp_path):
    save_folder(model_of(1.0, rope_base=100.0), tmp_path)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(ValueError, match=r"tokenizer\.json is a folder"):
        save_folder(model_of(2.0, rope_base=200.0), tmp_path, TOKENIZER)
    (tmp_path / "tokenizer.json").rmdir()
    assert value_of(tmp_path) == 1.0
