"""Learning rates that fall from the head of a model to its embeddings, and layers that wait their turn.

The layers near the words hold what every task needs, those near the head what the new task must change.
Give the groups to the trainer: ``Trainer(..., groups=layerwise_groups(model, weight_decay=0.01))``.
"""

from torch import Tensor, nn

from llm_from_scratch.training.block_options import blocks_of
from llm_from_scratch.training.optimizers import parameter_groups


def layerwise_groups(
    model: nn.Module, *, weight_decay: float, decay: float = 1.0, unfreeze_every: int = 0
) -> list[dict[str, object]]:
    """Group the trainable parameters by depth: lower learning rates, and later starts, further down.

    Formula: at depth d below the top, ``rate = decay ** d`` and ``from_step = d * unfreeze_every``. The
    head and all that comes after the blocks are at depth 0, the last block at 1, the first of L blocks at
    L, and what comes before the blocks (the embeddings) at L + 1.

    Arguments: the trainer multiplies a group's learning rate by ``rate`` and leaves the group alone for
    ``from_step`` optimizer steps. ``weight_decay`` is as in `parameter_groups`: none for embeddings, gains
    and biases, so that most depths give two groups. With ``decay=1`` all rates are equal; with
    ``unfreeze_every=0`` all begin at once.
    Raises: ValueError for a decay outside (0, 1], a negative ``unfreeze_every``, a model without blocks.
    Source: Howard and Ruder 2018, section 3.2 (discriminative fine-tuning, each layer's rate that of the
    next one over 2.6) and section 3.3 (gradual unfreezing, one layer more every epoch); Clark et al. 2020
    (ELECTRA), appendix B, for a factor of 0.8 or 0.9 in a Transformer.

    >>> from llm_from_scratch.models.encoder import Encoder, EncoderConfig
    >>> config = EncoderConfig.bert(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> groups = layerwise_groups(Encoder(config), weight_decay=0.01, decay=0.5, unfreeze_every=10)
    >>> sorted({(group["rate"], group["from_step"]) for group in groups}, reverse=True)
    [(1.0, 0), (0.5, 10), (0.25, 20), (0.125, 30)]
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"decay must be above 0 and at most 1, got {decay}; 0.9 is a usual choice")
    if unfreeze_every < 0:
        raise ValueError(f"unfreeze_every must be 0 optimizer steps or more, got {unfreeze_every}")
    depths = parameter_depths(model)
    groups: list[dict[str, object]] = []
    for split in parameter_groups(model, weight_decay=weight_decay):
        by_depth: dict[int, list[Tensor]] = {}
        for parameter in split["params"]:
            by_depth.setdefault(depths[id(parameter)], []).append(parameter)
        for depth, parameters in sorted(by_depth.items()):
            own = {"rate": decay**depth, "from_step": depth * unfreeze_every}
            groups.append({**split, "params": parameters, **own})
    return groups


def parameter_depths(model: nn.Module) -> dict[int, int]:
    """Return the depth of every parameter below the top, by the parameter's ``id``.

    What the module that holds the blocks names before them counts as embeddings, all else as the top. A
    tied output matrix is the embedding itself and counts as such.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError("the model has no blocks (no ModuleList) to tell its depths by")
    numbers = {id(block): number for number, block in enumerate(blocks)}
    depths: dict[int, int] = {}
    for module in model.modules():
        if id(module) in numbers:
            depth = len(blocks) - numbers[id(module)]
            depths.update({id(parameter): depth for parameter in module.parameters()})
        children = list(module.children())
        holding = [i for i, child in enumerate(children) if isinstance(child, nn.ModuleList)]
        if holding and id(children[holding[0]][0]) in numbers:
            for child in children[: holding[0]]:
                depths.update({id(parameter): len(blocks) + 1 for parameter in child.parameters()})
    return {id(parameter): depths.get(id(parameter), 0) for parameter in model.parameters()}
