"""The log of a run: one JSON object a line, appended as the run goes.

Fields, each present where it was measured: ``step`` (optimizer steps taken), ``loss`` (nats a token,
this step's training batch, before the step), ``lr``, ``grad_norm`` (before clipping),
``tokens_per_second``, ``val_loss`` (nats a token, the fixed validation windows, after the step).
"""

import json
import os
from pathlib import Path

from llm_from_scratch.files import write_atomically


class RunLog:
    """Append records to a file that may be cut off at any byte.

    A killed process leaves at worst one incomplete last line, which `read` passes over and
    `drop_after` removes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = RunLog(Path(folder) / "log.jsonl")
    ...     for step in range(3):
    ...         log.append({"step": step})
    ...     log.drop_after(1)
    ...     log.read()
    [{'step': 0}, {'step': 1}]
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, record: dict[str, object]) -> None:
        """Add one line. Raises: ValueError for NaN or infinity, which JSON cannot write."""
        line = json.dumps(record, allow_nan=False) + "\n"
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(line)

    def flush_to_disk(self) -> None:
        """Wait until every line is on the disk; called before a checkpoint that relies on them."""
        if self.path.is_file():
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, object]]:
        """Return the complete records, oldest first; none if there is no file."""
        if not self.path.is_file():
            return []
        records = []
        for line in self.path.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # cut off while it was being written
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
        return records

    def drop_after(self, step: int) -> None:
        """Remove what was logged after ``step``: a resumed run takes those steps again."""
        kept = [json.dumps(record) + "\n" for record in self.read() if record["step"] <= step]
        write_atomically(self.path, "".join(kept))
