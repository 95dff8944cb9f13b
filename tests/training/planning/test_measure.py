"""The memory that the formulas give is the memory that real tensors take."""

import pytest
import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.block_options import recompute_activations
from llm_from_scratch.training.optimizers import build_adamw
from llm_from_scratch.training.planning.footprint import activation_bytes, predict_footprint
from llm_from_scratch.training.planning.measure import measured_activations, measured_states

SIZES = {"vocab_size": 97, "context_length": 48, "d_model": 64, "num_layers": 3, "num_heads": 4}
SHAPE = {"batch_size": 2, "tokens": 31, "product_bytes": 4}


def predicted(config, **options):
    """In bytes: with the log-softmax of the logits, the sum of the losses and the count of the targets."""
    return activation_bytes(config, **SHAPE, **options) + 4 * config.vocab_size * 2 * 31 + 12


@pytest.mark.parametrize("family", [DecoderConfig.gpt2, DecoderConfig.llama])
@pytest.mark.parametrize("changes", [{}, {"d_model": 96, "num_layers": 5, "num_heads": 6, "num_kv_heads": 2}])
def test_activations_are_those_of_the_formula_to_the_byte(family, changes):
    config = family(**{**SIZES, **changes})
    ids = torch.zeros(2, 31, dtype=torch.long)
    assert measured_activations(Decoder(config), ids, ids.clone()) == predicted(config)


def test_recomputing_keeps_the_inputs_of_blocks():
    config, smaller = (DecoderConfig.gpt2(**{**SIZES, "num_layers": layers}) for layers in (6, 5))
    ids = torch.zeros(2, 31, dtype=torch.long)
    kept = measured_activations(recompute_activations(Decoder(config)), ids, ids.clone())
    one_block = predicted(config) - predicted(smaller)  # which comes back in the backward pass
    assert predicted(config, recompute=True) - one_block == pytest.approx(kept, rel=0.001)


def test_parameters_gradients_and_averages_are_those_of_the_formula():
    config = DecoderConfig.gpt2(**SIZES)
    model = Decoder(config)
    optimizer = build_adamw(model, learning_rate=1e-3, weight_decay=0.1)
    ids = torch.zeros(2, 5, dtype=torch.long)
    model(ids, ids)[1].backward()
    optimizer.step()
    parts = predict_footprint(config, batch_size=2, tokens=5).parts
    assert measured_states(model, optimizer) == {
        name: parts[name] for name in ("parameters", "gradients", "optimizer")
    }
