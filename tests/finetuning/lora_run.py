"""A decoder with LoRA under the trainer: what each process of a test does."""

import pytest
import torch

from llm_from_scratch.finetuning.lora import LoraConfig, add_lora
from llm_from_scratch.training.distributed import open_strategy
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches
from tests.training.conftest import T, made_up_tokens, random_windows, tiny_config, tiny_model


def lora_trainer(folder, *, strategy=None, dropout=0.0, seed=7, sharded=None, trained_only=True, **changes):
    """A tiny decoder that was not trained before, and two adapters in each of its blocks."""
    config = tiny_config(**{"batch_size": 4, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(dropout=0.0, seed=seed)
    add_lora(model, LoraConfig(rank=3, targets=("query", "value", "down"), dropout=dropout))
    return Trainer(
        model,
        config,
        batches=random_windows(batch_size=config.batch_size),
        validation=validation_batches(made_up_tokens(211, seed=5), context_length=T, batch_size=3, count=4),
        folder=folder,
        strategy=strategy,
        sharded=sharded,
        trained_only=trained_only,
    )


def train(out, name, changes):
    """Train in as many processes as call this."""
    strategy = open_strategy(name, torch.device("cpu"))
    trainer = lora_trainer(out, strategy=strategy, **changes)
    trainer.fit()
    strategy.finish()


def refuse_tensor_parallel(out):
    """Adapters are not cut by the plan of tensor parallelism, and the error says what is left."""
    strategy = open_strategy("tensor", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"carry adapters beside them .*: use strategy ddp or fsdp"):
        lora_trainer(out, strategy=strategy)
    strategy.finish()
