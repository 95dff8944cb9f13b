"""The formulas of `models.counts` against what torch counts on a model that was built."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llm_from_scratch.models import counts
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

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
OTHER_POSITIONS = {
    "relative": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, positions="relative"),
    "alibi": DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, positions="alibi"),
}

B, T = 2, 19


def named(configs):
    return pytest.mark.parametrize("config", configs.values(), ids=list(configs))


@named(CONFIGS | OTHER_POSITIONS)
def test_parameters_are_those_of_the_model(config):
    found = counts.parameter_counts(config)
    model = Decoder(config)
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())

    def numel(*words):
        return sum(p.numel() for name, p in model.named_parameters() if any(w in name for w in words))

    assert found["attention"] == numel(".attention.")
    assert found["feed-forward"] == numel(".feedforward.")
    assert found["norms"] == numel("norm")
    assert found["positions"] == numel("position_embedding", "relative_bias")
    assert found["token embedding"] == numel("token_embedding")
    assert found["output layer"] == numel("head.")


@named(CONFIGS | OTHER_POSITIONS)
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
    for config in OTHER_POSITIONS.values():
        with pytest.raises(ValueError, match="no formula"):
            counts.training_bytes(config, num_tokens=T)
    dropping = DecoderConfig.gpt2(**SIZES, d_model=15, num_heads=5, dropout=0.1)
    with pytest.raises(ValueError, match=r"dropout=0\.1"):
        counts.training_bytes(dropping, num_tokens=T)
