"""How far the fast ways to generate lie from the plain one, on small random models.

``python -m llm_from_scratch.inference.parity`` prints a table. The reference of the first rows is the model
itself, which reads the whole text anew for every token, or a text continued alone. Rows of rounded weights
and caches cannot agree with float32: what they are held to is said in their row.

Sizes are odd or prime, and differ, so that no two of them can be mistaken for each other.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_from_scratch.decoding.sampling import next_token_probabilities, sample
from llm_from_scratch.inference.batch import generate_batch
from llm_from_scratch.inference.drafts import DecoderDraft
from llm_from_scratch.inference.fast_decoder import FastDecoder
from llm_from_scratch.inference.generate import CachedModel
from llm_from_scratch.inference.quantise import quantise_weights
from llm_from_scratch.inference.quantised_cache import QuantisedCache
from llm_from_scratch.inference.request import Request
from llm_from_scratch.inference.scheduler import Scheduler
from llm_from_scratch.inference.speculative import speculative_generate
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

BOUND = 1e-5  # largest difference of a logit between two ways to compute the same, float32, absolute
PROMPT, NEW = 11, 17  # tokens
_SIZES = {"vocab_size": 103, "context_length": 47, "d_model": 84, "num_layers": 3, "num_heads": 6}
VARIANTS = {
    "GPT-2": DecoderConfig.gpt2(**_SIZES),
    "Llama, 6 key heads": DecoderConfig.llama(**_SIZES, num_kv_heads=6),
    "Llama, 3 key heads": DecoderConfig.llama(**_SIZES, num_kv_heads=3),
    "Llama, 1 key head": DecoderConfig.llama(**_SIZES, num_kv_heads=1),
    "Llama, window of 7": DecoderConfig.llama(**_SIZES, num_kv_heads=3, sliding_window=7),
}
USUAL = VARIANTS["Llama, 3 key heads"]


@dataclass(frozen=True)
class Row:
    """One line of the table: ``value`` must not be above ``bound`` (for a p-value: not below)."""

    what: str
    against: str
    measure: str
    value: float
    bound: float
    passed: bool


def build(config: DecoderConfig, seed: int = 7) -> Decoder:
    """A model with random weights, larger than at the start of training, so that errors show."""
    torch.manual_seed(seed)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(count: int, vocab_size: int = 103, seed: int = 3) -> Tensor:
    """Random ids of shape [1, count]."""
    return torch.randint(vocab_size, (1, count), generator=torch.Generator().manual_seed(seed))


def stepwise_difference(fast: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]) -> float:
    """Read a prompt, then one token at a time, both ways: the largest difference of a logit."""
    ids_BT = tokens(PROMPT + NEW)
    with torch.no_grad():
        return max(
            (fast(ids_BT[:, :end])[:, -1] - plain(ids_BT[:, :end])[:, -1]).abs().max().item()
            for end in range(PROMPT, PROMPT + NEW + 1)
        )


def equal(what: str, against: str, value: float) -> Row:
    """A row that must agree up to rounding."""
    return Row(what, against, "logits differ by", value, BOUND, value <= BOUND)


def cached() -> Iterator[Row]:
    """With a cache, against the whole text anew."""
    for name, config in VARIANTS.items():
        model = build(config)
        yield equal(f"cache, {name}", "no cache", stepwise_difference(CachedModel(model), model))
    model = build(USUAL)
    yield equal("compiled step", "no cache", stepwise_difference(FastDecoder(model), model))


def quantised() -> Iterator[Row]:
    """Rounded weights read by the fast step, against the same numbers widened; rounded, against float32."""
    model = build(USUAL)
    for bits in (8, 4):
        widened = quantise_weights(model, bits=bits)
        value = stepwise_difference(FastDecoder(widened), widened)
        yield equal(f"int{bits} weights, fast step", "the same, widened", value)
    limits = {("int8", "weights"): 0.2, ("int4", "weights"): 2.0, ("int8", "cache"): 0.2}
    limits["int4", "cache"] = 2.0
    for (name, kind), bound in limits.items():
        if kind == "weights":
            rounded = quantise_weights(model, bits=int(name[3:]))
        else:
            room = {"bits": int(name[3:]), "group_length": 8, "rollback": 1}
            rounded = CachedModel(model, new_cache=partial(QuantisedCache.for_model, **room))
        value = stepwise_difference(rounded, model)
        yield Row(f"{name} {kind}", "float32", "logits differ by", value, bound, 0 < value <= bound)


def requests(count: int = 12) -> list[dict[str, Any]]:
    """Prompts of 1 to 19 tokens, with 1 to 23 new ones, greedy and sampled."""
    lengths = torch.randint(1, 20, (count, 2), generator=torch.Generator().manual_seed(5)).tolist()
    return [
        {"ids": tokens(first, seed=i)[0].tolist(), "max_new_tokens": 1 + (3 * new) % 23, "seed": i,
         "temperature": (0.0, 0.8, 1.3)[i % 3]}
        for i, (first, new) in enumerate(lengths)
    ]  # fmt: skip


def batched() -> Iterator[Row]:
    """Side by side, against each text alone: how many texts have another token."""
    model, asked = build(USUAL), requests()
    alone = [sample(model, **each) for each in asked]
    groups = {
        temperature: [i for i, each in enumerate(asked) if each["temperature"] == temperature]
        for temperature in (0.0, 0.8, 1.3)
    }
    wrong = 0
    for temperature, members in groups.items():
        found = generate_batch(
            model,
            [asked[i]["ids"] for i in members],
            max_new_tokens=[asked[i]["max_new_tokens"] for i in members],
            seed=[asked[i]["seed"] for i in members],
            temperature=temperature,
        )
        wrong += sum(new != alone[i] for new, i in zip(found, members, strict=True))
    yield Row("batch of ragged prompts", "each alone", "texts that differ", wrong, 0, wrong == 0)
    scheduler = Scheduler(model, num_slots=3, prefill_chunk=5)
    tickets = []
    for each in asked:  # they arrive while others run
        tickets.append(scheduler.submit(Request(**each)))
        scheduler.step()
    scheduler.run()
    wrong = sum(t.result() != expected for t, expected in zip(tickets, alone, strict=True))
    yield Row("continuous batching, 3 slots", "each alone", "texts that differ", wrong, 0, wrong == 0)


def speculative(runs: int = 800) -> Iterator[Row]:
    """Texts of 3 tokens of a vocabulary of 3, drawn with a draft, against all their exact probabilities."""
    small = {"vocab_size": 3, "context_length": 11, "d_model": 4, "num_layers": 1, "num_heads": 2}
    target, other = (
        build(DecoderConfig.llama(**small), seed=0),
        build(DecoderConfig.llama(**{**small, "num_layers": 2}), seed=5),
    )
    start, length, expected = [1, 0, 1], 3, {}
    for text in itertools.product(range(3), repeat=length):
        with torch.no_grad():
            logits_TV = target(torch.tensor([[*start, *text[:-1]]]))[0, len(start) - 1 :]
        probs_TV = next_token_probabilities(logits_TV)
        expected[text] = math.prod(float(probs_TV[t, i]) for t, i in enumerate(text))
    draft = DecoderDraft(other)
    settings = {"draft": draft, "num_draft": 2, "max_new_tokens": length}
    counts = Counter(
        tuple(speculative_generate(target, start, seed=seed, **settings)) for seed in range(runs)
    )
    value = chi_square_p(counts, expected)
    yield Row("speculative decoding", "plain sampling", "chi-square p", value, 1e-3, value >= 1e-3)
    greedy = {"max_new_tokens": NEW, "temperature": 0}
    model = build(USUAL)
    found = speculative_generate(model, tokens(PROMPT)[0], draft=DecoderDraft(model), **greedy)
    wrong = float(found != sample(model, tokens(PROMPT)[0], **greedy))
    yield Row("speculative, greedy", "plain sampling", "texts that differ", wrong, 0, wrong == 0)


def chi_square_p(counts: Counter, expected: dict[Any, float]) -> float:
    """The probability that a right sampler strays at least as far; Wilson and Hilferty's approximation.

    >>> round(chi_square_p(Counter({"a": 60, "b": 40}), {"a": 0.5, "b": 0.5}), 2)  # exactly 0.0455
    0.04
    """
    total = sum(counts.values())
    statistic = sum((counts[key] - total * p) ** 2 / (total * p) for key, p in expected.items())
    k = len(expected) - 1
    z = ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))
    return 0.5 * math.erfc(z / math.sqrt(2))


def table() -> list[Row]:
    """All rows."""
    return [row for part in (cached, batched, speculative, quantised) for row in part()]


def main(write: Callable[[str], Any] = print) -> int:
    """Print the table; return 1 if a row is out of its bound."""
    rows = table()
    write(f"{'what':28} {'against':17} {'measure':17} {'value':>6} {'bound':>6}")
    for row in rows:
        mark = "" if row.passed else "  FAILED"
        write(f"{row.what:28} {row.against:17} {row.measure:17} {row.value:6.1g} {row.bound:6.0g}{mark}")
    write(f"random models, {NEW + 1} steps each; bounds: p-values from below, others from above")
    return int(not all(row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
