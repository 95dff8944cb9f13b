"""Prefix tuning: trained keys and values stand before the text's, in every layer; the model stays as it is.

Legend: B sequences, T positions, P places of the prefix, H query heads, K key/value heads, D width of a head,
C width of the model.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.nn.adapters import AdapterLayer
from llm_from_scratch.nn.attention import MultiHeadAttention, attention, fused_attention
from llm_from_scratch.nn.masks import causal_mask
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.nn.positions import Rotary


class PrefixAttention(AdapterLayer):
    """A `MultiHeadAttention` whose queries also see P keys and values that belong to no token.

    Formula: ``softmax(scale * q [P_K; K]^T) [P_V; V]`` for each head, where K and V are the text's, and P_K
    and P_V, of shape [P, D] for each key/value head, are trained. Every position sees the whole prefix; of
    the text it sees what it saw before. The prefix has no position and is not turned by ``rope``.

    Source: Li and Liang 2021, section 4.2. Departure: P_K and P_V are trained as they are, without the
    network that makes them from smaller vectors there.

    >>> layer = PrefixAttention(MultiHeadAttention(d_model=6, num_heads=3, causal=True), length=4)
    >>> layer(torch.zeros(2, 5, 6)).shape, sum(p.numel() for p in layer.parameters() if p.dim() == 3)
    (torch.Size([2, 5, 6]), 48)
    """

    mergeable = False

    def __init__(self, base: MultiHeadAttention, *, length: int):
        super().__init__()
        self.base = base
        shape, like = (base.num_kv_heads, length, base.d_head), base.qkv.weight
        self.key_KPD = nn.Parameter(
            torch.empty(shape, device=like.device, dtype=like.dtype).normal_(std=0.02)
        )
        self.value_KPD = nn.Parameter(torch.empty_like(self.key_KPD).normal_(std=0.02))

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        mask: Bool[Tensor, "..."] | None = None,
        rope: Rotary | None = None,
        return_weights: bool = False,
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T S"]]:
        """Attend to the prefix and within each sequence; of the weights, the first P are the prefix's."""
        base, P = self.base, self.key_KPD.shape[1]
        q_BHTD, k_BKTD, v_BKTD = base.project(x_BTC, rope)
        k_BKSD, v_BKSD = (
            torch.cat((prefix.to(text.dtype).expand(len(text), -1, -1, -1), text), dim=2)
            for prefix, text in ((self.key_KPD, k_BKTD), (self.value_KPD, v_BKTD))
        )
        T = x_BTC.shape[1]
        if base.causal:
            causal_TT = causal_mask(T, window=base.window, device=x_BTC.device)
            mask = causal_TT if mask is None else causal_TT & mask
        if mask is not None:
            mask = F.pad(mask.expand(*mask.shape[:-1], T), (P, 0), value=True)
        if bias is not None:
            bias = F.pad(bias, (P, 0), value=0.0)
        inputs = {"mask": mask, "bias": bias, "scale": base.scale}
        if return_weights:
            heads_BHTD, weights_BHTS = attention(q_BHTD, k_BKSD, v_BKSD, **inputs)
        else:
            dropout_p = base.dropout if self.training else 0.0
            heads_BHTD = fused_attention(q_BHTD, k_BKSD, v_BKSD, **inputs, dropout_p=dropout_p)
        out_BTC = base.output(heads_BHTD.transpose(1, 2).flatten(2))
        return (out_BTC, weights_BHTS) if return_weights else out_BTC

    def project(self, *_: object) -> None:
        """Refuse to be read through a cache, whose positions would not count the prefix."""
        raise ValueError(
            "a cached pass does not see the trained prefix: call the model itself, without a cache"
        )


def add_prefix(model: nn.Module, *, length: int, from_ids: Int[Tensor, "1 P"] | None = None) -> list[str]:
    """Put a prefix of ``length`` places before every self-attention, in place, and freeze the model.

    Returns the names of the layers. With ``from_ids``, a text of ``length`` tokens, the prefix begins as the
    text's own keys and values, and not at random; a model that turns keys by position turned them at the
    places 0 to P - 1.
    Raises: ValueError for a length below 1 or other than the text's, a model without a `MultiHeadAttention`,
    and one that has adapters.
    """
    if type(length) is not int or length < 1:
        raise ValueError(f"length must be a whole number of places from 1 on, got {length!r}")
    if from_ids is not None and tuple(from_ids.shape) != (1, length):
        raise ValueError(
            f"from_ids must be one text of {length} tokens, got the shape {tuple(from_ids.shape)}"
        )
    if any(isinstance(part, AdapterLayer) for part in model.modules()):
        raise ValueError("the model carries adapters already: remove or merge them first")
    found = {name: part for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)}
    if not found or "" in found:
        raise ValueError(f"{type(model).__name__} has no attention layer that a prefix could stand before")
    start = {} if from_ids is None else _keys_and_values(model, found, from_ids)
    model.requires_grad_(False)
    for name, base in found.items():
        layer = PrefixAttention(base, length=length).train(base.training)
        if start:
            with torch.no_grad():
                layer.key_KPD.copy_(start[name][0])
                layer.value_KPD.copy_(start[name][1])
        model.set_submodule(name, layer)
    return list(found)


def remove_prefix(model: nn.Module) -> None:
    """Put the attention layers back as they were."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, PrefixAttention):
            model.set_submodule(name, layer.base)


def _keys_and_values(
    model: nn.Module, layers: dict[str, MultiHeadAttention], ids_1P: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """What each layer makes of a text."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str):
        def hook(layer, arguments, named):
            _, k_BKTD, v_BKTD = layer.project(arguments[0], named.get("rope"))
            kept[name] = (k_BKTD[0], v_BKTD[0])

        return hook

    handles = [layer.register_forward_pre_hook(keep(n), with_kwargs=True) for n, layer in layers.items()]
    try:
        with torch.no_grad(), evaluation_mode(model):
            model(ids_1P)
    finally:
        for handle in handles:
            handle.remove()
    return kept
