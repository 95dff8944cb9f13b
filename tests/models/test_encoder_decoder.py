"""The encoder-decoder: against torch's own Transformer, and what each position may depend on."""

import math

import pytest
import torch

from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, shift_right
from llm_from_scratch.nn.masks import padding_mask

SIZES = {
    "vocab_size": 31,
    "d_model": 30,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 5,
    "d_ff": 17,
}
FAMILIES = {
    "2017": EncoderDecoderConfig.transformer(**SIZES, context_length=13),
    "2017, norms before": EncoderDecoderConfig.transformer(**SIZES, context_length=13, norm_first=True),
    "t5": EncoderDecoderConfig.t5(**SIZES, d_head=7, relative_buckets=6, relative_max_distance=11),
    "t5, version 1.1": EncoderDecoderConfig.t5(
        **SIZES, feedforward="geglu", tie_embeddings=False, scale_logits=False
    ),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(1)
    return EncoderDecoder(FAMILIES[request.param]).eval()


def ids_like(B, T, seed=0):
    return torch.randint(31, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_transformer_of_2017_equals_torchs_own(norm_first):
    torch.manual_seed(2)
    config = EncoderDecoderConfig.transformer(**SIZES, context_length=13, norm_first=norm_first)
    ours = EncoderDecoder(config).eval()
    fields = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(30, 5, 17, **fields), 2,
        torch.nn.LayerNorm(30) if norm_first else None, enable_nested_tensor=False,
    )  # fmt: skip
    decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(30, 5, 17, **fields), 3,
        torch.nn.LayerNorm(30) if norm_first else None,
    )  # fmt: skip
    theirs = torch.nn.Transformer(
        30, 5, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    copy_from_torch(ours, theirs, norm_first)
    source, ids = ids_like(3, 11), ids_like(3, 7, seed=1)
    mask = padding_mask(torch.tensor([11, 5, 1]), 11)
    vectors = theirs(
        ours.embed(source), ours.embed(ids), tgt_is_causal=True,
        tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(7),
        src_key_padding_mask=~mask[:, 0, 0], memory_key_padding_mask=~mask[:, 0, 0],
    )  # fmt: skip
    expected = vectors @ ours.token_embedding.weight.T
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(source, ids, source_mask=mask), expected, rtol=1e-5, atol=1e-5)


def copy_from_torch(ours, theirs, norm_first):
    state = theirs.state_dict()

    def copy(module, prefix, names):
        own = {}
        for mine, name in names.items():
            for part in ("weight", "bias"):
                joined = name.endswith("in_proj")
                own[f"{mine}.{part}"] = state[f"{prefix}.{name}{'_' if joined else '.'}{part}"]
        module.load_state_dict(own, strict=False)
        return own

    shared = {
        "attention.qkv": "self_attn.in_proj", "attention.output": "self_attn.out_proj",
        "feedforward.up": "linear1", "feedforward.down": "linear2", "norm_1": "norm1",
    }  # fmt: skip
    for i, block in enumerate(ours.encoder):
        own = copy(block, f"encoder.layers.{i}", shared | {"norm_2": "norm2"})
        assert own.keys() == block.state_dict().keys()
    for i, block in enumerate(ours.decoder):
        prefix = f"decoder.layers.{i}"
        names = {"cross.output": "multihead_attn.out_proj", "norm_cross": "norm2", "norm_2": "norm3"}
        own = copy(block, prefix, shared | names)
        for part in ("weight", "bias"):
            query, key, value = state[f"{prefix}.multihead_attn.in_proj_{part}"].chunk(3)
            own |= {f"cross.query.{part}": query, f"cross.key_value.{part}": torch.cat([key, value])}
        block.load_state_dict(own)
    if norm_first:
        ours.encoder_norm.load_state_dict(theirs.encoder.norm.state_dict())
        ours.decoder_norm.load_state_dict(theirs.decoder.norm.state_dict())


def test_what_a_logit_depends_on(model):
    """On the whole source, and on the target up to its own position."""
    source, ids = ids_like(1, 7), ids_like(1, 5, seed=1)
    logits = model(source, ids)
    for s in range(7):
        changed = source.clone()
        changed[0, s] = (source[0, s] + 1) % 31
        assert (model(changed, ids) - logits).abs().amax(-1).min() > 1e-6
    for t in range(5):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 1) % 31
        difference = (model(source, changed) - logits).abs().amax(-1)[0]
        assert (difference[:t] < 1e-6).all()
        assert difference[t:].min() > 1e-6


def test_padding_of_the_source_changes_nothing(model):
    source, ids = ids_like(2, 9), ids_like(2, 5, seed=1)
    mask = padding_mask(torch.tensor([9, 4]), 9)
    logits = model(source, ids, source_mask=mask)
    torch.testing.assert_close(logits[1:], model(source[1:, :4], ids[1:]), rtol=1e-5, atol=1e-5)
    other = source.clone()
    other[1, 4:] = 3
    torch.testing.assert_close(model(other, ids, source_mask=mask), logits)


def test_the_loss(model):
    source, targets = ids_like(2, 9), ids_like(2, 5, seed=1)
    targets[1, 3:] = -100
    ids = shift_right(targets, start_id=0)
    logits, loss = model(source, ids, targets)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)


def test_shift_right_reads_each_target_a_step_later():
    targets = torch.tensor([[7, 8, 9], [5, -100, -100]])
    assert shift_right(targets, start_id=2, pad_id=3).tolist() == [[2, 7, 8], [2, 5, 3]]
    assert targets.tolist() == [[7, 8, 9], [5, -100, -100]]


def test_cross_attention_weights(model):
    source, ids = ids_like(2, 9), ids_like(2, 5, seed=1)
    mask = padding_mask(torch.tensor([9, 4]), 9)
    memory = model.encode(source, mask)
    logits, weights = model.decode(ids, memory, mask, return_attention=True)
    torch.testing.assert_close(logits, model(source, ids, source_mask=mask), rtol=1e-5, atol=1e-5)
    assert [w.shape for w in weights] == [(2, 5, 5, 9)] * 3
    for layer in weights:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 5, 5))
        assert (layer[1, :, :, 4:] == 0).all()


def test_one_batch_of_reversals_can_be_learnt():
    torch.manual_seed(3)
    for config in (FAMILIES["2017"], FAMILIES["t5"]):
        model = EncoderDecoder(config)
        source = ids_like(5, 6)
        targets = source.flip(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(150):
            _, loss = model(source, shift_right(targets, start_id=0), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.1


def test_the_first_loss_is_near_that_of_a_uniform_guess(model):
    _, loss = model(ids_like(7, 9), ids_like(7, 5, seed=1), ids_like(7, 5, seed=2))
    assert abs(loss.item() - math.log(31)) < 0.8


def test_scores_at_the_start_have_a_spread_of_about_one():
    """T5 does not divide its scores by sqrt(d_head): its first queries are smaller instead."""
    torch.manual_seed(4)
    config = EncoderDecoderConfig.t5(vocab_size=211, d_model=96, num_layers=1, num_heads=4)
    model = EncoderDecoder(config)
    x = torch.randn(3, 50, 96)
    for query, key in (
        model.encoder[0].attention.project(x)[:2],
        (model.decoder[0].cross.query(x), model.decoder[0].cross.key_value(x).chunk(2, -1)[0]),
    ):
        query, key = (t if t.dim() == 4 else t.unflatten(-1, (4, 24)).transpose(1, 2) for t in (query, key))
        assert 0.8 < (query @ key.transpose(-1, -2)).std() < 1.2


def test_number_of_parameters_of_t5_small():
    """60,506,624 is the count of the published model; nothing is allocated for it here."""
    with torch.device("meta"):
        config = EncoderDecoderConfig.t5(
            vocab_size=32128, d_model=512, num_layers=6, num_heads=8, d_head=64, d_ff=2048
        )
        assert EncoderDecoder(config).num_parameters() == 60_506_624


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 32}, "d_model=32 is not divisible by num_heads=5"),
        ({"d_model": 35}, "d_model=35 is odd, and sinusoidal"),
        ({"context_length": None}, "give context_length, its rows in tokens"),
        ({"num_decoder_layers": 0}, "num_decoder_layers=0"),
        ({"positions": "rope"}, "positions='rope' is unknown"),
        ({"feedforward": "swiglu"}, "feedforward='swiglu' is unknown"),
        ({"positions": "relative", "relative_buckets": 2}, "relative_buckets=2 must be at least 4"),
        ({"positions": "relative", "relative_max_distance": 16}, "relative_max_distance=16"),
        ({"start_id": 31}, "start_id=31 must be one of the 31 ids"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_config_names_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoderConfig(**{**SIZES, "context_length": 13, **changes})


def test_config_round_trip():
    for config in FAMILIES.values():
        assert EncoderDecoderConfig.from_dict(config.to_dict()) == config


def test_mistakes_are_named():
    model = EncoderDecoder(FAMILIES["2017"])
    with pytest.raises(ValueError, match="14 tokens are longer than context_length=13"):
        model(ids_like(1, 14), ids_like(1, 3))
    with pytest.raises(ValueError, match="source hold 31, outside"):
        model(torch.tensor([[31]]), ids_like(1, 3))
    with pytest.raises(ValueError, match=r"targets \(1, 2\) must have the shape of ids \(1, 3\)"):
        model(ids_like(1, 3), ids_like(1, 3), ids_like(1, 2))
    relative = EncoderDecoder(FAMILIES["t5"])
    assert relative(ids_like(1, 50), ids_like(1, 40)).shape == (1, 40, 31)
