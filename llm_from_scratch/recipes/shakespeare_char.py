"""The shape in which nanoGPT trains a model of Shakespeare's characters on a CPU."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class ShakespeareChar(Recipe):
    """A GPT-2 style decoder without biases, to compare this package with a known result.

    Source: the CPU example in nanoGPT's README, whose validation loss after 2,000 steps is about
    1.88 nats a character. That is an estimate from 240 random windows, and such estimates scatter by
    about 0.01; `llm-scratch evaluate` scores every character once.
    """

    name: ClassVar[str] = "shakespeare_char"
    summary: ClassVar[str] = "Shakespeare by characters: nanoGPT's shape for a CPU"

    corpus: Literal["sotu", "tiny_shakespeare"] = "tiny_shakespeare"
    tokenizer: Literal["byte_pair", "character"] = "character"
    context_length: int = 64  # tokens
    num_layers: int = 4
    num_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0  # probability
    bias: bool = False
    training: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(
            steps=2000,
            batch_size=12,
            learning_rate=1e-3,
            weight_decay=0.1,
            decay_embeddings=True,
            beta2=0.99,
            clip_norm=1.0,
            eval_every=250,
            eval_batches=20,
        )
    )

    def model_config(self, vocab_size: int) -> DecoderConfig:
        """Return GPT-2's choices at this size."""
        return DecoderConfig.gpt2(
            vocab_size=vocab_size,
            context_length=self.context_length,
            d_model=self.d_model,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            bias=self.bias,
            dropout=self.dropout,
        )
