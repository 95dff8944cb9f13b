"""GPT-2's smallest model, on one GPU and on eight."""

from dataclasses import dataclass, field
from typing import ClassVar

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes.scaled import Scaled
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class Gpt2(Scaled):
    """GPT-2 124M on one GPU of 40 GB: 20 tokens a parameter, an afternoon to a night.

    Depth 12 is GPT-2's small model: heads of 64 columns, as many as layers, so a width of 64 depth. Biases
    are left out, as in most reproductions.
    Source: Radford et al. 2019, table 2; the step of half a million tokens and the rate: nanoGPT.
    """

    name: ClassVar[str] = "gpt2_124m"
    summary: ClassVar[str] = "GPT-2 124M on one GPU; needs --data"
    base_depth: ClassVar[int] = 12
    tokens_per_parameter: ClassVar[float] = 20.0
    base_rate: ClassVar[float] = 6e-4
    base_training: ClassVar[dict[str, object]] = {
        "batch_size": 16,
        "accumulate": 32,
        "warmup_fraction": 0.04,
        "eval_every": 250,
        "eval_batches": 64,
    }

    vocab_size: int | None = 50257  # entries: GPT-2's tokenizer
    context_length: int = 1024  # tokens
    depth: int = 12
    training: TrainerConfig = field(default_factory=lambda: Gpt2.training_at(Gpt2.base_depth))

    @classmethod
    def shape(cls, depth: int, vocab_size: int, context_length: int) -> DecoderConfig:
        """Return GPT-2's choices at a depth."""
        return DecoderConfig.gpt2(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=64 * depth,
            num_layers=depth,
            num_heads=depth,
            bias=False,
        )


@dataclass(frozen=True, kw_only=True)
class Gpt2EightGpus(Gpt2):
    """GPT-2 124M on a machine of eight GPUs: the same steps, many more of them.

    Tokens: about 10 billion, as in llm.c's reproduction of GPT-2 124M (github.com/karpathy/llm.c,
    discussion 481).
    """

    name: ClassVar[str] = "gpt2_124m_8gpu"
    summary: ClassVar[str] = "GPT-2 124M on eight GPUs, data parallel; needs --data"
    gpus: ClassVar[int] = 8
    strategy: ClassVar[str] = "ddp"
    tokens_per_parameter: ClassVar[float] = 81.0
    base_training: ClassVar[dict[str, object]] = {
        **Gpt2.base_training,
        "batch_size": 256,
        "accumulate": 2,
    }

    training: TrainerConfig = field(
        default_factory=lambda: Gpt2EightGpus.training_at(Gpt2EightGpus.base_depth)
    )
