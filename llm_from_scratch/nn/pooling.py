"""From one vector a token to one vector a text, of length 1.

Legend: B texts, T positions, C width of the model.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_pool(x_BTC: Float[Tensor, "B T C"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B C"]:
    """The mean of each text's vectors, padding left out.

    Formula: ``sum_t mask_t x_t / sum_t mask_t``, where the mask is 1 at tokens and 0 at padding.

    Raises: ValueError if the shapes do not match, the mask is not boolean, or a text has no token.
    Source: Reimers and Gurevych 2019, section 3.

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])).tolist()
    [[2.0]]
    """
    if mask_BT.shape != x_BTC.shape[:2] or mask_BT.dtype != torch.bool:
        raise ValueError(
            f"vectors of shape {tuple(x_BTC.shape)} need a boolean mask of shape {tuple(x_BTC.shape[:2])}, "
            f"got {mask_BT.dtype} of shape {tuple(mask_BT.shape)}; True marks a token, False padding"
        )
    if not mask_BT.any(dim=1).all():
        raise ValueError(f"text {int((~mask_BT.any(dim=1)).nonzero()[0])} has no token, so it has no mean")
    kept_BTC = x_BTC.masked_fill(~mask_BT[..., None], 0.0)  # whatever stands there, even NaN, counts nothing
    return kept_BTC.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)


def unit_length(x_C: Float[Tensor, "*B C"], *, eps: float = 1e-12) -> Float[Tensor, "*B C"]:
    """Each vector divided by its length, so that inner products are cosines of angles.

    A vector shorter than ``eps`` is divided by ``eps`` instead; zeros stay zeros.

    >>> unit_length(torch.tensor([3.0, 4.0])).tolist()
    [0.6..., 0.8...]
    """
    return x_C / x_C.norm(dim=-1, keepdim=True).clamp(min=eps)
