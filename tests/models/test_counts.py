"""The formulas of `models.counts` against what torch counts on a model that was built."""

import contextlib
import importlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llm_from_scratch.models import counts
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

SIZES = {"vocab_size": 101, "context_length": 23, "num_layers": 3}
CONFIGS = {
    "gpt2": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5),
    "gpt2, other width": DecoderConfig.gpt2(**SIZES, d_model=14, num_heads=7, d_ff=31),
    "gpt2, no biases": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=3, bias=False),
    "gpt2, untied": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=3, tie_embeddings=False),
    "llama": DecoderConfig.llama(**SIZES, d_model=20, num_heads=5),
    "llama, grouped": DecoderConfig.llama(**SIZES, d_model=24, num_heads=6, num_kv_heads=2, d_ff=37),
    "llama, one kv head, biases": DecoderConfig.llama(
        **SIZES, d_model=12, num_heads=3, num_kv_heads=1, bias=True
    ),
    "llama, tied": DecoderConfig.llama(**SIZES, d_model=20, num_heads=5, tie_embeddings=True),
    "sinusoidal": DecoderConfig.gpt2(**SIZES, d_model=20, num_heads=5, positions="sinusoidal"),
}
MORE_DECODERS = {
    "qwen2": DecoderConfig.llama(**SIZES, d_model=20, num_heads=5, qkv_bias=True),
    "qwen3": DecoderConfig.llama(**SIZES, d_model=20, num_heads=5, qk_norm=True, d_head=6),
    "mistral": DecoderConfig.llama(**SIZES, d_model=20, num_heads=5, num_kv_heads=1, sliding_window=7),
    "relative": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, positions="relative"),
    "alibi": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, positions="alibi"),
}

B, T = 2, 19


def named(configs):
    return pytest.mark.parametrize("config", configs.values(), ids=list(configs))


@named(CONFIGS | MORE_DECODERS)
def test_parameters_are_those_of_the_model(config):
    found = counts.parameter_counts(config)
    model = Decoder(config)
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())

    def numel(*words, but="nothing"):
        named = [(name, p) for name, p in model.named_parameters() if but not in name]
        return sum(p.numel() for name, p in named if any(word in name for word in words))

    assert found["attention"] == numel(".attention.", but="norm")
    assert found["feed-forward"] == numel(".feedforward.")
    assert found["norms"] == numel("norm")
    assert found["positions"] == numel("position_embedding", "relative_bias")
    assert found["token embedding"] == numel("token_embedding")
    assert found["output layer"] == numel("head.")


@named(CONFIGS | MORE_DECODERS)
def test_operations_are_those_torch_counts(config):
    model, ids_BT = Decoder(config), torch.zeros(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids_BT, return_attention=True)  # the readable path: the fused kernel is not counted on the CPU
    found = counts.forward_flops(config, num_tokens=T, batch_size=B)
    assert sum(found.values()) == counter.get_total_flops()
    modules = counter.get_flop_counts()
    in_layers = sum(sum(ops.values()) for name, ops in modules.items() if name.endswith(".feedforward"))
    assert found["feed-forward"] == in_layers


@named(CONFIGS)
def test_activations_are_what_autograd_keeps(config):
    model = Decoder(config)
    ids_BT, targets_BT = torch.randint(config.vocab_size, (2, B, T))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and tensor.dim() and storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _, loss = model(ids_BT, targets_BT)
    assert loss.requires_grad
    assert 4 * counts.activation_numbers(config, num_tokens=T, batch_size=B) == sum(kept.values())


@named(CONFIGS)
def test_weights_gradients_and_optimizer_are_what_torch_allocates(config):
    model = Decoder(config)
    optimizer = torch.optim.AdamW(model.parameters())
    ids_BT = torch.randint(config.vocab_size, (B, T))
    model(ids_BT, ids_BT)[1].backward()
    optimizer.step()
    found = counts.training_bytes(config, num_tokens=T, batch_size=B)
    assert found["weights"] == sum(p.nbytes for p in model.parameters())
    assert found["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    running = [
        state[name]
        for state in optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
        if name in state
    ]
    assert found["optimizer"] == sum(x.nbytes for x in running)
    half = counts.training_bytes(config, num_tokens=T, batch_size=B, bytes_per_number=2)
    assert {name: 2 * value for name, value in half.items()} == found


@named(CONFIGS)
def test_cache_is_keys_and_values_of_all_layers(config):
    model = Decoder(config)
    x_BTC, rope = model.embed(torch.zeros(B, T, dtype=torch.long))
    kept = 0
    for block in model.blocks:
        _, k_BKTD, v_BKTD = block.attention.project(block.norm_1(x_BTC), rope)
        kept += k_BKTD.numel() + v_BKTD.numel()
        x_BTC = block(x_BTC, rope=rope)
    assert counts.cache_bytes(config, num_tokens=T, batch_size=B) == 4 * kept


ENCODERS = {
    "bert": EncoderConfig.bert(**SIZES, d_model=15, num_heads=5),
    "bert, untied": EncoderConfig.bert(
        **SIZES, d_model=15, num_heads=3, tie_embeddings=False, num_segments=4
    ),
    "no heads, pre-norm": EncoderConfig(**SIZES, d_model=14, num_heads=7, d_ff=31, norm_first=True),
    "no pooler": EncoderConfig(**SIZES, d_model=14, num_heads=7, pooler=False, masked_language_head=True),
}
WIDTH = {"vocab_size": 101, "d_model": 20, "num_heads": 5, "num_layers": 3}
ENCODER_DECODERS = {
    "2017": EncoderDecoderConfig.transformer(**WIDTH, context_length=23),
    "2017, deep decoder": EncoderDecoderConfig.transformer(
        **WIDTH, context_length=23, num_decoder_layers=2, tie_embeddings=False
    ),
    "t5": EncoderDecoderConfig.t5(**WIDTH, d_head=7, relative_buckets=10, relative_max_distance=17),
    "t5 1.1": EncoderDecoderConfig.t5(**WIDTH, feedforward="geglu", tie_embeddings=False, d_ff=37),
}


@named(ENCODERS)
def test_encoders(config):
    model, found = Encoder(config), counts.parameter_counts(config)
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())
    blocks = sum(p.numel() for name, p in model.named_parameters() if name.startswith("blocks."))
    norms_outside = (1 + config.norm_first) * 2 * config.d_model
    assert found["attention"] + found["feed-forward"] + found["norms"] == blocks + norms_outside
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(B, T, dtype=torch.long), return_attention=True)
    assert sum(counts.forward_flops(config, num_tokens=T, batch_size=B).values()) == counter.get_total_flops()


@named(ENCODER_DECODERS)
def test_encoder_decoders(config):
    model, found = EncoderDecoder(config), counts.parameter_counts(config)
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())
    crossing = sum(p.numel() for name, p in model.named_parameters() if ".cross." in name)
    assert found["cross-attention"] == crossing
    S, source_BS, target_BT = 11, torch.zeros(B, 11, dtype=torch.long), torch.zeros(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, readable_attention():
        model(source_BS, target_BT)
    flops = counts.forward_flops(config, num_tokens=T, batch_size=B, num_source_tokens=S)
    assert sum(flops.values()) == counter.get_total_flops()


@contextlib.contextmanager
def readable_attention():
    """Let every attention take the readable path, whose operations torch counts on the CPU."""
    module = importlib.import_module("llm_from_scratch.nn.attention")
    cross_module = importlib.import_module("llm_from_scratch.nn.cross_attention")

    def readable(q, k, v, *, mask=None, bias=None, is_causal=False, dropout_p=0.0, scale=None):
        return module.attention(q, k, v, mask=mask, bias=bias, scale=scale)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fused_attention", readable)
        patch.setattr(cross_module, "fused_attention", readable)
        yield


def test_published_sizes_of_encoders():
    """BERT base with its two heads, and T5 small, as released."""
    bert = EncoderConfig.bert(vocab_size=30522, context_length=512, d_model=768, num_layers=12, num_heads=12)
    assert sum(counts.parameter_counts(bert).values()) == 110_106_428
    t5 = EncoderDecoderConfig.t5(vocab_size=32128, d_model=512, num_layers=6, num_heads=8)
    assert sum(counts.parameter_counts(t5).values()) == 60_506_624


def test_a_source_is_needed_and_checked():
    config = ENCODER_DECODERS["2017"]
    with pytest.raises(ValueError, match="num_source_tokens as well"):
        counts.forward_flops(config, num_tokens=2)
    with pytest.raises(ValueError, match=r"num_source_tokens=24 .*context_length=23"):
        counts.forward_flops(config, num_tokens=2, num_source_tokens=24)


def test_other_objects_are_refused():
    with pytest.raises(ValueError, match="dict is no config"):
        counts.parameter_counts({"d_model": 3})
    with pytest.raises(ValueError, match="dict is no config"):
        counts.forward_flops({"d_model": 3}, num_tokens=1)


def test_published_sizes():
    """GPT-2's four sizes as released, and SmolLM2-135M."""
    sizes = {(768, 12, 12): 124_439_808, (1024, 24, 16): 354_823_168}
    sizes |= {(1280, 36, 20): 774_030_080, (1600, 48, 25): 1_557_611_200}
    for (d_model, num_layers, num_heads), published in sizes.items():
        config = DecoderConfig.gpt2(
            vocab_size=50257, context_length=1024, d_model=d_model, num_layers=num_layers, num_heads=num_heads
        )
        assert sum(counts.parameter_counts(config).values()) == published
    smollm2 = DecoderConfig.llama(
        vocab_size=49152,
        context_length=8192,
        d_model=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        d_ff=1536,
        tie_embeddings=True,
    )
    assert sum(counts.parameter_counts(smollm2).values()) == 134_515_008


@pytest.mark.parametrize("count", [counts.forward_flops, counts.training_bytes, counts.cache_bytes])
def test_impossible_sizes_are_refused(count):
    config = CONFIGS["llama"]
    with pytest.raises(ValueError, match=r"num_tokens=24 .*context_length=23"):
        count(config, num_tokens=24)
    with pytest.raises(ValueError, match="num_tokens=0"):
        count(config, num_tokens=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        count(config, num_tokens=1, batch_size=0)


def test_activations_without_a_formula_are_refused():
    for name, field in (
        ("relative", "positions"),
        ("alibi", "positions"),
        ("qwen3", "qk_norm"),
        ("mistral", "sliding_window"),
    ):
        with pytest.raises(ValueError, match=f"no formula .*{field}"):
            counts.training_bytes(MORE_DECODERS[name], num_tokens=T)
    dropping = DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, dropout=0.1)
    with pytest.raises(ValueError, match=r"dropout.*0\.1"):
        counts.training_bytes(dropping, num_tokens=T)
