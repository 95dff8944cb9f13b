"""Which parameters an optimizer may shrink, and which steps it takes for them: AdamW or Muon."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.training.block_options import blocks_of
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.groups import checked_groups
from llm_from_scratch.training.muon import Muon


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decay_embeddings: bool = False
) -> list[dict[str, object]]:
    """Split the trainable parameters into one group that decays and one that does not.

    Weight decay pulls a parameter towards 0. That is wanted for the matrices, whose scale the
    norms make redundant. It is not wanted for gains and biases (everything with one dimension),
    whose natural value need not be 0, nor, by default, for embedding tables: the row of a rare
    token gets a gradient seldom and decay at every step, and short rows make the gradient through
    the first norm large.

    A tied table (input embedding and output head in one) counts as an embedding and appears once.
    A group without members is left out.

    Source: embeddings, OLMo 2 (2025), section 3.4, after Takase et al. 2024. For gains and biases
    the AdamW paper makes no rule; sparing them is what the GPT-2 reproductions in use do.
    Departure: nanoGPT decays embeddings too. ``decay_embeddings=True`` reproduces it.

    >>> groups = parameter_groups(nn.Linear(3, 2), weight_decay=0.1)
    >>> [(group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 1), (0.0, 1)]
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for parameter in model.parameters():  # a tied parameter is listed once
        if not parameter.requires_grad:
            continue
        is_embedding = id(parameter) in embeddings and not decay_embeddings
        (spared if parameter.dim() < 2 or is_embedding else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    decay_embeddings: bool = False,
    one_kernel: bool = True,
    groups: list[dict[str, object]] | None = None,
) -> torch.optim.AdamW:
    """Build AdamW over ``groups`` (by default ``parameter_groups``), in one kernel where the device has it.

    Formula, for a gradient g at step t, learning rate a and decay d:
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    theta = (1 - a d) theta - a m' / (sqrt(v') + eps), with m' = m / (1 - b1^t), v' = v / (1 - b2^t).
    Units: ``betas`` are b1 and b2, each the share of the old average that is kept at a step.
    ``one_kernel=False`` takes the parameters one by one, for those that lie divided in unlike ways.
    Raises: ValueError if the model has nothing to train.
    Source: Loshchilov and Hutter 2019 (Decoupled Weight Decay Regularization), algorithm 2. The
    default b2 = 0.95 is that of GPT-3 (Brown et al. 2020, appendix B), shorter than Adam's 0.999.

    >>> type(build_adamw(nn.Linear(3, 2), learning_rate=1e-3, weight_decay=0.1)).__name__
    'AdamW'
    """
    if groups is None:
        groups = parameter_groups(model, weight_decay=weight_decay, decay_embeddings=decay_embeddings)
    if not groups:
        raise ValueError("the model has no trainable parameter: unfreeze one (requires_grad_(True))")
    device = next(iter(groups[0]["params"])).device.type
    fused = one_kernel and device in ("cpu", "cuda")
    together = {"fused": True} if fused else {"foreach": None if one_kernel else False}
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, **together)


def muon_groups(
    model: nn.Module, *, weight_decay: float, matrix_rate: float, decay_embeddings: bool = False
) -> list[dict[str, object]]:
    """Split the trainable parameters into Muon's matrices and what is left to AdamW.

    Muon's are the matrices inside the blocks: each turns one hidden vector into another. The embeddings
    and the output layer have two dimensions too, but one of them numbers tokens, whose rows get
    gradients independently. The joint matrix of queries, keys and values is cut into the three.
    ``matrix_rate`` is their peak learning rate as a multiple of the others' (field ``rate`` of a group).

    >>> from llm_from_scratch.nn import FeedForward
    >>> model = nn.Sequential(nn.Embedding(5, 3), nn.ModuleList([FeedForward(d_model=3, d_ff=12)]))
    >>> groups = muon_groups(model, weight_decay=0.1, matrix_rate=20.0)
    >>> [(group["orthogonal"], group["rate"], len(group["params"])) for group in groups]
    [(True, 20.0, 2), (False, 1.0, 3)]
    """
    attentions = [part for part in model.modules() if isinstance(part, MultiHeadAttention)]
    joint = {
        id(part.qkv.weight): (part.num_heads * part.d_head, *[part.num_kv_heads * part.d_head] * 2)
        for part in attentions
    }
    inside = {
        id(parameter): joint.get(id(parameter))
        for block in blocks_of(model)
        for parameter in block.parameters()
        if parameter.dim() == 2
    }
    groups: list[dict[str, object]] = []
    for group in parameter_groups(model, weight_decay=weight_decay, decay_embeddings=decay_embeddings):
        by_parts: dict[object, list[Tensor]] = {}
        for parameter in group["params"]:
            by_parts.setdefault(inside.get(id(parameter), "rest"), []).append(parameter)
        for parts, parameters in by_parts.items():
            own = {"orthogonal": False, "rate": 1.0}
            if parts != "rest":
                own = {"orthogonal": True, "rate": matrix_rate, "parts": parts}
            groups.append({**group, **own, "params": parameters})
    return groups


def build_optimizer(
    model: nn.Module,
    config: TrainerConfig,
    *,
    one_kernel: bool = True,
    groups: Sequence[Mapping[str, object]] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer that a run's configuration names, over ``groups`` if the caller has its own.

    A group's ``rate``, 1 where there is none, multiplies the learning rate that the schedule gives.
    Raises: ValueError as `build_adamw` and `checked_groups`, and for Muon with groups of the caller, where
    matrices lie divided, or where there is none.
    """
    if groups is not None:
        if config.optimizer != "adamw":
            raise ValueError(f"groups of your own need optimizer adamw, got {config.optimizer}")
        groups = checked_groups(model, groups, weight_decay=config.weight_decay)
    betas = (config.beta1, config.beta2)
    decay = {"weight_decay": config.weight_decay, "decay_embeddings": config.decay_embeddings}
    if config.optimizer == "adamw":
        return build_adamw(
            model,
            learning_rate=config.learning_rate,
            betas=betas,
            one_kernel=one_kernel,
            groups=groups,
            **decay,
        )
    groups = muon_groups(model, matrix_rate=config.muon_learning_rate / config.learning_rate, **decay)
    if not any(group["orthogonal"] for group in groups):
        raise ValueError("optimizer muon found no block with a trainable matrix; use optimizer adamw")
    return Muon(groups, lr=config.learning_rate, momentum=config.muon_momentum, betas=betas)
