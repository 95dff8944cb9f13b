"""ALiBi: no position vectors; each head subtracts a penalty that grows linearly with distance.

Legend: H heads, T queries, S keys.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def alibi_slopes(num_heads: int) -> Float[Tensor, "H"]:
    """The penalty a token of each head: steep ones look near, flat ones look far.

    Formula: ``slope[h] = 2 ** (-8 (h + 1) / H)`` for h = 0 .. H - 1 where H is a power of 2. For
    another H take all slopes of the largest power of 2 below it, then every second slope of twice
    that power, beginning with the first, until there are H.

    Units: score units a token (natural logarithm of the odds).
    Raises: ValueError if there is no head.
    Source: Press, Smith and Lewis 2022, section 3; for other H their released code.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    if num_heads < 1:
        raise ValueError(f"num_heads={num_heads} must be at least 1")
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = _geometric(power) + _geometric(2 * power)[::2][: num_heads - power]
    return torch.tensor(slopes)


def alibi_bias(
    num_heads: int, num_queries: int, num_keys: int | None = None, *, device: torch.device | str | None = None
) -> Float[Tensor, "H T S"]:
    """What is added to the scores before the softmax: ``-slope[h] * distance``.

    Formula: ``bias[h, i, j] = -slope[h] * (i - j)`` for a key j at or before the query i. Later
    keys, which a causal mask hides anyway, get the same penalty by ``|i - j|``. With S > T the
    queries are the last T of S positions, as in `causal_mask`.

    Shapes: broadcasts over sequences. Units: as the scores.
    Raises: ValueError if there is no head or there are fewer keys than queries.
    Source: Press, Smith and Lewis 2022, section 3.
    Departure: the paper's released code writes the bias of key j as ``slope * j``, the same for every
    query; a softmax row cannot tell the two apart, since they differ by a constant in each row.

    >>> alibi_bias(2, 3)[0]
    tensor([[ 0.0000, -0.0625, -0.1250],
            [-0.0625,  0.0000, -0.0625],
            [-0.1250, -0.0625,  0.0000]])
    """
    num_keys = num_queries if num_keys is None else num_keys
    if num_keys < num_queries:
        raise ValueError(
            f"{num_queries} queries need at least as many keys, got {num_keys}: "
            "the queries are the last of the keys' positions"
        )
    keys_S = torch.arange(num_keys, device=device)
    distance_TS = (keys_S[num_keys - num_queries :, None] - keys_S).abs()
    return alibi_slopes(num_heads).to(distance_TS.device)[:, None, None] * -distance_TS


def _geometric(num_heads: int) -> list[float]:
    return [2.0 ** (-8.0 * (h + 1) / num_heads) for h in range(num_heads)]
