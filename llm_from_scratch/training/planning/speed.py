"""Predict how fast a run goes and what it costs, at an assumed utilisation of the devices."""

from dataclasses import dataclass

from llm_from_scratch.models.counts import forward_flops
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.training.planning.devices import Device

MFU = 0.40  # assumed; 0.38 to 0.43 in Llama 3's runs on 8,192 H100 and more (Grattafiori 2024, table 4)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Predictions for a whole run."""

    flops_per_token: float  # operations of the model, forward and backward
    total_flops: float
    tokens_per_second: float  # all devices together
    seconds: float  # of training steps: evaluations, checkpoints and restarts come on top
    cost: float | None  # US dollars; None without a price


def training_flops_per_token(config: DecoderConfig, *, tokens: int | None = None) -> float:
    """Return the operations of the model for one token of training.

    Formula: three times the forward pass (the backward pass takes two), that is ``6 N + 12 L H D T`` with N
    the numbers in matrices that a token is multiplied with. The scores that the causal mask discards count,
    as in the usual definition of MFU; recomputed blocks do not.
    Source: Chowdhery et al. 2022 (PaLM), appendix B.

    >>> config = DecoderConfig.gpt2(
    ...     vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12)
    >>> round(training_flops_per_token(config) / 1e6)
    854
    """
    tokens = config.context_length if tokens is None else tokens
    return 3 * sum(forward_flops(config, num_tokens=tokens).values()) / tokens


def tokens_per_second(
    config: DecoderConfig, device: Device, *, mfu: float, devices: int = 1, tokens: int | None = None
) -> float:
    """Return the predicted rate. Formula: ``MFU n peak / (operations a token)``.

    Raises: ValueError if ``mfu`` lies outside (0, 1] or ``devices`` is below 1.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is a share of the peak, above 0 and at most 1, got {mfu}")
    if devices < 1:
        raise ValueError(f"devices must be 1 or more, got {devices}")
    return mfu * devices * device.peak_flops / training_flops_per_token(config, tokens=tokens)


def predict_speed(
    config: DecoderConfig, device: Device, *, mfu: float, devices: int, total_tokens: int
) -> Speed:
    """Predict the duration and the cost of training on ``total_tokens`` tokens.

    Formula: ``seconds = tokens / rate``; ``cost = devices hours price``.
    """
    rate = tokens_per_second(config, device, mfu=mfu, devices=devices)
    per_token = training_flops_per_token(config)
    seconds = total_tokens / rate
    return Speed(
        flops_per_token=per_token,
        total_flops=per_token * total_tokens,
        tokens_per_second=rate,
        seconds=seconds,
        cost=None if device.price is None else devices * seconds / 3600 * device.price,
    )
