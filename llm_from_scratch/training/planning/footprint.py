"""Predict the bytes that one process of a training run needs at its peak, from the configuration alone.

Legend: b sequences of a micro-batch in one process, T tokens, C width of the model, F hidden width, H query
heads, K key/value heads, D width of a head, L layers, V vocabulary entries, P parameters, n processes,
s bytes of a number in a matrix product (2: bfloat16, 4: float32), r bytes of one in the residual stream.
"""

from dataclasses import asdict, dataclass, replace

import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig

FLOAT32 = 4  # bytes
STRATEGIES = ("single", "ddp", "fsdp", "tensor")
DIVIDED = ("attention.qkv.", "feedforward.up.", "feedforward.gate.")  # by rows, the biases too
DIVIDED_ACROSS = ("attention.output.weight", "feedforward.down.weight")  # by columns, the biases whole


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Predicted bytes in one process, of the largest share where shares differ."""

    parameters: int  # float32
    gradients: int  # float32
    optimizer: int  # its averages, float32: AdamW two a number, Muon one for each number of a block's matrix
    weight_copies: int  # bfloat16 copies of the matrices, which autocast keeps or FSDP2 gathers
    buckets: int  # in which ddp averages the gradients
    undivided_gradients: int  # that fsdp holds before it divides them, of all blocks where it accumulates
    activations: int  # kept by the forward pass for the backward pass
    logits: int  # scores, their log-probabilities and the gradients of both
    at_start: int  # the undivided model in float32, which each process holds before it is divided
    last_block: int  # activations that are left when the gradients are complete
    accumulates: bool  # whether gradients of earlier micro-batches are there beside the activations

    @property
    def parts(self) -> dict[str, int]:
        """What a step holds, by name, in bytes."""
        apart = ("at_start", "last_block", "accumulates")
        return {name: size for name, size in asdict(self).items() if name not in apart}

    @property
    def in_step(self) -> int:
        """The peak of a step, in bytes.

        Gradients appear as activations go. So without accumulation the peak is at the logits, before there
        is a gradient, or at the end of the backward pass, whichever is larger.
        """
        moving = self.gradients + self.activations + self.logits
        if self.accumulates:
            return sum(self.parts.values())
        at_logits, at_end = self.activations + self.logits, self.gradients + self.last_block
        return sum(self.parts.values()) - moving + max(at_logits, at_end)

    @property
    def total(self) -> int:
        """The peak in bytes: of a step or, if that is larger, at the start.

        The allocator and the kernels' own space come on top.
        """
        return max(self.in_step, self.at_start)


def predict_footprint(
    config: DecoderConfig,
    *,
    batch_size: int,
    tokens: int | None = None,
    strategy: str = "single",
    processes: int = 1,
    product_bytes: int = 2,
    recompute: bool = False,
    accumulate: int = 1,
    optimizer: str = "adamw",
) -> Footprint:
    """Predict what training keeps in memory; ``batch_size`` sequences are one process's.

    Formula: parameters 4 P', gradients 4 P', averages 8 P', with P' the numbers that a process holds
    (`held_numbers`), and 4 less for each number that Muon updates (`muon_numbers`); ddp's buckets 4 P;
    `weight_copy_bytes`; `undivided_gradient_bytes`; `activation_bytes`; and of logits, a token, s V for the
    scores and 12 V for their log-softmax and two gradients in float32.
    Sources: Rajbhandari et al. 2020, section 3.1 (model states); Korthikanti et al. 2022, section 4.1.
    Raises: ValueError for an unknown strategy, a size below 1, and choices without a formula.

    >>> config = DecoderConfig.gpt2(
    ...     vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
    >>> footprint = predict_footprint(config, batch_size=12)
    >>> footprint.parameters, round(footprint.logits / footprint.total, 2)
    (497759232, 0.6)
    """
    tokens = config.context_length if tokens is None else tokens
    _check(config, strategy, batch_size=batch_size, tokens=tokens, processes=processes)
    held = held_numbers(config, strategy=strategy, processes=processes)
    if optimizer == "muon" and strategy in ("fsdp", "tensor"):
        raise ValueError(
            f"optimizer muon needs whole matrices, and strategy {strategy} divides them: use ddp"
        )
    whole = sum(tensor.numel() for tensor in _parameters(config).values())
    shape = {
        "batch_size": batch_size,
        "tokens": tokens,
        "product_bytes": product_bytes,
        "divided": processes if strategy == "tensor" else 1,
    }
    undivided = undivided_gradient_bytes(config, product_bytes=product_bytes, accumulate=accumulate)
    return Footprint(
        parameters=FLOAT32 * held,
        gradients=FLOAT32 * held,
        optimizer=FLOAT32 * (2 * held - (muon_numbers(config) if optimizer == "muon" else 0)),
        weight_copies=weight_copy_bytes(
            config, strategy=strategy, processes=processes, product_bytes=product_bytes, recompute=recompute
        ),
        buckets=FLOAT32 * whole if strategy == "ddp" else 0,
        undivided_gradients=undivided if strategy == "fsdp" else 0,
        activations=activation_bytes(config, **shape, recompute=recompute),
        logits=(product_bytes + 3 * FLOAT32) * config.vocab_size * batch_size * tokens,
        at_start=FLOAT32 * whole,
        last_block=activation_bytes(replace(config, num_layers=1), **shape),
        accumulates=accumulate > 1,
    )


def muon_numbers(config: DecoderConfig) -> int:
    """Return how many trained numbers lie in the blocks' matrices, of which Muon keeps one average."""
    return sum(
        tensor.numel()
        for name, tensor in _parameters(config).items()
        if name.startswith("blocks.") and tensor.dim() == 2
    )


def held_numbers(config: DecoderConfig, *, strategy: str = "single", processes: int = 1) -> int:
    """Return how many trained numbers the first process holds.

    FSDP2 cuts each parameter along its first axis, the last share being smaller or empty, so the first
    process holds ``ceil(rows / n)`` rows of each. Tensor parallelism divides attention and feed-forward
    layers and leaves the rest whole.
    """
    held = 0
    for name, tensor in _parameters(config).items():
        if strategy == "fsdp":
            held += -(-tensor.shape[0] // processes) * (tensor.numel() // tensor.shape[0])
        elif strategy == "tensor" and (any(p in name for p in DIVIDED) or name.endswith(DIVIDED_ACROSS)):
            held += tensor.numel() // processes
        else:
            held += tensor.numel()
    return held


def weight_copy_bytes(
    config: DecoderConfig, *, strategy: str, processes: int, product_bytes: int, recompute: bool
) -> int:
    """Return the bytes of weights held a second time while a step computes.

    Under autocast the backward pass needs the bfloat16 copy of each matrix that the forward pass made: of
    all of them or, with recomputation, of one block and the output layer. FSDP2 gathers whole parameters
    in the format of the products: the embeddings, last norm and output layer for the whole step, and two
    blocks, the one that computes and the next.
    """
    everything = _parameters(config)
    block = [tensor.numel() for name, tensor in everything.items() if name.startswith("blocks.0.")]
    if strategy == "fsdp":
        rest = [tensor.numel() for name, tensor in everything.items() if not name.startswith("blocks.")]
        return product_bytes * (sum(rest) + min(2, config.num_layers) * sum(block))
    if product_bytes == FLOAT32:
        return 0
    matrices = sum(
        tensor.numel()
        for name, tensor in everything.items()
        if name.startswith("blocks.0.") and tensor.dim() == 2
    )
    if strategy == "tensor":
        matrices //= processes
    blocks = 1 if recompute else config.num_layers
    return product_bytes * (blocks * matrices + config.vocab_size * config.d_model)


def undivided_gradient_bytes(config: DecoderConfig, *, product_bytes: int, accumulate: int) -> int:
    """Return the bytes of whole gradients that a process of FSDP2 holds before they are divided.

    While micro-batches accumulate, nothing is sent, and the gradients of all parameters stay whole in
    float32: 4 P. Without accumulation a block's are divided as soon as they are there, and those of
    embeddings, last norm and output layer at the end: s for each number of the two, and their float32 copy.
    """
    everything = _parameters(config)
    block = sum(tensor.numel() for name, tensor in everything.items() if name.startswith("blocks.0."))
    rest = sum(tensor.numel() for name, tensor in everything.items() if not name.startswith("blocks."))
    if accumulate > 1:
        return FLOAT32 * (rest + config.num_layers * block) + product_bytes * block
    return product_bytes * (rest + block) + FLOAT32 * max(rest, block)


def activation_bytes(
    config: DecoderConfig,
    *,
    batch_size: int,
    tokens: int,
    product_bytes: int = 2,
    stream_bytes: int = FLOAT32,
    recompute: bool = False,
    divided: int = 1,
) -> int:
    """Return the bytes that the forward pass keeps for the backward pass; logits are counted apart.

    Formula, in bytes a token. A norm: its input r C and two statistics (8), of an RMS norm r 2 C + 4, since
    torch computes it in steps; and s C, its output as the next product reads it, which under autocast a
    gated layer converts twice. Attention: s (H + 2 K) D and the output s H D, with rotary positions
    s ((H + K) D + H D) more, and 4 H of log-sums. Feed-forward: 2 s F, with a gate 4 s F, with a
    squared ReLU 3 s F. After the blocks: one norm.
    ``recompute`` keeps each block's input (r C), and the numbers of one block return in the backward pass.
    ``divided`` processes of tensor parallelism share what lies inside attention and feed-forward layers.
    Departures: fused kernels of a GPU may keep less; no dropout.
    """
    s, r = product_bytes, stream_bytes
    C, F, D = config.d_model, config.d_ff, config.d_head
    H, K = config.num_heads, config.num_kv_heads
    gated, rope = config.feedforward == "swiglu", config.positions == "rope"
    norm = r * C + 2 * FLOAT32 if config.norm == "layer" else 2 * r * C + FLOAT32
    hidden = {"swiglu": 4, "relu2": 3}.get(config.feedforward, 2)
    inner = s * ((H + 2 * K) * D + H * D) + FLOAT32 * H + s * hidden * F
    if rope:
        inner += s * (2 * H + K) * D
    converted_twice = gated and s != r
    block = 2 * norm + s * C * (3 if converted_twice else 2) + -(-inner // divided)
    blocks = config.num_layers * r * C + block if recompute else config.num_layers * block
    return batch_size * tokens * (blocks + norm + s * C)


def _parameters(config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Every parameter by name, shared ones once, on the meta device: shapes without memory."""
    with torch.device("meta"):
        return dict(Decoder(config).named_parameters())


def _check(config: DecoderConfig, strategy: str, **sizes: int) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if strategy == "single" and sizes["processes"] != 1:
        raise ValueError(f"strategy single is one process, got {sizes['processes']}: use ddp or fsdp")
    if config.positions in ("relative", "alibi") or config.dropout or config.qk_norm or config.ngram_rows:
        raise ValueError(
            f"there is no formula for the activations with positions={config.positions}, "
            f"dropout={config.dropout}, qk_norm={config.qk_norm}, ngram_rows={config.ngram_rows}: plan "
            "without them"
        )
