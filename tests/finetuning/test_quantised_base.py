"""A rounded base: gradients are those of the widened weights, the base gets none, bytes are counted."""

import copy

import pytest
import torch
from torch import nn

from llm_from_scratch.finetuning.adapter_files import load_adapter, save_adapter
from llm_from_scratch.finetuning.lora import (
    LoraConfig,
    add_lora,
    count_trained,
    lora_layers,
    lora_parameters,
    merge_lora,
)
from llm_from_scratch.finetuning.memory import compare_memory
from llm_from_scratch.finetuning.quantised_base import quantise_base, rounding_error
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.weight_only import WeightOnlyLinear, dequantise_int4, quantise_int4
from llm_from_scratch.training.planning.measure import measured_activations

SIZES = {"vocab_size": 13, "context_length": 11, "d_model": 40, "num_layers": 2, "num_heads": 5}
IDS = torch.tensor([[1, 5, 2, 9, 4], [3, 3, 7, 0, 12]])


def decoder(family="llama"):
    torch.manual_seed(3)
    return Decoder(getattr(DecoderConfig, family)(**SIZES)).eval()


def rounded_and_widened(family="llama", bits=4):
    """A model on a rounded base, and one whose base holds the same numbers as floats."""
    model = decoder(family)
    quantise_base(model, bits=bits)
    widened = decoder(family)
    for name, part in widened.named_modules():
        if isinstance(part, nn.Linear) and isinstance(model.get_submodule(name), WeightOnlyLinear):
            part.weight.data = model.get_submodule(name).weight
    for one in (model, widened):
        add_lora(one, LoraConfig(rank=3, targets=("query", "value", "down")))
        torch.manual_seed(5)
        for parameter in lora_parameters(one):
            nn.init.normal_(parameter, std=0.1)
    return model, widened


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logits_and_gradients_are_those_of_the_widened_weights(family, bits):
    model, widened = rounded_and_widened(family, bits)
    assert (widened(IDS) - decoder(family)(IDS)).abs().max() > 1e-4  # the rounding is felt
    losses = [one(IDS, IDS)[1] for one in (model, widened)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for mine, expected in zip(lora_parameters(model), lora_parameters(widened), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-5, atol=1e-6)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, _ in model.named_parameters() if ".parts." in n
    }


def test_no_widened_matrix_is_kept_for_the_backward_pass():
    model, widened = rounded_and_widened()
    assert measured_activations(model, IDS, IDS) == measured_activations(widened, IDS, IDS)


def test_a_gradient_reaches_the_input_and_the_bias_and_autocast_is_allowed():
    torch.manual_seed(0)
    layer = nn.Linear(40, 7)
    small, x = WeightOnlyLinear(layer, bits=4), torch.randn(3, 5, 40, requires_grad=True)
    small(x).square().sum().backward()
    own = x.grad.clone(), small.bias.grad.clone()
    x.grad = None
    layer.weight.data = small.weight
    layer(x).square().sum().backward()
    torch.testing.assert_close(own, (x.grad, layer.bias.grad), rtol=1e-5, atol=1e-5)
    x.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = small(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    torch.testing.assert_close(x.grad, own[0], rtol=0.05, atol=0.2)


def test_bytes_are_counted_where_they_lie():
    steps = compare_memory(decoder(), IDS, LoraConfig(rank=2, targets=("query", "value")))
    full, lora, rounded = steps
    P, F, C = full.trained, 112, 40  # F is the hidden width that Llama's config takes
    assert (full.weights, full.gradients, full.optimizer) == (4 * P, 4 * P, 8 * P)
    adapters = 2 * 2 * 2 * (C + C)
    assert lora.trained == rounded.trained == adapters
    assert (lora.weights, lora.gradients, lora.optimizer) == (4 * (P + adapters), 4 * adapters, 8 * adapters)
    rows_c, rows_f = 2 * (3 * C + C + 2 * F), 2 * C  # rows of C columns, two groups; of F, four groups
    saved = 4 * (rows_c * C + rows_f * F) - 20 * (2 * rows_c + 4 * rows_f)  # 20 bytes a group of 32
    assert rounded.weights == lora.weights - saved
    assert lora.activations < full.activations
    assert rounded.activations == lora.activations


def test_rounding_is_as_fine_as_its_bits():
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    four, eight = (rounding_error(layer, bits=bits) for bits in (4, 8))
    assert 0.01 < four < 0.1
    assert eight < four / 8
    assert rounding_error(layer, group_size=64) > four
    once = dequantise_int4(*quantise_int4(layer.weight.detach()), columns=64)
    again = nn.Linear(64, 48)
    again.weight.data = once
    assert rounding_error(again) < four / 20  # numbers of that grid stay where they are


def test_what_is_trained_is_not_rounded(tmp_path):
    model = nn.ModuleDict({"body": decoder(), "head": nn.Linear(40, 2)})
    add_lora(model, LoraConfig(rank=2, also_train=("head",)))
    names = quantise_base(model)
    assert len(names) == 2 * 5
    assert isinstance(model["head"], nn.Linear)
    assert len(lora_layers(model)) == 2
    assert count_trained(model).trained == 2 * 2 * 2 * 80 + 82
    with pytest.raises(ValueError, match="no linear layer left to round"):
        quantise_base(model)
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 3"):
        quantise_base(decoder(), bits=3)


def test_an_adapter_of_a_rounded_base_goes_to_the_full_one(tmp_path):
    model, _ = rounded_and_widened()
    with pytest.raises(ValueError, match=r"holds rounded numbers, .* load it on the model in full precision"):
        merge_lora(model)
    save_adapter(model, tmp_path)
    full = decoder()
    with pytest.raises(ValueError, match="another base"):
        load_adapter(copy.deepcopy(full), tmp_path)
    load_adapter(full, tmp_path, any_base=True)
    for mine, stored in zip(lora_parameters(full), lora_parameters(model), strict=True):
        assert torch.equal(mine, stored)
    merge_lora(full)
