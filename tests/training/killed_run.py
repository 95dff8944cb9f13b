"""A run for test_killed.py to kill: `python -m tests.training.killed_run FOLDER STEPS`."""

import sys
from dataclasses import asdict
from pathlib import Path

from llm_from_scratch.training.checkpoint import has_checkpoint
from llm_from_scratch.training.run_folder import run_folder
from tests.training.conftest import tiny_config, tiny_trainer


def run(folder, steps):
    settings = {"steps": steps, "eval_every": 2, "eval_batches": 1}
    config = {"training": asdict(tiny_config(**settings))}
    with run_folder(folder, config=config, resume=True) as path:
        trainer = tiny_trainer(path, dropout=0.2, **settings)
        if has_checkpoint(path):
            trainer.resume()
        print(f"from {trainer.step}", flush=True)
        trainer.fit()
    return trainer


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
