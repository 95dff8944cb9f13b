"""The neural model with a fixed window: the first that shares what it learns between words.

Legend: B sequences, T positions, N tokens in the window, C embedding width, H hidden width,
V vocabulary entries.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder import next_token_loss


@dataclass(frozen=True, kw_only=True)
class FixedWindowConfig:
    """Sizes of a `FixedWindow` model. Raises: ValueError for a size below 1."""

    vocab_size: int  # tokens that can be predicted
    window: int  # tokens read before each prediction; an n-gram model of order window + 1 reads as many
    d_model: int  # width of an embedding
    d_hidden: int  # width of the hidden layer

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class FixedWindow(nn.Module):
    """Concatenate the embeddings of the last N tokens, one tanh layer, a score for each token.

    Formula: ``e = [E[x_{t-N+1}]; ...; E[x_t]]``; ``h = tanh(W e + b)``; ``logits = U h + c``.
    Before the start of a sequence the window is filled with a learned padding vector.

    Source: Bengio et al. 2003, section 2. Departure: without the optional direct connections from
    e to the logits.

    >>> model = FixedWindow(FixedWindowConfig(vocab_size=11, window=3, d_model=5, d_hidden=7))
    >>> model(torch.tensor([[1, 2, 3, 4]])).shape
    torch.Size([1, 4, 11])
    """

    def __init__(self, config: FixedWindowConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size + 1, config.d_model)  # the last row is the padding
        # torch draws embeddings with standard deviation 1. A short training moves them by less than that,
        # and noise would be what is left; a row of length 1 is small enough to be learned over.
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.hidden = nn.Linear(config.window * config.d_model, config.d_hidden)
        self.output = nn.Linear(config.d_hidden, config.vocab_size)

    def forward(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], Float[Tensor, ""]]:
        """Return the logits, and with targets the mean loss in nats too."""
        window, padding = self.config.window, self.config.vocab_size
        padded_BS = F.pad(ids_BT, (window - 1, 0), value=padding)
        windows_BTN = padded_BS.unfold(1, window, 1)
        e_BTNC = self.embedding(windows_BTN)
        h_BTH = torch.tanh(self.hidden(e_BTNC.flatten(2)))
        logits_BTV = self.output(h_BTH)
        if targets_BT is None:
            return logits_BTV
        return logits_BTV, next_token_loss(logits_BTV, targets_BT)
