"""A run for test_killed.py to kill."""

from dataclasses import asdict

import torch

from llm_from_scratch.training.checkpoint import has_checkpoint
from llm_from_scratch.training.run_folder import run_folder
from tests.training.conftest import tiny_config, tiny_trainer


def run(folder, steps, started=lambda step: None):
    """Begin or continue the run; ``started`` is told from which step it goes on."""
    settings = {"steps": steps, "eval_every": 2, "eval_batches": 1}
    config = {"training": asdict(tiny_config(**settings))}
    with run_folder(folder, config=config, resume=True) as path:
        trainer = tiny_trainer(path, dropout=0.2, **settings)
        if has_checkpoint(path):
            trainer.resume()
        started(trainer.step)
        trainer.fit()
    return trainer


def process(folder, steps, connection):
    """Be the process that is killed."""
    torch.set_num_threads(1)
    run(folder, steps, connection.send)
