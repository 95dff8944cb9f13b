"""What a run shows while it runs: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0  # without a terminal, so that a log file stays short


class Progress:
    """Show the step, the loss and the speed. Used as a context manager around the loop."""

    def __init__(
        self, *, total: int, done: int = 0, shown: bool = True, stream: TextIO | None = None
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.total = total
        self.shown = shown
        self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        terminal = shown and self.stream.isatty()
        self.bar = (
            tqdm(total=total, initial=done, unit="step", file=self.stream, dynamic_ncols=True)
            if terminal
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def step(self, record: dict[str, object]) -> None:
        """Show one finished step."""
        if self.bar is not None:
            self.bar.update(record["step"] - self.bar.n)
            self.bar.set_postfix_str(f"loss {record['loss']:.3f}", refresh=False)
        if "val_loss" in record or (self.bar is None and time.monotonic() >= self.next_line):
            self.line(describe(record, self.total))

    def line(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self.bar is not None:
            tqdm.write(text, file=self.stream)
        elif self.shown:
            print(text, file=self.stream, flush=True)
        self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES


def describe(record: dict[str, object], total: int) -> str:
    """Put a record of the log into words.

    >>> describe({"step": 20, "loss": 2.5, "val_loss": 2.75, "tokens_per_second": 9876.5}, 100)
    'step 20 of 100   training loss 2.500   validation loss 2.750   9,876 tokens/s'
    """
    parts = [f"step {record['step']} of {total}"]
    if "loss" in record:
        parts.append(f"training loss {record['loss']:.3f}")
    if "val_loss" in record:
        parts.append(f"validation loss {record['val_loss']:.3f}")
    if "tokens_per_second" in record:
        parts.append(f"{record['tokens_per_second']:,.0f} tokens/s")
    return "   ".join(parts)
