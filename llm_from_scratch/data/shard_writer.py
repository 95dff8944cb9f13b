"""Cut a stream of documents into shards, each written in one step, so that a killed run loses none.

A shard counts as finished once its ``.json`` is there, which is written after its ``.bin``. It says which
document the next shard begins with and how many of its tokens were written before, which is all that is
needed to go on: shards are the same bytes however often the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from llm_from_scratch.data.shards import check_shard, read_json
from llm_from_scratch.files import write_atomically

_NEEDED = {"tokens", "sha256", "documents", "text_bytes", "next_document", "next_token"}


class ShardWriter:
    """The shards of one split, from the first that is not finished on."""

    def __init__(self, folder: Path, split: str, *, shard_tokens: int, dtype: str) -> None:
        self.folder, self.split, self.shard_tokens, self.dtype = folder, split, shard_tokens, dtype
        self.finished: list[dict] = []
        self.next_document, self._next_token = 0, 0  # where the unfinished shard begins
        self._find_finished()
        self._parts: list[np.ndarray] = []
        self._starts: list[int] = []  # places in the shard at which documents begin
        self._tokens = self._text_bytes = 0

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{self.split}_{number:05}.bin"

    def add(self, number: int, ids: np.ndarray, text_bytes: int) -> None:
        """Add the document of this number, its end-of-text token included; write the shards that get full."""
        rest = ids[self._next_token :] if number == self.next_document else ids
        written = len(ids) - len(rest)
        while True:
            room = self.shard_tokens - self._tokens
            if written == 0:
                self._starts.append(self._tokens)
            self._parts.append(rest[:room])
            self._tokens += len(rest[:room])
            written += len(rest[:room])
            rest = rest[room:]
            if written == len(ids):
                self._text_bytes += text_bytes
                if self._tokens == self.shard_tokens:
                    self._write(number + 1, 0)
                return
            self._write(number, written)

    def finish(self, documents: int) -> None:
        """Write what is left as a shorter shard."""
        if self._tokens:
            self._write(documents, 0)

    def summary(self) -> dict:
        """Return the split's entry of the index."""
        kept = ("file", "tokens", "documents", "sha256")
        return {
            "tokens": sum(shard["tokens"] for shard in self.finished),
            "documents": sum(shard["documents"] for shard in self.finished),
            "text_bytes": sum(shard["text_bytes"] for shard in self.finished),
            "shards": [{name: shard[name] for name in kept} for shard in self.finished],
        }

    def _write(self, next_document: int, next_token: int) -> None:
        path = self.path(len(self.finished))
        content = np.concatenate(self._parts).astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
        entry = {
            "file": path.name,
            "tokens": self._tokens,
            "sha256": hashlib.sha256(content).hexdigest(),
            "documents": len(self._starts),
            "text_bytes": self._text_bytes,
            "next_document": next_document,
            "next_token": next_token,
            "document_starts": self._starts,
        }
        write_atomically(path, content)
        write_atomically(path.with_suffix(".json"), json.dumps(entry) + "\n")
        self.finished.append(entry)
        self.next_document, self._next_token = next_document, next_token
        self._parts, self._starts, self._tokens, self._text_bytes = [], [], 0, 0

    def _find_finished(self) -> None:
        """Keep the shards that are whole, up to the first that is not; what follows is made anew."""
        while (sidecar := self.path(len(self.finished)).with_suffix(".json")).is_file():
            try:
                entry = read_json(sidecar, _NEEDED)
                check_shard(sidecar.with_suffix(".bin"), entry, self.dtype, content=True)
            except ValueError:
                break
            self.finished.append(entry)
            self.next_document, self._next_token = entry["next_document"], entry["next_token"]
        number = len(self.finished)
        while (path := self.path(number)).is_file() or path.with_suffix(".json").is_file():
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            number += 1
