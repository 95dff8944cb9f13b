"""config.json as published models have it: fields that change nothing must not keep a model out."""

import json

import pytest
import torch

from llm_from_scratch.interop.hugging_face import load_folder, save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig

SIZES = {"vocab_size": 31, "d_model": 12, "num_layers": 2, "num_heads": 3}
LLAMA = DecoderConfig.llama(**SIZES, context_length=17, num_kv_heads=1, d_ff=13)
QWEN2 = DecoderConfig.llama(**SIZES, context_length=17, num_kv_heads=1, d_ff=13, qkv_bias=True)
GPT2 = DecoderConfig.gpt2(**SIZES, context_length=17)
BERT = EncoderConfig.bert(**SIZES, context_length=17)

# What older transformers wrote into every config.json.
WRITTEN_BY_OLD = {
    "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None,
    "cross_attention_hidden_size": None, "diversity_penalty": 0.0, "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "is_decoder": False, "is_encoder_decoder": False, "max_length": 20, "num_beam_groups": 1,
    "num_return_sequences": 1, "output_scores": False, "pruned_heads": {}, "remove_invalid_values": False,
    "suppress_tokens": None, "tf_legacy_loss": False, "tie_encoder_decoder": False, "typical_p": 1.0,
    "xla_device": None,
}  # fmt: skip


def edited(folder, model, changes):
    save_folder(model, folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({k: v for k, v in (fields | changes).items() if v != "gone"}), encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        pytest.param(Decoder(LLAMA), {"rope_interleaved": False, "is_llama_config": True}, id="SmolLM2"),
        pytest.param(Decoder(QWEN2), {"use_mrope": False}, id="Qwen2.5"),
        pytest.param(Decoder(GPT2), {"_num_labels": 1}, id="distilgpt2"),
        pytest.param(Decoder(GPT2), {"conversational": {"max_length": 1000}}, id="DialoGPT"),
        pytest.param(Decoder(LLAMA), WRITTEN_BY_OLD, id="old Llama"),
        pytest.param(Decoder(GPT2), WRITTEN_BY_OLD, id="old GPT-2"),
        pytest.param(Encoder(BERT), WRITTEN_BY_OLD, id="old BERT"),
    ],
)
def test_fields_that_change_nothing(tmp_path, model, changes):
    loaded = load_folder(edited(tmp_path, model, changes)).model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "changes",
    [{"rope_interleaved": True}, {"use_mrope": True}, {"pruned_heads": {"0": [1]}}, {"is_decoder": 0}],
)
def test_the_same_fields_at_other_values(tmp_path, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"'{name}' is .* not known to leave the model as it is"):
        load_folder(edited(tmp_path, Decoder(QWEN2), changes))


def test_a_window_that_is_asked_for_and_not_given(tmp_path):
    changes = {"use_sliding_window": True, "max_window_layers": 0, "layer_types": "gone"}
    folder = edited(tmp_path, Decoder(QWEN2), {**changes, "sliding_window": "gone"})
    assert load_folder(folder).config.sliding_window == 4096
    from transformers import Qwen2Config

    assert Qwen2Config.from_pretrained(folder).sliding_window == 4096
