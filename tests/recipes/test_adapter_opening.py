"""A folder with an adapter opens as its base with the adapter merged into it."""

import json

import pytest
import torch

from llm_from_scratch.finetuning.adapter_files import save_adapter
from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, lora_layers, lora_parameters
from llm_from_scratch.interop.hugging_face import load_folder, save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes.opening import open_any

IDS = torch.tensor([[1, 5, 2, 9]])


@pytest.fixture
def adapted(tmp_path):
    """The base lies beside the adapter, and is named from there."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "context_length": 11, "d_model": 12, "num_layers": 2, "num_heads": 3}
    save_folder(Decoder(DecoderConfig.llama(**sizes)), tmp_path / "base")
    model = load_folder(tmp_path / "base").model
    add_lora(model, LoraConfig(rank=2))
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(model, tmp_path / "adapter", base="../base")
    return tmp_path, model


@pytest.mark.parametrize("base", ["../base", "absolute"])
def test_the_base_is_found_and_the_adapter_merged(adapted, base):
    folder, model = adapted
    if base == "absolute":
        save_adapter(model, folder / "adapter", base=str(folder / "base"))
    loaded, start_ids = open_any(str(folder / "adapter"))
    assert start_ids == []
    assert not lora_layers(loaded.model)
    assert not loaded.model.training
    torch.testing.assert_close(loaded.model(IDS), model(IDS), rtol=1e-5, atol=1e-6)
    assert (loaded.model(IDS) - open_any(str(folder / "base"))[0].model(IDS)).abs().max() > 1e-3
    quantised, _ = open_any(str(folder / "adapter"), weights="int8")
    torch.testing.assert_close(quantised.model(IDS), model(IDS), rtol=0.1, atol=0.05)
    save_folder(loaded.model, folder / "merged")  # what `llm-scratch export` does
    torch.testing.assert_close(load_folder(folder / "merged").model(IDS), loaded.model(IDS))


def test_a_base_that_is_missing_or_another_is_named(adapted):
    folder, _ = adapted
    path = folder / "adapter/adapter_config.json"
    fields = json.loads(path.read_text())
    for base, error, message in [
        (None, ValueError, "names no base: write it by save_adapter"),
        ("../adapter", ValueError, "is an adapter itself"),
        (
            "nowhere",
            FileNotFoundError,
            "the base of the adapter .* is not here: there is no run folder 'nowhere'",
        ),
    ]:
        path.write_text(json.dumps({**fields, "base_model_name_or_path": base}))
        with pytest.raises(error, match=message):
            open_any(str(folder / "adapter"))
    path.write_text(json.dumps(fields))
    other = load_folder(folder / "base").model
    torch.nn.init.normal_(other.blocks[0].attention.qkv.weight)
    save_folder(other, folder / "base")
    with pytest.raises(ValueError, match=r"was trained beside another base, '\.\./base'"):
        open_any(str(folder / "adapter"))
