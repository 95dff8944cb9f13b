"""Ctrl-C that lets the step under way finish, so that its result can be saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MESSAGE = b"\nStopping: this step is finished and saved first.%s\n"
INSIST = b" Ctrl-C again stops at once."


class StopRequest:
    """Whether somebody has asked the run to stop."""

    def __init__(self) -> None:
        self.made = False


@contextmanager
def stop_requests(*, insist: bool = True) -> Iterator[StopRequest]:
    """Turn the first SIGINT (Ctrl-C) or SIGTERM into a note that the loop reads between steps.

    After the first one the former handlers are back, so that a second Ctrl-C raises
    KeyboardInterrupt wherever the program stands. With ``insist=False`` later ones
    change nothing: torchrun passes on a Ctrl-C that the terminal has sent already, and itself kills
    what has not ended after 30 s. Outside the main thread, where Python allows no handlers, the note
    is never set.

    >>> with stop_requests() as stop:
    ...     signal.raise_signal(signal.SIGINT)
    ...     stop.made
    True
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(*_: object) -> None:
        if request.made:
            return
        request.made = True
        if insist:
            restore()
        with suppress(OSError):  # no terminal any more; and print could be interrupted by this very handler
            os.write(2, MESSAGE % (INSIST if insist else b""))

    for number in former:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
