"""The bytes that the planner predicts are those of the tensors, counted on fake ones and on shares."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from llm_from_scratch.models.counts import activation_numbers, parameter_counts
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.optimizers import build_adamw
from llm_from_scratch.training.planning.footprint import (
    activation_bytes,
    held_numbers,
    predict_footprint,
    weight_copy_bytes,
)

SMALL = {"vocab_size": 97, "context_length": 48, "d_model": 60, "num_layers": 3, "num_heads": 6}
GPT2_124M = {"vocab_size": 50257, "context_length": 1024, "d_model": 768, "num_layers": 12, "num_heads": 12}
LLAMA_1B = {
    "vocab_size": 32000,
    "context_length": 2048,
    "d_model": 2048,
    "num_layers": 5,
    "num_heads": 32,
    "num_kv_heads": 4,
}
CONFIGS = {
    "gpt2": DecoderConfig.gpt2(**SMALL),
    "llama": DecoderConfig.llama(**SMALL),
    "grouped": DecoderConfig.llama(**SMALL, num_kv_heads=2),
    "gpt2_124m": DecoderConfig.gpt2(**GPT2_124M),
    "llama_1b": DecoderConfig.llama(**LLAMA_1B),
}
SCALARS = 12  # bytes: the sum of the losses and the count of the targets


def kept(config, batch_size, tokens, *, bfloat16, recompute=False):
    """Bytes that autograd keeps on fake tensors: of activations, and of converted weights."""
    storages = {}
    with FakeTensorMode():
        model = Decoder(config)
        model.check_ids = lambda *inputs: None  # looks at values, which fake tensors lack
        if recompute:
            for block in model.blocks:
                forward = block.forward
                block.forward = lambda *a, f=forward, **k: checkpoint(f, *a, use_reentrant=False, **k)
        ids = torch.zeros(batch_size, tokens, dtype=torch.long)
        given = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers(), ids)}
        shapes = {tuple(p.shape) for p in model.parameters() if p.dim() == 2}

        def note(tensor):
            if tensor.untyped_storage()._cdata not in given:
                storages[tensor.untyped_storage()._cdata] = (tensor.untyped_storage(), tensor)
            return tensor

        with (
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            logits, _ = model(ids, ids)
    weights = [s for s, t in storages.values() if {tuple(t.shape), tuple(t.shape)[::-1]} & shapes]
    copies = sum(storage.nbytes() for storage in weights)
    return sum(storage.nbytes() for storage, _ in storages.values()) - copies, copies, logits.dtype


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [(name, bf16) for name in CONFIGS for bf16 in (False, True) if bf16 or "_" not in name],
)
def test_activations_are_those_of_fake_tensors_to_the_byte(name, bfloat16):
    config, size = CONFIGS[name], 2 if bfloat16 else 4
    batch_size, tokens = (2, 31) if config.d_model == 60 else (3, 1021)
    activations, copies, dtype = kept(config, batch_size, tokens, bfloat16=bfloat16)
    log_softmax = 4 * config.vocab_size * batch_size * tokens
    formula = activation_bytes(config, batch_size=batch_size, tokens=tokens, product_bytes=size)
    assert formula + log_softmax + SCALARS == activations
    assert copies == weight_copy_bytes(
        config, strategy="single", processes=1, product_bytes=size, recompute=False
    )
    assert dtype.itemsize == size


@pytest.mark.parametrize("name", ["gpt2", "grouped"])
def test_recomputation_keeps_one_input_a_block(name):
    config = CONFIGS[name]
    activations, _, _ = kept(config, 2, 31, bfloat16=True, recompute=True)
    shape = {"batch_size": 2, "tokens": 31, "product_bytes": 2}
    smaller = type(config)(**{**config.to_dict(), "num_layers": config.num_layers - 1})
    one_block = activation_bytes(config, **shape) - activation_bytes(smaller, **shape)
    formula = activation_bytes(config, **shape, recompute=True)
    assert formula - one_block + 4 * 97 * 62 + SCALARS == activations  # it returns in the backward pass


def test_in_float32_the_two_formulas_of_the_package_agree():
    for config in CONFIGS.values():
        tables = config.context_length * config.d_head if config.positions == "rope" else 0
        numbers = activation_numbers(config, num_tokens=40, batch_size=3) - tables
        in_bytes = activation_bytes(config, batch_size=3, tokens=40, product_bytes=4)
        assert in_bytes == 4 * (numbers - 3 * 40 * config.vocab_size)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_gradients_and_averages_are_those_of_fake_tensors(name):
    config = CONFIGS[name]
    predicted = predict_footprint(config, batch_size=1, tokens=8)
    with FakeTensorMode():
        model = Decoder(config)
        optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        states = [v for kept_ in optimizer.state.values() for v in kept_.values() if v.dim()]
        assert sum(p.grad.nbytes for p in model.parameters()) == predicted.gradients
        assert sum(v.nbytes for v in states) == predicted.optimizer
    assert 4 * sum(parameter_counts(config).values()) == predicted.parameters


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["gpt2_124m", "llama_1b"])
def test_the_peak_of_a_step_is_that_of_torchs_memory_tracker(name, accumulate, bfloat16):
    config = replace(CONFIGS[name], num_layers=3)  # fewer, for the time it takes
    with FakeTensorMode():
        model = Decoder(config)
        model.check_ids = lambda *inputs: None
        optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1, one_kernel=False)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        ids = torch.zeros(2, 1024, dtype=torch.long)
        with tracker:
            for _ in range(2):  # the averages are made by the first step
                for _ in range(accumulate):
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                        logits, loss = model(ids, ids)  # the scores stay alive, as in the Trainer
                    loss.backward()
                    tracker.reset_mod_stats()
                del logits, loss
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    size = {"batch_size": 2, "tokens": 1024, "product_bytes": 2 if bfloat16 else 4}
    predicted = predict_footprint(config, **size, accumulate=accumulate)
    assert predicted.in_step == pytest.approx(peak, rel=0.02)


def test_accumulating_gradients_count_beside_activations_and_whole_in_fsdp():
    config = CONFIGS["llama_1b"]
    once = predict_footprint(config, batch_size=2, strategy="fsdp", processes=8)
    twice = predict_footprint(config, batch_size=2, strategy="fsdp", processes=8, accumulate=2)
    assert twice.undivided_gradients > 4 * sum(parameter_counts(config).values()) > once.undivided_gradients
    assert twice.in_step > once.in_step + 2 * once.gradients


SHARDS = """
import sys, torch, torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.distributed.fully_sharded import FullySharded
from llm_from_scratch.training.distributed.tensor_parallel import TensorParallel
strategy, n = sys.argv[1], int(sys.argv[2])
dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=n)
config = DecoderConfig.llama(vocab_size=97, context_length=48, d_model=60, num_layers=3, num_heads=6)
model = Decoder(config)
made = {"fsdp": FullySharded, "tensor": TensorParallel}[strategy](torch.device("cpu"))
made.wrap(model, torch.float32)
print(sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters()))
"""


@pytest.mark.parametrize(("strategy", "processes"), [("fsdp", 8), ("fsdp", 7), ("tensor", 2)])
def test_shares_are_those_that_torch_cuts(strategy, processes):
    environment = {"RANK": "0", "WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", SHARDS, strategy, str(processes)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == held_numbers(CONFIGS["llama"], strategy=strategy, processes=processes)


def test_strategies_differ_where_they_should():
    config = CONFIGS["llama_1b"]
    single = predict_footprint(config, batch_size=2)
    ddp = predict_footprint(config, batch_size=2, strategy="ddp", processes=8)
    fsdp = predict_footprint(config, batch_size=2, strategy="fsdp", processes=8)
    tensor = predict_footprint(config, batch_size=2, strategy="tensor", processes=4)
    assert ddp.total == single.total + single.parameters
    assert fsdp.parameters * 8 == pytest.approx(single.parameters, rel=1e-3)
    assert fsdp.activations == single.activations > tensor.activations
    assert predict_footprint(config, batch_size=2, recompute=True).total < single.total
    assert single.logits == 14 * 32000 * 2 * 2048


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": "zero"}, "strategy must be one of single, ddp, fsdp, tensor, got 'zero'"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"processes": 2}, "strategy single is one process, got 2"),
    ],
)
def test_mistakes_are_named(changes, says):
    with pytest.raises(ValueError, match=says):
        predict_footprint(CONFIGS["gpt2"], **{"batch_size": 1, **changes})
