"""LoRA: a frozen matrix, and beside it a product of two thin ones that is trained.

Legend: N rows (outputs) and C columns (inputs) of a matrix, R rows of the part that is adapted, r rank.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llm_from_scratch.finetuning.lora_targets import Target, find_targets
from llm_from_scratch.nn.adapters import AdapterLayer


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What is adapted, and how.

    Raises: ValueError for a rank below 1, an alpha that is not above 0, and a dropout outside [0, 1).

    >>> LoraConfig(rank=8, alpha=16.0).scale, LoraConfig(rank=16, alpha=16.0, rank_stabilised=True).scale
    (2.0, 4.0)
    """

    rank: int = 8  # rows of A and columns of B
    alpha: float = 16.0  # the update is multiplied by alpha / rank
    targets: tuple[str, ...] = ("query", "value")  # see `lora_targets.find_targets`
    dropout: float = 0.0  # probability that an input of A is dropped in training
    also_train: tuple[str, ...] = ()  # modules that stay trainable as a whole, such as a new head
    rank_stabilised: bool = False  # alpha / sqrt(rank) in place of alpha / rank

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"rank must be a whole number from 1 on, got {self.rank!r}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a number above 0, got {self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}")

    @property
    def scale(self) -> float:
        """The factor of the update."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoraPart(nn.Module):
    """The trained update of some rows of a matrix: ``scale * B A``, of rank r at most.

    A is drawn uniformly from ``(-1/sqrt(C), 1/sqrt(C))`` and B is 0, so the update begins at 0, while
    the gradient of B does not.
    Raises: ValueError if the rank exceeds that of the rows themselves.
    """

    def __init__(self, target: Target, columns: int, config: LoraConfig, *, like: Tensor):
        super().__init__()
        R, r = target.rows, config.rank
        if r > min(R, columns):
            raise ValueError(
                f"rank {r} is larger than {target.name} allows, a matrix of {R} x {columns}: "
                f"take {min(R, columns)} or less"
            )
        self.start, self.rows, self.config, self.scale = target.start, R, config, config.scale
        made = {"device": like.device, "dtype": like.dtype if like.is_floating_point() else torch.float32}
        self.A = nn.Parameter(torch.empty(r, columns, **made))
        self.B = nn.Parameter(torch.empty(R, r, **made))
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin anew, with an update of 0."""
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        nn.init.zeros_(self.B)

    def update(self) -> Float[Tensor, "R C"]:
        """What merging adds to the rows, in float32 or better."""
        dtype = torch.promote_types(self.A.dtype, torch.float32)
        return (self.B.to(dtype) @ self.A.to(dtype)) * self.scale

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B R"]:
        """``scale * B A x``, by two thin products; B A is never formed."""
        return F.linear(F.linear(self.dropout(x_C.to(self.A.dtype)), self.A), self.B) * self.scale


class LoraLinear(AdapterLayer):
    """A linear layer with a trained update of low rank beside its frozen weights.

    Formula: ``y = W x + b + (alpha / r) B A x``, with A of shape [r, C] and B of shape [N, r]. For parts of
    a joint matrix (queries, keys and values) each part has its own A and B, which add to its rows of y.

    ``base`` is the layer itself, any that has ``weight`` and ``bias``. ``active`` False leaves the update
    out; ``merged`` says that ``base`` holds it.
    Source: Hu et al. 2021, section 4.1; the factor alpha / sqrt(r): Kalajdzievski 2023, section 3.

    >>> layer = nn.Linear(5, 3)
    >>> lora = LoraLinear(layer, [Target(layer="", part="whole", start=0, rows=3)], LoraConfig(rank=2))
    >>> x = torch.ones(1, 5)
    >>> torch.equal(lora(x), layer(x)), [list(p.shape) for p in lora.parts.parameters()]
    (True, [[2, 5], [3, 2]])
    """

    def __init__(self, base: nn.Module, targets: Sequence[Target], config: LoraConfig):
        super().__init__()
        self.base, self.active, self.merged = base, True, False
        self.in_features, self.out_features = base.in_features, base.out_features
        self.parts = nn.ModuleDict()
        for target in targets:
            self.add_part(target, config)

    def add_part(self, target: Target, config: LoraConfig) -> None:
        """Adapt rows that have no adapter yet."""
        like = next(self.base.parameters(), None)
        like = torch.empty(0) if like is None else like
        self.parts[target.part] = LoraPart(target, self.in_features, config, like=like)
        self.train(self.base.training)

    def forward(self, x_C: Float[Tensor, "*B C"]) -> Float[Tensor, "*B N"]:
        """Apply the layer to the last axis."""
        y_N = self.base(x_C)
        if self.active and not self.merged:
            for part in self.parts.values():
                y_N.narrow(-1, part.start, part.rows).add_(part(x_C))
        return y_N

    @property
    def weight(self) -> Float[Tensor, "N C"]:
        """The matrix that the layer multiplies with: W plus the update. Dropout does not enter."""
        weight_NC = self.base.weight
        if not self.active or self.merged:
            return weight_NC
        weight_NC = weight_NC.clone()
        for part in self.parts.values():
            weight_NC.narrow(0, part.start, part.rows).add_(part.update())
        return weight_NC

    @property
    def bias(self) -> Float[Tensor, "N"] | None:
        """The base's."""
        return self.base.bias

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base's weights. Raises: ValueError if they hold it, or cannot."""
        if self.merged:
            raise ValueError("the update is merged already: merging twice would add it twice")
        self._add_to_base(1.0)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the base's weights, but for rounding. Raises: ValueError if it is not in."""
        if not self.merged:
            raise ValueError("the update is not merged, so there is nothing to take out")
        self._add_to_base(-1.0)

    def _add_to_base(self, sign: float) -> None:
        if not isinstance(self.base, nn.Linear):
            raise ValueError(
                f"a {type(self.base).__name__} holds rounded numbers, to which no update can be added: save "
                "the adapter, and load it on the model in full precision"
            )
        for part in self.parts.values():
            self.base.weight.narrow(0, part.start, part.rows).add_(part.update(), alpha=sign)
        self.merged = not self.merged


def add_lora(model: nn.Module, config: LoraConfig) -> list[str]:
    """Put adapters beside the targets, in place, and freeze everything else; return the adapters' names.

    What the model computes does not change until a step is taken. Only parameters of ``config.also_train``
    stay trainable as they are.
    Raises: ValueError, before anything is changed, for unknown targets and modules, a rank that is too
    large, and a model that has adapters.

    >>> from llm_from_scratch.models.decoder import Decoder, DecoderConfig
    >>> sizes = {"vocab_size": 11, "context_length": 7, "d_model": 6, "num_layers": 2, "num_heads": 3}
    >>> model = Decoder(DecoderConfig.gpt2(**sizes))
    >>> add_lora(model, LoraConfig(rank=2, targets=("query", "value")))[:2]
    ['blocks.0.attention.query', 'blocks.0.attention.value']
    """
    targets = find_targets(check_plain(model), config.targets)
    kept = [module for name in config.also_train for module in _modules_called(model, name)]
    attach(model, [(target, config) for target in targets])
    for module in kept:
        module.requires_grad_(True)
    return [target.name for target in targets]


def attach(model: nn.Module, chosen: Sequence[tuple[Target, LoraConfig]]) -> None:
    """Replace layers by `LoraLinear`, each target with its own configuration; freeze the rest."""
    layers: dict[str, LoraLinear] = {}
    for target, config in chosen:  # all are built before the first takes its place
        if not target.layer:
            raise ValueError("the model itself is a linear layer, in which nothing can be replaced")
        base = model.get_submodule(target.layer)
        if target.layer not in layers:
            layers[target.layer] = LoraLinear(base, [], config)
        layers[target.layer].add_part(target, config)
    model.requires_grad_(False)
    for name, layer in layers.items():
        layer.parts.requires_grad_(True)
        model.set_submodule(name, layer)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by their names."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoraLinear)}


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All A and B."""
    return [p for layer in lora_layers(model).values() for p in layer.parts.parameters()]


def merge_lora(model: nn.Module, *, keep: bool = False) -> list[str]:
    """Add every update to its weights, in place; return the names of the layers.

    The layers of before then stand in their places again, and the model is one without adapters, as fast
    and as large as it was. With ``keep`` the adapters stay, unused, until `unmerge_lora`.
    Raises: ValueError if there is none, if one is merged, if the weights are quantised, or shared with
    another layer, which would change with them; nothing is changed then.
    """
    layers = some_layers(model)
    for name, layer in layers.items():
        if layer.merged:
            raise ValueError(f"{name} is merged already: call unmerge_lora first, or remove_lora")
        if not isinstance(layer.base, nn.Linear):
            layer.merge()  # raises
        names = [n for n, p in model.named_parameters(remove_duplicate=False) if p is layer.base.weight]
        if len(names) > 1:
            raise ValueError(f"{names[0]} and {names[1]} are one tensor: merging would change both layers")
    for layer in layers.values():
        layer.merge()
    return list(layers) if keep else remove_lora(model)


def unmerge_lora(model: nn.Module) -> None:
    """Undo ``merge_lora(model, keep=True)``, but for rounding."""
    for layer in some_layers(model).values():
        layer.unmerge()


def remove_lora(model: nn.Module) -> list[str]:
    """Put the base layers back, in place, as they are: without what was trained, unless it was merged."""
    layers = some_layers(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer.base)
    return list(layers)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Compute as the base does while the block runs: the reference model of preference tuning, for nothing.

    Modules of ``also_train`` are not the base's; they stay as they are trained.
    Raises: ValueError if an adapter is merged, since the base is gone then.
    """
    layers = list(lora_layers(model).values())
    if any(layer.merged for layer in layers):
        raise ValueError("merged adapters cannot be turned off: call unmerge_lora(model) first")
    before = [layer.active for layer in layers]
    try:
        for layer in layers:
            layer.active = False
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer.active = active


class TrainedCount(NamedTuple):
    """Numbers of a model, and those of them that training changes."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.trained / self.total if self.total else 0.0


def count_trained(model: nn.Module) -> TrainedCount:
    """Count parameters, shared ones once; those of quantised matrices as they were before.

    >>> model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 1))
    >>> names = add_lora(model, LoraConfig(rank=2, targets=("0",)))
    >>> count_trained(model)
    TrainedCount(trained=40, total=161)
    """
    parameters = list(model.parameters())
    rounded = [part.matrix for part in model.modules() if hasattr(part, "matrix")]
    total = sum(p.numel() for p in parameters) + sum(math.prod(matrix.shape) for matrix in rounded)
    return TrainedCount(sum(p.numel() for p in parameters if p.requires_grad), total)


def some_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers. Raises: ValueError if there is none."""
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model carries no adapter; add_lora adds some, load_adapter reads some")
    return layers


def check_plain(model: nn.Module) -> nn.Module:
    """Return the model. Raises: ValueError if it has adapters."""
    layers = lora_layers(model)
    if layers:
        raise ValueError(
            f"the model carries adapters already ({next(iter(layers))} is the first of {len(layers)}): "
            "merge_lora or remove_lora first"
        )
    return model


def _modules_called(model: nn.Module, name: str) -> list[nn.Module]:
    modules = dict(model.named_modules())
    found = [modules[name]] if name in modules else [m for n, m in modules.items() if n.endswith(f".{name}")]
    if not name or not found:
        raise ValueError(
            f"also_train names {name!r}, and the model has no such module; it has "
            f"{', '.join(n for n, _ in model.named_children())}"
        )
    return found
