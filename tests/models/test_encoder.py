"""The encoder: every position sees every other, padding is seen by none, heads as configured."""

import pytest
import torch

from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.nn.masks import padding_mask

SIZES = {"vocab_size": 31, "context_length": 13, "d_model": 35, "num_layers": 3, "num_heads": 5, "d_ff": 17}


@pytest.fixture(params=[False, True], ids=["norms after", "norms before"])
def model(request):
    torch.manual_seed(1)
    model = Encoder(EncoderConfig.bert(**SIZES, num_segments=3, norm_first=request.param)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ids_like(B, T, seed=0):
    return torch.randint(31, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm_first", [False, True])
def test_blocks_equal_torchs_own_encoder(norm_first):
    """Blocks and last norm against torch.nn.TransformerEncoder, with the same weights and a mask."""
    torch.manual_seed(2)
    config = EncoderConfig.bert(**SIZES, norm_first=norm_first, feedforward="relu", norm_eps=1e-5)
    ours = Encoder(config).eval()
    layer = torch.nn.TransformerEncoderLayer(
        35, 5, 17, dropout=0.0, activation="relu", batch_first=True, norm_first=norm_first
    )
    last = torch.nn.LayerNorm(35) if norm_first else None
    theirs = torch.nn.TransformerEncoder(layer, 3, norm=last, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.output.weight": "self_attn.out_proj.weight",
        "attention.output.bias": "self_attn.out_proj.bias",
    }
    for part in ("weight", "bias"):
        pairs = {
            "norm_1": "norm1",
            "norm_2": "norm2",
            "feedforward.up": "linear1",
            "feedforward.down": "linear2",
        }
        names |= {f"{a}.{part}": f"{b}.{part}" for a, b in pairs.items()}
    state = theirs.state_dict()
    for i, block in enumerate(ours.blocks):
        block.load_state_dict({a: state[f"layers.{i}.{b}"] for a, b in names.items()})
    if norm_first:
        ours.norm.load_state_dict(last.state_dict())
    ids, mask = ids_like(3, 11), padding_mask(torch.tensor([11, 5, 1]), 11)
    expected = theirs(ours.embed(ids), src_key_padding_mask=~mask[:, 0, 0])
    real = mask[:, 0, 0]
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(ids, mask=mask)[real], expected[real], rtol=1e-5, atol=1e-5)


def test_every_position_depends_on_every_other(model):
    ids = ids_like(1, 7)
    vectors = model(ids)
    for position in range(7):
        changed = ids.clone()
        changed[0, position] = (ids[0, position] + 1) % 31
        assert (model(changed) - vectors).abs().amax(-1).min() > 1e-4


def test_padding_changes_nothing(model):
    ids = ids_like(2, 9)
    mask = padding_mask(torch.tensor([9, 4]), 9)
    vectors = model(ids, mask=mask)
    torch.testing.assert_close(vectors[1:, :4], model(ids[1:, :4]), rtol=1e-5, atol=1e-5)
    other = ids.clone()
    other[1, 4:] = 3
    torch.testing.assert_close(model(other, mask=mask)[mask[:, 0, 0]], vectors[mask[:, 0, 0]])
    torch.testing.assert_close(model.pool(vectors)[1:], model.pool(model(ids[1:, :4])), rtol=1e-5, atol=1e-5)


def test_segments(model):
    ids = ids_like(2, 7)
    torch.testing.assert_close(model(ids), model(ids, torch.zeros_like(ids)))
    assert not torch.allclose(model(ids), model(ids, torch.ones_like(ids)))


def test_attention_weights(model):
    ids, mask = ids_like(2, 7), padding_mask(torch.tensor([7, 3]), 7)
    vectors, weights = model(ids, mask=mask, return_attention=True)
    torch.testing.assert_close(vectors, model(ids, mask=mask), rtol=1e-5, atol=1e-5)
    assert len(weights) == 3
    for layer in weights:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 5, 7))
        assert (layer[1, :, :, 3:] == 0).all()
        assert layer[0].triu(1).abs().max() > 0


def test_scores_of_chosen_positions_alone(model):
    vectors = model(ids_like(2, 7))
    chosen = torch.zeros(2, 7, dtype=torch.bool)
    chosen[0, 3] = chosen[1, 5] = True
    torch.testing.assert_close(model.masked_logits(vectors[chosen]), model.masked_logits(vectors)[chosen])


def test_tied_head_is_the_embedding_itself():
    tied = Encoder(EncoderConfig.bert(**SIZES))
    untied = Encoder(EncoderConfig.bert(**SIZES, tie_embeddings=False))
    assert untied.num_parameters() - tied.num_parameters() == 31 * 35
    before = tied.masked_logits(torch.ones(1, 1, 35))
    with torch.no_grad():
        tied.token_embedding.weight.mul_(2)
    torch.testing.assert_close(tied.masked_logits(torch.ones(1, 1, 35)), 2 * before)


def test_number_of_parameters_of_bert_base():
    """109,482,240 without heads is the count of the published model; nothing is allocated for it here."""
    with torch.device("meta"):
        config = EncoderConfig(vocab_size=30522, context_length=512, d_model=768, num_layers=12, num_heads=12)
        assert Encoder(config).num_parameters() == 109_482_240


def test_one_masked_batch_can_be_learnt():
    torch.manual_seed(3)
    model = Encoder(EncoderConfig.bert(**SIZES))
    ids, hidden = ids_like(3, 11), torch.rand(3, 11, generator=torch.Generator().manual_seed(4)) < 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        logits = model.masked_logits(model(ids.masked_fill(hidden, 0))[hidden])
        loss = torch.nn.functional.cross_entropy(logits, ids[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_dropout_only_in_training():
    model, ids = Encoder(EncoderConfig.bert(**SIZES, dropout=0.3)), ids_like(2, 7)
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_weights_at_the_start():
    torch.manual_seed(4)
    model = Encoder(
        EncoderConfig.bert(vocab_size=211, context_length=101, d_model=96, num_layers=2, num_heads=4)
    )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            value = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (parameter == value).all(), name
        elif parameter.numel() > 1000:
            assert abs(parameter.std().item() / 0.02 - 1) < 0.05, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 31}, "d_model=31 is not divisible by num_heads=5"),
        ({"vocab_size": 0}, "vocab_size=0 must be a positive"),
        ({"num_segments": 0}, "num_segments=0"),
        ({"feedforward": "swiglu"}, "feedforward='swiglu' is unknown"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"norm_eps": 0.0}, "norm_eps=0.0"),
        ({"pooler": False, "next_sentence_head": True}, "next_sentence_head=True reads the pooled vector"),
    ],
)
def test_config_names_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**{**SIZES, **changes})


def test_config_round_trip():
    config = EncoderConfig.bert(**SIZES, norm_first=True)
    assert EncoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown fields \['d_modle'\] for an encoder"):
        EncoderConfig.from_dict({**SIZES, "d_modle": 3})
    with pytest.raises(ValueError, match=r"an encoder's config lacks \['num_heads'\]"):
        EncoderConfig.from_dict({k: v for k, v in SIZES.items() if k != "num_heads"})


def test_mistakes_are_named():
    model = Encoder(EncoderConfig(**SIZES))
    with pytest.raises(ValueError, match="14 tokens are longer than context_length=13"):
        model(ids_like(1, 14))
    with pytest.raises(ValueError, match="ids hold 31, outside the vocabulary"):
        model(torch.tensor([[3, 31]]))
    with pytest.raises(ValueError, match=r"segments \(1, 1\) must have the shape of ids \(1, 2\)"):
        model(torch.tensor([[3, 4]]), torch.tensor([[0]]))
    with pytest.raises(ValueError, match=r"segments hold 2, outside this model's 2 segments \(0 to 1\)"):
        model(torch.tensor([[3, 4]]), torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="set masked_language_head=True in its config"):
        model.masked_logits(torch.zeros(1, 1, 35))
    with pytest.raises(ValueError, match="set next_sentence_head=True"):
        model.next_sentence_logits(torch.zeros(1, 1, 35))
