"""Continuous batching: a fixed number of texts are continued side by side; where one ends, another begins.

Reading the weights costs the same for one text as for eight, so each step reads a token of every text
that runs. A batch that waits for its longest text wastes the places of those that ended; here a
place is given to the next request before the following step.

Source: Yu et al. 2022 (Orca), section 3.1, for scheduling step by step; Agrawal et al. 2023 (Sarathi), for
prompts read in chunks beside the running texts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from llm_from_scratch.inference.ragged_pass import Pieces, ragged_forward
from llm_from_scratch.inference.request import Draws, Listener, Request, Ticket
from llm_from_scratch.inference.slot_cache import SlotCache
from llm_from_scratch.models.decoder import Decoder

Forward = Callable[[Decoder, Pieces, SlotCache], Tensor]  # `ragged_forward`, or what gives the same scores


class QueueFull(Exception):  # noqa: N818 (as queue.Full)
    """So many requests wait already that another one is refused; try again later."""


@dataclass(eq=False)
class Running:
    """A request that has a slot."""

    ticket: Ticket
    draws: Draws
    unread: list[int]  # tokens of its text that the model has not read; the newest is always among them


class Scheduler:
    """Gives slots to requests in the order of their arrival, and continues all that have one, step by step.

    The thread that calls `step` does all the work (`worker.Worker` is such a thread); `submit` and
    `Ticket.cancel` may be called from any other. The tokens of a request are those of `inference.generate`
    alone with the same seed, whatever runs beside it, unless a draw falls between two scores that
    differ by less than rounding. What raises in the step of one request ends that one; if the pass
    of the model itself fails, all texts that it was reading end with the error.

    The running texts always take the first slots, side by side, so that attention reads them without
    a copy. Prompts are read beside them in chunks, so that no long prompt makes the others wait.

    Arguments: ``num_slots`` texts run at once; ``slot_length`` is the room of each in tokens, by default
    the model's context_length; ``prefill_chunk`` is how many tokens of prompts one step reads at most;
    ``max_waiting`` requests may wait for a slot, None: any number. ``forward`` reads the tokens of a step:
    `ragged_forward`, or a `FastRaggedPass`.
    Raises: ValueError for sizes out of range, and if the model is no `Decoder`.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> scheduler = Scheduler(Decoder(config), num_slots=2)
    >>> tickets = [scheduler.submit(Request(ids=[i], max_new_tokens=3 + i, seed=i)) for i in range(3)]
    >>> scheduler.run()
    >>> [len(ticket.result()) for ticket in tickets]
    [3, 4, 5]
    """

    def __init__(
        self,
        model: Decoder,
        *,
        num_slots: int = 8,
        slot_length: int | None = None,
        prefill_chunk: int = 128,
        max_waiting: int | None = None,
        forward: Forward = ragged_forward,
    ):
        if not isinstance(model, Decoder):
            raise ValueError(f"the scheduler serves a Decoder, got {type(model).__name__}")
        if type(prefill_chunk) is not int or prefill_chunk < 1:
            raise ValueError(f"prefill_chunk must be at least 1 token, got {prefill_chunk!r}")
        if max_waiting is not None and (type(max_waiting) is not int or max_waiting < 0):
            raise ValueError(f"max_waiting must be None or at least 0 requests, got {max_waiting!r}")
        self.model, self.forward = model.eval(), forward
        self.prefill_chunk, self.max_waiting = prefill_chunk, max_waiting
        self.cache = SlotCache.for_model(model, num_slots=num_slots, max_length=slot_length)
        self.running: list[Running] = []  # by slot
        self.waiting: deque[Ticket] = deque()
        self.changed = threading.Condition()  # held while `waiting` is changed; told of each submission
        self.steps = self.tokens_read = 0

    def submit(self, request: Request, listener: Listener | None = None) -> Ticket:
        """Queue a request; its `Ticket` gives the tokens. See there for ``listener``.

        Raises: ValueError for a request that no slot has room for, or with ids outside the vocabulary;
        QueueFull.
        """
        self.check(request)
        ticket = Ticket(request, listener)
        with self.changed:
            free = self.cache.num_slots - len(self.running)
            if self.max_waiting is not None and len(self.waiting) >= self.max_waiting + free:
                raise QueueFull(f"{len(self.waiting)} requests wait already (limit {self.max_waiting})")
            self.waiting.append(ticket)
            self.changed.notify_all()
        return ticket

    def check(self, request: Request) -> None:
        """Raise ValueError for what could never run."""
        room, context = self.cache.max_length, self.model.config.context_length
        if request.num_tokens > room:
            way_out = (
                "give the slots more room"
                if room < context
                else "let inference.generate move its window along the text"
            )
            raise ValueError(
                f"the prompt of {len(request.ids)} tokens and {request.max_new_tokens} new ones need room "
                f"for {request.num_tokens}; a slot has room for {room}. Shorten one of the two, or {way_out}"
            )
        wrong = [i for i in request.ids if not 0 <= i < self.model.config.vocab_size]
        if wrong:
            raise ValueError(
                f"token id {wrong[0]} is outside the vocabulary of {self.model.config.vocab_size} entries"
            )

    def run(self) -> None:
        """Step until nothing runs or waits."""
        while self.step():
            pass

    def step(self) -> bool:
        """Free the slots of what was cancelled, fill free slots, and continue every text by one token.

        Returns whether there was anything to do.
        """
        for running in [each for each in self.running if each.ticket.cancelled]:
            self._end(running, "cancelled")
        self._admit()
        if not self.running:
            return False
        pieces, members, room = [], [], self.prefill_chunk
        for slot, running in enumerate(self.running):
            part = running.unread if len(running.unread) == 1 else running.unread[:room]
            if len(running.unread) > 1:
                room -= len(part)
            if part:
                pieces.append((slot, list(part)))
                members.append(running)
        try:
            logits_PV = self.forward(self.model, pieces, self.cache).float().cpu()
        except Exception as error:
            for running in members:
                self._end(running, "error", error)
            return True
        self.steps, self.tokens_read = self.steps + 1, self.tokens_read + sum(len(ids) for _, ids in pieces)
        for running, (_, ids), logits_V in zip(members, pieces, logits_PV, strict=True):
            del running.unread[: len(ids)]
            if not running.unread and not running.ticket.cancelled:
                self._draw(running, logits_V)
        return True

    def fail_all(self, error: Exception) -> None:
        """End everything that runs or waits with ``error``; call it from the thread that steps."""
        for running in list(self.running):
            self._end(running, "error", error)
        with self.changed:
            waiting = list(self.waiting)
            self.waiting.clear()
        for ticket in waiting:
            ticket.end("error", error)

    def _admit(self) -> None:
        """Give free slots to those who wait; who gave up while waiting, or wants no token, ends at once."""
        ended = []
        with self.changed:
            for ticket in [each for each in self.waiting if each.cancelled]:
                self.waiting.remove(ticket)
                ended.append((ticket, "cancelled"))
            while self.waiting and len(self.running) < self.cache.num_slots:
                ticket = self.waiting.popleft()
                if ticket.request.max_new_tokens == 0:
                    ended.append((ticket, "length"))
                else:
                    self.running.append(Running(ticket, Draws(ticket.request), list(ticket.request.ids)))
        for ticket, reason in ended:
            _end_ticket(ticket, reason)

    def _draw(self, running: Running, logits_V) -> None:
        ticket, request = running.ticket, running.ticket.request
        try:
            drawn = running.draws.next(logits_V)
            if drawn.token in request.stop_ids:
                self._end(running, "stop")
                return
            running.unread.append(drawn.token)
            ticket.add(drawn)
            if len(ticket.drawn) == request.max_new_tokens:
                self._end(running, "length")
        except Exception as error:
            self._end(running, "error", error)

    def _end(self, running: Running, reason: str, error: Exception | None = None) -> None:
        """Free the slot, move the text of the last slot into the gap, and tell the ticket."""
        if running in self.running:
            slot, last = self.running.index(running), len(self.running) - 1
            self.cache.clear(slot)
            if slot != last:
                self.cache.move(last, slot)
                self.running[slot] = self.running[last]
            self.running.pop()
        _end_ticket(running.ticket, reason, error)


def _end_ticket(ticket: Ticket, reason: str, error: Exception | None = None) -> None:
    try:
        ticket.end(reason, error)
    except Exception as failure:  # the listener's; the ticket has ended all the same
        ticket.error = ticket.error or failure
