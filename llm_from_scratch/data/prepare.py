"""From documents to shards of tokens, by several processes, with the same result however it is interrupted.

The main process reads documents in order and hands them out in batches; the others encode; the main one
puts the results back in order and cuts them into shards. So the bytes depend on the sources and the
settings, and not on the number of processes.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from llm_from_scratch.data.files import sha256_of
from llm_from_scratch.data.shard_writer import ShardWriter
from llm_from_scratch.data.shards import FORMAT, INDEX, SPLITS, TOKENIZER, read_json
from llm_from_scratch.data.sources import Reading, Source, find_sources, read_documents
from llm_from_scratch.files import write_atomically
from llm_from_scratch.tokenizers import Tokenizer, load_tokenizer

SETTINGS = "settings.json"
BATCH_CHARACTERS = 500_000  # of the documents that a process gets at a time
_tokenizer: Tokenizer | None = None  # of a process that encodes


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How documents become shards."""

    shard_tokens: int = 100_000_000  # tokens of a shard: 200 MB in uint16
    validation: float = 0.005  # share of the documents that validate; 0: none
    end_of_text: str = "<|endoftext|>"  # the token that follows each document
    reading: Reading = Reading()  # noqa: RUF009

    def __post_init__(self) -> None:
        """Check each field. Raises: ValueError."""
        if self.shard_tokens < 1:
            raise ValueError(f"shard_tokens must be 1 or more, got {self.shard_tokens}")
        if not 0 <= self.validation <= 0.5:
            raise ValueError(f"validation is a share of the documents, 0 to 0.5, got {self.validation}")

    def split_of(self, number: int) -> str:
        """Return the split of a document: of every 1 / ``validation``, the first validates."""
        if self.validation and number % round(1 / self.validation) == 0:
            return "validation"
        return "train"


def prepare(
    names: list[str],
    *,
    tokenizer: Tokenizer,
    out: Path,
    settings: Preparation | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Write the documents of the sources ``names`` as shards into ``out``; return the index.

    Called again after it was killed, it keeps the finished shards that are whole and goes on.
    Raises: FileNotFoundError and ValueError for sources as `find_sources` and `read_documents`; ValueError
    if the folder holds other data, the tokenizer lacks the end-of-text token, or there is no document;
    OSError if the disk is full.
    """
    settings = Preparation() if settings is None else settings
    sources = find_sources(names)
    end = getattr(tokenizer, "special_ids", {}).get(settings.end_of_text)
    if end is None:
        raise ValueError(
            f"the tokenizer has no token {settings.end_of_text!r} to put between documents: train "
            "one with it, or name its own with --end-of-text"
        )
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            _claim(out, sources, tokenizer, settings)
            if (out / INDEX).is_file():
                (out / INDEX).unlink()  # finished before: checked and, where damaged, made anew
            writers = {
                split: ShardWriter(out, split, shard_tokens=settings.shard_tokens, dtype=dtype)
                for split in SPLITS
            }
            kept = sum(len(writer.finished) for writer in writers.values())
            if kept:
                say(f"{kept} finished shards are whole and kept")
            documents = _write_all(sources, writers, settings, end, dtype, out / TOKENIZER, workers, say)
            index = {
                "format": FORMAT,
                "dtype": dtype,
                "tokenizer_sha256": sha256_of(out / TOKENIZER),
                "vocab_size": tokenizer.vocab_size,
                "end_of_text": end,
                "documents": documents,
                "sources": [asdict(source) for source in sources],
                "splits": {split: writer.summary() for split, writer in writers.items()},
            }
            write_atomically(out / INDEX, json.dumps(index, indent=1) + "\n")
            return index
    except Timeout:
        raise ValueError(
            f"another process is preparing data in {out}; choose another --out, or wait"
        ) from None


def _claim(out: Path, sources: list[Source], tokenizer: Tokenizer, settings: Preparation) -> None:
    """Store tokenizer and settings, or check that the first shard was made with the same ones."""
    wanted = {"sources": [asdict(source) for source in sources], **asdict(settings)}
    if not any((out / f"{split}_00000.json").is_file() for split in SPLITS):
        tokenizer.save(out / TOKENIZER)
        write_atomically(out / SETTINGS, json.dumps(wanted, indent=1) + "\n")
        return
    if not ((out / TOKENIZER).is_file() and (out / SETTINGS).is_file()):
        raise ValueError(f"{out} is damaged: {TOKENIZER} or {SETTINGS} is missing. Choose another --out")
    tokenizer.save(out / ".tokenizer.json")
    same = sha256_of(out / ".tokenizer.json") == sha256_of(out / TOKENIZER)
    (out / ".tokenizer.json").unlink()
    if not same:
        raise ValueError(
            f"{out} was begun with another tokenizer: the same ids would mean other texts. Choose "
            "another --out"
        )
    begun = read_json(out / SETTINGS, set(wanted))
    for name, value in json.loads(json.dumps(wanted)).items():
        if begun[name] != value:
            raise ValueError(
                f"{out} was begun with {name} {begun[name]!s:.200}, now it is {value!s:.200}; choose "
                "another --out, or begin "
                "anew in an empty folder"
            )


def _write_all(
    sources: list[Source],
    writers: dict[str, ShardWriter],
    settings: Preparation,
    end: int,
    dtype: str,
    tokenizer_path: Path,
    workers: int | None,
    say: Callable[[str], None],
) -> int:
    """Encode and write what no finished shard holds; return how many documents there are."""
    count = 0

    def unfinished() -> Iterator[tuple[int, str]]:
        nonlocal count
        for number, text in enumerate(read_documents(sources, settings.reading)):
            count = number + 1
            if number >= writers[settings.split_of(number)].next_document:
                yield number, text

    shards = sum(len(writer.finished) for writer in writers.values())
    for number, ids, text_bytes in _encoded(unfinished(), tokenizer_path, end, dtype, workers):
        writers[settings.split_of(number)].add(number, ids, text_bytes)
        written = sum(len(writer.finished) for writer in writers.values())
        if written > shards:
            shards = written
            say(f"{shards} shards, {number + 1:,} documents")
    if count == 0:
        raise ValueError(f"there is no text in {', '.join(source.name for source in sources)[:200]}")
    for writer in writers.values():
        writer.finish(count)
    return count


def _encoded(
    documents: Iterable[tuple[int, str]], path: Path, end: int, dtype: str, workers: int | None
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Give each document's number, ids and bytes of text, in order; a few batches are under way at a time."""
    workers = os.cpu_count() or 1 if workers is None else workers
    batches = _batches(documents)
    if workers == 1:
        _open_tokenizer(path)
        for batch in batches:
            yield from _encode(batch, end, dtype)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(path,)
    ) as pool:
        under_way: deque[Future] = deque()
        try:
            for batch in islice(batches, 2 * workers):
                under_way.append(pool.submit(_encode, batch, end, dtype))
            while under_way:
                results = under_way.popleft().result()
                for batch in islice(batches, 1):
                    under_way.append(pool.submit(_encode, batch, end, dtype))
                yield from results
        except BrokenProcessPool:
            raise ValueError(
                "a process that encodes was ended from outside, perhaps for want of memory: run the same "
                "command again, with fewer --workers"
            ) from None
        finally:
            for future in under_way:
                future.cancel()


def _batches(documents: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch, characters = [], 0
    for number, text in documents:
        batch.append((number, text))
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _begin_worker(path: Path) -> None:
    """Open the tokenizer, and end this process when the main one is killed: it would wait for ever."""
    parent = parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=end_with_parent, daemon=True).start()
    _open_tokenizer(path)


def _open_tokenizer(path: Path) -> None:
    global _tokenizer
    _tokenizer = load_tokenizer(path)


def _encode(batch: list[tuple[int, str]], end: int, dtype: str) -> list[tuple[int, np.ndarray, int]]:
    return [
        (number, np.asarray([*_tokenizer.encode(text), end], dtype=dtype), len(text.encode("utf-8")))
        for number, text in batch
    ]
