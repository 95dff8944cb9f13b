"""The cost of quantised weights: a record of both models, paired token by token."""

import math

import pytest
import torch

from llm_from_scratch.evaluation.perplexity import token_log_probabilities
from llm_from_scratch.inference import quantise_weights
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes import publish, quantisation


@pytest.fixture
def small(monkeypatch):
    """A small model in the place of both, and tokens that it did not write."""
    torch.manual_seed(0)
    config = DecoderConfig.llama(vocab_size=31, context_length=16, d_model=32, num_layers=2, num_heads=2)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ids_N = torch.randint(31, (65,))
    found = model, lambda changed: token_log_probabilities(changed, ids_N)
    monkeypatch.setattr(quantisation, "_smollm2", lambda tokens: found)
    monkeypatch.setattr(quantisation, "_laptop", lambda: found)
    return model, ids_N


def test_the_record(small, tmp_path):
    model, ids_N = small
    record = quantisation.make(tmp_path, say=lambda line: None)
    assert record == quantisation.load_record(tmp_path)
    assert [e["format"] for e in record["entries"]] == 2 * list(quantisation.FORMATS)
    by_format = {e["format"]: e for e in record["entries"]}
    assert by_format["fp32"]["loss_percent"] == 0
    expected = -token_log_probabilities(quantise_weights(model, bits=4), ids_N).mean()
    assert by_format["int4, groups of 32"]["perplexity"] == pytest.approx(math.exp(expected), abs=1e-3)
    sizes = [by_format[name]["bytes"] for name in ("fp32", "bf16", "int8", "int4, groups of 32")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 2 * sizes[1]
    assert abs(by_format["int8"]["loss_percent"]) < abs(by_format["int4, groups of 32"]["loss_percent"])
    table = quantisation.comparison_table(record).splitlines()
    assert len(table) == 1 + len(record["entries"])
    assert len({len(line) for line in table}) == 1


def test_no_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish quantisation` makes it"):
        quantisation.load_record(tmp_path)
    assert "quantisation" in publish.COMPARISONS


def test_the_stored_record():
    """What chapter 17 says of it: 8 bits cost less than one per cent of perplexity."""
    for entry in quantisation.load_record()["entries"]:
        if entry["format"] == "int8":
            assert entry["loss_percent"] < 1
