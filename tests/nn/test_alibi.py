import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from llm_from_scratch.nn.alibi import alibi_bias, alibi_slopes
from llm_from_scratch.nn.attention import attention, fused_attention
from llm_from_scratch.nn.masks import causal_mask


def test_slopes_of_the_paper():
    """Section 3: for 8 heads 1/2, 1/4, .., 1/256; for 16 heads twice as many, half a power apart."""
    torch.testing.assert_close(alibi_slopes(8), 0.5 ** torch.arange(1.0, 9.0))
    torch.testing.assert_close(alibi_slopes(16), 0.5 ** (torch.arange(1.0, 17.0) / 2))


@pytest.mark.parametrize("num_heads", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 20, 32, 71])
def test_equals_bloom(num_heads):
    """Bloom's bias of key j is slope * j: the same slopes, and the same weights after the softmax."""
    theirs = build_alibi_tensor(torch.ones(1, 9), num_heads, torch.float32).view(num_heads, 1, 9)
    torch.testing.assert_close(alibi_slopes(num_heads), theirs[:, 0, 1])
    scores = torch.randn(num_heads, 9, 9)
    hidden = ~causal_mask(9)
    ours = (scores + alibi_bias(num_heads, 9)).masked_fill(hidden, -torch.inf).softmax(-1)
    torch.testing.assert_close(ours, (scores + theirs).masked_fill(hidden, -torch.inf).softmax(-1))


def test_bias_by_hand():
    bias = alibi_bias(3, 5)
    for h, slope in enumerate([0.0625, 0.00390625, 0.25]):
        for i in range(5):
            for j in range(5):
                assert bias[h, i, j] == -slope * abs(i - j)


def test_the_last_queries_of_more_keys():
    torch.testing.assert_close(alibi_bias(2, 3, 7), alibi_bias(2, 7)[:, 4:])


def test_in_attention():
    """Equal queries and keys: the weights are the powers of exp(-slope), normalised."""
    q, v = torch.zeros(1, 2, 5, 3), torch.randn(1, 2, 5, 3)
    bias, mask = alibi_bias(2, 5), causal_mask(5)
    out, weights = attention(q, q, v, mask=mask, bias=bias)
    powers = (-alibi_slopes(2)[:, None] * torch.arange(4, -1, -1)).exp()
    torch.testing.assert_close(weights[0, :, -1], powers / powers.sum(-1, keepdim=True))
    torch.testing.assert_close(fused_attention(q, q, v, bias=bias, is_causal=True), out)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="num_heads=0 must be at least 1"):
        alibi_slopes(0)
    with pytest.raises(ValueError, match="5 queries need at least as many keys, got 4"):
        alibi_bias(2, 5, 4)
