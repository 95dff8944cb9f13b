"""Several prompts at once, of any lengths: the batch that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from llm_from_scratch.inference.request import Request
from llm_from_scratch.inference.scheduler import Scheduler
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.modes import evaluation_mode


def generate_batch(
    model: Decoder,
    prompts: Sequence[Sequence[int] | Tensor],
    *,
    max_new_tokens: int | Sequence[int],
    seed: int | Sequence[int | None] | None = None,
    num_slots: int = 8,
    **settings: Any,
) -> list[list[int]]:
    """Continue several prompts of different lengths; returns the new tokens of each, in the same order.

    Each result is that of ``generate`` for its prompt alone with its seed, unless a draw falls between
    two scores that differ by less than rounding. No prompt is padded: up to ``num_slots`` of them run
    side by side, and where one ends the next begins.

    Arguments: ``max_new_tokens`` and ``seed`` are one number for all prompts, or one for each; ``settings``
    are those of `decoding.sampling.stream`, the same for all.
    Raises: ValueError as `Request`, and for a prompt that with its new tokens exceeds the context.

    >>> from llm_from_scratch.inference import generate
    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=9, d_model=6, num_layers=2, num_heads=3)
    >>> model = Decoder(config)
    >>> both = generate_batch(model, [[3], [1, 4, 1]], max_new_tokens=4, seed=5)
    >>> both == [generate(model, ids, max_new_tokens=4, seed=5) for ids in ([3], [1, 4, 1])]
    True
    """
    count = len(prompts)
    limits, seeds = _each(max_new_tokens, count, "max_new_tokens"), _each(seed, count, "seed")
    requests = [
        Request(ids=ids, max_new_tokens=limit, seed=own_seed, **settings)
        for ids, limit, own_seed in zip(prompts, limits, seeds, strict=True)
    ]
    if not requests:
        return []
    longest = max(request.num_tokens for request in requests)
    with evaluation_mode(model):
        scheduler = Scheduler(
            model,
            num_slots=min(num_slots, count),
            slot_length=min(longest, model.config.context_length),
        )
        tickets = [scheduler.submit(request) for request in requests]
        scheduler.run()
    return [ticket.result() for ticket in tickets]


def _each(value: Any, count: int, name: str) -> list:
    """One value for each of ``count`` prompts."""
    if value is None or isinstance(value, int):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} prompts; give one each, or one")
    return list(value)
