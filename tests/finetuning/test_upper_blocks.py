"""The upper blocks alone: the same logits, losses and gradients as the whole model."""

import pytest
import torch

from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, lora_parameters
from llm_from_scratch.finetuning.preference import sequence_log_probability
from llm_from_scratch.finetuning.upper_blocks import UpperBlocks
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.decoder_config import DecoderConfig

IDS_BT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [5, 3, 0, 0, 0]])
TARGETS_BT = torch.tensor([[-100, -100, 1, 5, 9], [-100, 6, 5, -100, -100], [3, -100, -100, -100, -100]])


@pytest.fixture(params=["llama", "gpt2", "alibi"])
def model(request):
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "context_length": 7, "d_model": 12, "num_layers": 3, "num_heads": 3}
    if request.param == "llama":
        return Decoder(DecoderConfig.llama(num_kv_heads=1, **sizes))
    return Decoder(
        DecoderConfig.gpt2(**sizes, **({"positions": "alibi"} if request.param == "alibi" else {}))
    )


def adapt(model):
    add_lora(model, LoraConfig(rank=2, targets=("blocks.2.attention.query", "blocks.2.attention.value")))
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.normal_(std=0.5)
    return UpperBlocks(model, first=2, pad_id=0)


def test_logits_losses_and_gradients_are_those_of_the_whole_model(model):
    upper = adapt(model)
    logits_BTV, loss = model(IDS_BT, TARGETS_BT)
    loss.backward()
    expected = [p.grad.clone() for p in lora_parameters(model)]
    for _ in range(2):  # computed, then from memory
        model.zero_grad()
        real_BT = IDS_BT != 0
        torch.testing.assert_close(upper(IDS_BT)[real_BT], logits_BTV[real_BT])
        logits_KV, own = upper(IDS_BT, TARGETS_BT)
        torch.testing.assert_close(own, loss)
        torch.testing.assert_close(logits_KV, logits_BTV[TARGETS_BT != -100])
        own.backward()
        for parameter, gradient in zip(lora_parameters(model), expected, strict=True):
            assert gradient.abs().max() > 0
            torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(
        upper.log_probabilities(IDS_BT, TARGETS_BT), sequence_log_probability(logits_BTV, TARGETS_BT)
    )


def test_each_text_passes_the_lower_blocks_once_however_it_is_padded(model):
    upper, texts = adapt(model), []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: texts.append(len(arguments[0])))
    upper(IDS_BT)
    upper(IDS_BT[1:, :3])
    upper(torch.tensor([[9, 2, 6], [9, 2, 7]]))
    assert texts == [3, 1]
    shared = UpperBlocks(model, first=2, pad_id=0, memory=upper.memory)
    shared(IDS_BT)
    assert texts == [3, 1]


def test_what_would_make_the_memory_wrong_is_refused(model):
    with pytest.raises(ValueError, match="below 2 are trained"):
        UpperBlocks(model, first=2, pad_id=0)
    with pytest.raises(ValueError, match="from 1 to 2"):
        UpperBlocks(model, first=3, pad_id=0)
    config = DecoderConfig.from_dict(model.config.to_dict() | {"dropout": 0.1})
    with pytest.raises(ValueError, match="dropout"):
        UpperBlocks(Decoder(config).requires_grad_(False), first=2, pad_id=0)
