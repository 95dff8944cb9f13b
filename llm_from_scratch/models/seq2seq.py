"""Encoder and decoder, recurrent: translation with one vector between them, or with attention.

Legend: B pairs in a batch, S source positions, T target positions, C embedding width, H hidden
width, V target vocabulary entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder import next_token_loss
from llm_from_scratch.nn.recurrent import GRUCell


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """Sizes and special ids. Raises: ValueError naming the field that does not fit."""

    source_vocab_size: int  # tokens
    target_vocab_size: int  # tokens
    d_model: int  # width of embeddings and hidden states
    attention: bool  # let the decoder look at every encoder state, not the last alone
    pad_id: int = 0  # fills short sequences on both sides
    start_id: int = 1  # the decoder's first input
    end_id: int = 2  # ends every target

    def __post_init__(self):
        for name in ("source_vocab_size", "target_vocab_size", "d_model"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        specials = (self.pad_id, self.start_id, self.end_id)
        if len(set(specials)) < 3 or not all(0 <= i < self.target_vocab_size for i in specials):
            raise ValueError(
                f"pad_id, start_id and end_id must be three different ids below "
                f"{self.target_vocab_size}, got {specials}"
            )


class AdditiveAttention(nn.Module):
    """Weigh the encoder states by how well each fits the decoder's state.

    Formula: ``score_s = v · tanh(W q + U k_s)``; ``weights = softmax(score)``; the context is the
    weighted sum of the encoder states. Padded positions get weight 0.
    Source: Bahdanau et al. 2015, section 3.1 and appendix A.1.2.
    """

    def __init__(self, d_model: int, d_key: int):
        super().__init__()
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_key, d_model, bias=False)
        self.score = nn.Linear(d_model, 1, bias=False)

    def forward(
        self,
        query_BH: Float[Tensor, "B H"],
        states_BSK: Float[Tensor, "B S K"],
        real_BS: Bool[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B S"]]:
        """Return the context vector and the weights."""
        hidden_BSH = torch.tanh(self.query(query_BH)[:, None] + self.key(states_BSK))
        scores_BS = self.score(hidden_BSH).squeeze(-1).masked_fill(~real_BS, float("-inf"))
        weights_BS = scores_BS.softmax(-1)
        return (weights_BS[:, :, None] * states_BSK).sum(1), weights_BS


class Seq2Seq(nn.Module):
    """Read the source in both directions; write the target one token at a time.

    Without attention, all that the decoder knows of the source is its first state: the last states
    of the two readers through one layer (Sutskever et al. 2014, Cho et al. 2014). With attention it
    also receives, at every step, a context vector chosen by its state (Bahdanau et al. 2015).
    """

    def __init__(self, config: Seq2SeqConfig):
        super().__init__()
        self.config = config
        width = config.d_model
        self.source_embedding = nn.Embedding(config.source_vocab_size, width)
        self.target_embedding = nn.Embedding(config.target_vocab_size, width)
        self.read_forward, self.read_backward = GRUCell(width, width), GRUCell(width, width)
        self.bridge = nn.Linear(2 * width, width)
        self.attention = AdditiveAttention(width, 2 * width) if config.attention else None
        self.write = GRUCell(width * (3 if config.attention else 1), width)
        self.output = nn.Linear(width * (3 if config.attention else 1), config.target_vocab_size)

    def encode(self, source_BS: Int[Tensor, "B S"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states [B, S, 2H], which positions are real [B, S], and the first state [B, H].

        Padding leaves a state as it was, so that a pair has the same states in any batch.
        """
        real_BS = source_BS != self.config.pad_id
        if not real_BS.any(dim=1).all():
            raise ValueError("a source holds nothing but padding; every source needs at least one token")
        x_BSC = self.source_embedding(source_BS)
        directions = []
        for cell, order in ((self.read_forward, 1), (self.read_backward, -1)):
            (h_BH,) = cell.initial_state(len(source_BS))
            states = [h_BH] * source_BS.shape[1]
            for s in range(source_BS.shape[1])[::order]:
                h_BH = torch.where(real_BS[:, s, None], cell(x_BSC[:, s], (h_BH,))[0], h_BH)
                states[s] = h_BH
            directions.append((torch.stack(states, 1), h_BH))
        (forward_BSH, last), (backward_BSH, first) = directions
        return (
            torch.cat([forward_BSH, backward_BSH], -1),
            real_BS,
            torch.tanh(self.bridge(torch.cat([last, first], -1))),
        )

    def step(self, token_B: Tensor, h_BH: Tensor, states_BSK: Tensor, real_BS: Tensor) -> tuple[Tensor, ...]:
        """Write one token: logits [B, V], the new state, and the weights [B, S] (None without attention)."""
        e_BC, weights_BS = self.target_embedding(token_B), None
        if self.attention is None:
            (h_BH,) = self.write(e_BC, (h_BH,))
            return self.output(h_BH), h_BH, weights_BS
        context_BK, weights_BS = self.attention(h_BH, states_BSK, real_BS)
        (h_BH,) = self.write(torch.cat([e_BC, context_BK], -1), (h_BH,))
        return self.output(torch.cat([h_BH, context_BK], -1)), h_BH, weights_BS

    def forward(
        self, source_BS: Int[Tensor, "B S"], target_BT: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""]]:
        """Teacher forcing: every step reads the right previous token. Returns logits and mean loss.

        ``target_BT`` ends with ``end_id`` and is padded with ``pad_id``, which the loss ignores.
        """
        states_BSK, real_BS, h_BH = self.encode(source_BS)
        token_B = torch.full_like(target_BT[:, 0], self.config.start_id)
        logits = []
        for t in range(target_BT.shape[1]):
            logits_BV, h_BH, _ = self.step(token_B, h_BH, states_BSK, real_BS)
            logits.append(logits_BV)
            token_B = target_BT[:, t]
        logits_BTV = torch.stack(logits, 1)
        return logits_BTV, next_token_loss(logits_BTV, target_BT, ignore_index=self.config.pad_id)

    @torch.no_grad()
    def translate(
        self, source_BS: Int[Tensor, "B S"], *, max_tokens: int
    ) -> tuple[list[list[int]], Tensor | None]:
        """Write the likeliest token at each step until ``end_id`` or ``max_tokens``.

        Returns the ids without ``end_id``, and the attention weights [B, T, S] or None.
        """
        states_BSK, real_BS, h_BH = self.encode(source_BS)
        token_B = torch.full((len(source_BS),), self.config.start_id, device=source_BS.device)
        done_B = torch.zeros_like(token_B, dtype=torch.bool)
        written, weights = [], []
        while len(written) < max_tokens and not done_B.all():
            logits_BV, h_BH, weights_BS = self.step(token_B, h_BH, states_BSK, real_BS)
            token_B = logits_BV.argmax(-1)
            done_B |= token_B == self.config.end_id
            written.append(token_B)
            weights.append(weights_BS)
        rows = torch.stack(written, 1).tolist() if written else [[] for _ in source_BS]
        end = self.config.end_id
        ids = [row[: row.index(end)] if end in row else row for row in rows]
        return ids, torch.stack(weights, 1) if self.attention is not None and weights else None
