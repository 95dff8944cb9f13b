"""What each process of a test of gradients does."""

import copy
import math

import torch
from torch import nn

from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.training.distributed import open_strategy
from tests.training.conftest import T, V
from tests.training.distributed.processes_run import FAMILIES


def check(name, family):
    """Compare every gradient, the norm and the clipped gradient with those of one process."""
    strategy = open_strategy(name, torch.device("cpu"))
    torch.manual_seed(1)
    model = Decoder(FAMILIES[family]())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    plain = copy.deepcopy(model)
    ids = torch.randint(0, V, (4, T), generator=torch.Generator().manual_seed(2))
    targets = torch.randint(0, V, (4, T), generator=torch.Generator().manual_seed(3))
    plain(ids, targets)[1].backward()
    forward = strategy.wrap(model, torch.float32)
    my_ids, my_targets = strategy.rows((ids, targets))
    forward(my_ids, my_targets)[1].backward()
    norm = strategy.clip_gradients(model, math.inf)
    expected = float(nn.utils.clip_grad_norm_(plain.parameters(), 0.1))
    assert abs(norm - expected) <= 1e-5 * expected, (name, family, norm, expected)
    strategy.clip_gradients(model, 0.1)
    for (label, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        whole = strategy.whole(mine.grad, mine)
        if strategy.main:
            error = (whole - theirs.grad).abs().max() / theirs.grad.abs().max().clamp(min=1e-12)
            assert error < 1e-5, (name, family, label, float(error))
    return strategy


def main():
    for name in ("ddp", "fsdp", "tensor"):
        for family in FAMILIES:
            strategy = check(name, family)
    strategy.finish()
