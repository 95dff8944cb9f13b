"""Tiny runs: a decoder of a few thousand parameters on a made-up language that can be learned."""

import pytest
import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer, TrainerConfig
from llm_from_scratch.training.validation import windows

V, T, B = 13, 7, 5


class RandomWindows:
    """A stand-in for the package's loader: random windows from a generator of its own."""

    def __init__(self, tokens_N, *, context_length=T, batch_size=B, seed=0):
        self.tokens, self.context_length, self.batch_size = tokens_N, context_length, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self):
        return self

    def __next__(self):
        last = len(self.tokens) - self.context_length
        starts = torch.randint(0, last, (self.batch_size,), generator=self.generator).tolist()
        window = torch.stack([self.tokens[s : s + self.context_length + 1] for s in starts])
        return window[:, :-1], window[:, 1:]

    def state_dict(self):
        return {"generator": self.generator.get_state().tolist()}

    def load_state_dict(self, state):
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


def made_up_tokens(n=1009, seed=3):
    """Each token is the one before plus 1 or plus 4: learnable down to ln 2 nats."""
    steps = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return steps.cumsum(0) % V


def tiny_config(**changes):
    defaults = {
        "steps": 12,
        "batch_size": B,
        "learning_rate": 1e-2,
        "final_learning_rate": 1e-3,
        "warmup_steps": 3,
        "eval_every": 4,
        "eval_windows": 11,
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
        batches=batches or RandomWindows(made_up_tokens(), batch_size=config.batch_size, seed=config.seed),
        validation=windows(made_up_tokens(211, seed=5), context_length=T, count=config.eval_windows),
        folder=folder,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
