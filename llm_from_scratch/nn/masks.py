"""Attention masks: which position may attend to which.

A mask is boolean, and True means *may attend*, as in torch's `scaled_dot_product_attention`.
(`torch.nn.MultiheadAttention` means the opposite.) Masks are combined with ``&``.

Legend: B sequences, T queries, S keys.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal_mask(
    T: int,
    S: int | None = None,
    *,
    window: int | None = None,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "T S"]:
    """Let each position attend to itself and to what came before it.

    Formula: query i stands at position ``i + S - T`` of the S keys, and may attend to key j if
    and only if ``j <= i + S - T``. Row = query, column = key, so a square mask is True on and
    below the diagonal. With S > T the queries are the last T of S positions, as in generation
    with stored keys. With a ``window``, the query sees that many keys at most, its own included:
    ``i + S - T - window < j``.

    Units: T, S and window in tokens. S defaults to T.
    Raises: ValueError if T or S is negative, or if S < T, since a query would precede every key;
    if the window is less than 1, since a query would not see itself.
    Source: Vaswani et al. 2017, section 3.2.3; the window: Child et al. 2019, Jiang et al. 2023.
    Departure: torch's ``is_causal=True`` aligns the first query with the first key when T and S
    differ; here the last query aligns with the last key.

    >>> causal_mask(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    >>> causal_mask(2, 4).int().tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    >>> causal_mask(3, window=2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    S = T if S is None else S
    if T < 0 or S < T:
        raise ValueError(
            f"causal_mask needs 0 <= T <= S, got T={T} queries and S={S} keys; "
            "the queries are the last T of the S positions"
        )
    mask_TS = torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)
    if window is None:
        return mask_TS
    if window < 1:
        raise ValueError(f"window={window} must be at least 1 token: a query sees itself")
    return mask_TS.triu(diagonal=S - T - window + 1)


def padding_mask(lengths_B: Int[Tensor, "B"], T: int) -> Bool[Tensor, "B 1 1 T"]:
    """Hide the padding at the end of each sequence from every query of that sequence.

    Formula: key j of sequence b may be attended to if and only if ``j < lengths_B[b]``.
    The two axes of size 1 stand for heads and queries, so the mask broadcasts over both.

    Units: lengths in tokens; T is the padded length.
    Raises: ValueError if a length lies outside [0, T].
    Note: a sequence of length 0 has no key to attend to; `attention` gives zeros there.

    >>> padding_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[[[1, 0, 0]]], [[[1, 1, 1]]]]
    """
    if lengths_B.numel() and not 0 <= int(lengths_B.min()) <= int(lengths_B.max()) <= T:
        raise ValueError(
            f"every length must lie in [0, {T}], the padded length, got {lengths_B.tolist()}; "
            "cut longer sequences or pad to the longest"
        )
    return (torch.arange(T, device=lengths_B.device) < lengths_B[:, None])[:, None, None, :]


def document_mask(ids_BT: Int[Tensor, "B T"], end_of_text: int) -> Bool[Tensor, "B 1 T T"]:
    """Let each position attend to positions of its own document only.

    Formula: position t belongs to document ``d(t)``, the number of end-of-text tokens among positions
    0 .. t, and query i may attend to key j if and only if ``d(i) = d(j)``. An end-of-text token thus
    opens a document: what comes first in a text is predicted from it alone. To be combined with a
    causal mask, which `Decoder` adds by itself.

    Raises: ValueError if the ids are not one row for each sequence.
    Source: Grattafiori et al. 2024 (Llama 3), section 3.2, which trains with such a mask.

    >>> document_mask(torch.tensor([[5, 9, 7, 7]]), 9).int().tolist()
    [[[[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]]]
    """
    if ids_BT.dim() != 2:
        raise ValueError(f"ids must have the shape [B, T], got {tuple(ids_BT.shape)}")
    document_BT = (ids_BT == end_of_text).cumsum(dim=-1)
    return (document_BT[:, :, None] == document_BT[:, None, :])[:, None]
