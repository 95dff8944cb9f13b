"""The choices that make a training run."""

import math
from dataclasses import dataclass
from typing import Literal

from llm_from_scratch.training.schedules import warmup_cosine, warmup_stable_decay


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What a run does at each step, and how often it measures and saves."""

    steps: int = 1000  # optimizer steps
    batch_size: int = 16  # sequences in a micro-batch
    accumulate: int = 1  # micro-batches in an optimizer step
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: orthogonal steps for the blocks' matrices
    learning_rate: float = 1e-3  # the peak, reached after the warm-up
    muon_learning_rate: float = 0.02  # with muon: the peak for the blocks' matrices
    muon_momentum: float = 0.95  # with muon: share of the old mean of those gradients kept at a step
    final_fraction: float = 0.1  # learning rate at the last step, as a share of the peak
    warmup_fraction: float = 0.05  # share of the steps in which the learning rate rises
    schedule: Literal["cosine", "wsd"] = "cosine"  # after the warm-up; wsd: a plateau and a short fall
    decay_fraction: float = 0.2  # with wsd: share of the steps in which the learning rate falls
    weight_decay: float = 0.1  # per unit of learning rate
    decay_embeddings: bool = False  # whether weight decay reaches the embedding tables
    beta1: float = 0.9  # share of the old mean of gradients kept at a step
    beta2: float = 0.95  # share of the old mean of squared gradients kept at a step
    clip_norm: float | None = 1.0  # largest norm of the whole gradient; none turns clipping off
    eval_every: int = 100  # optimizer steps from one evaluation and checkpoint to the next
    eval_batches: int = 16  # batches of validation windows, the same ones each time
    seed: int = 1337  # of the weights, the batches and dropout
    device: str = "auto"  # "auto", "cpu", "cuda", "mps"
    precision: str = "auto"  # "auto", "float32", "bfloat16", "float16"

    def __post_init__(self) -> None:
        """Check each field. Raises: ValueError naming the field, its value and the limit."""
        for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be adamw or muon, got {self.optimizer!r}")
        for name in ("learning_rate", "muon_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm must be above 0, or none to turn it off, got {self.clip_norm}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more and finite, got {self.weight_decay}")
        for name in ("final_fraction", "warmup_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.schedule not in ("cosine", "wsd"):
            raise ValueError(f"schedule must be cosine or wsd, got {self.schedule!r}")
        if self.schedule == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} and decay_fraction {self.decay_fraction} are more "
                "than 1 together: shorten one of them"
            )
        for name in ("beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the step that follows ``step`` others.

        >>> [TrainerConfig(steps=40, learning_rate=1.0).learning_rate_at(step) for step in (0, 1, 39)]
        [0.5, 1.0, 0.1]
        """
        shape = {
            "peak": self.learning_rate,
            "floor": self.learning_rate * self.final_fraction,
            "warmup_steps": round(self.warmup_fraction * self.steps),
            "total_steps": self.steps,
        }
        if self.schedule == "wsd":
            decay_steps = min(round(self.decay_fraction * self.steps), self.steps - shape["warmup_steps"])
            return warmup_stable_decay(step, decay_steps=decay_steps, **shape)
        return warmup_cosine(step, **shape)
