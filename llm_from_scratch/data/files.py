"""Where data files are looked for, and how it is known that they are the right ones.

A file of data is known by the sha256 of its content. It is looked for in this order: the folder that
the environment variable ``LLM_FROM_SCRATCH_DATA`` names, then the user's cache folder. Only then is
anything downloaded. The variable is read when a file is asked for, never at import.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

DATA_VARIABLE = "LLM_FROM_SCRATCH_DATA"


def cache_folder() -> Path:
    """Return the folder for downloaded files (not created), as the operating system wants it.

    Linux ``~/.cache/llm_from_scratch``, macOS ``~/Library/Caches/llm_from_scratch``, Windows
    ``%LOCALAPPDATA%``.
    """
    import pooch

    return Path(pooch.os_cache("llm_from_scratch"))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_local(file_name: str, sha256: str) -> Path | None:
    """Return ``file_name`` from the reader's own data folder, or None if it is not there.

    Raises: FileNotFoundError if the variable names something that is not a folder;
    ValueError if the file is there with another content than the expected one.
    """
    named = os.environ.get(DATA_VARIABLE, "").strip()
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the environment variable {DATA_VARIABLE} names {named!r}, which is not a folder; "
            "set it to a folder that exists, or unset it to use the cache and the network"
        )
    path = folder / file_name
    if not path.is_file():
        return None
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{path} is not the expected file: its sha256 is {found}, expected {sha256}. Replace it with "
            f"the right file, or remove it so that {file_name} is taken from the cache or downloaded"
        )
    return path
