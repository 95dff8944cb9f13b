"""LoRA: no change at the start, only A and B are trained, merged equals unmerged, errors name the way out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llm_from_scratch.decoding import greedy_search
from llm_from_scratch.finetuning.lora import (
    LoraConfig,
    LoraLinear,
    adapters_off,
    add_lora,
    attach,
    count_trained,
    lora_layers,
    lora_parameters,
    merge_lora,
    remove_lora,
    unmerge_lora,
)
from llm_from_scratch.finetuning.lora_targets import Target, all_targets, find_targets
from llm_from_scratch.inference import CachedModel, FastDecoder, quantise_weights
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llm_from_scratch.nn.attention import MultiHeadAttention

V, T = 13, 11
SIZES = {"vocab_size": V, "context_length": T, "d_model": 20, "num_layers": 2}
IDS = torch.tensor([[1, 5, 2, 9, 4], [3, 3, 7, 0, 12]])
MODELS = {
    "llama": (
        lambda: Decoder(DecoderConfig.llama(**SIZES, num_heads=10, num_kv_heads=5, tie_embeddings=True)),
        lambda model: model(IDS),
    ),
    "gpt2": (lambda: Decoder(DecoderConfig.gpt2(**SIZES, num_heads=5)), lambda model: model(IDS)),
    "bert": (lambda: Encoder(EncoderConfig.bert(**SIZES, num_heads=5)), lambda model: model(IDS)),
    "t5": (
        lambda: EncoderDecoder(EncoderDecoderConfig.t5(**SIZES, num_heads=5)),
        lambda model: model(IDS, IDS[:, :3]),
    ),
}
EVERY = ("query", "key", "value", "output", "up", "down")


@pytest.fixture(params=MODELS)
def model_and_call(request):
    torch.manual_seed(2)
    build, call = MODELS[request.param]
    return build().eval(), call


def randomised(model, std=0.3):
    """As if trained: B is no longer zero."""
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.normal_(std=std)
    return model


def adapted_llama(seed=2, **config):
    torch.manual_seed(seed)
    model = MODELS["llama"][0]().eval()
    add_lora(model, LoraConfig(**{"rank": 3, "targets": EVERY, **config}))
    return randomised(model)


def test_the_formula_row_by_row():
    """Against W x + b + (alpha / r) B A x written out, for parts of a joint matrix with fewer key heads."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(d_model=12, num_heads=6, num_kv_heads=2)
    plain, x_BTC = copy.deepcopy(attention.qkv), torch.randn(2, 5, 12)
    add_lora(attention, LoraConfig(rank=3, alpha=7.0, targets=("query", "value")))
    randomised(attention)
    expected = plain(x_BTC)
    for name, rows in {"query": slice(0, 12), "value": slice(16, 20)}.items():
        part = attention.qkv.parts[name]
        assert part.A.shape == (3, 12)
        assert part.B.shape == (rows.stop - rows.start, 3)
        delta = torch.einsum("nr,rc,btc->btn", part.B, part.A, x_BTC)
        expected[..., rows] += 7.0 / 3 * delta
    torch.testing.assert_close(attention.qkv(x_BTC), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(F.linear(x_BTC, attention.qkv.weight, plain.bias), expected)
    assert attention.qkv.parts["query"].scale == 7.0 / 3


def test_gradients_are_those_of_the_formula():
    target = Target(layer="", part="whole", start=2, rows=3)
    lora = LoraLinear(nn.Linear(4, 7).double(), [target], LoraConfig(rank=2))
    randomised(lora)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    parameters = dict(lora.parts.named_parameters())

    def call(x, *values):
        named = {f"parts.{name}": value for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(lora, named, x)

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


def test_nothing_changes_at_the_start_and_the_base_is_frozen(model_and_call):
    model, call = model_and_call
    before, untouched = call(model), {n: p.clone() for n, p in model.named_parameters()}
    names = add_lora(model, LoraConfig(rank=2, targets=EVERY))
    assert len(names) == len({*names}) >= 12
    assert torch.equal(call(model), before)
    model.train()
    call(model).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if ".parts." in name}
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        if ".parts." not in name:
            assert torch.equal(parameter, untouched[name.replace(".base.", ".")])
    model.eval()
    assert not torch.allclose(call(model), before)


def test_a_first_step_moves_b_and_its_gradient_is_not_zero():
    model = MODELS["llama"][0]()
    add_lora(model, LoraConfig(rank=2, targets=("query",)))
    model(IDS, IDS)[1].backward()
    part = model.blocks[0].attention.qkv.parts["query"]
    assert part.A.grad.abs().max() == 0 < part.B.grad.abs().max()
    assert part.A.abs().max() <= 1 / 20**0.5
    assert part.A.std() > 0.5 / 20**0.5 / 3**0.5


def test_merged_equals_unmerged_and_back(model_and_call):
    model, call = model_and_call
    plain_names, before = list(model.state_dict()), call(model)
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    add_lora(model, LoraConfig(rank=3, alpha=4.0, targets=EVERY))
    randomised(model, std=0.1)
    unmerged = call(model)
    assert (unmerged - before).abs().max() > 1e-3
    bound = 1e-6 * float(unmerged.detach().abs().max() + 1)
    merge_lora(model, keep=True)
    torch.testing.assert_close(call(model), unmerged, rtol=1e-5, atol=bound)
    with pytest.raises(ValueError, match="is merged already: call unmerge_lora first"):
        merge_lora(model)
    with pytest.raises(ValueError, match="merging twice would add it twice"):
        next(iter(lora_layers(model).values())).merge()
    with pytest.raises(ValueError, match="unmerge_lora"), adapters_off(model):
        pass
    unmerge_lora(model)
    with pytest.raises(ValueError, match="not merged"):
        unmerge_lora(model)
    torch.testing.assert_close(call(model), unmerged, rtol=1e-5, atol=bound)
    merge_lora(model)
    torch.testing.assert_close(call(model), unmerged, rtol=1e-5, atol=bound)
    assert list(model.state_dict()) == plain_names
    with pytest.raises(ValueError, match="carries no adapter"):
        merge_lora(model)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, weights[n])}
    assert changed
    assert all(n.endswith("weight") and "norm" not in n and "embedding" not in n for n in changed)


def test_tied_embedding_is_untouched():
    model = adapted_llama()
    table = model.token_embedding.weight.clone()
    merge_lora(model)
    assert torch.equal(model.token_embedding.weight, table)
    assert model.output_weight is model.token_embedding.weight
    with pytest.raises(ValueError, match="no linear layer is called 'head'"):
        add_lora(model, LoraConfig(targets=("head",)))


def test_an_output_layer_of_its_own_is_read_with_its_adapter():
    """The forward pass reads ``head.weight`` itself, and does not call the layer."""
    torch.manual_seed(1)
    model = Decoder(DecoderConfig.llama(**SIZES, num_heads=5, tie_embeddings=False))
    before = model(IDS)
    add_lora(model, LoraConfig(rank=2, targets=("head",)))
    assert torch.equal(model(IDS), before)
    randomised(model)
    after = model(IDS)
    assert (after - before).abs().max() > 1e-2
    model(IDS, IDS)[1].backward()
    assert all(p.grad.abs().max() > 0 for p in lora_parameters(model))
    merge_lora(model)
    torch.testing.assert_close(model(IDS), after, rtol=1e-5, atol=1e-6)


def test_two_layers_with_one_weight_are_not_merged():
    model = nn.ModuleDict({"one": nn.Linear(5, 3), "other": nn.Linear(5, 3)})
    model["other"].weight = model["one"].weight
    add_lora(model, LoraConfig(rank=2, targets=("one",)))
    with pytest.raises(ValueError, match=r"one.base.weight and other.weight are one tensor"):
        merge_lora(model)


def test_adapters_off_is_the_base_and_comes_back_after_an_error():
    model = MODELS["gpt2"][0]().eval()
    base = model(IDS)
    add_lora(model, LoraConfig(rank=2))
    adapted = randomised(model)(IDS)
    with pytest.raises(ValueError, match="ids must have the shape"), adapters_off(model):  # noqa: PT012
        assert torch.equal(model(IDS), base)
        model(IDS[0])
    assert torch.equal(model(IDS), adapted)
    remove_lora(model)
    assert torch.equal(model(IDS), base)


def test_modules_that_are_trained_too():
    model = nn.ModuleDict({"body": MODELS["bert"][0](), "head": nn.Linear(20, 3)})
    add_lora(model, LoraConfig(rank=2, targets=("query",), also_train=("head",)))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained[-2:] == ["head.weight", "head.bias"]
    assert len(trained) == 2 * 2 + 2
    with pytest.raises(ValueError, match="'haed', and the model has no such module; it has body, head"):
        add_lora(
            nn.ModuleDict({"body": MODELS["bert"][0](), "head": nn.Linear(20, 3)}),
            LoraConfig(also_train=("haed",)),
        )


def test_counts():
    model = adapted_llama(targets=("query", "value"), rank=2)
    queries, values = 2 * (20 + 20) * 2, 2 * (20 + 10) * 2
    assert count_trained(model).trained == queries + values == sum(p.numel() for p in lora_parameters(model))
    assert count_trained(model).total == MODELS["llama"][0]().num_parameters() + queries + values
    assert count_trained(model).share == pytest.approx((queries + values) / count_trained(model).total)


def test_dropout_acts_in_training_alone_and_on_the_adapter_alone():
    model = adapted_llama(dropout=0.5)
    assert torch.equal(model(IDS), model(IDS))
    model.train()
    one, other = model(IDS), model(IDS)
    assert not torch.equal(one, other)
    with adapters_off(model):
        assert torch.equal(model(IDS), model(IDS))
    layer, x = model.blocks[0].feedforward.up, torch.ones(4000, 20)
    mean = layer(x).mean(0)
    torch.testing.assert_close(mean, layer.eval()(x)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_and_in_other_formats(dtype):
    model = adapted_llama()
    expected = model(IDS)
    with torch.autocast("cpu", dtype=dtype):
        logits, loss = model(IDS, IDS)
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.1)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in lora_parameters(model))
    low = adapted_llama().to(dtype)
    before = low(IDS)
    merge_lora(low)
    torch.testing.assert_close(low(IDS), before, rtol=0.05, atol=0.2)


def test_on_the_meta_device():
    with torch.device("meta"):
        model = Decoder(DecoderConfig.gpt2(**SIZES, num_heads=5))
    add_lora(model, LoraConfig(rank=2))
    assert all(p.is_meta for p in lora_parameters(model))
    assert count_trained(model).trained == 2 * 2 * 2 * 2 * 20


def test_generation_reads_the_adapter_or_says_to_merge(tmp_path):
    model = adapted_llama()
    expected = model(IDS)[:, -1:]
    torch.testing.assert_close(CachedModel(model)(IDS), expected, rtol=1e-5, atol=1e-6)
    slow = FastDecoder(model, compile=False)
    torch.testing.assert_close(slow(IDS), expected, rtol=1e-5, atol=1e-6)
    for refuse in (
        lambda: FastDecoder(model),
        lambda: FastDecoder(model, weights="int8", compile=False),
        lambda: quantise_weights(model),
        lambda: save_folder(model, tmp_path),
    ):
        with pytest.raises(
            ValueError, match=r"layers carry adapters beside them \(blocks.0.*merge_lora\(model"
        ):
            refuse()
    longer = greedy_search(model, IDS[0].tolist(), max_new_tokens=3)
    merge_lora(model)
    assert greedy_search(model, IDS[0].tolist(), max_new_tokens=3) == longer
    torch.testing.assert_close(FastDecoder(model)(IDS), expected, rtol=1e-5, atol=1e-6)
    save_folder(model, tmp_path)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("qury",), "no linear layer is called 'qury'; did you mean 'query'?"),
        (("norm_1",), "'norm_1' is a RMSNorm, and LoRA adds to linear layers"),
        (("blocks.0",), "'blocks.0' is a DecoderBlock|'blocks.0' is a TransformerBlock"),
        (("qkv", "query"), "ask for both"),
        ((), "targets must be names"),
        ("query", "targets must be names"),
    ],
)
def test_wrong_targets_are_named_and_nothing_is_changed(targets, message):
    model = MODELS["llama"][0]()
    with pytest.raises(ValueError, match=message):
        add_lora(model, LoraConfig(targets=targets))
    assert not lora_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_wrong_settings():
    for changes, message in [
        ({"rank": 0}, "rank must be a whole number from 1 on, got 0"),
        ({"rank": 2.0}, "rank must be"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            LoraConfig(**changes)
    model = MODELS["llama"][0]()
    with pytest.raises(
        ValueError, match=r"rank 11 is larger than blocks.0.attention.value allows, .* 10 x 20"
    ):
        add_lora(model, LoraConfig(rank=11))
    assert not lora_layers(model)
    add_lora(model, LoraConfig(rank=10))
    with pytest.raises(ValueError, match=r"carries adapters already .*: merge_lora or remove_lora first"):
        add_lora(model, LoraConfig())
    with pytest.raises(ValueError, match="the model itself is a linear layer"):
        attach(nn.Linear(3, 3), [(Target(layer="", part="whole", start=0, rows=3), LoraConfig(rank=1))])


def test_names_mean_what_they_say():
    bert = MODELS["bert"][0]()
    assert [t.name for t in find_targets(bert, ["output"])] == [
        f"blocks.{i}.attention.output" for i in (0, 1)
    ]
    assert [t.name for t in find_targets(bert, ["masked_language_head.linear"])] == [
        "masked_language_head.linear"
    ]
    assert [t.name for t in find_targets(bert, ["blocks.1.attention.key"])] == ["blocks.1.attention.key"]
    t5 = MODELS["t5"][0]()
    crossed = [t for t in find_targets(t5, ["value"]) if "cross" in t.layer]
    assert [(t.start, t.rows) for t in crossed] == [(20, 20)] * 2
    assert not any(name.endswith("norm_1") for name in all_targets(bert))
