"""How many bytes a training step needs: counted on the meta device, before any memory is taken.

Legend: B sequences of a micro-batch in one process, T tokens, C width of the model, F hidden width, H heads,
K key/value heads, D width of a head, L layers, V vocabulary entries, s bytes of an activation.
"""

from dataclasses import dataclass

import torch
from torch import nn

from llm_from_scratch.models.decoder import Decoder, DecoderConfig

FLOAT32 = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes in one process."""

    parameters: int  # bytes
    gradients: int  # bytes
    optimizer: int  # bytes: AdamW's two averages
    activations: int  # bytes kept from the forward pass for the backward pass

    @property
    def total(self) -> int:
        """The sum of the four, in bytes: the allocator and the kernels' own space come on top."""
        return self.parameters + self.gradients + self.optimizer + self.activations


def training_memory(
    config: DecoderConfig,
    *,
    batch_size: int,
    tokens: int | None = None,
    shards: int = 1,
    activation_bytes: int = FLOAT32,
    recompute: bool = False,
) -> TrainingMemory:
    """Count what a step of AdamW in float32 keeps, for ``batch_size`` sequences in one process.

    Formula: with P parameters divided over n ``shards`` (FSDP2; 1 without it): 4 P/n bytes of
    parameters, 4 P/n of gradients, 8 P/n of averages (Rajbhandari et al. 2020, section 3.1, there with
    half-precision copies), and `activation_memory`. ``recompute`` keeps only each block's input.
    Left out: the one block that FSDP2 has gathered.
    Raises: ValueError if a size is below 1.

    >>> config = DecoderConfig.gpt2(
    ...     vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
    >>> memory = training_memory(config, batch_size=1)
    >>> memory.parameters, memory.optimizer
    (497759232, 995518464)
    >>> training_memory(config, batch_size=1, shards=8).parameters
    62219904
    """
    tokens = config.context_length if tokens is None else tokens
    for name, value in {"batch_size": batch_size, "tokens": tokens, "shards": shards}.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Decoder(config).parameters())
    held = -(-parameters // shards) * FLOAT32
    return TrainingMemory(
        parameters=held,
        gradients=held,
        optimizer=2 * held,
        activations=activation_memory(
            config, batch_size=batch_size, tokens=tokens, bytes_each=activation_bytes, recompute=recompute
        ),
    )


def activation_memory(
    config: DecoderConfig, *, batch_size: int, tokens: int, bytes_each: int = FLOAT32, recompute: bool = False
) -> int:
    """Return the bytes that the forward pass keeps for the backward pass, without dropout.

    Formula, in numbers a token: a block keeps the inputs of its two norms and of its products (4 C, of which
    the output product's is H D wide), the queries, keys and values that the fused kernel reads
    ((H + 2 K) D) and one log-sum per head; a GELU layer its 2 F hidden numbers (before and after), a
    SwiGLU layer 4 F (gate, its SiLU, up, their product). Rotary positions add the turned queries and keys
    and a copy of the result ((2 H + K) D), an RMS norm, which torch's CPU computes in steps, C. After the
    blocks come the last norm (2 C) and the logits' log-softmax (V).
    With ``recompute`` a block keeps its input (C), and the largest block's numbers return during backward.
    Source: Korthikanti et al. 2022, section 4.1, for the method; there with scores that are stored.
    """
    C, F, D = config.d_model, config.d_ff, config.d_head
    heads = (config.num_heads + 2 * config.num_kv_heads) * D
    hidden = {"swiglu": 4, "relu2": 3}.get(config.feedforward, 2) * F
    block = 4 * C + config.num_heads * D + heads + hidden + config.num_heads
    if config.positions == "rope":
        block += (2 * config.num_heads + config.num_kv_heads) * D
    norm = C if config.norm == "rms" else 0
    block += 2 * norm
    blocks = config.num_layers * block if not recompute else config.num_layers * C + block
    return batch_size * tokens * bytes_each * (blocks + 2 * C + norm + config.vocab_size)


def measured_activations(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Run the forward pass and return the bytes of all it kept, parameters and inputs left out.

    autograd hands each tensor that it keeps to a hook; memory that two of them share counts once.
    """
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *inputs)}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held, so that its place is not given away
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(*inputs)
        return sum(storage.nbytes() for storage in kept.values())
