import pytest
import torch
from torch import nn

from llm_from_scratch.nn import DecoderBlock, FeedForward, LayerNorm, MultiHeadAttention, evaluation_mode


def block(dropout=0.0):
    return DecoderBlock(
        norm_1=LayerNorm(15),
        attention=MultiHeadAttention(d_model=15, num_heads=5, causal=True),
        norm_2=LayerNorm(15),
        feedforward=FeedForward(d_model=15, d_ff=31),
        dropout=dropout,
    )


def test_block_equals_torch():
    torch.manual_seed(0)
    ours = block().eval()
    theirs = nn.TransformerEncoderLayer(
        15, 5, 31, dropout=0.0, activation=lambda x: nn.functional.gelu(x, approximate="tanh"),
        batch_first=True, norm_first=True,
    ).eval()  # fmt: skip
    pairs = {
        "norm_1": "norm1",
        "norm_2": "norm2",
        "attention.output": "self_attn.out_proj",
        "feedforward.up": "linear1",
        "feedforward.down": "linear2",
    }
    source = {
        name: parameter + 0.1 * torch.randn_like(parameter) for name, parameter in theirs.named_parameters()
    }
    theirs.load_state_dict(source)
    state = {f"{a}.{kind}": source[f"{b}.{kind}"] for a, b in pairs.items() for kind in ("weight", "bias")}
    state |= {f"attention.qkv.{kind}": source[f"self_attn.in_proj_{kind}"] for kind in ("weight", "bias")}
    ours.load_state_dict(state)
    x = torch.randn(2, 7, 15)
    expected = theirs(x, src_mask=nn.Transformer.generate_square_subsequent_mask(7))
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x, return_weights=True)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_block_whose_branches_are_zero_passes_its_input_on():
    layer = block()
    for part in (layer.attention.output, layer.feedforward.down):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    x = torch.randn(2, 7, 15)
    assert torch.equal(layer(x), x)


def test_dropout_only_in_training():
    layer, x = block(dropout=0.5), torch.randn(2, 7, 15)
    assert not torch.equal(layer(x), layer(x))
    with evaluation_mode(layer):
        assert torch.equal(layer(x), layer(x))
    assert not torch.equal(layer(x), layer(x))


def test_evaluation_mode_gives_each_part_its_mode_back_even_after_an_error():
    layer = block()
    layer.feedforward.eval()
    before = [part.training for part in layer.modules()]
    assert len(set(before)) == 2

    def fail_inside():
        with evaluation_mode(layer):
            assert not any(part.training for part in layer.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert [part.training for part in layer.modules()] == before
