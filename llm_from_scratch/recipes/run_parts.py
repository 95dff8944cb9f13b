"""What every run in a folder needs, be it a training from the beginning or a fine-tuning."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llm_from_scratch.files import write_atomically
from llm_from_scratch.training.run_folder import run_folder
from llm_from_scratch.training.strategy import Strategy


@contextmanager
def shared_folder(path: Path, *, config: dict, resume: bool, strategy: Strategy) -> Iterator[Path]:
    """Open a run's folder for all processes; the main one holds the lock and stores the configuration."""
    with ExitStack() as stack:
        strategy.from_main(lambda: str(stack.enter_context(run_folder(path, config=config, resume=resume))))
        yield Path(path)


class Stopwatch:
    """Seconds of each stage, summed over the processes of a run that was interrupted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clock = Stopwatch(Path(folder) / "seconds.json")
    ...     with clock("training"):
    ...         pass
    ...     clock.seconds
    {'training': 0.0}
    """

    def __init__(self, path: Path, *, kept: bool = True) -> None:
        self.path, self.kept = path, kept
        self.seconds: dict[str, float] = json.loads(path.read_bytes()) if path.is_file() else {}
        self.stage, self.started = "", 0.0

    def __call__(self, stage: str) -> "Stopwatch":
        """Name the stage that the following block is."""
        self.stage = stage
        return self

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self.started
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + spent, 1)
        if self.kept and sys.exc_info()[0] is None:
            write_atomically(self.path, json.dumps(self.seconds) + "\n")
