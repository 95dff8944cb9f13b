"""Llamas of one and eight billion parameters, their states divided over one machine and over eight."""

from dataclasses import dataclass, field
from typing import ClassVar

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.recipes.scaled import Scaled
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class Llama1b(Scaled):
    """The shape of Llama 3.2 1B on a machine of eight GPUs of 80 GB.

    Depth 16 gives 16 layers of width 2048: 128 columns a layer, heads of 64, one key/value head for four
    query heads, a hidden width of 4 widths, the output layer tied.
    Source: the model card and configuration of Llama 3.2 1B.
    """

    name: ClassVar[str] = "llama_1b_fsdp"
    summary: ClassVar[str] = "a Llama of a billion parameters on eight GPUs, fully sharded; needs --data"
    gpus: ClassVar[int] = 8
    strategy: ClassVar[str] = "fsdp"
    base_depth: ClassVar[int] = 16
    tokens_per_parameter: ClassVar[float] = 20.0
    base_rate: ClassVar[float] = 4e-4
    base_training: ClassVar[dict[str, object]] = {
        "batch_size": 16,
        "accumulate": 16,
        "warmup_fraction": 0.02,
        "eval_every": 500,
        "eval_batches": 32,
    }

    vocab_size: int | None = 128256  # entries: Llama 3's tokenizer
    context_length: int = 4096  # tokens
    depth: int = 16
    training: TrainerConfig = field(default_factory=lambda: Llama1b.training_at(Llama1b.base_depth))

    @classmethod
    def shape(cls, depth: int, vocab_size: int, context_length: int) -> DecoderConfig:
        """Return Llama's choices at a depth. Raises: ValueError if four query heads cannot share one."""
        if depth % 2:
            raise ValueError(f"depth must be even, so that query heads can share in fours, got {depth}")
        return DecoderConfig.llama(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=128 * depth,
            num_layers=depth,
            num_heads=2 * depth,
            num_kv_heads=depth // 2,
            d_ff=512 * depth,
            rope_base=500_000.0,
            tie_embeddings=True,
        )


@dataclass(frozen=True, kw_only=True)
class Llama8b(Scaled):
    """The shape of Llama 3 8B on eight machines of eight GPUs of 80 GB.

    Depth 32 gives 32 layers of width 4096: 128 columns a layer, heads of 128, one key/value head for four
    query heads, a hidden width of 3.5 widths. Activations are recomputed.
    Source: Grattafiori et al. 2024 (The Llama 3 Herd of Models), table 3.
    """

    name: ClassVar[str] = "llama_8b_multinode"
    summary: ClassVar[str] = "a Llama of eight billion parameters on 64 GPUs under Slurm; needs --data"
    gpus: ClassVar[int] = 64
    strategy: ClassVar[str] = "fsdp"
    recompute: ClassVar[bool] = True
    base_depth: ClassVar[int] = 32
    tokens_per_parameter: ClassVar[float] = 20.0
    base_rate: ClassVar[float] = 3e-4
    base_training: ClassVar[dict[str, object]] = {
        "batch_size": 64,
        "accumulate": 2,
        "warmup_fraction": 0.01,
        "eval_every": 1000,
        "eval_batches": 16,
    }

    vocab_size: int | None = 128256  # entries: Llama 3's tokenizer
    context_length: int = 8192  # tokens
    depth: int = 32
    training: TrainerConfig = field(default_factory=lambda: Llama8b.training_at(Llama8b.base_depth))

    @classmethod
    def shape(cls, depth: int, vocab_size: int, context_length: int) -> DecoderConfig:
        """Return Llama's choices at a depth. Raises: ValueError if four query heads cannot share one."""
        if depth % 4:
            raise ValueError(
                f"depth must be a multiple of 4, so that query heads share in fours, got {depth}"
            )
        return DecoderConfig.llama(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=128 * depth,
            num_layers=depth,
            num_heads=depth,
            num_kv_heads=depth // 4,
            d_ff=448 * depth,
            rope_base=500_000.0,
        )
