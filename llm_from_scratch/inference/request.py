"""What a caller asks of the scheduler, and what it gets back: a request, its ticket, its tokens.

Legend: V vocabulary entries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch
from torch import Tensor

from llm_from_scratch.decoding.pipeline import Pipeline
from llm_from_scratch.decoding.prompts import check_prompt, whole_numbers
from llm_from_scratch.decoding.sampling import check_settings, draw_token


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One text to continue, and how; the settings are those of `decoding.sampling.stream`.

    Raises: ValueError for an empty prompt and settings out of range.

    >>> Request(ids=[3, 1], max_new_tokens=5, temperature=0.7, seed=1).num_tokens
    7
    """

    ids: Sequence[int] | Tensor  # the prompt, at least one token
    max_new_tokens: int  # tokens
    temperature: float = 1.0  # 0: always the most likely token
    top_k: int | None = None  # tokens
    top_p: float | None = None  # probability
    min_p: float | None = None  # share of the highest probability
    seed: int | None = None  # None: torch's global generator
    stop_ids: Iterable[int] | Tensor = ()  # tokens that end the text and are not returned
    pipeline: Pipeline = ()  # steps that the scores pass through before temperature
    top_logprobs: int | None = None  # the most likely tokens to report with each; 0: its own logprob alone

    def __post_init__(self):
        """Check, and make plain lists of tensors and arrays."""
        check_settings(self.temperature, self.top_k, self.top_p, self.min_p)
        history, _ = check_prompt(None, self.ids, self.max_new_tokens, None)
        object.__setattr__(self, "ids", tuple(history))
        object.__setattr__(self, "stop_ids", whole_numbers(self.stop_ids, "stop_ids"))
        object.__setattr__(self, "pipeline", tuple(self.pipeline))
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must fit into 64 bits, got {self.seed}")
        if self.top_logprobs is not None and (type(self.top_logprobs) is not int or self.top_logprobs < 0):
            raise ValueError(
                f"top_logprobs must be None or a whole number of at least 0, got {self.top_logprobs!r}"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt and of the longest answer: the room that the request needs."""
        return len(self.ids) + self.max_new_tokens


@dataclass(frozen=True)
class Drawn:
    """A new token, with the logprobs that were asked for: in nats, of the scores as the model gave them."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens, the first one first


@dataclass(eq=False)
class Ticket:
    """A submitted request: gives its tokens as they come, and takes it back.

    It may be read from any thread. ``listener``, if there is one, is called in the thread of the
    scheduler with the ticket and each `Drawn` and, at the end, with None; it must return at once. What
    it raises ends this request with that error.

    Iterating gives the tokens and waits for those to come; it ends with the text, also if that was
    cancelled, and raises what went wrong. It can be done once.
    """

    request: Request
    listener: Listener | None = None
    drawn: list[Drawn] = field(default_factory=list)
    reason: str | None = None  # None while it runs; then "stop", "length", "cancelled" or "error"
    error: Exception | None = None
    cancelled: bool = False
    _queue: SimpleQueue = field(default_factory=SimpleQueue)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def tokens(self) -> list[int]:
        """The new tokens so far."""
        return [drawn.token for drawn in self.drawn]

    def cancel(self) -> None:
        """Give the request up: no further token is drawn, and its slot is free before the next pass."""
        self.cancelled = True

    def result(self, timeout: float | None = None) -> list[int]:
        """Wait for the end, and return all new tokens. Raises: what went wrong; TimeoutError."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the request has not ended after {timeout} seconds")
        if self.error is not None:
            raise self.error
        return self.tokens

    def __iter__(self) -> Iterator[int]:
        """Give the tokens as they come."""
        while (drawn := self._queue.get()) is not None:
            yield drawn.token
        if self.error is not None:
            raise self.error

    def add(self, drawn: Drawn) -> None:
        """For the scheduler: count and report a token."""
        self.drawn.append(drawn)
        self._queue.put(drawn)
        if self.listener is not None:
            self.listener(self, drawn)

    def end(self, reason: str, error: Exception | None = None) -> None:
        """For the scheduler: the request has ended; a second end changes nothing."""
        if self.reason is not None:
            return
        self.error, self.reason = error, reason
        self._queue.put(None)
        self._ended.set()
        if self.listener is not None:
            self.listener(self, None)


Listener = Callable[[Ticket, Drawn | None], None]


class Draws:
    """The draws of one request: the same tokens as `decoding.sampling.stream` with the same seed."""

    def __init__(self, request: Request):
        self.request, self.history = request, list(request.ids)
        seed = request.seed
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def next(self, logits_V: Tensor) -> Drawn:
        """Draw from the scores of the next token, float32 on the CPU, and append it to the text."""
        request = self.request
        names = ("temperature", "top_k", "top_p", "min_p")
        settings = {name: getattr(request, name) for name in names}
        token = draw_token(
            logits_V, self.history, pipeline=request.pipeline, generator=self.generator, **settings
        )
        self.history.append(token)
        if request.top_logprobs is None:
            return Drawn(token)
        logprobs_V = logits_V.log_softmax(dim=-1)
        top = logprobs_V.topk(min(request.top_logprobs, len(logprobs_V)))
        return Drawn(
            token,
            float(logprobs_V[token]),
            tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)),
        )
