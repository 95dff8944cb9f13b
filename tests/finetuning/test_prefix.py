"""A trained prefix against softmax written out, and the model of before once it is taken away."""

import math

import pytest
import torch

from llm_from_scratch.finetuning.prefix import PrefixAttention, add_prefix, remove_prefix
from llm_from_scratch.inference import CachedModel, FastDecoder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.masks import padding_mask
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches
from tests.training.conftest import T, made_up_tokens, random_windows, tiny_config, tiny_model

SIZES = {"vocab_size": 13, "context_length": 11, "d_model": 20, "num_layers": 2}
IDS = torch.tensor([[1, 5, 2, 9, 4], [3, 3, 7, 0, 12]])


def llama():
    torch.manual_seed(1)
    return Decoder(DecoderConfig.llama(**SIZES, num_heads=10, num_kv_heads=5)).eval()


@pytest.mark.parametrize("window", [None, 2])
def test_the_formula_written_out(window):
    torch.manual_seed(0)
    base = MultiHeadAttention(d_model=12, num_heads=6, num_kv_heads=3, causal=True, window=window)
    layer, x_BTC = PrefixAttention(base, length=4), torch.randn(2, 5, 12)
    torch.nn.init.normal_(layer.key_KPD)
    torch.nn.init.normal_(layer.value_KPD)
    q, k, v = base.project(x_BTC)
    heads = torch.zeros(2, 5, 6, 2)
    for b in range(2):
        for h in range(6):
            for t in range(5):
                first = 0 if window is None else max(0, t - window + 1)
                keys = torch.cat([layer.key_KPD[h // 2], k[b, h // 2, first : t + 1]])
                values = torch.cat([layer.value_KPD[h // 2], v[b, h // 2, first : t + 1]])
                heads[b, t, h] = (keys @ q[b, h, t] / math.sqrt(2)).softmax(0) @ values
    expected = base.output(heads.flatten(2))
    torch.testing.assert_close(layer(x_BTC), expected, rtol=1e-5, atol=1e-5)
    out, weights = layer(x_BTC, return_weights=True)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert weights.shape == (2, 6, 5, 4 + 5)


def test_only_the_prefix_is_trained_and_it_is_counted():
    model = llama()
    before = model(IDS)
    assert add_prefix(model, length=3) == ["blocks.0.attention", "blocks.1.attention"]
    assert (model(IDS) - before).abs().max() > 1e-5
    model(IDS, IDS)[1].backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    assert sum(p.numel() for p in trained) == 2 * 2 * 3 * 5 * 2  # layers, keys and values, P, K, D
    assert all(p.grad.abs().max() > 0 for p in trained)
    remove_prefix(model)
    assert torch.equal(model(IDS), before)


def test_a_prefix_of_real_keys_is_a_text_before_the_text():
    """Without positions, the keys and values of a text do what the text itself does."""
    torch.manual_seed(1)
    model = Decoder(DecoderConfig.llama(**SIZES, num_heads=5, positions="none")).eval()
    start = torch.tensor([[8, 6, 11]])
    expected = model(torch.cat([start.expand(2, -1), IDS], dim=1))[:, 3:]
    add_prefix(model, length=3, from_ids=start)
    torch.testing.assert_close(model(IDS), expected, rtol=1e-5, atol=1e-5)


def test_padding_stays_hidden_and_the_future_too():
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig.bert(**SIZES, num_heads=5)).eval()
    add_prefix(encoder, length=2)
    mask = padding_mask(torch.tensor([5, 3]), 5)
    other = IDS.clone()
    other[1, 3:] = 2
    torch.testing.assert_close(encoder(IDS, mask=mask)[1, :3], encoder(other, mask=mask)[1, :3])
    model = llama()
    add_prefix(model, length=2)
    other = IDS.clone()
    other[:, 4] = 6
    torch.testing.assert_close(model(IDS)[:, :4], model(other)[:, :4])


def test_it_trains_under_the_trainer_and_leaves_small_checkpoints(tmp_path):
    model = tiny_model(dropout=0.0)
    add_prefix(model, length=4)
    trainer = Trainer(
        model, tiny_config(steps=4, learning_rate=0.1), batches=random_windows(),
        validation=validation_batches(made_up_tokens(211, seed=5), context_length=T, batch_size=11, count=2),
        folder=tmp_path, trained_only=True,
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.fit()
    assert trainer.evaluate() < before
    assert (tmp_path / "checkpoints/step-000004/model.safetensors").stat().st_size < 3000


def test_what_does_not_see_a_prefix_says_so():
    model = llama()
    add_prefix(model, length=2)
    with pytest.raises(ValueError, match="cannot be merged into weights; call the model itself"):
        FastDecoder(model)
    with pytest.raises(ValueError, match="a cached pass does not see the trained prefix"):
        CachedModel(model)(IDS)
    with pytest.raises(ValueError, match="carries adapters already"):
        add_prefix(model, length=2)
    for arguments, message in [
        ({"length": 0}, "length must be"),
        ({"length": 2, "from_ids": IDS}, "from_ids must be one text of 2 tokens"),
    ]:
        with pytest.raises(ValueError, match=message):
            add_prefix(llama(), **arguments)
    with pytest.raises(ValueError, match="Linear has no attention layer"):
        add_prefix(torch.nn.Linear(3, 3), length=2)
