"""The training loop: steps, evaluations and checkpoints, until the last step or Ctrl-C.

Legend: B sequences of a micro-batch, T tokens of a sequence.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from llm_from_scratch.data.loader import Batch
from llm_from_scratch.training.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_sharded_checkpoint,
)
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.curve import save_loss_curve
from llm_from_scratch.training.groups import frozen, waiting_parameters
from llm_from_scratch.training.interrupts import stop_requests
from llm_from_scratch.training.log import RunLog
from llm_from_scratch.training.optimizer_state import (
    gathered_optimizer,
    optimizer_boxes,
    restore_optimizer,
    small_state,
)
from llm_from_scratch.training.optimizers import build_optimizer
from llm_from_scratch.training.precision import autocast, choose_device, choose_dtype, loss_scaler
from llm_from_scratch.training.progress import Progress
from llm_from_scratch.training.strategy import Strategy, check_optimizer
from llm_from_scratch.training.validation import NO_TARGET, mean_loss
from llm_from_scratch.training.weights import (
    base_of,
    check_base,
    load_weights,
    trained_names,
    weight_boxes,
    weights_as_bytes,
)

__all__ = ["Batches", "Trainer", "TrainerConfig", "TrainingDivergedError"]


class Batches(Iterator, Protocol):
    """An endless source of ``(ids_BT, targets_BT)`` that can continue where it stood."""

    def state_dict(self) -> dict[str, object]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, object]) -> None: ...  # noqa: D102


class TrainingDivergedError(ArithmeticError):
    """The loss or the gradient is no longer a number."""


class Trainer:
    """Train ``model`` on ``batches`` and keep the run in ``folder``.

    ``model(ids_BT, targets_BT)`` returns ``(logits, loss)``, the loss being the mean over the
    targets other than -100. ``validation`` holds the batches that each evaluation scores.
    A trainer whose folder holds a checkpoint continues from it when `resume` is called before `fit`,
    and `fit` refuses to begin there otherwise. ``strategy`` shares the work among processes: each is
    given the same arguments, and the folder must be one that all of them see. In a checkpoint that is
    ``sharded`` each process writes what it holds; otherwise one process gathers and writes everything. By
    default (None) that follows the strategy: sharded where it divides parameters, since they may be too
    large for one process; gathered where one process holds them all anyway.

    ``groups`` gives parts of the model learning rates and first steps of their own (`checked_groups`, e.g.
    `finetuning.layerwise.layerwise_groups`). With ``patience``, the run ends early once the validation loss
    has not improved at so many evaluations in a row; the best checkpoint is kept as always. With
    ``trained_only``, checkpoints hold what is trained and not the frozen base, which `resume` then has to
    find in ``model``: state.json names it by its fingerprint.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainerConfig,
        *,
        batches: Batches,
        validation: list[Batch],
        folder: Path,
        show_progress: bool = False,
        strategy: Strategy | None = None,
        sharded: bool | None = None,
        groups: Sequence[Mapping[str, object]] | None = None,
        patience: int | None = None,
        trained_only: bool = False,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be 1 evaluation or more, or None for no limit, got {patience}")
        self.strategy = strategy = Strategy() if strategy is None else strategy
        check_optimizer(config, strategy)
        self.sharded = strategy.divides if sharded is None else sharded
        self.config, self.batches = config, strategy.batches(batches, config.batch_size)
        self.validation = [strategy.rows(batch) for batch in validation]
        self.folder, self.show_progress = Path(folder), show_progress and strategy.main
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        self.model = model.to(self.device)  # saved and loaded under these names
        self.only = trained_names(model) if trained_only else None  # the tensors in a checkpoint; None: all
        self.base = base_of(model, self.only)
        self.forward = strategy.wrap(self.model, self.dtype)  # what a step calls
        self.optimizer = build_optimizer(model, config, one_kernel=strategy.one_kernel, groups=groups)
        self.scaler = loss_scaler(self.device, self.dtype)
        self.log = RunLog(self.folder / "log.jsonl")
        self.step = 0  # optimizer steps taken
        self.saved_step = -1  # of the last checkpoint
        self.best_loss = math.inf  # nats a token, lowest validation loss so far
        self.patience, self.waited = patience, 0  # evaluations: allowed without, and since, an improvement
        self.tokens = 0  # targets trained on
        self.seconds = 0.0  # spent in steps, evaluations excluded

    def fit(self) -> bool:
        """Take the steps that are left, as far as ``patience`` goes.

        Returns False if Ctrl-C ended the run early, which saves first.

        Raises: ValueError if the folder holds the checkpoint of another trainer and `resume` was not
        called; TrainingDivergedError at the first loss or gradient that is not finite; OSError if a
        checkpoint cannot be written. In each case the checkpoint before stays.
        """
        steps, eval_every = self.config.steps, self.config.eval_every
        if self.saved_step < 0 and has_checkpoint(self.folder):
            raise ValueError(
                f"{self.folder} holds the checkpoint of another trainer: call resume() before fit() to "
                "continue that run, or give this one another folder"
            )
        with (
            stop_requests(insist=not self.strategy.launched) as stop,
            Progress(total=steps, done=self.step, shown=self.show_progress) as progress,
        ):
            if self.saved_step < 0:  # so that there is a checkpoint from the beginning
                self._drop_log_after(-1)  # of a run that was killed before it had one
                self._evaluate_and_save({"step": 0})
            while not self.finished and not self.strategy.any(stop.made):
                record = self.train_step()
                if self.step % eval_every == 0 or self.step == steps:
                    record = self._evaluate_and_save(record)
                else:
                    self._append(record)
                progress.step(record)
            self._save(best=False)
            if self.strategy.main:
                save_loss_curve(self.log.read(), self.folder / "loss.svg")
        return self.finished

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or the validation loss has not improved for too long."""
        return self.step >= self.config.steps or (self.patience is not None and self.waited >= self.patience)

    def train_step(self) -> dict[str, object]:
        """Take one optimizer step over ``accumulate`` micro-batches; return its record for the log.

        Each micro-batch's mean loss enters with its share of the step's targets, so that the
        gradient is that of one large batch, also where sequences are padded. Where processes share
        it, their gradients are averaged, hence the factor ``shares``.
        """
        started = time.perf_counter()
        config, strategy = self.config, self.strategy
        learning_rate = config.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate", 1.0)
        micro_batches = [next(self.batches) for _ in range(config.accumulate)]
        counts = [int((targets_BT != NO_TARGET).sum()) for _, targets_BT in micro_batches]
        targets = int(strategy.total(sum(counts)))
        self.model.train()
        part_loss = torch.zeros((), device=self.device)
        waiting = waiting_parameters(self.optimizer, self.step)
        with frozen(waiting if strategy.processes == 1 else ()):  # several expect a gradient of each
            for number, (ids_BT, targets_BT) in enumerate(micro_batches, start=1):
                with strategy.micro_batch(last=number == config.accumulate):
                    with autocast(self.device, self.dtype):
                        _, mean = self.forward(ids_BT.to(self.device), targets_BT.to(self.device))
                    part = mean * (counts[number - 1] / max(targets, 1))
                    self.scaler.scale(part * strategy.shares).backward()
                part_loss += part.detach()
        for parameter in waiting:
            parameter.grad = None
        loss = strategy.total(float(part_loss))
        self.scaler.unscale_(self.optimizer)
        grad_norm = strategy.clip_gradients(self.model, config.clip_norm or math.inf)
        self._check_finite(loss, grad_norm, learning_rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += targets
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        record = {"step": self.step, "loss": loss, "lr": learning_rate}
        if math.isfinite(grad_norm):
            record["grad_norm"] = grad_norm
        return {**record, "tokens_per_second": round(targets / elapsed, 1)}

    def evaluate(self) -> float:
        """Return the mean loss over the validation windows, nats a token."""
        return mean_loss(
            self.forward,
            self.validation,
            device=self.device,
            context=lambda: autocast(self.device, self.dtype),
            total=self.strategy.total,
        )

    def resume(self) -> None:
        """Continue from the last checkpoint in the folder: the next step equals the one not taken."""
        checkpoint = load_checkpoint(self.folder, "last", self.strategy)
        state, tensors = checkpoint.state, checkpoint.tensors
        missing = {"batches", "best_loss", "tokens", "seconds"} - state.keys()
        if missing:
            raise ValueError(
                f"the last checkpoint of {self.folder} is damaged: its state.json lacks "
                f"{', '.join(sorted(missing))}"
            )
        origin = f"the last checkpoint of {self.folder}"
        check_base(state.get("base"), self.base, origin=origin)
        load_weights(self.model, checkpoint.weights, origin=origin, strategy=self.strategy, only=self.only)
        restore_optimizer(self.optimizer, tensors["optimizer"], self.strategy, checkpoint.averages)
        self.scaler.load_state_dict(tensors["scaler"])
        self.batches.load_state_dict(state["batches"])
        self.step = self.saved_step = checkpoint.step
        self.best_loss, self.waited = state["best_loss"], state.get("waited", 0)
        self.tokens, self.seconds = state["tokens"], state["seconds"]
        self._drop_log_after(self.step)
        self.strategy.restore_random_state(tensors["random"])

    def _evaluate_and_save(self, record: dict[str, object]) -> dict[str, object]:
        val_loss = self.evaluate()
        if not math.isfinite(val_loss):
            self._diverged(
                "the validation loss", val_loss, self.step, self.config.learning_rate_at(self.step)
            )
        record = {**record, "val_loss": val_loss}
        self._append(record)
        best = val_loss < self.best_loss
        self.waited = 0 if best else self.waited + 1
        self.best_loss = min(val_loss, self.best_loss)
        self._save(best=best)
        return record

    def _save(self, *, best: bool) -> None:
        if self.step == self.saved_step:
            return
        strategy, gathered = self.strategy, not self.sharded
        if gathered:  # by all processes; the main one alone gets everything
            weights = weights_as_bytes(self.model, strategy=strategy, only=self.only)
            optimizer = gathered_optimizer(self.optimizer, strategy)
        else:
            optimizer = small_state(self.optimizer)
        common = {
            "step": self.step,
            "best": best,
            "tensors": {
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),
                "random": strategy.random_state(),
            },
            "state": {
                "best_loss": self.best_loss,
                "waited": self.waited,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "batches": self.batches.state_dict(),
                **({} if self.base is None else {"base": self.base}),
            },
        }
        if strategy.main:
            self.log.flush_to_disk()
        if not gathered:
            boxes = weight_boxes(self.model, strategy, only=self.only)
            averages = optimizer_boxes(self.optimizer, strategy)
            save_sharded_checkpoint(
                self.folder, weights=boxes, averages=averages, strategy=strategy, **common
            )
        elif strategy.main:
            save_checkpoint(self.folder, weights=weights, **common)
        self.saved_step = self.step

    def _append(self, record: dict[str, object]) -> None:
        if self.strategy.main:
            self.log.append(record)

    def _drop_log_after(self, step: int) -> None:
        if self.strategy.main:
            self.log.drop_after(step)

    def _check_finite(self, loss: float, grad_norm: float, learning_rate: float) -> None:
        if not math.isfinite(loss):
            self._diverged("the loss", loss, self.step + 1, learning_rate)
        if not math.isfinite(grad_norm) and not self.scaler.is_enabled():  # the scaler skips such a step
            self._diverged("the gradient's norm", grad_norm, self.step + 1, learning_rate)

    def _diverged(self, what: str, value: float, step: int, learning_rate: float) -> None:
        raise TrainingDivergedError(
            f"{what} became {value} at step {step} (learning rate {learning_rate:.2e}). The checkpoint of "
            f"step {self.saved_step} in {self.folder} is intact. Begin a new run in another folder with a "
            "lower --learning-rate or a larger --warmup-fraction"
        )
