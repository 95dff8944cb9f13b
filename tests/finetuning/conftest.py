"""A tiny encoder and decoder, and a made-up labelled language: does the text hold an odd token?"""

import pytest
import torch

from llm_from_scratch.finetuning.heads import EncoderClassifier
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer, TrainerConfig

V, T, C, LAYERS = 23, 7, 12, 3


def tiny_encoder(*, dropout=0.0):
    return Encoder(
        EncoderConfig.bert(
            vocab_size=V, context_length=T, d_model=C, num_layers=LAYERS, num_heads=3, dropout=dropout,
            pooler=False, masked_language_head=False, next_sentence_head=False,
        )
    )  # fmt: skip


def tiny_classifier(*, dropout=0.0, seed=3):
    seed_everything(seed)
    return EncoderClassifier(tiny_encoder(dropout=dropout), num_classes=2, pad_id=0, dropout=dropout)


def labelled_batch(number, *, batch_size=6):
    """Padded texts of 2 to 7 tokens; label 1 if a token above 12 occurs; every fifth label is missing."""
    generator = torch.Generator().manual_seed(number)
    ids_BT = torch.randint(1, V, (batch_size, T), generator=generator)
    lengths_B = torch.randint(2, T + 1, (batch_size,), generator=generator)
    ids_BT[torch.arange(T) >= lengths_B[:, None]] = 0
    labels_B = (ids_BT > 12).any(dim=1).long()
    labels_B[torch.arange(batch_size) % 5 == number % 5] = -100
    return ids_BT, labels_B


class Labelled:
    """Endless batches whose content depends on their number alone."""

    def __init__(self, batch_size=6):
        self.batch_size, self.drawn = batch_size, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.drawn += 1
        return labelled_batch(self.drawn, batch_size=self.batch_size)

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def tiny_trainer(folder, *, model=None, groups=None, patience=None, strategy=None, batches=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "steps": 12, "batch_size": 6, "learning_rate": 3e-3, "weight_decay": 0.01, "eval_every": 4, "seed": 7,
        "device": "cpu",
    }  # fmt: skip
    config = TrainerConfig(**{**settings, **changes})
    model = tiny_classifier() if model is None else model
    return Trainer(
        model,
        config,
        batches=batches or Labelled(config.batch_size),
        validation=[labelled_batch(10_000 + number) for number in range(3)],
        folder=folder,
        groups=groups(model) if callable(groups) else groups,
        patience=patience,
        strategy=strategy,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
