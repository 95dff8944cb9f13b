"""Write files so that a reader of them never meets half of one.

Every file that the package writes goes first to a temporary name in the same folder, is flushed to
the disk, and is then renamed over its final name. A rename inside one folder is a single step for the
file system: before it the old file is there, after it the new one. A crash, a killed process or a full
disk between the two leaves the old file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

# Below this many free bytes, a failed write is reported as a full disk even where the library that
# wrote reports something else (torch.save raises a RuntimeError of its own).
_FULL_DISK_BYTES = 64 * 1024


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    r"""Write ``content`` to ``path`` in one step: the whole file, or no change at all.

    Text is stored as UTF-8, and line ends are stored as they are on every system. Missing folders
    above ``path`` are created.

    Raises: OSError if the disk is full or refuses the write (the old file stays);
    TypeError if ``content`` is neither bytes nor text.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a" / "note.txt", "one\n")
    ...     (Path(folder) / "a" / "note.txt").read_bytes()
    b'one\n'
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"content must be bytes or str, got {type(content).__name__}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it becomes ``path``.

    For libraries that want a path rather than bytes: ``with atomic_path(p) as t: save_file(w, t)``.
    The temporary file lies in the folder of ``path``, because a rename is a single step only inside
    one file system. If the block raises (Ctrl-C included), the temporary file is removed, and what
    was at ``path`` before is untouched.

    Raises: OSError if the disk is full; FileNotFoundError if the block wrote nothing.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: the file behind it is replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if not temporary.is_file():
            raise FileNotFoundError(f"nothing was written to {temporary}, so {target} is left as it was")
        _flush_file(temporary)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except Exception as error:
        if _disk_is_full(error, target.parent):
            raise OSError(
                errno.ENOSPC,
                f"the disk is full, so {target.name} was not written and an older one, if any, is "
                "unchanged. Free some space, or choose a folder on another disk, and run again",
                str(target),
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush_file(path: Path) -> None:
    """Wait until the operating system has put the file's content on the disk."""
    with open(path, "r+b") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the folder's new entry is on the disk (POSIX; Windows does not open folders)."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """Tell whether a failed write failed for want of space."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    if isinstance(error, (OSError, ValueError, TypeError)):
        return False
    if "No space left" in str(error) or "StorageFull" in str(error):  # safetensors' own error
        return True
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < _FULL_DISK_BYTES
    return False
