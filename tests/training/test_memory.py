"""The memory that the formulas give is the memory that tensors take."""

import pytest
import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.block_options import recompute_activations
from llm_from_scratch.training.memory import activation_memory, measured_activations, training_memory
from llm_from_scratch.training.optimizers import build_adamw

SIZES = {"vocab_size": 97, "context_length": 48, "d_model": 64, "num_layers": 3, "num_heads": 4}


@pytest.mark.parametrize("family", [DecoderConfig.gpt2, DecoderConfig.llama])
@pytest.mark.parametrize("changes", [{}, {"d_model": 96, "num_layers": 5, "num_heads": 6, "num_kv_heads": 2}])
def test_activations_as_measured(family, changes):
    config = family(**{**SIZES, **changes})
    ids = torch.zeros(2, 31, dtype=torch.long)
    measured = measured_activations(Decoder(config), ids, ids.clone())
    assert activation_memory(config, batch_size=2, tokens=31) == pytest.approx(measured, rel=0.01)


def test_parameters_gradients_and_averages_as_allocated():
    config = DecoderConfig.gpt2(**SIZES)
    model, memory = Decoder(config), training_memory(config, batch_size=2)
    optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1)
    ids = torch.zeros(2, 5, dtype=torch.long)
    model(ids, ids)[1].backward()
    optimizer.step()
    parts = list(model.parameters())
    assert memory.parameters == sum(p.untyped_storage().nbytes() for p in parts)
    assert memory.gradients == sum(p.grad.untyped_storage().nbytes() for p in parts)
    states = [value for kept in optimizer.state.values() for value in kept.values() if value.dim()]
    assert memory.optimizer == sum(value.untyped_storage().nbytes() for value in states)
    assert memory.total == memory.parameters * 4 + memory.activations


def test_recomputing_keeps_the_inputs_of_blocks():
    config = DecoderConfig.gpt2(**{**SIZES, "num_layers": 6})
    ids = torch.zeros(2, 48, dtype=torch.long)
    kept = measured_activations(recompute_activations(Decoder(config)), ids, ids.clone())
    formula = activation_memory(config, batch_size=2, tokens=48, recompute=True)
    one_block = activation_memory(config, batch_size=2, tokens=48) - activation_memory(
        DecoderConfig.gpt2(**{**SIZES, "num_layers": 5}), batch_size=2, tokens=48
    )
    assert formula - one_block == pytest.approx(kept, rel=0.02)  # the block comes back in the backward pass


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="shards must be 1 or more, got 0"):
        training_memory(DecoderConfig.gpt2(**SIZES), batch_size=1, shards=0)
