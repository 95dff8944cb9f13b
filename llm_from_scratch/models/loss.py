"""The loss that language models are trained on: how surprised they are by the token that comes.

Legend: B sequences, T positions, V vocabulary entries.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def next_token_loss(
    logits_BTV: Float[Tensor, "B T V"], targets_BT: Int[Tensor, "B T"], *, ignore_index: int = -100
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats a target, over the targets other than ``ignore_index``.

    Formula: ``-mean(log softmax(logits)[target])``. A batch without any target has loss 0 and
    gradient 0, where torch's own mean would give NaN and ruin the weights.

    >>> import torch
    >>> next_token_loss(torch.zeros(1, 2, 4), torch.tensor([[3, -100]])).round(decimals=4).item()
    1.386...
    """
    total = F.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=ignore_index, reduction="sum"
    )
    return total / (targets_BT != ignore_index).sum().clamp(min=1)
