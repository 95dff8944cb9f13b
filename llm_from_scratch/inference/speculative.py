"""Speculative decoding: a draft guesses several tokens, and the target checks them all in one pass.

One token costs the target a pass over all its weights. Scoring k + 1 tokens in one pass costs little
more, because the weights are read once. So guesses are nearly free to check; those that the target
would have drawn too are kept, and the first that it would not is replaced.

Legend: N tokens proposed, V vocabulary entries.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.decoding.pipeline import Pipeline
from llm_from_scratch.decoding.prompts import check_prompt, whole_numbers
from llm_from_scratch.decoding.sampling import check_settings
from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.drafts import Draft
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.inference.rejection import DrawingRule, keep_or_replace
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.nn.modes import evaluation_mode


@dataclass
class Tally:
    """What speculation did in each pass of the target, that over the prompt included.

    A pass draws the guesses that it keeps and one token of its own, unless a stop id ends the text before.

    >>> tally = Tally(proposed=[0, 4, 4], kept=[0, 4, 1], drawn=[1, 5, 2])  # the prompt, then two passes
    >>> tally.tokens, tally.acceptance_rate, round(tally.tokens_per_pass, 2)
    (8, 0.625, 2.67)
    """

    proposed: list[int] = field(default_factory=list)  # tokens that the draft guessed, one entry a pass
    kept: list[int] = field(default_factory=list)  # of these, tokens that the target kept
    drawn: list[int] = field(default_factory=list)  # tokens of the text, a stop id included

    @property
    def passes(self) -> int:
        """Passes of the target."""
        return len(self.drawn)

    @property
    def tokens(self) -> int:
        """Tokens drawn by all passes."""
        return sum(self.drawn)

    @property
    def acceptance_rate(self) -> float:
        """Part of the proposed tokens that were kept; NaN if none was proposed."""
        return sum(self.kept) / sum(self.proposed) if sum(self.proposed) else float("nan")

    @property
    def tokens_per_pass(self) -> float:
        """Tokens drawn a pass of the target; 1 without speculation, NaN before the first pass."""
        return self.tokens / self.passes if self.passes else float("nan")


def speculative_generate(model: Decoder, ids: Sequence[int] | Tensor, **settings: Any) -> list[int]:
    """Continue one sequence of tokens; returns the new tokens only. Takes what `speculative_stream` takes.

    >>> from llm_from_scratch.inference.drafts import PromptLookup
    >>> from llm_from_scratch.inference.generate import generate
    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=47, d_model=6, num_layers=2, num_heads=3)
    >>> model, settings = Decoder(config), {"max_new_tokens": 30, "temperature": 0}
    >>> tokens = speculative_generate(model, [3, 1], draft=PromptLookup(), **settings)
    >>> tokens == generate(model, [3, 1], **settings)
    True
    """
    return list(speculative_stream(model, ids, **settings))


def speculative_stream(
    model: Decoder,
    ids: Sequence[int] | Tensor,
    *,
    draft: Draft,
    max_new_tokens: int,
    num_draft: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop_ids: Iterable[int] | Tensor = (),
    context_length: int | None = None,
    pipeline: Pipeline = (),
    tally: Tally | None = None,
    new_cache: Callable[..., KVCache] = KVCache.for_model,
) -> Iterator[int]:
    """Continue one sequence of tokens, as `generate.stream` does, with the help of a draft.

    The distribution of the text is that of `stream` with the same settings, whatever the draft. With
    ``temperature`` 0 the tokens are the same ones, unless two scores differ by less than rounding: several
    tokens in one pass are summed up in another order than one. At other temperatures a seed gives
    other tokens than `stream`, since other draws are made.

    Arguments: ``draft`` proposes up to ``num_draft`` tokens before each pass of the target (`PromptLookup`,
    `NGramDraft`, `DecoderDraft`, or anything with their `propose`). ``tally`` counts what became of them.
    ``new_cache`` makes the target's cache, as in `CachedModel`. All others are those of
    `decoding.sampling.stream`.

    The pass over the prompt checks no guesses, as it scores its last position alone. Where the text
    reaches ``context_length`` speculation ends too: the window of the last tokens moves on with each
    token from there, and every pass reads it whole.

    One text at a time: texts of a batch would keep different numbers of tokens in each pass.

    Raises: ValueError, at the call, as `stream` does, for ``num_draft`` that is no whole number of at
    least 1, and for a draft of another vocabulary; while drawing, for a draft that proposes more than was
    asked, tokens outside the vocabulary, or tokens that its own probabilities exclude.
    Source: Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2.
    """
    if not isinstance(model, Decoder):
        raise ValueError(f"speculation needs a Decoder as its target, got {type(model).__name__}")
    check_settings(temperature, top_k, top_p, min_p)
    history, limit = check_prompt(model, ids, max_new_tokens, context_length)
    model.check_ids(torch.tensor([history[-limit:]]))
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit into 64 bits, got {seed}")
    if type(num_draft) is not int or num_draft < 1:
        raise ValueError(f"num_draft must be a whole number of at least 1 token, got {num_draft!r}")
    if not callable(getattr(draft, "propose", None)):
        raise ValueError(f"a draft needs the method propose(history, count, rule), got {draft!r}")
    if getattr(draft, "vocab_size", model.config.vocab_size) != model.config.vocab_size:
        raise ValueError(
            f"the draft has {draft.vocab_size} tokens and the target {model.config.vocab_size}; both must "
            "read the same tokenizer"
        )
    rule = DrawingRule(
        settings={"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p},
        pipeline=pipeline,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )
    room = min(limit, len(history) + max_new_tokens)
    cache = new_cache(model, max_length=room, rollback=max(num_draft, 16))
    tally = Tally() if tally is None else tally
    stop_ids = whole_numbers(stop_ids, "stop_ids")
    return _write(model, cache, history, draft, rule, max_new_tokens, num_draft, stop_ids, limit, tally)


def _write(
    model, cache, history, draft, rule, max_new_tokens, num_draft, stop_ids, limit, tally
) -> Iterator[int]:
    """The loop of `speculative_stream`, whose arguments have been checked."""
    left = max_new_tokens
    while left > 0:
        count = min(num_draft, left - 1, limit - len(history))
        if cache.length == 0 or count < 1:
            guesses, drawn_from = [], None
        else:
            guesses, drawn_from = draft.propose(tuple(history), count, rule)
            _check_proposal(guesses, drawn_from, count, model.config.vocab_size)
            stops = [place for place, token in enumerate(guesses) if token in stop_ids]
            guesses = guesses[: stops[0] + 1] if stops else guesses  # nothing comes after the end
        logits_UV = _read(model, cache, history, guesses, limit)
        new, kept = _judge(logits_UV, history, guesses, drawn_from, rule, stop_ids)
        cache.truncate(min(len(history) + kept, cache.length))
        for counts, value in ((tally.proposed, len(guesses)), (tally.kept, kept), (tally.drawn, len(new))):
            counts.append(value)
        for token in new:
            if token in stop_ids:
                return
            history.append(token)
            left -= 1
            yield token


def _read(
    model: Decoder, cache: KVCache, history: list[int], guesses: list[int], limit: int
) -> Float[Tensor, "U V"]:
    """Score the token after the text and after each guess, all in one pass: U = N + 1 rows."""
    if len(history) > limit:  # the window moves on: its first token is at position 0 again
        cache.reset()
        new = history[-limit:]
    else:
        new = history[cache.length :] + guesses
    ids_BT = torch.tensor([new], device=model.output_weight.device)
    is_training = any(part.training for part in model.modules())
    with torch.inference_mode(), evaluation_mode(model) if is_training else nullcontext():
        logits_BUV = cached_forward(model, ids_BT, cache, last_only=not guesses)
    return logits_BUV[0].clone()  # made outside of inference mode, so that a pipeline may write to it


def _judge(
    logits_UV: Float[Tensor, "U V"],
    history: list[int],
    guesses: list[int],
    drawn_from: list[Tensor] | None,
    rule: DrawingRule,
    stop_ids: frozenset[int],
) -> tuple[list[int], int]:
    """The tokens that the pass draws, and how many of them are guesses: all up to the first wrong one.

    If none is wrong, the row behind the last one gives a token more.
    """
    text = list(history)
    for place, guess in enumerate(guesses):
        target_V = rule.probabilities(logits_UV[place], text)
        draft_V = None if drawn_from is None else drawn_from[place]
        token, is_kept = keep_or_replace(guess, target_V, draft_V, generator=rule.generator)
        text.append(token)
        if not is_kept:
            return text[len(history) :], place
        if token in stop_ids:
            return text[len(history) :], place + 1
    text.append(rule.draw(rule.probabilities(logits_UV[-1], text)))
    return text[len(history) :], len(guesses)


def _check_proposal(guesses: list[int], drawn_from: list[Tensor] | None, count: int, vocab_size: int) -> None:
    """Raise ValueError for a proposal that the target cannot check."""
    if len(guesses) > count:
        raise ValueError(f"the draft proposed {len(guesses)} tokens, {count} were asked for")
    for token in guesses:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise ValueError(
                f"the draft proposed {token!r}; token ids are whole numbers from 0 to {vocab_size - 1}"
            )
    if drawn_from is not None:
        shapes = [tuple(probs_V.shape) for probs_V in drawn_from]
        if shapes != [(vocab_size,)] * len(guesses):
            raise ValueError(
                f"{len(guesses)} proposed tokens need as many distributions of {vocab_size} tokens each, "
                f"got shapes {shapes}"
            )
        sums = [float(probs_V.double().sum()) for probs_V in drawn_from]
        if not all(abs(total - 1.0) < 1e-3 for total in sums):
            raise ValueError(f"the draft's probabilities must sum to 1, got sums {sums}")
