"""The smallest neural language model: one row of scores for each token.

Legend: B sequences, T positions, V vocabulary entries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder import next_token_loss


class NeuralBigram(nn.Module):
    """Look up the row of logits that belongs to the current token.

    Formula: ``logits_t = W[x_t]`` with W of shape [V, V]. Multiplying the one-hot vector of x_t by
    W selects the same row; the lookup skips the V - 1 products with zero. Trained to the end, row
    i of softmax(W) is the relative frequency of what follows token i: the counted bigram model.

    Rows start at zero, so that the untrained model is uniform: loss log V.

    >>> model = NeuralBigram(vocab_size=5)
    >>> logits_BTV, loss = model(torch.tensor([[0, 1]]), torch.tensor([[1, 2]]))
    >>> round(loss.item(), 4)  # log 5
    1.6094
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1 token, got {vocab_size}")
        self.vocab_size = vocab_size
        self.table = nn.Embedding(vocab_size, vocab_size, _weight=torch.zeros(vocab_size, vocab_size))

    def forward(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], Float[Tensor, ""]]:
        """Return the logits, and with targets the mean loss in nats too."""
        logits_BTV = self.table(ids_BT)
        if targets_BT is None:
            return logits_BTV
        return logits_BTV, next_token_loss(logits_BTV, targets_BT)
