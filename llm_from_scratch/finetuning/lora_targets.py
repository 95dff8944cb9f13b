"""Which linear layers, or which rows of them, a name such as "query" means in a model.

The attention layers of this package make queries, keys and values by one matrix. Its three groups of rows
are addressed like layers of their own: ``blocks.0.attention.query`` are rows of ``blocks.0.attention.qkv``.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from llm_from_scratch.nn.adapters import AdapterLayer
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.cross_attention import CrossAttention
from llm_from_scratch.nn.feedforward import FeedForward, SwiGLU
from llm_from_scratch.nn.weight_only import WeightOnlyLinear

WHOLE = "whole"  # the part that is all rows of a matrix


@dataclass(frozen=True, kw_only=True)
class Target:
    """Rows ``start`` to ``start + rows`` of the linear layer called ``layer``."""

    layer: str  # dotted name in the model
    part: str  # "query", "key", "value", or WHOLE
    start: int  # first row
    rows: int

    @property
    def name(self) -> str:
        """The name under which the target is asked for."""
        parent = self.layer.rpartition(".")[0]
        return self.layer if self.part == WHOLE else f"{parent}.{self.part}".removeprefix(".")


def joint_rows(parent: nn.Module, name: str) -> dict[str, range]:
    """The parts of the joint matrix ``name`` of an attention layer; none of any other layer.

    >>> joint_rows(MultiHeadAttention(d_model=12, num_heads=4, num_kv_heads=2), "qkv")
    {'query': range(0, 12), 'key': range(12, 18), 'value': range(18, 24)}
    """
    if isinstance(parent, MultiHeadAttention) and name == "qkv":
        H, K = parent.num_heads * parent.d_head, parent.num_kv_heads * parent.d_head
        return {"query": range(H), "key": range(H, H + K), "value": range(H + K, H + 2 * K)}
    if isinstance(parent, CrossAttention) and name == "key_value":
        H = parent.num_heads * parent.d_head
        return {"key": range(H), "value": range(H, 2 * H)}
    return {}


def all_targets(model: nn.Module) -> dict[str, Target]:
    """Every name that may be asked for: all linear layers, adapted or not, and the parts of joint ones.

    >>> list(all_targets(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))))
    ['0', '2']
    """
    found: dict[str, Target] = {}
    for name, layer in model.named_modules():
        if not (is_linear(layer) or isinstance(layer, AdapterLayer)) or name.endswith(".base"):
            continue
        whole = Target(layer=name, part=WHOLE, start=0, rows=layer.out_features)
        found[whole.name] = whole
        parent, _, last = name.rpartition(".")
        for part, rows in joint_rows(model.get_submodule(parent), last).items():
            target = Target(layer=name, part=part, start=rows.start, rows=len(rows))
            found[target.name] = target
    return found


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer computes ``W x + b``, so that ``B A x`` can be added to it."""
    return isinstance(layer, (nn.Linear, WeightOnlyLinear))


def find_targets(model: nn.Module, names: Sequence[str]) -> list[Target]:
    """Return what ``names`` mean, in the order of the model.

    A name is that of one layer, or the end of the names of several ("output", "attention.qkv", "head"). In
    a model with this package's attention and feed-forward layers, the single words that name their parts
    mean those alone: "output" is attention's, not that of a head.
    Raises: ValueError for a name that means nothing (near ones are named), or no linear layer, and for
    rows that two names both ask for.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'targets must be names such as ("query", "value"), got {names!r}')
    known = all_targets(model)
    chosen = {target.name for name in names for target in _matches(model, known, name)}
    found = [target for name, target in known.items() if name in chosen]
    for target in found:
        if target.part != WHOLE and target.layer in chosen:
            raise ValueError(
                f"{target.name} is part of {target.layer}, and targets={tuple(names)} ask for both: the rows "
                "would get two adapters; leave one out"
            )
    return found


def _matches(model: nn.Module, known: dict[str, Target], name: str) -> list[Target]:
    if name in known:
        return [known[name]]
    found = [target for other, target in known.items() if other.endswith(f".{name}")]
    own = [target for target in found if _is_own(model, target.layer)]
    if found:
        return own or found
    others = [other for other, _ in model.named_modules() if other == name or other.endswith(f".{name}")]
    if others:
        kind = type(model.get_submodule(others[0])).__name__
        raise ValueError(
            f"the target {name!r} is a {kind}, and LoRA adds to linear layers; this model has {_words(known)}"
        )
    near = difflib.get_close_matches(name, [*_last_words(known), *known], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(f"no linear layer is called {name!r}; {hint}This model has {_words(known)}")


def _is_own(model: nn.Module, layer: str) -> bool:
    """Whether the layer belongs to attention or a feed-forward layer of this package."""
    parent = model.get_submodule(layer.rpartition(".")[0])
    return isinstance(parent, (MultiHeadAttention, CrossAttention, FeedForward, SwiGLU))


def _last_words(known: dict[str, Target]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[2] for name in known))


def _words(known: dict[str, Target]) -> str:
    words = _last_words(known)
    return (", ".join(words[:12]) + (", ..." if len(words) > 12 else "")) or "no linear layer"
