"""From the fields of a request to what the scheduler is asked: one `inference.Request` for each answer."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_from_scratch.decoding.pipeline import LogitFunction
from llm_from_scratch.decoding.repetition import penalise_presence_and_frequency
from llm_from_scratch.inference import Request
from llm_from_scratch.serving.errors import ApiError
from llm_from_scratch.serving.fields import wrong
from llm_from_scratch.serving.limits import Limits
from llm_from_scratch.serving.response_format import format_steps
from llm_from_scratch.serving.served_model import ServedModel


def plan(
    served: ServedModel, limits: Limits, fields: dict[str, Any], ids: list[int], default_tokens: int | None
) -> list[Request]:
    """Return the ``n`` requests for one prompt; the first has the seed that was sent, each next one more.

    ``default_tokens`` is how long an answer may be if no field says so; None: as long as there is room.
    Raises: ApiError 400 for lengths that do not fit and settings that cannot be.
    """
    context = longest_text(served, limits)
    room = context - len(ids)
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    wanted = fields.get(name)
    if wanted is not None and wanted > limits.max_tokens:
        raise wrong(name, f"is {wanted}; this server writes at most {limits.max_tokens} tokens an answer")
    if room < max(wanted or 0, 0 if wanted == 0 else 1):
        raise too_long(fields, context, len(ids), wanted or 1)
    if wanted is None:
        wanted = min(room, limits.max_tokens, room if default_tokens is None else default_tokens)
    top_p, top_k = fields.get("top_p", 1.0), fields.get("top_k", 0)
    settings = {
        "ids": ids,
        "max_new_tokens": wanted,
        "temperature": fields.get("temperature", 1.0) if top_p > 0 else 0,
        "top_p": top_p if 0 < top_p < 1 else None,
        "top_k": top_k if top_k > 0 else None,
        "min_p": fields.get("min_p"),
        "stop_ids": served.stop_ids,
        "top_logprobs": _top_logprobs(fields),
    }
    seed = fields["seed"] if "seed" in fields else secrets.randbits(62)
    settings["pipeline"] = _pipeline(served, fields, len(ids), wanted)
    try:
        return [
            Request(**settings, seed=seed + i if seed + i < 2**63 else i) for i in range(fields.get("n", 1))
        ]
    except ValueError as error:
        raise ApiError(400, str(error)) from None


def longest_text(served: ServedModel, limits: Limits) -> int:
    """Tokens of prompt and answer together."""
    return limits.context_length or served.loaded.model.config.context_length


def too_long(fields: dict[str, Any], context: int, prompt: int, answer: int) -> ApiError:
    """The answer to what does not fit, in the words that clients look for."""
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens. However, you requested at least "
        f"{prompt + answer} tokens ({prompt} in the prompt, {answer} for the completion). "
        "Please reduce the length of the prompt or of the completion.",
        param="messages" if "messages" in fields else "prompt",
        code="context_length_exceeded",
    )


def _top_logprobs(fields: dict[str, Any]) -> int | None:
    """Both ways of asking: a number (completions), or a flag and a number (chat)."""
    asked = fields.get("logprobs")
    if "top_logprobs" in fields and asked is not True:
        raise wrong("top_logprobs", "needs logprobs to be true")
    if isinstance(asked, bool) or asked is None:
        return fields.get("top_logprobs", 0) if asked else None
    return asked


def _pipeline(
    served: ServedModel, fields: dict[str, Any], prompt_length: int, max_new_tokens: int
) -> list[LogitFunction]:
    """The steps that the scores pass through: penalties, bias, and last the format of the answer."""
    steps: list[LogitFunction] = []
    presence, frequency = fields.get("presence_penalty", 0), fields.get("frequency_penalty", 0)
    if presence or frequency:
        penalise = penalise_presence_and_frequency
        steps.append(partial(penalise, presence=presence, frequency=frequency, prompt_length=prompt_length))
    if bias := fields.get("logit_bias"):
        size = served.loaded.model.config.vocab_size
        if outside := [i for i in bias if i >= size]:
            raise wrong("logit_bias", f"names token {outside[0]}; the vocabulary has {size} tokens")
        bias_V = torch.zeros(size)
        bias_V[list(bias)] = torch.tensor(list(bias.values()), dtype=torch.float32)
        steps.append(partial(_add, bias_V))
    asked = fields.get("response_format")
    lengths = {"prompt_length": prompt_length, "max_new_tokens": max_new_tokens}
    return steps + format_steps(served, asked, **lengths) if max_new_tokens else steps


def _add(bias_V: Tensor, ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
    return logits_BV + bias_V
