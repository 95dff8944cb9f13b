"""The answers to one request while they are written: from the scheduler's thread to the event loop.

A `Choice` listens in the scheduler's thread, makes text of tokens and ends itself at a stop text, before
the next token is drawn. A `Feed` gathers the pieces of all choices for the coroutine that sends them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from llm_from_scratch.inference import Drawn, Request, Ticket, Worker
from llm_from_scratch.serving.served_model import ServedModel
from llm_from_scratch.serving.text_stream import TextStream


@dataclass(frozen=True)
class Piece:
    """What one step adds to an answer: some text, the tokens whose text began by now, perhaps the end."""

    index: int  # of the answer
    text: str
    tokens: tuple[tuple[Drawn, int], ...] = ()  # each with the place in the text where it begins
    finish: str | None = None  # "stop" or "length" with the last piece
    error: BaseException | None = None  # instead of a finish


@dataclass
class Choice:
    """One answer. ``post`` is called in the scheduler's thread with each `Piece`."""

    index: int
    request: Request
    text: TextStream
    post: Callable[[Piece], None]
    ticket: Ticket | None = None
    _tokens: list[Drawn] = field(default_factory=list)  # those that no piece has reported

    def hear(self, ticket: Ticket, drawn: Drawn | None) -> None:
        """Take a token, or the end: the listener of the ticket."""
        if drawn is None:
            self._finish(ticket)
            return
        self._tokens.append(drawn)
        new = self.text.add(drawn.token)
        if self.text.stopped:
            ticket.cancel()
        if new:
            self.post(Piece(self.index, new, self._certain()))

    def _finish(self, ticket: Ticket) -> None:
        rest, finish = self.text.end(), ticket.reason
        if self.text.stopped:
            finish = "stop"
        elif finish not in ("stop", "length"):
            error = ticket.error or RuntimeError("the request was cancelled")
            self.post(Piece(self.index, "", error=error))
            return
        self.post(Piece(self.index, rest, self._certain(ended=not self.text.stopped), finish))

    def _certain(self, *, ended: bool = False) -> tuple[tuple[Drawn, int], ...]:
        """The unreported tokens that begin in the text shown so far; all of them once it has ended."""
        starts = self.text.starts[len(self.text.starts) - len(self._tokens) :]
        count = len(starts) if ended else sum(start < self.text.length for start in starts)
        found = tuple(zip(self._tokens[:count], starts[:count], strict=True))
        del self._tokens[:count]
        return found


class Feed:
    """All answers to one request, as an asynchronous iterator over their pieces.

    Ends after the last piece of the last answer. Raises what a piece brings as its error, and TimeoutError
    at ``deadline`` (seconds on the monotonic clock). `cancel` gives up all that has not ended; call it in
    any case.
    """

    def __init__(
        self, served: ServedModel, requests: Sequence[Request], stops: Sequence[str], deadline: float
    ):
        loop, self._queue = asyncio.get_running_loop(), asyncio.Queue()
        self._deadline = deadline

        def post(piece: Piece) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, piece)

        tokenizer, silent = served.loaded.tokenizer, served.silent_ids
        self.choices = [
            Choice(index, request, TextStream(tokenizer, stops, silent), post)
            for index, request in enumerate(requests)
        ]

    def submit(self, worker: Worker) -> None:
        """Hand all requests in, or none. Raises: as `Worker.submit`."""
        try:
            for choice in self.choices:
                choice.ticket = worker.submit(choice.request, choice.hear)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Give up what has not ended."""
        for choice in self.choices:
            if choice.ticket is not None:
                choice.ticket.cancel()

    @property
    def num_tokens(self) -> int:
        """New tokens of all answers so far."""
        return sum(len(choice.ticket.drawn) for choice in self.choices if choice.ticket is not None)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Give the pieces as they come."""
        open_choices = len(self.choices)
        while open_choices:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                piece = await self._queue.get()
            if piece.error is not None:
                raise piece.error
            open_choices -= piece.finish is not None
            yield piece
