"""A thread that steps a scheduler: whoever submits requests never waits for the model."""

from __future__ import annotations

import logging
import threading
import time

from llm_from_scratch.inference.request import Listener, Request, Ticket
from llm_from_scratch.inference.scheduler import Scheduler

log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 (a state, not a fault)
    """The worker takes no more requests, or has given up those it had."""


class Worker:
    """Steps a scheduler in a thread of its own while there is work, and sleeps while there is none.

    An error in a step ends the requests that it touches, not the thread. `close` ends the thread; as a
    context manager the worker starts at the beginning and closes at the end.

    >>> from llm_from_scratch.models.decoder import Decoder, DecoderConfig
    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> with Worker(Scheduler(Decoder(config))) as worker:
    ...     ticket = worker.submit(Request(ids=[1], max_new_tokens=5))
    ...     len(list(ticket))
    5
    """

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self._give_up_at: float | None = None  # on the monotonic clock; None: not closing
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)

    def __enter__(self) -> Worker:
        """Start the thread."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let what runs end, then stop the thread."""
        self.close()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self._give_up_at is None and self._thread.is_alive()

    def submit(self, request: Request, listener: Listener | None = None) -> Ticket:
        """As `Scheduler.submit`. Raises: `Closed` too, once `close` has been called."""
        with self.scheduler.changed:  # so that no request slips in behind the last look at the queue
            if not self.is_open:
                raise Closed("no new requests are taken: the worker is closing")
            return self.scheduler.submit(request, listener)

    def refuse(self, seconds: float = float("inf")) -> None:
        """Take no more requests; what runs or waits has so many seconds to end, then ends with `Closed`.

        It returns at once. A second call can shorten the time.
        """
        with self.scheduler.changed:
            until = time.monotonic() + seconds
            self._give_up_at = until if self._give_up_at is None else min(until, self._give_up_at)
            self.scheduler.changed.notify_all()

    def close(self, seconds: float = float("inf")) -> None:
        """As `refuse`, and wait until the thread has ended."""
        self.refuse(seconds)
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while True:
            try:
                busy = self.scheduler.step()
            except Exception as error:
                log.exception("a step of the scheduler failed")
                self.scheduler.fail_all(error)
                busy = False  # nothing is left to do
            late = self._give_up_at is not None and time.monotonic() >= self._give_up_at
            if late:
                self.scheduler.fail_all(Closed("the time to finish is over: the worker is closing"))
            with self.scheduler.changed:
                while not (busy or self.scheduler.waiting):
                    if self._give_up_at is not None:
                        return
                    self.scheduler.changed.wait()
