"""A run's folder: made once, used by one process at a time, continued only as it was begun."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llm_from_scratch.files import write_atomically
from llm_from_scratch.training.checkpoint import load_checkpoint, read_config

LOCK = "run.lock"
OWNER = "run.pid"
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave in a folder they showed
LEFTOVER = re.compile(r"\.[\w.]+\.\d+\.[0-9a-f]{8}\.tmp")  # the temporary names of files.atomic_path


@contextmanager
def run_folder(path: str | Path, *, config: dict[str, object], resume: bool) -> Iterator[Path]:
    """Open the folder of a run and keep every other process out of it while the block runs.

    A new run stores ``config`` in config.json; more sections may be added to that file later. A
    resumed run must bring the same ``config``: a different learning rate or batch from the middle
    on would be a run that nobody can repeat. ``resume`` of a folder without a run begins one.

    The operating system holds the lock for the process, so a killed process leaves none behind.
    Raises: ValueError if the folder is in use, holds a run that is not to be resumed, holds other
    files, or was begun with another configuration.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder: choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    with _only_process(path):
        started = (path / "config.json").is_file()
        if started and not resume:
            raise ValueError(
                f"{path} already holds a run ({_how_far(path)}). Continue it with --resume, "
                "or choose another folder with --out"
            )
        if started:
            stored = {section: value for section, value in read_config(path).items() if section in config}
            check_same_config(stored, config, origin=path)
            _remove_leftovers(path)
        else:
            _refuse_foreign_files(path)
            write_atomically(path / "config.json", json.dumps(config, indent=1) + "\n")
        yield path


def check_same_config(stored: dict, given: dict, *, origin: Path) -> None:
    """Raise ValueError that names the first field in which two configurations differ.

    >>> check_same_config({"training": {"steps": 5}}, {"training": {"steps": 7}}, origin=Path("runs/a"))
    Traceback (most recent call last):
    ValueError: runs/a was begun with training.steps = 5, not 7. Resume it without that change...
    """
    old, new = _flat(stored), _flat(given)
    for field in [*old, *(name for name in new if name not in old)]:
        if old.get(field, "absent") != new.get(field, "absent"):
            raise ValueError(
                f"{origin.as_posix()} was begun with {field} = {json.dumps(old.get(field, 'absent'))}, "
                f"not {json.dumps(new.get(field, 'absent'))}. Resume it without that change, "
                "or begin a new run in another folder (--out)"
            )


def _flat(config: dict, prefix: str = "") -> dict[str, object]:
    """Turn nested dicts into one with dotted names; tuples become the lists that JSON gives back."""
    flat: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = path / OWNER
        pid = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "unknown"
        raise ValueError(
            f"{path} is in use by another process (pid {pid}): wait for it, stop it, or choose another --out"
        ) from None
    try:
        write_atomically(path / OWNER, f"{os.getpid()}\n")
        yield
    finally:
        (path / OWNER).unlink(missing_ok=True)
        lock.release()


def _refuse_foreign_files(path: Path) -> None:
    """Let a run begin in an empty folder only; a killed beginning's leftovers and clutter do not count."""
    for entry in sorted(path.iterdir()):
        if entry.name not in (LOCK, OWNER, *CLUTTER) and not entry.name.endswith(".tmp"):
            raise ValueError(f"{path} holds no run but is not empty ({entry.name}): choose another --out")


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote; the lock is held here."""
    for entry in path.iterdir():
        if LEFTOVER.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _how_far(path: Path) -> str:
    try:
        return f"{load_checkpoint(path).step} steps taken"
    except (FileNotFoundError, ValueError):
        return "without a readable checkpoint"
