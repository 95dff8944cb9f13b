"""The recurrent translator: padding, attention weights, teacher forcing, learning."""

import pytest
import torch

from llm_from_scratch.models.seq2seq import AdditiveAttention, Seq2Seq, Seq2SeqConfig


def model(attention, **changes):
    torch.manual_seed(3)
    sizes = {"source_vocab_size": 13, "target_vocab_size": 11, "d_model": 7} | changes
    return Seq2Seq(Seq2SeqConfig(attention=attention, **sizes))


SOURCE = torch.tensor([[3, 5, 7, 4, 9], [6, 8, 0, 0, 0]])
TARGET = torch.tensor([[4, 6, 9, 2], [5, 2, 0, 0]])


@pytest.mark.parametrize("attention", [False, True])
def test_a_pair_is_the_same_in_any_batch(attention):
    m = model(attention)
    together, _ = m(SOURCE, TARGET)
    alone, _ = m(SOURCE[1:, :2], TARGET[1:, :2])
    torch.testing.assert_close(together[1:, :2], alone)
    assert m.translate(SOURCE, max_tokens=5)[0][1] == m.translate(SOURCE[1:, :2], max_tokens=5)[0][0]


@pytest.mark.parametrize("attention", [False, True])
def test_loss_ignores_padding(attention):
    m = model(attention)
    logits, loss = m(SOURCE, TARGET)
    kept = [(0, 0, 4), (0, 1, 6), (0, 2, 9), (0, 3, 2), (1, 0, 5), (1, 1, 2)]
    expected = -sum(logits.log_softmax(-1)[place] for place in kept) / len(kept)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("attention", [False, True])
def test_teacher_forcing_is_causal(attention):
    m, changed = model(attention), TARGET.clone()
    changed[0, 1] = 7
    before, after = m(SOURCE, TARGET)[0][0], m(SOURCE, changed)[0][0]
    assert [torch.equal(before[t], after[t]) for t in range(4)] == [True, True, False, False]


def test_weights_are_a_distribution_over_real_positions():
    _, weights = model(True).translate(SOURCE, max_tokens=4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert (weights[1, :, 2:] == 0).all()
    assert (weights[1, :, :2] > 0).all()


def test_additive_attention_by_hand():
    torch.manual_seed(5)
    attention = AdditiveAttention(3, 5)
    q, states = torch.randn(1, 3), torch.randn(1, 2, 5)
    scores = [
        attention.score.weight[0]
        @ torch.tanh(attention.query.weight @ q[0] + attention.key.weight @ states[0, s])
        for s in range(2)
    ]
    weights = torch.stack(scores).softmax(0)
    context, got = attention(q, states, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(got[0], weights)
    torch.testing.assert_close(context[0], weights[0] * states[0, 0] + weights[1] * states[0, 1])


@pytest.mark.parametrize("attention", [False, True])
def test_learns_a_batch_and_writes_it(attention):
    m = model(attention, d_model=17)
    optimizer = torch.optim.Adam(m.parameters(), lr=0.02)
    for _ in range(120):
        loss = m(SOURCE, TARGET)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert m.translate(SOURCE, max_tokens=6)[0] == [[4, 6, 9], [5]]


def test_without_attention_the_decoder_sees_one_vector_only():
    m = model(False)
    _, _, first = m.encode(SOURCE)
    scrambled = torch.randn_like(m.encode(SOURCE)[0])
    real = torch.ones(SOURCE.shape, dtype=torch.bool)
    token = torch.tensor([1, 1])
    assert torch.equal(m.step(token, first, scrambled, real)[0], m.step(token, first, -scrambled, real)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model(True, d_model=0), "d_model"),
        (lambda: model(True, target_vocab_size=2), "below 2"),
        (lambda: model(True)(torch.zeros(1, 3, dtype=torch.long), TARGET[:1]), "padding"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
