"""Relative positions as T5 learns them: a number added to each score, chosen by the distance.

Distances fall into buckets: short ones have a bucket each, longer ones share buckets that widen
with the logarithm of the distance. Each head learns one number a bucket.

Legend: T queries, S keys, H heads.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def relative_position_bucket(
    distance: Int[Tensor, "..."],
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Int[Tensor, "..."]:
    """The bucket of each distance ``key position - query position``.

    Formula: let ``n`` be the distance without its sign and ``N`` the buckets of one direction.
    ``bucket = n`` for ``n < N/2``; further away ``N/2 + floor(N/2 * log(n / (N/2)) /
    log(max_distance / (N/2)))``, at most ``N - 1``. Bidirectional attention has N = num_buckets / 2:
    the first half of the buckets for keys before the query and at its place, the second for keys
    after it. Otherwise N = num_buckets, and every key after the query falls into bucket 0.

    Units: distances in tokens; from ``max_distance`` on, all share the last bucket.
    Raises: ValueError if there are too few buckets, or if max_distance leaves no room for the
    widening ones.
    Source: Raffel et al. 2020, section 2.1, and its released code for the formula.

    >>> relative_position_bucket(torch.tensor([0, -1, -2, -3, -9, 1, 99]), num_buckets=8, max_distance=16)
    tensor([0, 1, 2, 2, 3, 5, 7])
    >>> relative_position_bucket(torch.tensor([3, 0, -1, -40]), num_buckets=8, bidirectional=False)
    tensor([0, 0, 1, 6])
    """
    each = num_buckets // 2 if bidirectional else num_buckets
    exact = each // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(
            f"num_buckets={num_buckets} and max_distance={max_distance} leave no buckets to share: take at "
            f"least {4 if bidirectional else 2} buckets and a max_distance above {max(exact, 1)} tokens"
        )
    after = distance > 0
    n = distance.abs() if bidirectional else distance.clamp(max=0).abs()
    widening = torch.log(n.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (each - exact)
    bucket = torch.where(n < exact, n, (exact + widening.long()).clamp(max=each - 1))
    return bucket + each * after if bidirectional else bucket


class RelativeBias(nn.Module):
    """One learned number for each head and each bucket of distances, laid out over queries and keys.

    Formula: ``bias[h, i, j] = table[bucket(j - i), h]``. It is added to the scores before the
    softmax, and every layer of a T5 stack adds the same one. Any length can be asked for: distances
    never seen in training fall into the last bucket.

    Arguments: as in `relative_position_bucket`. With S > T the queries are the last T of the S
    positions, as in `causal_mask`.
    Source: Raffel et al. 2020, section 2.1.

    >>> RelativeBias(num_buckets=8, max_distance=16, num_heads=3, bidirectional=True)(5, 7).shape
    torch.Size([3, 5, 7])
    """

    def __init__(
        self, *, num_buckets: int = 32, max_distance: int = 128, num_heads: int, bidirectional: bool = True
    ):
        super().__init__()
        self.buckets = {
            "num_buckets": num_buckets,
            "max_distance": max_distance,
            "bidirectional": bidirectional,
        }
        relative_position_bucket(torch.zeros(1, dtype=torch.long), **self.buckets)  # refuses what cannot be
        self.table = nn.Embedding(num_buckets, num_heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, T: int, S: int | None = None) -> Float[Tensor, "H T S"]:
        """The numbers to add to the scores of T queries and S keys (as many as queries by default)."""
        S, device = T if S is None else S, self.table.weight.device
        distance_TS = torch.arange(S, device=device) - torch.arange(S - T, S, device=device)[:, None]
        return self.table(relative_position_bucket(distance_TS, **self.buckets)).permute(2, 0, 1)
