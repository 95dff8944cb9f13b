"""Draw text from a language model, one token at a time.

Legend: B sequences, T positions, V vocabulary entries.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llm_from_scratch.decoding.logits import apply_temperature, keep_min_p, keep_top_k, keep_top_p
from llm_from_scratch.decoding.pipeline import Pipeline, run_pipeline
from llm_from_scratch.decoding.prompts import check_prompt, next_token_logits, whole_numbers

# Anything that turns ids_BT into logits_BTV: a Decoder, or a function.
LanguageModel = Callable[[Tensor], Tensor]


def next_token_probabilities(
    logits_BV: Float[Tensor, "*B V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "*B V"]:
    """The probabilities that the next token is drawn from.

    Temperature comes first, then top-k, top-p and min-p, each on what the one before has left;
    None turns one off. Temperature 0 puts all probability on the most likely token, the lowest id
    if several tie.

    Raises: ValueError for a setting out of range, and for scores that are NaN or plus infinity,
    or all minus infinity, since no probability can be made of them.

    >>> next_token_probabilities(torch.tensor([[0.0, 0.0, 0.0, 9.0]]), temperature=0).tolist()
    [[0.0, 0.0, 0.0, 1.0]]
    >>> next_token_probabilities(torch.tensor([[0.0, 0.0, 0.0]]), top_k=2).tolist()
    [[0.5, 0.5, 0.0]]
    """
    check_settings(temperature, top_k, top_p, min_p)
    highest_B1 = logits_BV.max(dim=-1, keepdim=True).values  # NaN if any score of the row is NaN
    if not highest_B1.isfinite().all():
        wrong = highest_B1[~highest_B1.isfinite()][0].item()
        raise ValueError(
            f"no next token can be drawn: the highest score is {wrong}; "
            "the weights may have diverged in training, so load an earlier checkpoint"
        )
    if temperature == 0:
        return nn.functional.one_hot(logits_BV.argmax(dim=-1), logits_BV.shape[-1]).to(logits_BV.dtype)
    # Adding a constant to all scores changes no probability; with the highest at 0, no
    # temperature makes a score overflow. One below the smallest float32 would be rounded to 0.
    smallest = torch.finfo(torch.float32).tiny
    logits_BV = apply_temperature(logits_BV - highest_B1, temperature=max(temperature, smallest))
    if top_k is not None:
        logits_BV = keep_top_k(logits_BV, top_k=top_k)
    if top_p is not None:
        logits_BV = keep_top_p(logits_BV, top_p=top_p)
    if min_p is not None:
        logits_BV = keep_min_p(logits_BV, min_p=min_p)
    return logits_BV.softmax(dim=-1)


def sample(model: LanguageModel, ids: Sequence[int] | Tensor, **settings) -> list[int]:
    """Continue one sequence of tokens; returns the new tokens only. Takes what `stream` takes.

    >>> def counter(ids_BT):  # after token n comes token n + 1, almost surely
    ...     return 99.0 * nn.functional.one_hot((ids_BT + 1) % 10, 10).float()
    >>> sample(counter, [3], max_new_tokens=4)
    [4, 5, 6, 7]
    >>> sample(counter, [3], max_new_tokens=4, stop_ids=[6])
    [4, 5]
    """
    return list(stream(model, ids, **settings))


def stream(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop_ids: Iterable[int] | Tensor = (),
    context_length: int | None = None,
    pipeline: Pipeline = (),
) -> Iterator[int]:
    """Continue one sequence of tokens, giving each new token as soon as it is drawn.

    Arguments: ``ids`` is the prompt, at least one token. ``temperature`` 0 always takes the most
    likely token; the other settings are those of `next_token_probabilities`. A token in
    ``stop_ids`` (a list, set, array or tensor of ids) ends the text and is not returned. ``seed``
    fixes the draws; None draws from torch's global generator. ``context_length`` defaults to the
    model's own. ``pipeline`` is a list of steps ``(ids_BT, logits_BV) -> logits_BV`` that the scores
    pass through first, before temperature; they read the whole text, prompt included.

    The model reads the last ``context_length`` tokens and no more. Once the text is longer, each
    step shifts that window by one token and its first position is position 0 again, so the model
    forgets what has left the window.

    The draws are made on the CPU in float32, so that a seed gives the same ones for any device
    that computes the same scores. Dropout is off during each step and put back as it was.

    Raises: ValueError, at the call, for an empty prompt and settings out of range; while drawing,
    for scores that no probability can be made of.
    """
    check_settings(temperature, top_k, top_p, min_p)
    history, context_length = check_prompt(model, ids, max_new_tokens, context_length)
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit into 64 bits, got {seed}")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    stop_ids = whole_numbers(stop_ids, "stop_ids")
    return _draw(model, history, max_new_tokens, settings, generator, stop_ids, context_length, pipeline)


def _draw(
    model, history, max_new_tokens, settings, generator, stop_ids, context_length, pipeline
) -> Iterator[int]:
    """The loop of `stream`, whose arguments have been checked."""
    for _ in range(max_new_tokens):
        window = history if context_length is None else history[-context_length:]
        logits_BV = next_token_logits(model, torch.tensor([window]))
        token = draw_token(logits_BV[0], history, pipeline=pipeline, generator=generator, **settings)
        if token in stop_ids:
            return
        history.append(token)
        yield token


def draw_token(
    logits_V: Float[Tensor, "V"],
    history: Sequence[int],
    *,
    pipeline: Pipeline = (),
    generator: torch.Generator | None = None,
    **settings,
) -> int:
    """Draw the token that follows ``history`` from its scores: the one rule of all generation here.

    The scores pass through the pipeline, then `next_token_probabilities` with ``settings``.

    >>> draw_token(torch.tensor([0.0, 9.0, 1.0]), [2], temperature=0)
    1
    """
    if pipeline:
        logits_V = run_pipeline(pipeline, torch.tensor([history]), logits_V[None])[0]
    if settings.get("temperature") == 0:  # nothing is drawn
        token = int(logits_V.argmax())
        if logits_V[token].isfinite():
            return token  # otherwise the line below says what is wrong
    probs_V = next_token_probabilities(logits_V, **settings)
    return int(torch.multinomial(probs_V, 1, generator=generator))


def check_settings(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None) -> None:
    """Raise ValueError for a setting of `next_token_probabilities` that is out of range."""
    if not 0.0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (always the most likely) or positive, got {temperature}")
    one_V = torch.zeros(1)
    if top_k is not None:
        keep_top_k(one_V, top_k=top_k)
    if top_p is not None:
        keep_top_p(one_V, top_p=top_p)
    if min_p is not None:
        keep_min_p(one_V, min_p=min_p)
