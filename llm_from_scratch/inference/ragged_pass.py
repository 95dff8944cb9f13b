"""One pass of a decoder over new tokens of several texts, each with a length of its own.

Nothing is padded where the weights are read: the new tokens of all texts stand in one row, and each
matrix is multiplied with that row once. Only attention, which reads no weights, looks at each text.

Legend: N new tokens of all texts, P texts, G of them with as many new tokens, T new tokens of one,
S positions looked at, C width of the model, V vocabulary entries, H query heads, K key/value heads,
D width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.inference.slot_cache import SlotCache
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.attention import fused_attention

Pieces = Sequence[tuple[int, Sequence[int]]]  # of each text its slot, and the tokens to read


@dataclass(frozen=True, kw_only=True)
class Group:
    """Texts that read the same number of tokens in this pass, and so can attend in one call."""

    slots: list[int]
    where_GT: Int[Tensor, "G T"]  # their places in the row of all new tokens
    mask_G1TS: Bool[Tensor, "G 1 T S"]  # True: may attend
    bias_GHTS: Float[Tensor, "G H T S"] | None  # added to the scores, for positions by distance


@torch.no_grad()
def ragged_forward(model: Decoder, pieces: Pieces, cache: SlotCache) -> Float[Tensor, "P V"]:
    """Read some tokens of each of several texts; score the token that follows each text.

    ``pieces`` are pairs of a slot and the tokens that follow those in the slot, which then holds them
    too. One pass can so read a whole prompt in one slot and a single new token in others. The scores are
    those of ``model(the slot's whole text)`` at its last position.

    Raises: ValueError for tokens the model cannot read, a slot given twice or without room, a cache
    built for another model, and a model whose dropout is on. Nothing is counted then, nor if the pass
    fails on its way; the slots of a failed pass must be cleared.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = Decoder(config).eval()
    >>> cache = SlotCache.for_model(model, num_slots=2)
    >>> _ = ragged_forward(model, [(0, [1, 2, 3])], cache)
    >>> logits_PV = ragged_forward(model, [(0, [4]), (1, [5, 6])], cache)
    >>> torch.allclose(logits_PV[0], model(torch.tensor([[1, 2, 3, 4]]))[0, -1], atol=1e-5)
    True
    """
    check_pieces(model, pieces, cache)
    device = cache.keys_LBKSD.device
    ids_N = torch.tensor([i for _, ids in pieces for i in ids], device=device)
    model.check_ids(ids_N[:, None])
    starts = [cache.lengths[slot] for slot, _ in pieces]
    for slot, ids in pieces:
        cache.begin(slot, len(ids))
    places = [
        (slot, start + t) for (slot, ids), start in zip(pieces, starts, strict=True) for t in range(len(ids))
    ]
    slots_N, positions_N = torch.tensor(places, device=device).unbind(1)
    groups = _groups(model, pieces, starts, device)
    x_1NC, rope = model.embed(ids_N[None], positions_T=positions_N)
    for layer, block in enumerate(model.blocks):
        x_1NC = _read_block(block, x_1NC, rope, cache, layer, slots_N, positions_N, groups)
    for slot, ids in pieces:
        cache.lengths[slot] += len(ids)
    last_P = torch.tensor([len(ids) for _, ids in pieces], device=device).cumsum(0) - 1
    return F.linear(model.norm(x_1NC[0, last_P]), model.output_weight)


def _read_block(
    block: nn.Module, x_1NC: Tensor, rope, cache: SlotCache, layer: int, slots_N, positions_N, groups
) -> Float[Tensor, "1 N C"]:
    """`TransformerBlock.forward` on the row of all new tokens, with attention group by group."""
    part = block.attention
    q_1HND, k_1KND, v_1KND = part.project(block.read(x_1NC, block.norm_1), rope)
    cache.write(layer, slots_N, positions_N, k_1KND[0].transpose(0, 1), v_1KND[0].transpose(0, 1))
    q_NHD = q_1HND[0].transpose(0, 1)
    heads_NHD = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
    for group in groups:
        k_GKSD, v_GKSD = cache.read(layer, group.slots, group.mask_G1TS.shape[-1])
        q_GHTD = q_NHD[group.where_GT].transpose(1, 2)
        heads_GHTD = fused_attention(
            q_GHTD, k_GKSD, v_GKSD, mask=group.mask_G1TS, bias=group.bias_GHTS, scale=part.scale
        )
        heads_NHD[group.where_GT] = heads_GHTD.transpose(1, 2)
    x_1NC = block.add(x_1NC, part.output(heads_NHD.flatten(1)[None]), block.norm_1)
    return block.add(x_1NC, block.feedforward(block.read(x_1NC, block.norm_2)), block.norm_2)


def _groups(model: Decoder, pieces: Pieces, starts: list[int], device) -> list[Group]:
    """The texts that read one token make one group, each longer piece one of its own."""
    first, groups, singles = 0, [], []
    for (slot, ids), start in zip(pieces, starts, strict=True):
        if len(ids) == 1:
            singles.append((slot, start, first))
        else:
            groups.append(_group(model, [(slot, start, first)], len(ids), device))
        first += len(ids)
    return [*groups, *([_group(model, sorted(singles), 1, device)] if singles else [])]


def _group(model: Decoder, members: list[tuple[int, int, int]], T: int, device) -> Group:
    """Mask and bias of texts that each read T tokens; of each: its slot, its start, its place in the row."""
    slots, starts, places = (list(column) for column in zip(*members, strict=True))
    S, steps_T = max(starts) + T, torch.arange(T, device=device)
    positions_GT1 = (torch.tensor(starts, device=device)[:, None] + steps_T)[..., None]
    distance_GTS = positions_GT1 - torch.arange(S, device=device)
    mask_GTS = distance_GTS >= 0
    if model.config.sliding_window is not None:
        mask_GTS &= distance_GTS < model.config.sliding_window
    by_distance_H1S, bias_GHTS = model.score_bias(1, S), None
    if by_distance_H1S is not None:  # of the last query: its column S - 1 - d belongs to distance d
        columns_GTS = S - 1 - distance_GTS.clamp(min=0)
        bias_GHTS = by_distance_H1S[:, 0][:, columns_GTS].transpose(0, 1)
    where_GT = torch.tensor(places, device=device)[:, None] + steps_T
    return Group(slots=slots, where_GT=where_GT, mask_G1TS=mask_GTS[:, None], bias_GHTS=bias_GHTS)


def check_pieces(model: Decoder, pieces: Pieces, cache: SlotCache) -> None:
    """Raise ValueError for what `ragged_forward` cannot read; the ids it checks itself."""
    config = model.config
    if cache.made_for != (config.num_layers, config.num_kv_heads, config.d_head):
        raise ValueError(
            f"the cache was built for {cache.made_for} layers, key/value heads and columns a head, the model "
            f"has {(config.num_layers, config.num_kv_heads, config.d_head)}; use SlotCache.for_model"
        )
    if not pieces or not all(len(ids) for _, ids in pieces):
        raise ValueError("there is nothing to read: give at least one text, and at least one token of each")
    slots = [slot for slot, _ in pieces]
    if len(set(slots)) < len(slots):
        raise ValueError(f"each slot can read one piece a pass, got the slots {slots}; join its pieces")
    for slot, ids in pieces:
        cache.check_room(slot, len(ids))
    if model.training and config.dropout > 0:
        raise ValueError(
            f"the model is in training mode with dropout={config.dropout}, which would be stored in the "
            "cache; call model.eval() first"
        )
