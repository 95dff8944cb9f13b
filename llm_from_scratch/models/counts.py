"""What a model costs, from its config alone: parameters, operations, memory. Nothing is built.

Each count is a dict from the name of a part to a whole number, so that a reader sees where the cost
lies; the sum of its values is the cost of the model. The tests hold them equal to what torch counts.

Legend: V vocabulary entries, C width of the model, L layers, H query heads, K key/value heads,
D width of a head, F hidden width of the feed-forward layer, T tokens of a sequence, B sequences.
"""

from llm_from_scratch.models import counts_parts as parts
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.models.encoder_config import EncoderConfig
from llm_from_scratch.models.encoder_decoder_config import EncoderDecoderConfig

Config = DecoderConfig | EncoderConfig | EncoderDecoderConfig


def parameter_counts(config: Config) -> dict[str, int]:
    """The trained numbers of each kind of part, all layers together, shared ones once.

    Formula of a decoder, without biases: embeddings ``V C``; attention ``L (2 H D C + 2 K D C)``;
    feed-forward ``2 L C F``, with a gate ``3 L C F``; norms ``(2 L + 1) C``; output layer ``V C``,
    or 0 if it is the embedding. With K = H, H D = C and F = 4 C a layer has about ``12 C^2``.

    Raises: ValueError for what is no config of the package's Transformers.

    >>> sizes = {"vocab_size": 50257, "context_length": 1024, "d_model": 768, "num_layers": 12}
    >>> counts = parameter_counts(DecoderConfig.gpt2(**sizes, num_heads=12))
    >>> counts["attention"], counts["output layer"], sum(counts.values())
    (28348416, 0, 124439808)
    """
    _check_kind(config)
    if isinstance(config, EncoderConfig):
        return parts.encoder_parameters(config)
    if isinstance(config, EncoderDecoderConfig):
        return parts.encoder_decoder_parameters(config)
    return parts.decoder_parameters(config)


def forward_flops(
    config: Config, *, num_tokens: int, batch_size: int = 1, num_source_tokens: int | None = None
) -> dict[str, int]:
    """Floating-point operations of the matrix products of one forward pass over B sequences of T tokens.

    Formula: ``2 m n`` for each token and each m x n matrix that it passes through; ``4 H D T^2`` for
    a layer's scores and weighted means. A multiplication and the addition of its result count as
    two operations. Everything else (norms, softmax, activations) is small beside them and left out,
    as in torch's `FlopCounterMode`. Masked scores are counted, since the readable path computes
    them. A looked-up embedding costs nothing; the output layer costs as much tied as untied. An
    encoder's heads are not part of its forward pass.

    Units: operations. The backward pass takes about twice as many again. An encoder-decoder reads
    ``num_source_tokens`` and writes ``num_tokens``.
    Raises: ValueError if the sequences are longer than the context, or a size is not positive.

    >>> sizes = {"vocab_size": 50257, "context_length": 1024, "d_model": 768, "num_layers": 12}
    >>> sum(forward_flops(DecoderConfig.gpt2(**sizes, num_heads=12), num_tokens=1024).values())
    291648307200
    """
    _check_length(config, num_tokens, batch_size)
    if isinstance(config, EncoderDecoderConfig):
        if num_source_tokens is None:
            raise ValueError("an encoder-decoder reads a source: give num_source_tokens as well")
        _check_length(config, num_source_tokens, batch_size, name="num_source_tokens")
        one = parts.encoder_decoder_flops(config, num_tokens=num_tokens, num_source_tokens=num_source_tokens)
    elif isinstance(config, EncoderConfig):
        shape = {"num_kv_heads": config.num_heads, "d_head": config.d_model // config.num_heads}
        one = parts.stack_flops(config, num_layers=config.num_layers, num_tokens=num_tokens, **shape)
    else:
        shape = {"num_kv_heads": config.num_kv_heads, "d_head": config.d_head}
        one = parts.stack_flops(config, num_layers=config.num_layers, num_tokens=num_tokens, **shape)
        one["output layer"] = 2 * num_tokens * config.vocab_size * config.d_model
    return {part: batch_size * number for part, number in one.items()}


def training_bytes(
    config: DecoderConfig, *, num_tokens: int, batch_size: int = 1, bytes_per_number: int = 4
) -> dict[str, int]:
    """Memory of one training step with AdamW, everything in one number format.

    Formula: weights, gradients and AdamW's two running means are ``1 + 1 + 2`` numbers a parameter.
    Activations are what autograd keeps for the backward pass, per token (no dropout, fused
    attention): a layer ``8 C + H + 2 F + 4`` with GPT-2's parts and K = H.

    Units: bytes, at ``bytes_per_number`` (4: float32). Temporary buffers and the code itself are not
    counted: a process needs more.
    Raises: ValueError as in `forward_flops`, and for position kinds that add a bias to the scores.
    """
    parameters = sum(parameter_counts(config).values())
    return {
        "weights": parameters * bytes_per_number,
        "gradients": parameters * bytes_per_number,
        "optimizer": 2 * parameters * bytes_per_number,
        "activations": activation_numbers(config, num_tokens=num_tokens, batch_size=batch_size)
        * bytes_per_number,
    }


def activation_numbers(config: DecoderConfig, *, num_tokens: int, batch_size: int = 1) -> int:
    """How many floating-point numbers autograd keeps of one forward pass with a loss.

    Each operation keeps what its derivative needs. A layer norm: its input, two statistics, and its
    output, which the next matrix needs. An RMS norm: torch computes it in steps, of which three
    vectors and one statistic remain. Attention: queries, keys, values, output, and one number a
    row. Feed-forward: the hidden values before and after the activation; with a gate, four of them.
    The loss: one log-probability for each entry of the vocabulary, often the largest part.

    Raises: ValueError as in `training_bytes`.
    """
    _check_length(config, num_tokens, batch_size)
    usual = {"qk_norm": False, "sliding_window": None, "rotary_fraction": 1.0, "dropout": 0.0}
    usual |= {"ngram_rows": ()}
    other = {name: getattr(config, name) for name in usual if getattr(config, name) != usual[name]}
    if config.positions in ("relative", "alibi"):
        other["positions"] = config.positions
    if other:
        raise ValueError(
            f"no formula for the activations with {other}, which keep more than what is counted here; "
            "measure them with torch.autograd.graph.saved_tensors_hooks"
        )
    C, H, K, D, F = config.d_model, config.num_heads, config.num_kv_heads, config.d_head, config.d_ff
    norm = 2 * C + 2 if config.norm == "layer" else 3 * C + 1
    attention = (H + 2 * K) * D + H * D + H
    if config.positions == "rope":
        attention += (2 * H + K) * D  # rotated queries and keys; the output once more, its axes exchanged
    feedforward = {"swiglu": 4, "relu2": 3}.get(config.feedforward, 2) * F
    per_token = config.num_layers * (2 * norm + attention + feedforward) + norm + config.vocab_size
    tables = config.context_length * D if config.positions == "rope" else 0  # cosines and sines, once
    return batch_size * num_tokens * per_token + tables


def cache_bytes(
    config: DecoderConfig, *, num_tokens: int, batch_size: int = 1, bytes_per_number: int = 4
) -> int:
    """Memory of the keys and values that generation keeps: ``2 L K D`` numbers a token.

    Units: bytes, at ``bytes_per_number`` (4: float32).
    Raises: ValueError as in `forward_flops`.

    >>> sizes = {"vocab_size": 11, "context_length": 64, "d_model": 12, "num_layers": 2, "num_heads": 6}
    >>> [cache_bytes(DecoderConfig.llama(**sizes, num_kv_heads=K), num_tokens=10) for K in (6, 2, 1)]
    [1920, 640, 320]
    """
    _check_length(config, num_tokens, batch_size)
    numbers = 2 * config.num_layers * config.num_kv_heads * config.d_head
    return numbers * num_tokens * batch_size * bytes_per_number


def _check_kind(config: Config) -> None:
    if not isinstance(config, Config):
        raise ValueError(
            f"{type(config).__name__} is no config whose costs are known; give a DecoderConfig, an "
            "EncoderConfig or an EncoderDecoderConfig"
        )


def _check_length(config: Config, num_tokens: int, batch_size: int, name: str = "num_tokens") -> None:
    _check_kind(config)
    limit = config.context_length  # None: any length
    if num_tokens < 1 or (limit is not None and num_tokens > limit):
        raise ValueError(f"{name}={num_tokens} must lie between 1 and context_length={limit}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
