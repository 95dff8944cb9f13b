"""Tiny runs: a decoder of a few thousand parameters on a made-up language that can be learned."""

import pytest
import torch

from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer, TrainerConfig
from llm_from_scratch.training.validation import validation_batches

V, T, B = 13, 7, 5


def made_up_tokens(n=1009, seed=3):
    """Each token is the one before plus 1 or plus 4: learnable down to ln 2 nats."""
    steps = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return steps.cumsum(0) % V


def random_windows(*, batch_size=B, seed=0):
    return BatchLoader(made_up_tokens(), context_length=T, batch_size=batch_size, seed=seed)


def tiny_config(**changes):
    defaults = {
        "steps": 12,
        "batch_size": B,
        "learning_rate": 1e-2,
        "warmup_fraction": 0.25,
        "eval_every": 4,
        "eval_batches": 3,
        "seed": 7,
        "device": "cpu",
    }
    return TrainerConfig(**{**defaults, **changes})


def tiny_model(dropout=0.1, seed=7):
    seed_everything(seed)
    return Decoder(
        DecoderConfig.llama(
            vocab_size=V, context_length=T, d_model=12, num_layers=2, num_heads=3, dropout=dropout
        )
    )


def tiny_trainer(folder, *, dropout=0.1, model=None, batches=None, **changes):
    config = tiny_config(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(dropout) if model is None else model
    return Trainer(
        model,
        config,
        batches=batches or random_windows(batch_size=config.batch_size, seed=config.seed),
        validation=validation_batches(
            made_up_tokens(211, seed=5), context_length=T, batch_size=11, count=config.eval_batches
        ),
        folder=folder,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
