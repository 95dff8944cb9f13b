"""The choices that make a training run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What a run does at each step, and how often it measures and saves."""

    steps: int = 1000  # optimizer steps
    batch_size: int = 16  # sequences in a micro-batch
    accumulate: int = 1  # micro-batches in an optimizer step
    learning_rate: float = 1e-3  # the peak, reached after the warm-up
    final_learning_rate: float = 1e-4  # at the last step
    warmup_steps: int = 100  # optimizer steps
    weight_decay: float = 0.1  # per unit of learning rate
    decay_embeddings: bool = False  # whether weight decay reaches the embedding tables
    beta1: float = 0.9  # share of the old mean of gradients kept at a step
    beta2: float = 0.95  # share of the old mean of squared gradients kept at a step
    clip_norm: float = 1.0  # largest norm of the whole gradient; inf turns clipping off
    eval_every: int = 100  # optimizer steps from one evaluation and checkpoint to the next
    eval_windows: int = 64  # validation windows, the same ones each time
    seed: int = 1337  # of the weights, the batches and dropout
    device: str = "auto"  # "auto", "cpu", "cuda", "mps"
    precision: str = "auto"  # "auto", "float32", "bfloat16", "float16"

    def __post_init__(self) -> None:
        """Check each field; raise ValueError naming it."""
        for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate must lie between 0 and learning_rate={self.learning_rate}, "
                f"got {self.final_learning_rate}"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must lie between 0 and steps={self.steps}: "
                "change one of the two"
            )
