"""What stands on top of an encoder: a pooled vector, and the two tasks BERT is pre-trained on.

Legend: B sequences, T positions, C width of the model, V vocabulary entries.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llm_from_scratch.models.encoder_config import EncoderConfig
from llm_from_scratch.nn.norms import LayerNorm


class Pooler(nn.Module):
    """One vector a sequence: a layer on the first token's vector, which stands for the whole.

    Formula: ``tanh(W x_0 + b)``.
    Source: Devlin et al. 2019, section 3 (the token ``[CLS]``); the layer is in the released code.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.linear = nn.Linear(d_model, d_model)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B C"]:
        """Pool each sequence."""
        return torch.tanh(self.linear(x_BTC[:, 0]))


class MaskedLanguageHead(nn.Module):
    """Score every vocabulary entry at every position.

    Formula: ``norm(gelu(W x + b)) E^T + c``, where E is the token embedding if they are tied, and c
    one number a vocabulary entry.
    Source: Devlin et al. 2019, section 3.1, task 1; the layer before the scores is in the code.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.linear = nn.Linear(config.d_model, config.d_model)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.output = (
            None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        self.feedforward = config.feedforward

    def forward(
        self, x_BTC: Float[Tensor, "*B C"], embedding_VC: Float[Tensor, "V C"]
    ) -> Float[Tensor, "*B V"]:
        """Score the entries; ``embedding_VC`` is used if the head has no matrix of its own."""
        weight_VC = embedding_VC if self.output is None else self.output.weight
        hidden_BTC = self.linear(x_BTC)
        if self.feedforward == "relu":
            hidden_BTC = F.relu(hidden_BTC)
        else:
            hidden_BTC = F.gelu(hidden_BTC, approximate="tanh" if self.feedforward == "gelu" else "none")
        return F.linear(self.norm(hidden_BTC), weight_VC, self.bias)
