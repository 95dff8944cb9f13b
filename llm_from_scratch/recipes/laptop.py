"""A small Llama that learns the language of two centuries of presidents while the coffee brews."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class Laptop(Recipe):
    """Under five minutes on two cores, tokenizer included.

    ``depth`` is the dial: it sets the layers, and with them the width and the heads. Anything it
    sets can also be set by itself.
    """

    name: ClassVar[str] = "laptop"
    summary: ClassVar[str] = "State of the Union messages by word pieces: a small Llama for two CPU cores"

    corpus: Literal["sotu", "tiny_shakespeare"] = "sotu"
    tokenizer: Literal["byte_pair", "character"] = "byte_pair"
    vocab_size: int | None = 4096  # entries
    context_length: int = 128  # tokens
    depth: int = 4  # the dial: layers
    d_model: int | None = None  # none: 32 (depth + 1)
    num_heads: int | None = None  # none: as many as give heads of 32 columns or more
    num_kv_heads: int | None = None  # none: as many as heads
    dropout: float = 0.0  # probability; each text is seen less than once, so nothing is memorised
    training: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(
            steps=1700,
            batch_size=8,
            learning_rate=4e-3,
            eval_every=170,
            eval_batches=16,
        )
    )

    def model_config(self, vocab_size: int) -> DecoderConfig:
        """Return Llama's choices at this depth, with the output layer tied to the embedding."""
        d_model = 32 * (self.depth + 1) if self.d_model is None else self.d_model
        fitting = (n for n in range(d_model // 32, 0, -1) if d_model % (2 * n) == 0)  # rope turns pairs
        return DecoderConfig.llama(
            vocab_size=vocab_size,
            context_length=self.context_length,
            d_model=d_model,
            num_layers=self.depth,
            num_heads=next(fitting, 1) if self.num_heads is None else self.num_heads,
            num_kv_heads=self.num_kv_heads,
            tie_embeddings=True,
            dropout=self.dropout,
        )
