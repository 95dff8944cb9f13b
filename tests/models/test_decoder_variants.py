"""The choices of later decoders, each as a field of the config: window, norms of queries, wide heads, ..."""

import pytest
import torch
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

from llm_from_scratch.models.attention_maps import attention_maps
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

SIZES = {"vocab_size": 31, "context_length": 13, "d_model": 36, "num_layers": 3, "num_heads": 6}
VARIANTS = {
    "window": {"sliding_window": 3},
    "norms of queries and keys": {"qk_norm": True},
    "wide heads": {"d_head": 10},
    "biases of queries, keys and values": {"qkv_bias": True},
    "partial rotation": {"d_head": 10, "rotary_fraction": 0.4},
    "squared ReLU": {"feedforward": "relu2"},
    "a row for each pair": {"ngram_rows": (32**2,)},
    "hashed pairs, triples, fours": {"ngram_rows": (101, 211, 307)},
    "all of them": {
        "sliding_window": 4, "qk_norm": True, "d_head": 10, "qkv_bias": True, "rotary_fraction": 0.4,
        "num_kv_heads": 2, "feedforward": "relu2", "ngram_rows": (127, 131),
    },
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def model(request):
    torch.manual_seed(1)
    model = Decoder(DecoderConfig.llama(**SIZES, **VARIANTS[request.param])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids_like(B, T, seed=0):
    return torch.randint(31, (B, T), generator=torch.Generator().manual_seed(seed))


def test_a_variant_changes_the_logits(model):
    """With the weights that both have; those that the plain model lacks are what makes the difference."""
    plain = Decoder(DecoderConfig.llama(**SIZES, num_kv_heads=model.config.num_kv_heads)).eval()
    theirs = plain.state_dict()
    if all(theirs[n].shape == t.shape for n, t in model.state_dict().items() if n in theirs):
        plain.load_state_dict(model.state_dict(), strict=False)
        assert not torch.allclose(model(ids_like(2, 11)), plain(ids_like(2, 11)), atol=1e-3)


def test_causality_and_reach(model):
    """A token changes no logit before it, and with a window in L layers none further than L steps."""
    ids = ids_like(1, 13)
    changed = ids.clone()
    changed[0, 2] = (ids[0, 2] + 1) % 31
    difference = (model(changed) - model(ids)).abs().amax(-1)[0]
    assert (difference[:2] == 0).all()
    assert difference[2] > 1e-4
    window = model.config.sliding_window
    reach = 12 if window is None else 2 + model.config.num_layers * (window - 1)
    reach = min(12, reach + len(model.config.ngram_rows))  # the vector of a token holds those before it
    assert (difference[reach + 1 :] == 0).all()
    assert difference[min(reach, 12)] > 0


def test_readable_and_fused_paths_agree(model):
    ids = ids_like(2, 11)
    logits, weights = model(ids, return_attention=True)
    torch.testing.assert_close(model(ids), logits, rtol=1e-5, atol=1e-5)
    maps, scores = attention_maps(model, ids[0])
    torch.testing.assert_close(maps, torch.stack(weights)[:, 0], rtol=1e-5, atol=1e-5)
    assert scores.isfinite().all()
    if model.config.sliding_window:
        i, j = torch.meshgrid(torch.arange(11), torch.arange(11), indexing="ij")
        assert (maps[:, :, i - j >= model.config.sliding_window] == 0).all()


def test_config_round_trip(model):
    assert DecoderConfig.from_dict(model.config.to_dict()) == model.config
    again = Decoder(DecoderConfig.from_dict(model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(ids_like(1, 7)), model(ids_like(1, 7)))


def test_partial_rotation_equals_that_of_gpt_neox():
    torch.manual_seed(2)
    config = DecoderConfig.llama(**SIZES, d_head=10, rotary_fraction=0.4)
    model = Decoder(config)
    x_BTC = torch.randn(2, 11, 36)
    _, rope = model.embed(ids_like(2, 11))
    attention = model.blocks[0].attention
    plain_q, plain_k, _ = attention.project(x_BTC)
    cos, sin = (torch.cat([table, table], -1)[None] for table in rope)
    assert cos.shape == (1, 11, 4)
    expected = apply_rotary_pos_emb(plain_q, plain_k, cos, sin)
    for ours, theirs in zip(attention.project(x_BTC, rope)[:2], expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_number_of_parameters_of_wide_heads():
    model = Decoder(DecoderConfig.llama(**SIZES, d_head=10, num_kv_heads=2, qkv_bias=True, qk_norm=True))
    attention = model.blocks[0].attention
    by_formula = 36 * 100 + 100 + 60 * 36 + 2 * 10
    assert sum(p.numel() for p in attention.parameters()) == by_formula


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 0}, "sliding_window=0 must be a positive whole number"),
        ({"d_head": 0}, "d_head=0 must be"),
        ({"d_head": 7}, "heads of the odd width 7"),
        ({"rotary_fraction": 0.0}, r"rotary_fraction=0.0 must lie in \(0, 1\]"),
        ({"rotary_fraction": 0.5, "d_head": 10}, "rotary_fraction=0.5 of d_head=10 columns is 5"),
        ({"rotary_fraction": 0.1}, "rotary_fraction=0.1 of d_head=6 columns is 0"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig.llama(**{**SIZES, **changes})


@pytest.mark.parametrize(("positions", "unmoved"), [("rope", True), ("alibi", True), ("learned", False)])
def test_padding_in_front(positions, unmoved):
    """Positions that count from each other do not mind it; those that count from the start do."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 31, "context_length": 17, "d_model": 12, "num_layers": 2, "num_heads": 3}
    model = Decoder(DecoderConfig.gpt2(**sizes, positions=positions)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        ids_BT = torch.randint(31, (2, 7))
        padded_BT = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids_BT], dim=1)
        kept_T = torch.arange(12) >= 5
        logits_BTV = model(padded_BT, mask=kept_T)[:, 5:]
        assert logits_BTV.isfinite().all()
        assert torch.allclose(logits_BTV, model(ids_BT), atol=1e-5) == unmoved
