import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from llm_from_scratch.models.attention_maps import attention_maps
from llm_from_scratch.models.decoder import Decoder, DecoderConfig, next_token_loss
from llm_from_scratch.nn.alibi import alibi_slopes
from llm_from_scratch.nn.masks import padding_mask

SIZES = {"vocab_size": 31, "context_length": 13, "d_model": 30, "num_layers": 3, "num_heads": 5}
FAMILIES = {
    "gpt2": DecoderConfig.gpt2(**SIZES),
    "llama": DecoderConfig.llama(**SIZES),
    "llama-grouped": DecoderConfig.llama(**{**SIZES, "d_model": 36, "num_heads": 6, "num_kv_heads": 3}),
    "mixed": DecoderConfig(**SIZES, positions="rope", feedforward="swiglu", bias=True),
    "sinusoidal": DecoderConfig(**SIZES, positions="sinusoidal"),
    "alibi": DecoderConfig.llama(**SIZES, positions="alibi"),
    "relative": DecoderConfig(**SIZES, positions="relative", relative_buckets=7, relative_max_distance=11),
}


def build(config, **changes):
    """A model whose weights are large enough for every part to matter."""
    torch.manual_seed(0)
    model = Decoder(DecoderConfig.from_dict({**config.to_dict(), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=FAMILIES, scope="module")
def model(request):
    return build(FAMILIES[request.param])


def ids_like(B, T, seed=0, vocab_size=31):
    return torch.randint(vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


# Invariants


@settings(max_examples=25, deadline=None)
@given(family=st.sampled_from(list(FAMILIES)), place=st.integers(0, 12), token=st.integers(0, 30))
def test_a_later_token_never_changes_an_earlier_logit(family, place, token):
    model = MODELS[family]
    before = ids_like(2, 13)
    after = before.clone()
    after[:, place] = token
    logits, changed = model(before), model(after)
    assert torch.equal(logits[:, :place], changed[:, :place])
    moved = before[:, place] != token
    assert (logits != changed)[moved][:, place:].any(-1).all()  # and it does change every later one


MODELS = {name: build(config) for name, config in FAMILIES.items()}


def test_every_logit_has_no_gradient_to_later_tokens(model):
    """The same through the derivative: the logits at t see the vectors 0 .. t and no others."""
    x = {}
    handle = model.token_embedding.register_forward_hook(
        lambda module, inputs, output: x.setdefault("in", output.detach().requires_grad_())
    )
    logits = model(ids_like(1, 7))
    handle.remove()
    for t in range(7):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), x["in"], retain_graph=True)
        seen = gradient[0].abs().sum(-1) > 0
        assert seen.tolist() == [s <= t for s in range(7)]


def test_a_prefix_has_the_logits_of_the_whole(model):
    ids = ids_like(2, 11)
    torch.testing.assert_close(model(ids[:, :4]), model(ids)[:, :4], rtol=1e-5, atol=1e-5)


def test_a_sequence_does_not_depend_on_its_batch(model):
    ids = ids_like(5, 11)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(ids)[2:3], model(ids[2:3]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(ids)[order], model(ids[order]), rtol=1e-5, atol=1e-5)


def test_padding_on_the_left_and_on_the_right_is_not_seen(model):
    ids = ids_like(2, 11)
    other = ids.clone()
    other[1, 6:] = 0
    mask = padding_mask(torch.tensor([11, 6]), 11)
    a, b = model(ids, mask=mask), model(other, mask=mask)
    torch.testing.assert_close(a[1, :6], b[1, :6], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a[1, :6], model(ids[1:2, :6])[0], rtol=1e-5, atol=1e-5)
    left = torch.ones(2, 1, 1, 11, dtype=torch.bool)
    left[1, ..., :4] = False  # the first queries of this sequence may attend to nothing
    logits, loss = model(ids, ids, mask=left)
    loss.backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    if model.config.positions in (
        "rope",
        "alibi",
        "relative",
    ):  # only distances count, so the rest reads as if it began here
        torch.testing.assert_close(logits[1, 4:], model(ids[1:2, 4:])[0], rtol=1e-4, atol=1e-4)


def test_the_order_of_earlier_tokens_matters(model):
    """Without positions, attention would see a set; the last logits would be the same."""
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    swapped = torch.tensor([[4, 3, 5, 6, 7]])
    assert (model(ids) - model(swapped))[0, -1].abs().max() > 1e-3


def test_without_positions_one_layer_sees_a_set_and_two_layers_see_more():
    """The causal mask tells an earlier token how many stand before it; one layer cannot pass that on."""
    ids, swapped = torch.tensor([[3, 4, 5, 6, 7]]), torch.tensor([[6, 3, 5, 4, 7]])
    single, double = (build(FAMILIES["gpt2"], positions="none", num_layers=n) for n in (1, 2))
    torch.testing.assert_close(single(ids)[0, -1], single(swapped)[0, -1], rtol=1e-5, atol=1e-5)
    assert (double(ids) - double(swapped))[0, -1].abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "relative", "alibi", "none"])
def test_a_longer_model_takes_the_same_weights(positions):
    """Only learned positions hold weights of the context's length; all others read on."""
    short = build(FAMILIES["gpt2"], positions=positions)
    longer = Decoder(DecoderConfig.from_dict({**short.config.to_dict(), "context_length": 29})).eval()
    longer.load_state_dict(short.state_dict())
    ids = ids_like(2, 29)
    torch.testing.assert_close(longer(ids)[:, :13], short(ids[:, :13]), rtol=1e-5, atol=1e-5)
    assert longer(ids).isfinite().all()
    learned = build(FAMILIES["gpt2"])
    with pytest.raises(RuntimeError, match="position_embedding"):
        Decoder(DecoderConfig.from_dict({**learned.config.to_dict(), "context_length": 29})).load_state_dict(
            learned.state_dict()
        )


def test_positions_by_hand():
    """The numbers that each scheme adds, put in by hand into a model without positions."""
    ids = ids_like(1, 7)
    bare = build(FAMILIES["gpt2"], positions="none")
    alibi = Decoder(DecoderConfig.from_dict({**bare.config.to_dict(), "positions": "alibi"})).eval()
    alibi.load_state_dict(bare.state_dict())
    slopes, distance = alibi_slopes(5), torch.arange(7)[:, None] - torch.arange(7)
    x = bare.token_embedding(ids)
    for block in bare.blocks:
        x = block(x, bias=-slopes[:, None, None] * distance)
    expected = F.linear(bare.norm(x), bare.output_weight)
    torch.testing.assert_close(alibi(ids), expected, rtol=1e-5, atol=1e-5)
    waves = build(FAMILIES["sinusoidal"])
    x, rope = waves.embed(ids)
    assert rope is None
    scaled = waves.token_embedding.weight[ids[0, 0]] * 30**0.5
    torch.testing.assert_close(x[0, 0, :4], scaled[:4] + torch.tensor([0.0, 1.0, 0.0, 1.0]))


def test_one_batch_is_learned_by_heart():
    for family in ("gpt2", "llama-grouped"):
        torch.manual_seed(1)
        model = Decoder(FAMILIES[family])
        ids = ids_like(3, 12)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        for _ in range(60):
            _, loss = model(ids[:, :-1], ids[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.2
        predicted = model(ids[:, :-1]).argmax(-1)
        assert (predicted == ids[:, 1:])[:, 3:].all()


# Tied weights


def same_matrix(model):
    return (
        model.output_weight.untyped_storage().data_ptr()
        == model.token_embedding.weight.untyped_storage().data_ptr()
    )


def test_tied_weights_are_one_matrix_whatever_is_done_to_the_model():
    model = build(FAMILIES["gpt2"])
    names = [name for name, p in model.named_parameters() if p.shape == (31, 30)]
    assert names == ["token_embedding.weight"]
    assert same_matrix(model)
    other = Decoder(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert same_matrix(other)
    assigned = Decoder(model.config).eval()
    assigned.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    assert same_matrix(assigned)
    ids = ids_like(2, 7)
    for twin in (other, assigned, copy.deepcopy(model)):
        assert same_matrix(twin)
        assert torch.equal(twin(ids), model(ids))
    for moved in (copy.deepcopy(model).to(torch.bfloat16), copy.deepcopy(model).double(), model.to("meta")):
        assert moved.output_weight is moved.token_embedding.weight


def test_a_step_moves_both_uses_of_a_tied_matrix():
    """The gradient has a row for a token that is never read: it comes through the output."""
    model = build(FAMILIES["gpt2"])
    _, loss = model(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    loss.backward()
    assert model.token_embedding.weight.grad[30].abs().max() > 0
    untied = build(FAMILIES["gpt2"], tie_embeddings=False)
    _, loss = untied(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    loss.backward()
    assert untied.token_embedding.weight.grad[30].abs().max() == 0
    assert not same_matrix(untied)
    assert untied.num_parameters() - model.num_parameters() == 31 * 30


def test_safetensors_and_torch_files_hold_the_whole_model(model):
    """No buffer and no shared tensor stands in the way of either format."""
    twin = Decoder(model.config).eval()
    twin.load_state_dict(load(save(model.state_dict())))
    ids = ids_like(2, 7)
    assert torch.equal(twin(ids), model(ids))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = Decoder(model.config).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(ids), model(ids))


# Outputs


def test_what_forward_returns(model):
    ids, targets = ids_like(2, 7), ids_like(2, 7, seed=1)
    logits = model(ids)
    assert logits.shape == (2, 7, 31)
    with_loss, loss = model(ids, targets)
    also, weights = model(ids, return_attention=True)
    all_three = model(ids, targets, return_attention=True)
    assert torch.equal(with_loss, logits)
    torch.testing.assert_close(also, logits, rtol=1e-5, atol=1e-5)
    assert len(all_three) == 3
    torch.testing.assert_close(all_three[1], loss)
    assert [w.shape for w in weights] == [(2, model.config.num_heads, 7, 7)] * 3
    for layer in weights:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, model.config.num_heads, 7))
        assert (layer.triu(1) == 0).all()


def test_loss_by_hand(model):
    ids, targets = ids_like(2, 5), ids_like(2, 5, seed=1)
    targets[0, :3] = -100
    targets[1, 4] = -100
    logits, loss = model(ids, targets)
    terms = [
        math.log(sum(math.exp(z) for z in logits[b, t].tolist())) - logits[b, t, targets[b, t]].item()
        for b in range(2) for t in range(5) if targets[b, t] != -100
    ]  # fmt: skip
    assert len(terms) == 6
    torch.testing.assert_close(loss.item(), sum(terms) / 6, rtol=1e-5, atol=1e-5)
    assert not (targets == 9).any()
    torch.testing.assert_close(model(ids, targets.masked_fill(targets == -100, 9), ignore_index=9)[1], loss)
    assert model(ids, targets.masked_fill(targets == -100, 9))[1] != loss


def test_targets_are_not_shifted_again():
    """The loss at t compares the logits at t with the target at t: the caller shifts, once."""
    logits = torch.full((1, 3, 5), -20.0)
    targets = torch.tensor([[4, 2, 3]])
    logits[0, torch.arange(3), targets[0]] = 20.0
    assert next_token_loss(logits, targets) < 1e-6
    assert next_token_loss(logits, targets.roll(1)) > 10


def test_loss_without_any_target_is_zero_and_harmless(model):
    ids = ids_like(2, 5)
    _, loss = model(ids, torch.full_like(ids, -100))
    loss.backward()
    assert loss == 0
    assert all(p.grad.abs().max() == 0 for p in model.parameters())
    model.zero_grad()


def test_loss_equals_torch_on_average_of_targets():
    logits, targets = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    targets[1] = -100
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(next_token_loss(logits, targets), expected)


def test_attention_maps_agree_with_the_forward_pass(model):
    ids = ids_like(1, 9)
    trained_before = model.train().training
    weights, scores = attention_maps(model, ids[0].tolist())
    assert model.training == trained_before
    model.eval()
    expected = torch.stack(model(ids, return_attention=True)[1])[:, 0]
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    assert scores.shape == weights.shape == (3, model.config.num_heads, 9, 9)
    assert scores.isfinite().all()
    assert not weights.requires_grad
    assert scores.triu(1).abs().max() > 0
    with pytest.raises(ValueError, match="14 tokens are longer than context_length=13"):
        attention_maps(model, list(range(14)))


# Start, dropout, devices


def test_weights_at_the_start():
    """Standard deviation 0.02, smaller by sqrt(2 num_layers) where a residual branch ends."""
    torch.manual_seed(4)
    model = Decoder(
        DecoderConfig.gpt2(vocab_size=211, context_length=101, d_model=128, num_layers=8, num_heads=4)
    )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            value = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (parameter == value).all(), name
            continue
        scaled = name.endswith(("attention.output.weight", "feedforward.down.weight"))
        expected = 0.02 / math.sqrt(16) if scaled else 0.02
        assert abs(parameter.std().item() / expected - 1) < 0.04, name
        assert abs(parameter.mean().item()) < 0.1 * expected, name


def test_the_first_loss_is_that_of_a_uniform_guess():
    for config in FAMILIES.values():
        torch.manual_seed(5)
        ids = ids_like(7, 13)
        _, loss = Decoder(config)(ids[:, :-1], ids[:, 1:])
        assert abs(loss.item() - math.log(31)) < 0.1


def test_same_seed_same_model():
    models = []
    for _ in range(2):
        torch.manual_seed(6)
        models.append(Decoder(FAMILIES["llama"]))
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_dropout_is_off_in_evaluation_and_on_in_training():
    for family in FAMILIES.values():
        model, ids = build(family, dropout=0.3), ids_like(2, 7)
        assert torch.equal(model(ids), model(ids))
        torch.testing.assert_close(model(ids), build(family)(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))


def test_dropout_acts_on_the_embeddings_the_weights_and_the_branches():
    model, ids = build(FAMILIES["gpt2"], dropout=0.3), ids_like(2, 7)
    expected = model(ids)
    for part in (model.dropout, model.blocks[1].dropout, model.blocks[1].attention):
        part.training = True
        assert not torch.equal(model(ids), expected)
        part.training = False
    assert torch.equal(model(ids), expected)


def test_bfloat16_stays_near_float32(model):
    ids = ids_like(2, 7)
    low = copy.deepcopy(model).to(torch.bfloat16)(ids)
    assert low.dtype == torch.bfloat16
    assert (low.float() - model(ids)).abs().max() < 0.05 * model(ids).abs().max()


def test_autocast_stays_near_float32(model):
    ids = ids_like(2, 7)
    expected, expected_loss = model(ids, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss = model(ids, ids)
        _, weights = model(ids, return_attention=True)
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert abs(loss.item() - expected_loss.item()) < 0.05 * expected_loss.item()
    assert loss.dtype == torch.float32
    assert all((layer.sum(-1) - 1).abs().max() < 0.05 for layer in weights)


def test_number_of_parameters_of_gpt2_small():
    """124,439,808 is the count of the released model; nothing is allocated for it here."""
    with torch.device("meta"):
        model = Decoder(
            DecoderConfig.gpt2(
                vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12
            )
        )
    assert model.num_parameters() == 124_439_808
    assert model.num_parameters(embeddings=False) == 124_439_808 - (50257 + 1024) * 768


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 31}, "d_model=31 is not divisible by num_heads=5; for example d_model=35 is"),
        ({"num_kv_heads": 2}, r"num_heads=5 is not a multiple of num_kv_heads=2; choose .* \[1, 5\]"),
        ({"positions": "rope", "d_model": 35}, "heads of the odd width 7"),
        ({"vocab_size": 0}, "vocab_size=0 must be a positive whole number"),
        ({"num_layers": -1}, "num_layers=-1"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_kv_heads": 0}, "num_kv_heads=0"),
        ({"context_length": 2.5}, "context_length=2.5"),
        ({"d_ff": 0}, "d_ff=0"),
        ({"d_model": True}, "d_model=True"),
        ({"norm": "batch"}, r"norm='batch' is unknown; choose one of \('layer', 'rms'\)"),
        ({"positions": "circular"}, "positions='circular' is unknown"),
        ({"positions": "sinusoidal", "d_model": 35}, "d_model=35 is odd.*choose 36"),
        ({"relative_buckets": 0}, "relative_buckets=0"),
        ({"relative_max_distance": -3}, "relative_max_distance=-3"),
        (
            {"positions": "relative", "relative_buckets": 40, "relative_max_distance": 20},
            "relative_buckets=40 needs relative_max_distance above 20",
        ),
        ({"feedforward": "relu"}, "feedforward='relu'"),
        ({"dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\)"),
        ({"dropout": math.nan}, "dropout=nan"),
        ({"rope_base": 0.0}, "rope_base=0.0"),
        ({"norm_eps": -1e-5}, "norm_eps=-1e-05"),
    ],
)
def test_config_names_the_field_the_value_and_the_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**SIZES, **changes})


def test_config_round_trip():
    for config in FAMILIES.values():
        assert DecoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown fields \['d_modle'\]"):
        DecoderConfig.from_dict({**SIZES, "d_modle": 3})
    with pytest.raises(
        ValueError, match=r"lacks \['num_heads', 'd_model'\]|lacks \['d_model', 'num_heads'\]"
    ):
        DecoderConfig.from_dict({"vocab_size": 3, "context_length": 3, "num_layers": 1})


@pytest.mark.parametrize(
    ("ids", "targets", "message"),
    [
        (torch.zeros(1, 14, dtype=torch.long), None, "14 tokens are longer than context_length=13"),
        (torch.tensor([[3, 31]]), None, "ids hold 31, outside the vocabulary of 31 entries"),
        (torch.tensor([[3, -1]]), None, "ids hold -1, outside the vocabulary"),
        (torch.tensor([3, 4]), None, r"shape \[sequences, tokens\].*\(2,\); ids\[None\]"),
        (torch.zeros(2, 0, dtype=torch.long), None, r"at least one token, got \(2, 0\)"),
        (
            torch.tensor([[3, 4]]),
            torch.tensor([[3]]),
            r"targets \(1, 1\) must have the shape of ids \(1, 2\)",
        ),
        (torch.tensor([[3, 4]]), torch.tensor([[3, 31]]), "targets hold 31"),
        (torch.tensor([[3, 4]]), torch.tensor([[3, -1]]), "targets hold -1"),
        (torch.tensor([[3.0, 4.0]]), None, "ids must be whole numbers.*float32"),
    ],
)
def test_forward_names_what_it_cannot_read(model, ids, targets, message):
    with pytest.raises(ValueError, match=message):
        model(ids, targets)


def test_the_longest_and_the_shortest_sequence(model):
    assert model(ids_like(1, 13)).shape == (1, 13, 31)
    assert model(ids_like(1, 1)).shape == (1, 1, 31)


def test_a_vocabulary_of_one():
    config = DecoderConfig.gpt2(vocab_size=1, context_length=1, d_model=1, num_layers=1, num_heads=1)
    _, loss = Decoder(config)(torch.tensor([[0]]), torch.tensor([[0]]))
    assert loss == 0


@pytest.mark.slow
def test_the_forward_pass_compiles_as_one_graph(model):
    """No check or branch breaks the graph, so that torch.compile can be switched on."""
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    ids = ids_like(3, 7)
    for ours, expected in zip(compiled(ids, ids), model(ids, ids), strict=True):
        torch.testing.assert_close(ours, expected)
