"""Recurrent cells from their equations: the plain RNN, the LSTM and the GRU.

Shape suffixes: B sequences in a batch, T time steps, I input width, H hidden width, G = gates * H.

Each cell is one step; ``Recurrent`` unrolls a stack of cells over time. The parameters carry the
names and the gate order of torch's cells (``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``),
so that weights can be copied either way and the two compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# The state of one layer: (h,) for RNN and GRU, (h, c) for the LSTM; each [B, H].
State = tuple[Tensor, ...]


class Cell(nn.Module):
    """What the three cells share: two linear maps into ``num_gates`` stacked gates, and a zero state.

    Initialised uniformly in ±1/sqrt(H), as torch does.
    """

    num_gates: int
    num_states = 1

    def __init__(self, d_input: int, d_hidden: int):
        super().__init__()
        for name, value in (("d_input", d_input), ("d_hidden", d_hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.d_input, self.d_hidden = d_input, d_hidden
        width = self.num_gates * d_hidden
        self.weight_ih = nn.Parameter(torch.empty(width, d_input))
        self.weight_hh = nn.Parameter(torch.empty(width, d_hidden))
        self.bias_ih = nn.Parameter(torch.empty(width))
        self.bias_hh = nn.Parameter(torch.empty(width))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(d_hidden**-0.5), d_hidden**-0.5)

    def initial_state(self, batch_size: int) -> State:
        """Zeros for ``batch_size`` sequences, on the cell's device and in its dtype."""
        return tuple(self.weight_hh.new_zeros(batch_size, self.d_hidden) for _ in range(self.num_states))

    def gates(self, x_BI: Tensor, h_BH: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of every gate's argument: W_ih x + b_ih and W_hh h + b_hh, each [B, G]."""
        return x_BI @ self.weight_ih.T + self.bias_ih, h_BH @ self.weight_hh.T + self.bias_hh


class RNNCell(Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh). Source: Elman 1990."""

    num_gates = 1

    def forward(self, x_BI: Float[Tensor, "batch input"], state: State) -> State:
        """One step: the new (h,)."""
        from_x, from_h = self.gates(x_BI, state[0])
        return (torch.tanh(from_x + from_h),)


class LSTMCell(Cell):
    """Long short-term memory.

    i, f, o = sigmoid(...), g = tanh(...);  c' = f * c + i * g;  h' = o * tanh(c').

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000. Gate order
    i, f, g, o, as in torch. ``forget_bias`` is added to the forget gate's bias at the start
    (Jozefowicz et al. 2015 found 1.0 to help); the default 0.0 is torch's.
    """

    num_gates = 4
    num_states = 2

    def __init__(self, d_input: int, d_hidden: int, *, forget_bias: float = 0.0):
        super().__init__(d_input, d_hidden)
        with torch.no_grad():
            self.bias_ih[d_hidden : 2 * d_hidden] += forget_bias

    def forward(self, x_BI: Float[Tensor, "batch input"], state: State) -> State:
        """One step: the new (h, c)."""
        h_BH, c_BH = state
        from_x, from_h = self.gates(x_BI, h_BH)
        i_BH, f_BH, g_BH, o_BH = (from_x + from_h).chunk(4, dim=-1)
        c_BH = torch.sigmoid(f_BH) * c_BH + torch.sigmoid(i_BH) * torch.tanh(g_BH)
        return torch.sigmoid(o_BH) * torch.tanh(c_BH), c_BH


class GRUCell(Cell):
    """Gated recurrent unit.

    r, z = sigmoid(...);  n = tanh(W_in x + b_in + r * (W_hn h + b_hn));  h' = (1 - z) * n + z * h.

    Source: Cho et al. 2014. As in torch, r multiplies W_hn h + b_hn and not h itself, and z keeps
    the old state where the paper's z also does (some texts swap z and 1 - z).
    """

    num_gates = 3

    def forward(self, x_BI: Float[Tensor, "batch input"], state: State) -> State:
        """One step: the new (h,)."""
        (h_BH,) = state
        from_x, from_h = self.gates(x_BI, h_BH)
        r_x, z_x, n_x = from_x.chunk(3, dim=-1)
        r_h, z_h, n_h = from_h.chunk(3, dim=-1)
        r_BH, z_BH = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n_BH = torch.tanh(n_x + r_BH * n_h)
        return ((1 - z_BH) * n_BH + z_BH * h_BH,)


CELLS = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell}


class Recurrent(nn.Module):
    """A stack of cells, unrolled over time: layer l reads the hidden states of layer l - 1.

    ``kind`` is "rnn", "lstm" or "gru". ``dropout`` acts between layers, in training only, as in
    torch. Raises: ValueError for an unknown kind or fewer than one layer.

    >>> outputs, states = Recurrent("gru", d_input=3, d_hidden=5, num_layers=2)(torch.zeros(2, 7, 3))
    >>> outputs.shape, len(states), states[0][0].shape
    (torch.Size([2, 7, 5]), 2, torch.Size([2, 5]))
    """

    def __init__(self, kind: str, *, d_input: int, d_hidden: int, num_layers: int = 1, dropout: float = 0.0):
        super().__init__()
        if kind not in CELLS:
            raise ValueError(f"kind must be one of {', '.join(CELLS)}, got {kind!r}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        widths = [d_input] + [d_hidden] * (num_layers - 1)
        self.cells = nn.ModuleList(CELLS[kind](width, d_hidden) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def initial_states(self, batch_size: int) -> list[State]:
        """Zeros, one state a layer."""
        return [cell.initial_state(batch_size) for cell in self.cells]

    def forward(
        self, x_BTI: Float[Tensor, "batch time input"], states: list[State] | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], list[State]]:
        """Return the top layer's h at every step, and each layer's state after the last."""
        if x_BTI.shape[1] == 0:
            raise ValueError("the sequence is empty; a recurrent layer needs at least one time step")
        states = self.initial_states(x_BTI.shape[0]) if states is None else list(states)
        inputs = x_BTI.unbind(dim=1)
        for layer, cell in enumerate(self.cells):
            outputs, state = [], states[layer]
            for x_BI in inputs:
                state = cell(x_BI, state)
                outputs.append(state[0])
            states[layer] = state
            if layer + 1 < len(self.cells):
                inputs = self.dropout(torch.stack(outputs, dim=1)).unbind(dim=1)
        return torch.stack(outputs, dim=1), states


def detach(states: list[State]) -> list[State]:
    """Cut the graph: the values go on, the gradient stops here (truncated backpropagation)."""
    return [tuple(part.detach() for part in state) for state in states]
