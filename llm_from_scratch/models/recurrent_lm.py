"""The recurrent language model: a state that has read everything so far.

Legend: B sequences, T positions, C embedding width, H hidden width, V vocabulary entries.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder import next_token_loss
from llm_from_scratch.nn.recurrent import CELLS, Recurrent, State


@dataclass(frozen=True, kw_only=True)
class RecurrentLMConfig:
    """Sizes of a `RecurrentLM`. Raises: ValueError naming the field that does not fit."""

    kind: str  # "rnn", "lstm" or "gru"
    vocab_size: int  # tokens
    d_model: int  # width of an embedding and of the hidden state
    num_layers: int = 1
    dropout: float = 0.0  # probability, on the embeddings, between layers and before the output
    tie_embeddings: bool = True  # the output layer reads the embedding's own matrix

    def __post_init__(self):
        if self.kind not in CELLS:
            raise ValueError(f"kind must be one of {', '.join(CELLS)}, got {self.kind!r}")
        for name in ("vocab_size", "d_model", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def to_dict(self) -> dict:
        """The fields as plain values, for a JSON file."""
        return asdict(self)


class RecurrentLM(nn.Module):
    """Embed the token, update the state, score every vocabulary entry from the new state.

    Formula: ``h_t = cell(E[x_t], h_{t-1})``; ``logits_t = W h_t + b``, with W = E when tied.
    Sources: Mikolov et al. 2010 (RNN), Zaremba et al. 2014 (where dropout goes), Press and Wolf
    2017 (tying).

    >>> model = RecurrentLM(RecurrentLMConfig(kind="gru", vocab_size=11, d_model=5))
    >>> logits_BTV, states = model.step(torch.tensor([[1, 2, 3]]))
    >>> logits_BTV.shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: RecurrentLMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.recurrent = Recurrent(
            config.kind,
            d_input=config.d_model,
            d_hidden=config.d_model,
            num_layers=config.num_layers,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.head = (
            None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )

    def step(
        self, ids_BT: Int[Tensor, "B T"], states: list[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """Read T more tokens: their logits [B, T, V], and the state to continue from."""
        h_BTH, states = self.recurrent(self.dropout(self.embedding(ids_BT)), states)
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(self.dropout(h_BTH), weight, self.output_bias), states

    def forward(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Start from the zero state; return the logits, and with targets the mean loss in nats too."""
        logits_BTV, _ = self.step(ids_BT)
        if targets_BT is None:
            return logits_BTV
        return logits_BTV, next_token_loss(logits_BTV, targets_BT)
