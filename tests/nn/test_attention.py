import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llm_from_scratch.nn.attention import (
    MultiHeadAttention,
    attention,
    attention_scores,
    fused_attention,
)
from llm_from_scratch.nn.masks import causal_mask, padding_mask
from llm_from_scratch.nn.positions import rotary_table


def heads(B=2, H=6, K=3, T=5, S=7, D=11, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = (B, H, T, D), (B, K, S, D), (B, K, S, D)
    return [torch.randn(shape, generator=g, dtype=dtype) for shape in shapes]


def by_loops(q_BHTD, k_BKSD, v_BKSD, mask_BHTS):
    """The definition once more, one query at a time, with Python's own arithmetic order."""
    B, H, T, D = q_BHTD.shape
    K, E = k_BKSD.shape[1], v_BKSD.shape[-1]
    out = torch.zeros(B, H, T, E, dtype=q_BHTD.dtype)
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        allowed = [s for s in range(k_BKSD.shape[2]) if mask_BHTS[b, h, t, s]]
        if not allowed:
            continue
        kv = h * K // H
        scores = [float(q_BHTD[b, h, t] @ k_BKSD[b, kv, s]) / D**0.5 for s in allowed]
        powers = [2.718281828459045 ** (score - max(scores)) for score in scores]
        for s, power in zip(allowed, powers, strict=True):
            out[b, h, t] += power / sum(powers) * v_BKSD[b, kv, s]
    return out


@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 3), K=st.integers(1, 3), group=st.integers(1, 3), T=st.integers(1, 6),
    S=st.integers(1, 7), D=st.integers(1, 5), seed=st.integers(0, 10**6), density=st.floats(0, 1),
)  # fmt: skip
def test_reference_equals_fused_equals_loops(B, K, group, T, S, D, seed, density):
    """Any sizes, any grouping, any mask, rows without an allowed key included."""
    H = K * group
    q, k, v = heads(B, H, K, T, S, D, torch.float64, seed)
    mask = torch.rand(B, H, T, S, generator=torch.Generator().manual_seed(seed)) < density
    out, weights = attention(q, k, v, mask=mask)
    torch.testing.assert_close(out, by_loops(q, k, v, mask))
    torch.testing.assert_close(out, fused_attention(q, k, v, mask=mask))
    rows = mask.any(-1).double()
    torch.testing.assert_close(weights.sum(-1), rows)
    assert (weights[~mask] == 0).all()


@pytest.mark.parametrize("K", [1, 2, 3, 6])
@pytest.mark.parametrize(("T", "S"), [(5, 5), (5, 7), (1, 7), (1, 1)])
def test_causal_equals_causal_mask(K, T, S):
    q, k, v = heads(K=K, T=T, S=S)
    expected, _ = attention(q, k, v, mask=causal_mask(T, S))
    torch.testing.assert_close(fused_attention(q, k, v, is_causal=True), expected, rtol=1e-5, atol=1e-5)


def test_causal_and_padding_together():
    q, k, v = heads(T=7, S=7)
    padding = padding_mask(torch.tensor([7, 3]), 7)
    expected, _ = attention(q, k, v, mask=padding & causal_mask(7))
    fused = fused_attention(q, k, v, mask=padding, is_causal=True)
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [attention, fused_attention])
def test_fully_masked_rows_are_zero_and_their_gradients_finite(function):
    q, k, v = (t.requires_grad_() for t in heads())
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    result = function(q, k, v, mask=mask)
    out, weights = result if isinstance(result, tuple) else (result, None)
    assert (out[:, :, 2] == 0).all()
    assert out[:, :, 1].abs().min() > 0
    if weights is not None:
        assert (weights[:, :, 2] == 0).all()
    out.square().sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad.isfinite().all()
    assert (q.grad[:, :, 2] == 0).all()


def test_gradients_of_reference_and_fused_agree():
    mask = causal_mask(5, 7)
    grads = []
    for function in (lambda *t: attention(*t, mask=mask)[0], lambda *t: fused_attention(*t, mask=mask)):
        q, k, v = (t.requires_grad_() for t in heads())
        function(q, k, v).square().sum().backward()
        grads.append((q.grad, k.grad, v.grad))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_reference_gradcheck():
    inputs = [t.requires_grad_() for t in heads(B=1, H=2, K=1, T=3, S=3, D=2, dtype=torch.float64)]
    mask = causal_mask(3).clone()
    mask[1] = False
    assert torch.autograd.gradcheck(lambda *t: attention(*t, mask=mask), inputs)


def test_scale_by_hand():
    """Scores of 4 products are halved; an explicit scale replaces the default in both versions."""
    q, k = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4)
    assert attention_scores(q, k).item() == 2.0
    assert attention_scores(q, k, scale=1.0).item() == 4.0
    q, k, v = heads()
    torch.testing.assert_close(attention(q, k, v, scale=0.3)[0], fused_attention(q, k, v, scale=0.3))


@pytest.mark.parametrize("function", [attention, fused_attention])
def test_mistakes_are_named(function):
    q, k, v = heads()
    with pytest.raises(ValueError, match=r"num_heads=6 must be a multiple of num_kv_heads=4"):
        function(q, *heads(K=4)[1:])
    with pytest.raises(ValueError, match=r"\(7, 5\) does not broadcast .* rows are queries"):
        function(q, k, v, mask=torch.ones(7, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"must be boolean.*float32"):
        function(q, k, v, mask=torch.zeros(5, 7))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_equals_torch(causal, bias):
    B, T, C, H = 3, 7, 55, 5
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(C, H, bias=bias, batch_first=True)
    ours = MultiHeadAttention(d_model=C, num_heads=H, bias=bias, causal=causal)
    state = {"qkv.weight": theirs.in_proj_weight, "output.weight": theirs.out_proj.weight}
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
        state |= {"qkv.bias": theirs.in_proj_bias, "output.bias": theirs.out_proj.bias}
    ours.load_state_dict(state)
    x = torch.randn(B, T, C)
    lengths = torch.tensor([7, 4, 2])
    mask = padding_mask(lengths, T)
    expected, expected_weights = theirs(
        x, x, x,
        key_padding_mask=~mask[:, 0, 0],
        attn_mask=~causal_mask(T) if causal else None,
        average_attn_weights=False,
    )  # fmt: skip
    torch.testing.assert_close(ours(x, mask=mask), expected, rtol=1e-5, atol=1e-5)
    out, weights = ours(x, mask=mask, return_weights=True)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-5)


def test_both_paths_agree_with_groups_and_rotation():
    torch.manual_seed(2)
    ours = MultiHeadAttention(d_model=36, num_heads=6, num_kv_heads=2, bias=False, causal=True)
    x, rope = torch.randn(3, 7, 36), rotary_table(7, 6)
    out, weights = ours(x, rope=rope, return_weights=True)
    torch.testing.assert_close(ours(x, rope=rope), out, rtol=1e-5, atol=1e-5)
    assert weights.shape == (3, 6, 7, 7)
    assert not torch.allclose(ours(x), out)


def test_attention_dropout_only_in_training():
    torch.manual_seed(3)
    ours = MultiHeadAttention(d_model=33, num_heads=3, dropout=0.5)
    x = torch.randn(2, 5, 33)
    assert not torch.equal(ours(x), ours(x))
    ours.eval()
    assert torch.equal(ours(x), ours(x))


def test_multi_head_mistakes():
    with pytest.raises(ValueError, match="d_model=10 must be a positive multiple of num_heads=3"):
        MultiHeadAttention(d_model=10, num_heads=3)
    with pytest.raises(ValueError, match="num_heads=6 must be a multiple of num_kv_heads=4"):
        MultiHeadAttention(d_model=12, num_heads=6, num_kv_heads=4)
    with pytest.raises(ValueError, match="num_kv_heads=0"):
        MultiHeadAttention(d_model=12, num_heads=6, num_kv_heads=0)
    with pytest.raises(ValueError, match="num_heads=0"):
        MultiHeadAttention(d_model=12, num_heads=0)


# A bias on the scores


def a_bias(H=6, T=5, S=7, seed=4, B=None, dtype=torch.float32):
    shape = (H, T, S) if B is None else (B, H, T, S)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2


@pytest.mark.parametrize("B", [None, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("K", [1, 3, 6])
def test_bias_is_added_to_the_scores(B, masked, K):
    """The definition once more, in one line; the kernel agrees, rows without a key included."""
    q, k, v = heads(K=K, dtype=torch.float64)
    bias = a_bias(B=B, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.6 if masked else None
    if masked:
        mask[3] = False
    scores = attention_scores(q, k) + bias
    weights = scores.exp() if mask is None else scores.exp() * mask
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
    out, ours = attention(q, k, v, mask=mask, bias=bias)
    torch.testing.assert_close(ours, weights)
    torch.testing.assert_close(fused_attention(q, k, v, mask=mask, bias=bias), out)
    assert not torch.allclose(attention(q, k, v, mask=mask)[0], out)


@pytest.mark.parametrize(("T", "S"), [(5, 5), (5, 7), (1, 7)])
def test_bias_with_the_causal_mask(T, S):
    q, k, v = heads(T=T, S=S)
    bias = a_bias(T=T, S=S)
    expected, _ = attention(q, k, v, mask=causal_mask(T, S), bias=bias)
    torch.testing.assert_close(fused_attention(q, k, v, bias=bias, is_causal=True), expected)


def test_gradients_through_a_bias_are_finite_and_agree():
    grads = []
    mask = causal_mask(5, 7).clone()
    mask[2] = False
    for function in (lambda *t, **o: attention(*t, **o)[0], fused_attention):
        inputs = [t.requires_grad_() for t in (*heads(), a_bias())]
        function(*inputs[:3], mask=mask, bias=inputs[3]).square().sum().backward()
        grads.append([t.grad for t in inputs])
    assert all(g.isfinite().all() for g in grads[0] + grads[1])
    assert (grads[0][3][:, ~mask] == 0).all()
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [attention, fused_attention])
def test_mistakes_in_a_bias_are_named(function):
    q, k, v = heads()
    with pytest.raises(ValueError, match=r"a bias of shape \(6, 7, 5\) does not broadcast"):
        function(q, k, v, bias=a_bias(T=7, S=5))
    with pytest.raises(ValueError, match=r"must hold floating-point numbers, got torch.bool.*mask"):
        function(q, k, v, bias=torch.ones(5, 7, dtype=torch.bool))


# The choices of later models


def test_window_both_paths_and_by_hand():
    torch.manual_seed(5)
    ours = MultiHeadAttention(d_model=36, num_heads=6, num_kv_heads=2, causal=True, window=3)
    full = MultiHeadAttention(d_model=36, num_heads=6, num_kv_heads=2, causal=True)
    full.load_state_dict(ours.state_dict())
    x = torch.randn(2, 7, 36)
    out, weights = ours(x, return_weights=True)
    torch.testing.assert_close(ours(x), out)
    i, j = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    assert torch.equal(weights[0, 0] > 0, (j <= i) & (i - j < 3))
    torch.testing.assert_close(full(x, mask=(i - j < 3)), out)
    torch.testing.assert_close(ours(x[:, :3]), full(x[:, :3]))
    assert not torch.allclose(ours(x), full(x))


def test_bias_reaches_both_paths_of_the_module():
    torch.manual_seed(6)
    ours = MultiHeadAttention(d_model=36, num_heads=6, causal=True)
    x, bias = torch.randn(2, 7, 36), a_bias(T=7)
    out, weights = ours(x, bias=bias, return_weights=True)
    torch.testing.assert_close(ours(x, bias=bias), out)
    assert weights.triu(1).abs().max() == 0
    assert not torch.allclose(ours(x), out)


def test_scale_of_the_module_reaches_both_paths():
    torch.manual_seed(7)
    ours, plain = (MultiHeadAttention(d_model=12, num_heads=3, scale=s) for s in (1.0, None))
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 12)
    out, _ = ours(x, return_weights=True)
    torch.testing.assert_close(ours(x), out)
    assert not torch.allclose(plain(x), out, atol=1e-4)


def test_width_of_a_head_apart_from_the_width_of_the_model():
    ours = MultiHeadAttention(d_model=10, num_heads=3, d_head=7, bias=False, qkv_bias=True)
    assert ours.qkv.weight.shape == (63, 10)
    assert ours.output.weight.shape == (10, 21)
    assert ours.qkv.bias.shape == (63,)
    assert ours.output.bias is None
    out, weights = ours(torch.randn(2, 5, 10), return_weights=True)
    assert (out.shape, weights.shape) == ((2, 5, 10), (2, 3, 5, 5))


def test_norms_of_queries_and_keys():
    """Scaling the input leaves normalised queries and keys, hence the weights, as they were."""
    torch.manual_seed(8)
    ours = MultiHeadAttention(d_model=12, num_heads=3, qk_norm_eps=1e-9, bias=False)
    q, k, _ = ours.project(torch.randn(2, 5, 12))
    torch.testing.assert_close(q.square().mean(-1), torch.ones(2, 3, 5))
    torch.testing.assert_close(k.square().mean(-1), torch.ones(2, 3, 5))
    x = torch.randn(2, 5, 12)
    weights = [ours(c * x, return_weights=True)[1] for c in (1.0, 7.0)]
    torch.testing.assert_close(*weights)
    assert weights[0].std() > 0.01


def test_a_narrow_rotary_table_turns_the_first_columns():
    torch.manual_seed(9)
    ours = MultiHeadAttention(d_model=24, num_heads=3)
    x, rope = torch.randn(2, 5, 24), rotary_table(5, 6)
    plain, turned = ours.project(x), ours.project(x, rope)
    for p, t in zip(plain[:2], turned[:2], strict=True):
        torch.testing.assert_close(t[..., 6:], p[..., 6:])
        assert not torch.allclose(t[..., 1:, :6], p[..., 1:, :6])
        torch.testing.assert_close(t[..., :6].norm(dim=-1), p[..., :6].norm(dim=-1))
    with pytest.raises(ValueError, match="5 positions of width 8 need a table"):
        ours.project(x, rotary_table(5, 10))
