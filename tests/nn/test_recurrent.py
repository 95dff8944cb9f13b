"""The cells against torch's own, with copied weights: values, states and gradients."""

import pytest
import torch

from llm_from_scratch.nn.recurrent import CELLS, LSTMCell, Recurrent, detach

TORCH_CELLS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
TORCH_STACKS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


@pytest.mark.parametrize("kind", CELLS)
def test_one_step_equals_torch(kind):
    torch.manual_seed(3)
    ours, theirs = CELLS[kind](5, 7), TORCH_CELLS[kind](5, 7)
    ours.load_state_dict(theirs.state_dict())
    x, state = torch.randn(3, 5), tuple(torch.randn(3, 7) for _ in range(ours.num_states))
    expected = theirs(x, state if kind == "lstm" else state[0])
    expected = expected if kind == "lstm" else (expected,)
    for got, want in zip(ours(x, state), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", CELLS)
def test_a_stack_over_time_equals_torch_with_its_gradients(kind):
    torch.manual_seed(5)
    ours = Recurrent(kind, d_input=5, d_hidden=7, num_layers=2)
    theirs = TORCH_STACKS[kind](5, 7, num_layers=2, batch_first=True)
    for layer, cell in enumerate(ours.cells):
        for name, parameter in cell.named_parameters():
            parameter.data.copy_(getattr(theirs, f"{name}_l{layer}"))
    x = torch.randn(3, 11, 5)
    states = [tuple(torch.randn(3, 7) for _ in range(cell.num_states)) for cell in ours.cells]
    packed = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
    got, last = ours(x, states)
    want, want_last = theirs(x, packed if kind == "lstm" else packed[0])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    want_last = want_last if kind == "lstm" else (want_last,)
    for layer in range(2):
        for part, want_part in zip(last[layer], want_last, strict=True):
            torch.testing.assert_close(part, want_part[layer], rtol=0, atol=1e-6)
    got.square().mean().backward()
    want.square().mean().backward()
    for layer, cell in enumerate(ours.cells):
        for name, parameter in cell.named_parameters():
            torch.testing.assert_close(
                parameter.grad, getattr(theirs, f"{name}_l{layer}").grad, rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("kind", CELLS)
def test_two_halves_equal_the_whole(kind):
    torch.manual_seed(7)
    model = Recurrent(kind, d_input=3, d_hidden=5, num_layers=2)
    x = torch.randn(2, 11, 3)
    whole, _ = model(x)
    first, states = model(x[:, :4])
    second, _ = model(x[:, 4:], detach(states))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


@pytest.mark.parametrize("kind", CELLS)
def test_causality(kind):
    torch.manual_seed(11)
    model = Recurrent(kind, d_input=3, d_hidden=5)
    x = torch.randn(1, 7, 3)
    changed = x.clone()
    changed[:, 4] += 1.0
    before, after = model(x)[0], model(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_detach_stops_the_gradient():
    model = Recurrent("rnn", d_input=3, d_hidden=5)
    early, late = torch.randn(1, 4, 3, requires_grad=True), torch.randn(1, 4, 3)
    _, states = model(early)
    model(late, detach(states))[0].sum().backward()
    assert early.grad is None
    model(late, model(early)[1])[0].sum().backward()
    assert early.grad.abs().sum() > 0


def test_dropout_acts_between_layers_and_only_in_training():
    torch.manual_seed(13)
    model = Recurrent("lstm", d_input=3, d_hidden=17, num_layers=2, dropout=0.5)
    x = torch.randn(2, 5, 3)
    assert not torch.allclose(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])
    single = Recurrent("lstm", d_input=3, d_hidden=17, num_layers=1, dropout=0.5)
    assert torch.equal(single(x)[0], single(x)[0])


def test_forget_bias_moves_only_the_forget_gate():
    torch.manual_seed(17)
    plain = LSTMCell(3, 5)
    torch.manual_seed(17)
    biased = LSTMCell(3, 5, forget_bias=1.0)
    difference = biased.bias_ih - plain.bias_ih
    assert torch.allclose(difference, torch.tensor([0.0] * 5 + [1.0] * 5 + [0.0] * 10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recurrent("lstn", d_input=3, d_hidden=5), "rnn, lstm, gru"),
        (lambda: Recurrent("gru", d_input=3, d_hidden=5, num_layers=0), "num_layers"),
        (lambda: Recurrent("gru", d_input=0, d_hidden=5), "d_input"),
        (lambda: Recurrent("gru", d_input=3, d_hidden=5)(torch.zeros(1, 0, 3)), "empty"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
