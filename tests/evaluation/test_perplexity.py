import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llm_from_scratch.evaluation import (
    TextScore,
    bits_per_byte,
    evaluate,
    evaluate_text,
    from_log_probabilities,
    perplexity,
    token_log_probabilities,
)
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

CONFIG = DecoderConfig.gpt2(
    vocab_size=29, context_length=7, d_model=12, num_layers=2, num_heads=3, dropout=0.4
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Decoder(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


class Bigram(nn.Module):
    """After token 0 comes 0 with 1/2, 1 and 2 with 1/4 each; after 1 always 2; after 2 all alike."""

    table_VV = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]]).log()

    def forward(self, ids_BT):
        return self.table_VV[ids_BT]


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    def encode(self, text):
        return list(text.encode("utf-8"))

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


def test_by_hand():
    """0 0 1 2 0 under the bigram: 1/2, 1/4, 1, 1/3. The first token is context only."""
    score = evaluate(Bigram(), [0, 0, 1, 2, 0], num_bytes=6)
    assert score.num_tokens == 4
    assert math.isclose(score.nats_per_token, math.log(24) / 4, rel_tol=1e-6)
    assert math.isclose(score.bits_per_token, math.log2(24) / 4, rel_tol=1e-6)
    assert math.isclose(score.perplexity, 24**0.25, rel_tol=1e-6)
    assert math.isclose(score.bits_per_byte, math.log2(24) / 6, rel_tol=1e-6)
    assert math.isclose(perplexity(Bigram(), [0, 0, 1, 2, 0]), 24**0.25, rel_tol=1e-6)


def test_a_start_token_makes_every_token_count():
    values = token_log_probabilities(Bigram(), [0, 0, 1, 2, 0], start_id=2)
    torch.testing.assert_close(values.exp(), torch.tensor([1 / 3, 1 / 2, 1 / 4, 1.0, 1 / 3]))


def test_a_token_of_probability_zero():
    score = evaluate(Bigram(), [0, 1, 0, 0], num_bytes=3)
    assert score.nats_per_token == score.perplexity == score.bits_per_byte == math.inf


@settings(max_examples=60, deadline=None)
@given(num_tokens=st.integers(2, 40), context=st.integers(1, 11), data=st.data())
def test_every_token_is_scored_once_whatever_the_windows(num_tokens, context, data):
    """A bigram needs one token of context, so that no choice of windows may change its score."""
    stride = data.draw(st.integers(1, context))
    batch_size = data.draw(st.integers(1, 5))
    ids = torch.randint(3, (num_tokens,), generator=torch.Generator().manual_seed(num_tokens))
    values = token_log_probabilities(
        Bigram(), ids, context_length=context, stride=stride, batch_size=batch_size
    )
    expected = Bigram.table_VV[ids[:-1], ids[1:]]
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_windows_by_their_definition(model, stride):
    """A token's window is the earliest that holds it, and gives at least the promised context."""
    ids = torch.randint(29, (24,), generator=torch.Generator().manual_seed(1))
    values = token_log_probabilities(model, ids, stride=stride, batch_size=2)
    assert len(values) == 23
    end = 7
    for target in range(1, 24):
        while target > end:
            end = min(end + stride, 23)
        start = end - 7
        assert target - start >= (7 - stride + 1 if target > 7 else 1)
        logits = model(ids[None, start:target])[0, -1]
        torch.testing.assert_close(
            values[target - 1], logits.log_softmax(-1)[ids[target]], rtol=1e-4, atol=1e-5
        )


def test_within_one_context_it_is_the_training_loss(model):
    ids = torch.randint(29, (1, 8), generator=torch.Generator().manual_seed(2))
    _, loss = model(ids[:, :-1], ids[:, 1:])
    score = evaluate(model, ids[0])
    assert math.isclose(score.nats_per_token, loss.item(), rel_tol=1e-5)
    assert score.num_tokens == 7


def test_dropout_is_off_and_the_mode_comes_back(model):
    ids = list(range(20))
    expected = evaluate(model, ids)
    model.train()
    assert evaluate(model, ids) == expected
    assert all(part.training for part in model.modules())
    model.eval()


def test_tokens_of_every_kind(model):
    ids = [5, 3, 28, 0, 7, 7, 1, 2, 9]
    expected = evaluate(model, ids)
    for kind in (tuple(ids), torch.tensor(ids), np.array(ids, dtype=np.uint16), iter(ids)):
        assert evaluate(model, kind) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text(min_size=2, max_size=30))
def test_bytes_are_counted_exactly(text):
    """A uniform model over 256 bytes needs 8 bits a byte, wherever characters begin."""
    uniform = lambda ids_BT: torch.zeros(*ids_BT.shape, 256)  # noqa: E731
    score = evaluate_text(uniform, Bytes(), text, context_length=5)
    first = len(text[0].encode("utf-8"))
    assert score.num_bytes == score.num_tokens == len(text.encode("utf-8")) - first
    assert math.isclose(score.bits_per_byte, 8.0, rel_tol=1e-6)
    whole = evaluate_text(uniform, Bytes(), text, context_length=5, start_id=0)
    assert whole.num_bytes == whole.num_tokens == len(text.encode("utf-8"))


def test_a_text_whose_first_bytes_cannot_be_told():
    class Rewriting(Bytes):
        def decode(self, ids):
            return super().decode(ids).upper()

    with pytest.raises(ValueError, match="rewrites it; give start_id"):
        evaluate_text(lambda ids: torch.zeros(*ids.shape, 256), Rewriting(), "lower case")
    with pytest.raises(ValueError, match="too short"):
        evaluate_text(lambda ids: torch.zeros(*ids.shape, 256), Bytes(), "")


def test_bits_per_byte_does_not_depend_on_how_the_text_is_cut():
    """The same 60 nats over the same 30 bytes, as 10 tokens or as 20."""
    assert math.isclose(bits_per_byte(6.0, 10, 30), bits_per_byte(3.0, 20, 30))
    assert math.isclose(bits_per_byte(6.0, 10, 30), 60 / math.log(2) / 30)
    for counts in ((0, 5), (5, 0), (5, -1)):
        with pytest.raises(ValueError, match=f"got {counts[0]} tokens, {counts[1]} bytes"):
            bits_per_byte(1.0, *counts)


def test_from_log_probabilities():
    p = [1 / 2, 1 / 4, 1.0, 1 / 3]
    values = [math.log(x) for x in p]
    expected = from_log_probabilities(values, num_bytes=6)
    assert math.isclose(expected.nats_per_token, math.log(24) / 4)
    assert (expected.num_tokens, expected.num_bytes) == (4, 6)
    for kind in (np.array(values), torch.tensor(values, dtype=torch.float64), iter(values)):
        assert from_log_probabilities(kind, num_bytes=6) == expected
    assert from_log_probabilities([0.0, 0.0]).perplexity == 1.0
    assert from_log_probabilities(values).bits_per_byte is None
    assert from_log_probabilities([-1e6]).perplexity == math.inf  # too large for a float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "no log-probabilities"),
        ([-1.0, math.nan], "nan at place 1"),
        ([-1.0, -2.0, 0.5], "0.5 at place 2 is not the logarithm of a probability"),
    ],
)
def test_what_is_no_log_probability(values, message):
    with pytest.raises(ValueError, match=message):
        from_log_probabilities(values)


@pytest.mark.parametrize(
    ("ids", "settings", "message"),
    [
        ([3], {}, "a text of 1 tokens"),
        ([], {"start_id": 0}, "a text of 1 tokens"),
        ([[1, 2], [3, 4]], {}, r"one sequence of whole numbers, got .* shape \(2, 2\)"),
        ([1.5, 2.5], {}, "got float64"),
        ([1, 2, 3], {"stride": 0}, r"stride must lie in \[1, 7\]"),
        ([1, 2, 3], {"stride": 8}, "got 8"),
        ([1, 2, 3], {"context_length": 0}, "context_length must be at least 1 token, got 0"),
        ([1, 2, 3], {"batch_size": 0}, "batch_size must be at least 1 window, got 0"),
        ([1, 29], {"start_id": 0}, "29, outside the vocabulary"),
        ([1, 29], {}, "29, outside the vocabulary"),
    ],
)
def test_mistakes_are_named(model, ids, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, ids, **settings)


def test_a_model_that_has_diverged_is_not_scored():
    with pytest.raises(ValueError, match="nan at place 0"):
        evaluate(lambda ids: torch.full((*ids.shape, 3), math.nan), [0, 1, 2])


def test_units_agree():
    score = TextScore(nats_per_token=2.0, num_tokens=11, num_bytes=31)
    assert math.isclose(score.bits_per_token, math.log2(score.perplexity))
    assert math.isclose(score.bits_per_byte * 31, score.bits_per_token * 11)
