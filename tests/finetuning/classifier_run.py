"""A classifier with groups under the trainer: what each process of a test does."""

import torch

from llm_from_scratch.finetuning.layerwise import layerwise_groups
from llm_from_scratch.training.distributed import open_strategy
from tests.finetuning.conftest import tiny_trainer


def groups(model):
    """Rates that fall by half, and a layer more every two steps."""
    return layerwise_groups(model, weight_decay=0.01, decay=0.5, unfreeze_every=2)


def train(out, name, changes):
    """Train a classifier in as many processes as call this."""
    strategy = open_strategy(name, torch.device("cpu"))
    trainer = tiny_trainer(out, groups=groups, strategy=strategy, **changes)
    trainer.fit()
    strategy.finish()
