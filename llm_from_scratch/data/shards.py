"""Tokens in files of a fixed size (shards), with an index by which each is known to be whole.

A folder holds ``tokenizer.json``; for each shard ``train_00000.bin`` (the ids, little-endian uint16 or
uint32, nothing else) and ``train_00000.json`` (its count, its sha256, where documents begin in it, and where
the next shard goes on); the same for ``validation``; and ``index.json``, written last, which sums them up.

Legend: N tokens of a split, T tokens of a window.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_from_scratch.data.files import sha256_of

FORMAT = 1
INDEX = "index.json"
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "validation")
_NEEDED = {"format", "dtype", "tokenizer_sha256", "end_of_text", "vocab_size", "splits"}


@dataclass(frozen=True, kw_only=True)
class TokenFolder:
    """The index of a folder that `data.prepare` wrote, checked."""

    path: Path
    index: dict

    @property
    def end_of_text(self) -> int:
        """The id that follows each document."""
        return self.index["end_of_text"]

    @property
    def fingerprint(self) -> str:
        """The sha256 of the index: of all that the folder holds."""
        return hashlib.sha256(json.dumps(self.index, sort_keys=True).encode()).hexdigest()

    def tokens(self, split: str) -> TokenShards:
        """Open the tokens of a split. Raises: ValueError if it has none."""
        entry = self.index["splits"].get(split)
        if not entry or not entry["tokens"]:
            raise ValueError(
                f"{self.path} has no {split} tokens: prepare more documents, or with --validation"
            )
        return TokenShards([self.path / shard["file"] for shard in entry["shards"]], self.index["dtype"])

    def text_bytes(self, split: str) -> int:
        """Bytes of UTF-8 that the documents of a split have."""
        return self.index["splits"][split]["text_bytes"]

    def verify(self) -> None:
        """Read every shard. Raises: ValueError naming the first whose content is not the one written."""
        for split in SPLITS:
            for shard in self.index["splits"][split]["shards"]:
                check_shard(self.path / shard["file"], shard, self.index["dtype"], content=True)


def open_folder(path: Path | str, *, tokenizer_sha256: str | None = None) -> TokenFolder:
    """Open a folder of prepared tokens; sizes are checked, contents only by `TokenFolder.verify`.

    Raises: FileNotFoundError if it is none or is not finished; ValueError if the index is damaged, a shard
    is missing or has another size, or the tokens are those of another tokenizer than ``tokenizer_sha256``.
    """
    path = Path(path)
    if not (path / INDEX).is_file():
        unfinished = (path / "settings.json").is_file()
        raise FileNotFoundError(
            f"{path} is not finished: run the same `llm-scratch data prepare` again, it goes on"
            if unfinished
            else f"{path} holds no prepared tokens (no {INDEX}); `llm-scratch data prepare` writes some"
        )
    index = read_json(path / INDEX, _NEEDED)
    if index["format"] != FORMAT:
        raise ValueError(f"{path / INDEX} has format {index['format']}, this version reads {FORMAT}")
    found = sha256_of(path / TOKENIZER) if (path / TOKENIZER).is_file() else "missing"
    for expected, whose in ((index["tokenizer_sha256"], path / TOKENIZER), (tokenizer_sha256, "the run")):
        if expected is not None and found != expected:
            raise ValueError(
                f"the tokens in {path} were made with another tokenizer than that of {whose} (sha256 "
                f"{found[:12]}, expected {expected[:12]}): the same ids would mean other texts. Prepare "
                "the data anew"
            )
    for split in SPLITS:
        for shard in index["splits"][split]["shards"]:
            check_shard(path / shard["file"], shard, index["dtype"], content=False)
    return TokenFolder(path=path, index=index)


def check_shard(path: Path, entry: dict, dtype: str, *, content: bool) -> None:
    """Compare a shard with what the index says of it. Raises: ValueError naming the file."""
    expected = entry["tokens"] * np.dtype(dtype).itemsize
    if not path.is_file():
        raise ValueError(f"the shard {path} is missing: prepare the data anew, or copy the folder again")
    if path.stat().st_size != expected:
        raise ValueError(
            f"the shard {path} is damaged: it has {path.stat().st_size} bytes, expected {expected}. Delete "
            "it and prepare the data again, which makes it anew"
        )
    if content and sha256_of(path) != entry["sha256"]:
        raise ValueError(
            f"the shard {path} is damaged: its sha256 is not the one written. Delete it and prepare the data "
            "again, which makes it anew"
        )


def read_json(path: Path, needed: set[str]) -> dict:
    """Read a JSON object that has the fields ``needed``. Raises: ValueError if it has not."""
    try:
        entry = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from None
    if not isinstance(entry, dict) or not needed <= entry.keys():
        raise ValueError(f"{path} is damaged: it lacks {', '.join(sorted(needed - set(entry)))}")
    return entry


class TokenShards:
    """The tokens of several files as one stream, of which only what is asked for is read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [Path(folder) / name for name in ("a.bin", "b.bin")]
    ...     _ = paths[0].write_bytes(np.arange(3, dtype="<u2").tobytes())
    ...     _ = paths[1].write_bytes(np.arange(3, 5, dtype="<u2").tobytes())
    ...     TokenShards(paths, "uint16").window(1, 3).tolist()
    [1, 2, 3]
    """

    def __init__(self, paths: list[Path], dtype: str) -> None:
        little_endian = np.dtype(dtype).newbyteorder("<")
        self.shards = [np.memmap(path, dtype=little_endian, mode="r") for path in paths]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def window(self, start: int, length: int) -> np.ndarray:
        """Return ``length`` tokens from place ``start`` on. Raises: IndexError beyond the stream."""
        if start < 0 or start + length > len(self):
            raise IndexError(f"tokens {start} to {start + length} lie outside the {len(self)} of the stream")
        parts = []
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while length > 0:
            offset = start - int(self.starts[shard])
            part = self.shards[shard][offset : offset + length]
            parts.append(part)
            start, length, shard = start + len(part), length - len(part), shard + 1
        return np.concatenate(parts)
