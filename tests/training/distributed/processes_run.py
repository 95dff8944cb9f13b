"""What each process of a test does: `... -m tests.training.distributed.processes_run OUT STRATEGY`."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch

from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.checkpoint import has_checkpoint
from llm_from_scratch.training.distributed import open_strategy
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches
from tests.training.conftest import T, V, made_up_tokens, tiny_config

FAMILIES = {
    "llama": lambda: DecoderConfig.llama(
        vocab_size=V, context_length=T, d_model=24, num_layers=2, num_heads=4, num_kv_heads=4, qk_norm=True
    ),
    "gpt2": lambda: DecoderConfig.gpt2(vocab_size=V, context_length=T, d_model=24, num_layers=2, num_heads=4),
    "grouped": lambda: DecoderConfig.llama(
        vocab_size=V, context_length=T, d_model=24, num_layers=2, num_heads=4, num_kv_heads=2, dropout=0.2
    ),
}


def build(folder, strategy, *, family="llama", sharded=None, **changes):
    """Make the trainer of one process; all processes make the same one."""
    config = tiny_config(**{"batch_size": 4, "accumulate": 2, **changes})
    seed_everything(config.seed)
    return Trainer(
        Decoder(FAMILIES[family]()),
        config,
        batches=BatchLoader(
            made_up_tokens(), context_length=T, batch_size=config.batch_size, seed=config.seed
        ),
        validation=validation_batches(made_up_tokens(211, seed=5), context_length=T, batch_size=3, count=4),
        folder=folder,
        strategy=strategy,
        sharded=sharded,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("strategy")
    parser.add_argument("--family", default="llama")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--stop-at", type=int)
    parser.add_argument("--checkpoint", choices=["gathered", "sharded"])
    parser.add_argument("changes", nargs="?", default="{}")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    strategy = open_strategy(given.strategy, torch.device("cpu"))
    given.out.mkdir(parents=True, exist_ok=True)
    sharded = None if given.checkpoint is None else given.checkpoint == "sharded"
    changes = json.loads(given.changes)
    trainer = build(given.out, strategy, family=given.family, sharded=sharded, **changes)
    if has_checkpoint(given.out):
        trainer.resume()
    (given.out / f"pid-{strategy.rank}").write_text(str(os.getpid()))
    if strategy.main:
        with open(given.out / "starts.txt", "a") as file:
            file.write(f"{trainer.step}\n")
    step = trainer.train_step

    def train_step():
        record = step()
        last_rank = strategy.processes == 1 or not strategy.main
        if last_rank and trainer.step == given.die_at and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        if last_rank and trainer.step == given.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    trainer.train_step = train_step
    trainer.fit()
    strategy.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
