"""The attention explorer's data: what is checked, what is shipped, and how exactly."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from llm_from_scratch.widgets import AttentionExplorer

L, H, T = 2, 3, 5
TOKENS = ["a", " b", "c", "d", "e"]


@pytest.fixture
def scores():
    return 2 * torch.randn(L, H, T, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def causal_softmax(scores):
    return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf).softmax(-1)


def data_of(view):
    return json.loads(re.search(r'application/json">(.*?)</script>', view._repr_html_(), re.S)[1])


def unpack(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype="<" + dtype)


def test_weights_travel_as_bytes(scores):
    weights = causal_softmax(scores)
    data = data_of(AttentionExplorer(TOKENS, weights))
    found = unpack(data["weights"], "u1").reshape(L, H, T, T) / 255
    assert np.abs(found - weights.numpy()).max() <= 0.5 / 255
    bits = -(weights * weights.clamp(min=1e-300).log2()).sum(-1)
    assert np.allclose(unpack(data["entropy"], "f4").reshape(L, H, T), bits, rtol=0, atol=1e-6)
    assert "scores" not in data
    assert "maskable" not in data


def test_scores_travel_as_int16_and_give_the_weights(scores):
    data = data_of(AttentionExplorer(TOKENS, causal_softmax(scores), scores))
    steps = unpack(data["scores"]["values"], "i2").reshape(L, H, T, T)
    middle = np.array(data["scores"]["middle"]).reshape(L, H, 1, 1)
    step = np.array(data["scores"]["step"]).reshape(L, H, 1, 1)
    error = np.abs(middle + step * steps - scores.numpy())
    assert (error <= step * 0.5000001).all()
    assert step.max() < 3e-4
    assert data["maskable"] is True
    assert "weights" not in data


def test_masked_scores_leave_no_switch(scores):
    later = ~torch.ones(T, T, dtype=torch.bool).tril()
    for filling in (-torch.inf, -1e9, torch.finfo(torch.float32).min):
        data = data_of(AttentionExplorer(TOKENS, causal_softmax(scores), scores.masked_fill(later, filling)))
        assert data["maskable"] is False
        steps = unpack(data["scores"]["values"], "i2").reshape(L, H, T, T)
        assert (steps == -32768).sum() == L * H * T * (T - 1) // 2
        assert max(data["scores"]["step"]) < 3e-4  # the filling does not stretch the scale


def test_accepts_what_a_model_returns(scores):
    weights = causal_softmax(scores)
    listed = [layer[None].float() for layer in weights]  # one [1, H, T, T] a layer
    expected = AttentionExplorer(TOKENS, weights.float())._repr_html_()
    assert AttentionExplorer(TOKENS, listed)._repr_html_() == expected
    assert AttentionExplorer(TOKENS, weights.float().numpy())._repr_html_() == expected
    assert AttentionExplorer(TOKENS, weights.float().tolist())._repr_html_() == expected
    AttentionExplorer(TOKENS, weights.bfloat16())


def test_a_fully_masked_row_is_zero(scores):
    scores[:, :, 2] = -torch.inf
    weights = torch.nan_to_num(causal_softmax(scores))
    AttentionExplorer(TOKENS, weights, scores)
    with pytest.raises(ValueError, match=r"weights\[0, 0, 2\] sums to 0.0000"):
        AttentionExplorer(TOKENS, weights)


def broken(weights, change):
    weights = weights.clone()
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w[1, 2, 3].mul_(0.5), r"weights\[1, 2, 3\] sums to 0\.5000.*eval mode"),
        (lambda w: w[0, 1, 2, 0].fill_(torch.nan), r"weights\[0, 1, 2, 0\] is nan"),
        (lambda w: w[0, 1, 2, 0].fill_(torch.inf), r"weights\[0, 1, 2, 0\] is inf"),
        (lambda w: w[1, 0, 4, 1].fill_(-0.25), r"weights\[1, 0, 4, 1\] is -0\.25.*scores="),
        (lambda w: w[0, 2, 1].copy_(torch.tensor([0.0, 0, 0, 1, 0])), r"later token.*causal=False"),
    ],
)
def test_bad_weights(scores, change, words):
    with pytest.raises(ValueError, match=words):
        AttentionExplorer(TOKENS, broken(causal_softmax(scores), change))


def test_bad_shapes(scores):
    weights = causal_softmax(scores)
    for value, words in (
        (weights[0], r"got \[3, 5, 5\]: add the layer axis, weights\[None\]"),
        (weights[:, :, :4], "5 tokens need"),
        (weights[:0], "has shape"),
        (weights[..., :4, :4], r"5 tokens need \[layers, heads, 5, 5\]"),
        (torch.stack([weights, weights], 1), "pick one sequence"),
    ):
        with pytest.raises(ValueError, match=words):
            AttentionExplorer(TOKENS, value)
    with pytest.raises(ValueError, match="they must agree"):
        AttentionExplorer(TOKENS, weights, scores[:1])
    with pytest.raises(ValueError, match="layer=2 does not exist"):
        AttentionExplorer(TOKENS, weights, layer=2)
    with pytest.raises(ValueError, match="head=-1 does not exist"):
        AttentionExplorer(TOKENS, weights, head=-1)


def test_scores_must_be_those_of_the_weights(scores):
    with pytest.raises(ValueError, match=r"divided by sqrt\(d_k\)"):
        AttentionExplorer(TOKENS, causal_softmax(scores), scores * 8)
    with pytest.raises(ValueError, match=r"scores\[0, 0, 1, 0\] is nan"):
        AttentionExplorer(
            TOKENS, causal_softmax(scores), broken(scores, lambda s: s[0, 0, 1, 0].fill_(torch.nan))
        )
    with pytest.raises(ValueError, match="is inf"):
        AttentionExplorer(
            TOKENS, causal_softmax(scores), broken(scores, lambda s: s[0, 0, 1, 0].fill_(torch.inf))
        )


@pytest.mark.parametrize("causal", [True, False])
def test_more_than_64_tokens_warn_and_are_cut(causal):
    scores = torch.randn(1, 2, 71, 71, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = causal_softmax(scores) if causal else scores.softmax(-1)
    with pytest.warns(UserWarning, match="71 tokens are more than the 64") as caught:
        view = AttentionExplorer([str(i) for i in range(71)], weights, scores, causal)
    assert ("renormalised" in str(caught[0].message)) is not causal
    assert len(view.tokens) == 64
    assert view.weights.shape == view.scores.shape == (1, 2, 64, 64)
    assert np.allclose(view.weights.sum(-1), 1)
    expected = causal_softmax(scores[..., :64, :64]) if causal else scores[..., :64, :64].softmax(-1)
    assert np.allclose(view.weights, expected)
    assert caught[0].filename == __file__  # the warning points at the caller


def test_large_output_warns():
    weights = np.full((12, 12, 64, 64), 1 / 64)
    with pytest.warns(UserWarning, match="MB of HTML"):
        AttentionExplorer([str(i) for i in range(64)], weights, causal=False)


def test_fallback_speaks_of_the_head_that_is_shown(scores):
    weights = causal_softmax(scores)
    view = AttentionExplorer(TOKENS, weights, layer=1, head=2)
    assert view.alt.startswith("Attention weights of layer 1, head 2: a mostly at a (1.00)")
    best = int(weights[1, 2, 4].argmax())
    shown = TOKENS[best].replace(" ", "␣")
    assert f"<td>e</td><td>{shown} {weights[1, 2, 4, best]:.2f}" in view._repr_html_()
    page = AttentionExplorer(TOKENS, weights, title="T<1>", caption="C&2", alt='A"3')._repr_html_()
    for text in ("T&lt;1&gt;", "C&amp;2", 'alt="A&quot;3"'):
        assert text in page


def test_one_output_stays_small(scores):
    size = len(AttentionExplorer(TOKENS, causal_softmax(scores), scores)._repr_html_())
    assert size < 45_000  # 30 kB of it is the script
