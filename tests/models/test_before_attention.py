"""The neural models that came before attention: bigram, fixed window, recurrent."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from llm_from_scratch.models.fixed_window import FixedWindow, FixedWindowConfig
from llm_from_scratch.models.neural_bigram import NeuralBigram
from llm_from_scratch.models.recurrent_lm import RecurrentLM, RecurrentLMConfig
from llm_from_scratch.nn.recurrent import detach

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]])


def window_model(window=3):
    torch.manual_seed(3)
    return FixedWindow(FixedWindowConfig(vocab_size=11, window=window, d_model=5, d_hidden=7))


def recurrent_model(kind="gru", **changes):
    torch.manual_seed(5)
    return RecurrentLM(RecurrentLMConfig(kind=kind, vocab_size=11, d_model=5, **changes))


def test_bigram_is_a_one_hot_product():
    model = NeuralBigram(11)
    torch.nn.init.normal_(model.table.weight)
    product = F.one_hot(IDS, 11).float() @ model.table.weight
    torch.testing.assert_close(model(IDS), product, rtol=0, atol=0)


def test_trained_bigram_is_the_counted_one():
    stream = torch.tensor([0, 1, 0, 2, 0, 1, 2, 1, 0, 1])
    model = NeuralBigram(3)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = model(stream[None, :-1], stream[None, 1:])[1]
        loss.backward()
        return loss

    optimizer.step(closure)
    counts = torch.zeros(3, 3)
    for a, b in itertools.pairwise(stream.tolist()):
        counts[a, b] += 1
    torch.testing.assert_close(
        model.table.weight.softmax(-1), counts / counts.sum(-1, keepdim=True), rtol=0, atol=2e-3
    )


def test_untrained_bigram_is_uniform():
    assert NeuralBigram(11)(IDS, IDS)[1].item() == pytest.approx(math.log(11))


def test_window_by_hand():
    model = window_model()
    e = model.embedding.weight
    padding = e[11]
    row = IDS[0]
    for t in range(7):
        inside = [padding if t - k < 0 else e[row[t - k]] for k in (2, 1, 0)]
        expected = model.output(torch.tanh(model.hidden(torch.cat(inside))))
        torch.testing.assert_close(model(IDS)[0, t], expected)


def test_window_forgets_what_lies_outside():
    model, changed = window_model(), IDS.clone()
    changed[0, 2] = 10
    before, after = model(IDS)[0], model(changed)[0]
    same = [torch.allclose(before[t], after[t]) for t in range(7)]
    assert same == [True, True, False, False, False, True, True]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_recurrent_is_causal_and_remembers(kind):
    model, changed = recurrent_model(kind), IDS.clone()
    changed[0, 2] = 10
    before, after = model(IDS)[0], model(changed)[0]
    assert [torch.equal(before[t], after[t]) for t in range(7)] == [True] * 2 + [False] * 5


def test_steps_equal_the_whole():
    model = recurrent_model("lstm", num_layers=2)
    first, states = model.step(IDS[:, :3])
    second, _ = model.step(IDS[:, 3:], detach(states))
    torch.testing.assert_close(torch.cat([first, second], 1), model(IDS))


def test_tied_head_is_the_embedding_itself():
    model = recurrent_model()
    assert len(list(model.parameters())) == 1 + 4 + 1
    assert model.head is None
    untied = recurrent_model(tie_embeddings=False)
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()


@pytest.mark.parametrize("model", [window_model(), recurrent_model("rnn"), recurrent_model("lstm")])
def test_overfits_one_batch(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(500):
        loss = model(IDS[:, :-1], IDS[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NeuralBigram(0), "vocab_size"),
        (lambda: FixedWindowConfig(vocab_size=11, window=0, d_model=5, d_hidden=7), "window"),
        (lambda: RecurrentLMConfig(kind="gpt", vocab_size=11, d_model=5), "rnn, lstm, gru"),
        (lambda: RecurrentLMConfig(kind="rnn", vocab_size=11, d_model=5, dropout=1.0), "dropout"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
