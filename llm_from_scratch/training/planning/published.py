"""Figures that others have published about their runs, each beside what the planner predicts for it.

An entry's prediction may use what its source states about the run (the model's shape, the device, the MFU)
but never the figure that it is compared with.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llm_from_scratch.models.counts import cache_bytes, parameter_counts
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.training.planning.devices import device_named, with_price
from llm_from_scratch.training.planning.footprint import activation_bytes, held_numbers
from llm_from_scratch.training.planning.speed import (
    predict_speed,
    tokens_per_second,
    training_flops_per_token,
)

GIB = 2**30

NANOCHAT = "github.com/karpathy/nanochat, README.md, run d24-jan29 (Jan 29 2026)"
NANOGPT = "github.com/karpathy/nanoGPT, README.md and config/train_gpt2.py"
TITAN_A100 = "github.com/pytorch/torchtitan, docs/performance.md (64 A100 80 GB, FSDP2)"
TITAN_H100 = "github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, tables 1 and 3"
NEMO = "NVIDIA NeMo user guide 24.12, Performance Benchmarks, pretraining"
FMS = "github.com/foundation-model-stack/fms-fsdp, README.md; MFU: research.ibm.com/blog/pytorch-fsdp (2024)"
TINYLLAMA = "github.com/jzhang38/TinyLlama, README.md (A100 40 GB)"
FOUNDRY = "github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md"
LITGPT_RUN = "github.com/Lightning-AI/litgpt, tutorials/resource-tables.md, Single-GPU Inference"
LITGPT_LORA = "github.com/Lightning-AI/litgpt, tutorials/resource-tables.md, Finetuning with LoRA on 1 GPU"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure of a source, and the planner's prediction of it."""

    what: str
    unit: str
    published: float
    predict: Callable[[], float]
    source: str
    note: str = ""  # what the prediction takes from the source, or leaves out


def _llama(V: int, T: int, C: int, L: int, H: int, F: int, K: int | None = None) -> DecoderConfig:
    sizes = {"vocab_size": V, "context_length": T, "d_model": C, "num_layers": L, "num_heads": H}
    return DecoderConfig.llama(**sizes, d_ff=F, num_kv_heads=K)


def _gpt(V: int, T: int, C: int, L: int, H: int, **more: object) -> DecoderConfig:
    sizes = {"vocab_size": V, "context_length": T, "d_model": C, "num_layers": L, "num_heads": H}
    return DecoderConfig.gpt2(**sizes, **more)


LLAMA2_7B = _llama(32000, 4096, 4096, 32, 32, 11008)
LLAMA2_13B = _llama(32000, 4096, 5120, 40, 40, 13824)
LLAMA2_34B = _llama(32000, 4096, 8192, 48, 64, 22016, 8)
LLAMA2_70B = _llama(32000, 4096, 8192, 80, 64, 28672, 8)
LLAMA3_8B = _llama(128256, 8192, 4096, 32, 32, 14336, 8)
LLAMA3_70B = _llama(128256, 8192, 8192, 80, 64, 28672, 8)
TINY = _llama(32000, 2048, 2048, 22, 32, 5632, 4)
GPT2 = _gpt(50257, 1024, 768, 12, 12)
# nanochat's d24 as far as our decoder has its parts: no gate, no biases, untied; 12 heads of 128
D24 = _gpt(32768, 2048, 1536, 24, 12, positions="rope", norm="rms", bias=False, tie_embeddings=False)
# The shapes of two models with parallel branches, which does not change the number of their parameters
PHI = _gpt(51200, 2048, 2048, 24, 32, positions="rope", tie_embeddings=False)
STABLELM = _gpt(50688, 4096, 4096, 16, 32, positions="rope", tie_embeddings=False)
MPT_125M = _gpt(50368, 2048, 768, 12, 12, bias=False)
MPT_1B = _gpt(50368, 2048, 2048, 24, 16, bias=False)
MPT_7B = _gpt(50368, 2048, 4096, 32, 32, bias=False)


def _weights(config: DecoderConfig) -> int:
    return 2 * sum(parameter_counts(config).values())


def _states(shards: int) -> int:
    return 16 * held_numbers(LLAMA3_8B, strategy="fsdp", processes=shards)


def _rate(what: str, config: DecoderConfig, device: str, mfu: float, rate: float, source: str) -> Published:
    return Published(
        what=f"{what}, {device}, MFU {100 * mfu:.3g} %",
        unit="tokens/s/GPU",
        published=rate,
        predict=lambda: tokens_per_second(config, device_named(device), mfu=mfu),
        source=source,
        note="the source's MFU",
    )


def _inference(what: str, config: DecoderConfig, gigabytes: float) -> Published:
    return Published(
        what=f"{what}, weights to generate text",
        unit="GB",
        published=gigabytes,
        predict=lambda: (_weights(config) + cache_bytes(config, num_tokens=300, bytes_per_number=2)) / 1e9,
        source=LITGPT_RUN,
        note="bfloat16 weights and a cache of 300 tokens",
    )


def _lora(what: str, config: DecoderConfig, tokens: int, batch_size: int, gigabytes: float) -> Published:
    def predict() -> float:
        kept = activation_bytes(config, batch_size=batch_size, tokens=tokens, product_bytes=2, stream_bytes=2)
        return (_weights(config) + kept + 8 * config.vocab_size * batch_size * tokens) / 1e9

    return Published(
        what=f"{what}, LoRA, {batch_size} x {tokens} tokens",
        unit="GB",
        published=gigabytes,
        predict=predict,
        source=LITGPT_LORA,
        note="all in bfloat16, the loss too, so 8 V bytes of logits a token; frozen matrices keep their "
        "inputs in the formula, which they need not",
    )


# Rates whose source states no MFU: nothing to predict them from, so only the MFU that they mean is printed.
WITHOUT_MFU = (
    ("nanochat d24", D24, "h100", round(16_704 * 524_288 / 10_949.46713 / 8), NANOCHAT),
    ("Llama 2 7B, README", LLAMA2_7B, "a100", 3760, FMS),
    ("Llama 2 13B", LLAMA2_13B, "a100", 1700, FMS),
    ("Llama 2 34B, recomputed", LLAMA2_34B, "a100", 772, FMS),
    ("Llama 2 70B, recomputed", LLAMA2_70B, "a100", 380, FMS),
)


def implied_mfu(config: DecoderConfig, device: str, rate: float) -> float:
    """Return the MFU at which the planner would predict a published rate a device."""
    return rate / tokens_per_second(config, device_named(device), mfu=1.0)


def _nanochat_cost() -> float:
    """16,704 steps at the README's price, at the MFU that its 10,949 seconds mean."""
    device = with_price(device_named("h100"), 24 / 8)
    tokens = 16_704 * 524_288
    mfu = implied_mfu(D24, "h100", tokens / 10_949.46713 / 8)
    return predict_speed(D24, device, mfu=mfu, devices=8, total_tokens=tokens).cost


def _nanogpt_days() -> float:
    """600,000 steps of 40 micro-batches on 8 GPUs, at the MFU that 135 ms for one micro-batch means."""
    device, tokens = device_named("a100-40gb"), 12 * 1024
    mfu = tokens * training_flops_per_token(GPT2) / 0.135 / device.peak_flops
    rate = tokens_per_second(GPT2, device, mfu=mfu, devices=8)
    return 600_000 * 491_520 / rate / 86_400


PUBLISHED = (
    Published(
        what="nanochat d24, operations of 16,704 steps",
        unit="FLOPs",
        published=4.330784131228946e19,
        predict=lambda: 16_704 * 524_288 * training_flops_per_token(D24),
        source=NANOCHAT,
        note="nanochat attends in short windows in three layers of four; the planner counts whole ones",
    ),
    Published(
        what="nanochat d24, cost at $24 an hour for 8 H100",
        unit="US dollars",
        published=73,
        predict=_nanochat_cost,
        source=NANOCHAT,
        note="the cost takes price and duration from the README: it tests the arithmetic alone",
    ),
    Published(
        what="GPT-2 124M on 8 A100, 600,000 steps",
        unit="days",
        published=4.0,
        predict=_nanogpt_days,
        source=NANOGPT,
        note="from the README's 135 ms a micro-batch on one GPU; it says about 4 days, its config about 5",
    ),
    _rate("Llama 3 8B", LLAMA3_8B, "a100", 0.568, 2904, TITAN_A100),
    _rate("Llama 3 70B, recomputed", LLAMA3_70B, "a100", 0.517, 331, TITAN_A100),
    _rate("Llama 2 13B", LLAMA2_13B, "a100", 0.611, 2162, TITAN_A100),
    _rate("Llama 2 70B, recomputed", LLAMA2_70B, "a100", 0.505, 353, TITAN_A100),
    _rate("Llama 3.1 8B", LLAMA3_8B, "h100", 0.33, 5762, TITAN_H100),
    _rate("Llama 3.1 8B, compiled", LLAMA3_8B, "h100", 0.39, 6667, TITAN_H100),
    _rate("Llama 2 7B, 128 GPUs", LLAMA2_7B, "a100", 0.57, 3700, FMS),
    _rate("TinyLlama 1.1B", TINY, "a100-40gb", 0.56, 24_000, TINYLLAMA),
    _rate("MPT 125M", MPT_125M, "a100", 0.4479, 142_830, FOUNDRY),
    _rate("MPT 1B", MPT_1B, "h100", 0.4182, 45_455, FOUNDRY),
    _rate("MPT 7B", MPT_7B, "h100", 0.4644, 10_643, FOUNDRY),
    Published(
        what="Llama 3 8B, operations a token at 8,192",
        unit="FLOPs",
        published=711e12 / 12_273,
        predict=lambda: training_flops_per_token(LLAMA3_8B),
        source=NEMO,
        note="published as 711 TFLOP/s and 12,273 tokens/s a GPU",
    ),
    Published(
        what="Llama 2 70B, operations a token at 4,096",
        unit="FLOPs",
        published=768e12 / 1728,
        predict=lambda: training_flops_per_token(LLAMA2_70B),
        source=NEMO,
        note="published as 768 TFLOP/s and 1,728 tokens/s a GPU",
    ),
    Published(
        what="Llama 3.1 8B, memory saved by 128 shards instead of 8",
        unit="GiB",
        published=82.4 - 67.0,
        predict=lambda: (_states(8) - _states(128)) / GIB,
        source=TITAN_H100,
        note="published as 82.4 and 67.0 GiB",
    ),
    _inference("phi-1.5", PHI, 2.86),
    _inference("StableLM Alpha 3B", STABLELM, 7.30),
    _inference("Llama 2 7B", LLAMA2_7B, 13.52),
    _inference("Llama 2 13B", LLAMA2_13B, 26.21),
    _lora("phi-1.5", PHI, 1044, 1, 4.82),
    _lora("phi-1.5", PHI, 1044, 4, 10.68),
    _lora("StableLM Alpha 3B", STABLELM, 1034, 1, 9.69),
    _lora("StableLM Alpha 3B", STABLELM, 1034, 4, 16.92),
    _lora("Llama 2 7B", LLAMA2_7B, 1304, 1, 21.30),
    _lora("Llama 2 7B", LLAMA2_7B, 1304, 2, 29.07),
    _lora("Llama 2 13B", LLAMA2_13B, 1304, 1, 38.12),
)
