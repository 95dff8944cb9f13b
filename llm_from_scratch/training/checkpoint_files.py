"""The files of a checkpoint folder: names, digests, the pointer, and what may be deleted."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from llm_from_scratch.files import write_atomically
from llm_from_scratch.training.shard_files import file_sha256

POINTER = "checkpoints.json"
FOLDER = "checkpoints"
FORMAT = 2  # raised when an older reader would misread a newer folder; 2: sharded ones
WHOLE = "model.safetensors"
SMALL = "optimizer.pt"
SHARD = re.compile(r"(model|optimizer)-(\d{5})-of-(\d{5})\.safetensors")


def shard_name(kind: str, rank: int, processes: int) -> str:
    """Return the name of one process's file; its ``kind`` is "model" or "optimizer".

    >>> shard_name("model", 0, 4)
    'model-00001-of-00004.safetensors'
    """
    return f"{kind}-{rank + 1:05d}-of-{processes:05d}.safetensors"


def shard_paths(folder: Path, state: dict, kind: str) -> list[Path]:
    """Return the files of one kind that state.json lists. Raises: ValueError if it does not list all."""
    found = [match for name in state["sha256"] if (match := SHARD.fullmatch(name)) and match[1] == kind]
    processes = int(found[0][3]) if found else 0
    names = [shard_name(kind, rank, processes) for rank in range(processes)]
    if not names or sorted(match[0] for match in found) != names:
        raise ValueError(f"{folder / 'state.json'} is damaged: it does not list every file of the {kind}")
    return [folder / name for name in names]


def write_hashed(path: Path, content: bytes) -> str:
    """Write a file; return its sha256."""
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def verified(path: Path, state: dict) -> bytes:
    """Return a file's bytes if they are those that were written."""
    content = path.read_bytes()
    _compare(path, hashlib.sha256(content).hexdigest(), state)
    return content


def verify(paths: list[Path], state: dict) -> None:
    """Read files in pieces, since they may be larger than memory, and compare them with their sha256.

    Raises: FileNotFoundError or ValueError, which name the file.
    """
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the checkpoint is not complete")
        _compare(path, file_sha256(path), state)


def _compare(path: Path, digest: str, state: dict) -> None:
    if digest != state.get("sha256", {}).get(path.name):
        raise ValueError(f"{path} is damaged: its sha256 is not the one that state.json beside it records")


def read_pointer(run: Path) -> dict[str, str] | None:
    """Return which folders count, or None before the first checkpoint."""
    if not (run / POINTER).is_file():
        return None
    pointer = read_json(run / POINTER)
    if not isinstance(pointer.get("last"), str) or not isinstance(pointer.get("best"), str):
        raise ValueError(f"{run / POINTER} is damaged: it does not name the last and the best checkpoint")
    if not isinstance(pointer.get("format", FORMAT), int):
        raise ValueError(f"{run / POINTER} is damaged: its format is no number")
    if pointer.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{run} was written by a newer version of this package: update the package")
    return pointer


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises: ValueError, which names the file, for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def remove_unused(run: Path, pointer: dict[str, str]) -> None:
    """Delete checkpoints that the pointer no longer names, and the best one's optimizer once it is old."""
    named = {pointer.get("last"), pointer.get("best")}
    for folder in (run / FOLDER).glob("step-*"):
        if folder.name not in named:
            shutil.rmtree(folder, ignore_errors=True)  # what is in use elsewhere goes the next time
    if pointer and pointer["best"] != pointer["last"]:
        for optimizer in (run / FOLDER / pointer["best"]).glob("optimizer*"):
            with contextlib.suppress(OSError):
                optimizer.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Put a folder's entries on the disk; Windows neither needs nor offers it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
