"""Start, watch and end the process in which one exercise runs. This side holds the limits."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

# The student's process gets these of the caller's variables and no other: no tokens, no home folder.
KEPT_VARIABLES = (
    "PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "WINDIR",
    "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS", "LLM_FROM_SCRATCH_DATA", "SOURCE_DATE_EPOCH",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one exercise may use. A solutions notebook can ask for more (see ``notebooks``)."""

    cell_seconds: float = 30.0  # wall-clock seconds for the answer cell, and again for each check cell
    setup_seconds: float = 120.0  # wall-clock seconds for all setup cells together
    megabytes: int = 800  # memory (10^6 bytes) on top of what the setup cells hold
    output_bytes: int = 200_000  # bytes that one cell may print


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How one cell ended."""

    ok: bool
    text: str = ""  # what it printed on standard output
    name: str = ""  # name of the exception, or one of the grader's own reasons: see `REASONS`
    message: str = ""
    line: int | None = None  # line of the cell where the exception arose


# Endings that the grader brings about or sees itself; no exception has these names.
REASONS = {"time limit", "memory limit", "output limit", "process ended", "not started"}


_alive: set[ExerciseProcess] = set()


def end_all_processes() -> None:
    """End what still runs, for when the grader itself is interrupted."""
    for process in list(_alive):
        process.kill()


class ExerciseProcess:
    """One fresh Python process with its own folder; use it in a ``with`` block, which ends it for good."""

    def __init__(self, limits: Limits, *, denied: list[Path]) -> None:
        self.limits, self.denied = limits, denied
        self.base_bytes = 0

    def __enter__(self) -> ExerciseProcess:
        self.folder = Path(tempfile.mkdtemp(prefix="llm-scratch-grade-"))
        self.mark = secrets.token_hex(16)
        for name in ("home", "work", "tmp"):
            (self.folder / name).mkdir()
        self.output = _Collected(4 * self.limits.output_bytes)
        options: dict[str, Any] = {"start_new_session": True}
        if os.name != "posix":  # Ctrl-C in a Windows console goes to the grader alone
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.process = subprocess.Popen(
            [sys.executable, "-s", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder / "work",
            env=self._environment(),
            **options,
        )
        _alive.add(self)
        threading.Thread(target=self.output.read_all, args=(self.process.stdout,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        _alive.discard(self)
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.output.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        home, temporary = str(self.folder / "home"), str(self.folder / "tmp")
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return kept | one_thread | {
            "HOME": home, "USERPROFILE": home, "APPDATA": home, "LOCALAPPDATA": home,
            "TMPDIR": temporary, "TEMP": temporary, "TMP": temporary,
            "IPYTHONDIR": home, "MPLCONFIGDIR": home, "MPLBACKEND": "agg",
            "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "NO_COLOR": "1",
            "LLM_SCRATCH_GRADE": self.mark,
        }  # fmt: skip

    def fence(self) -> CellResult:
        """Close the fences of ``guard.py``: called after the setup cells, before the answer."""
        self.base_bytes = self._resident_bytes()
        policy = {
            "scratch": str(self.folder),
            "package": str(PACKAGE),
            "denied": [str(path) for path in self.denied],
            "megabytes": self.limits.megabytes,
            "cpu_seconds": int(20 * self.limits.cell_seconds + 60),
        }
        return self._command({"do": "fence", "policy": policy}, seconds=self.limits.setup_seconds)

    def run(self, source: str, *, seconds: float | None = None) -> CellResult:
        """Run one cell, within the limits."""
        return self._command({"do": "run", "source": source}, seconds=seconds or self.limits.cell_seconds)

    def _command(self, command: dict[str, Any], *, seconds: float) -> CellResult:
        word = secrets.token_hex(16)
        self.output.clear()
        # In a thread: a process that has stopped reading must not make the grader wait.
        line = json.dumps(command | {"word": word}).encode() + b"\n"
        threading.Thread(target=self._send, args=(line,), daemon=True).start()
        frame = f"\n{word} ".encode()
        end = time.monotonic() + seconds
        while True:
            text, answer = self.output.split_at(frame)
            if len(text) > self.limits.output_bytes:
                self.kill()
                return CellResult(ok=False, name="output limit", text=_decode(text))
            if answer is not None:
                return _result(text, answer)
            if self.output.closed:
                return self._ended()
            if time.monotonic() > end:
                self.kill()
                return CellResult(ok=False, name="time limit", message=f"{seconds:g}", text=_decode(text))
            if self.base_bytes and self._resident_bytes() > self.base_bytes + self.limits.megabytes * 10**6:
                self.kill()
                return CellResult(ok=False, name="memory limit", text=_decode(text))
            self.output.wait(0.05)

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _ended(self) -> CellResult:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        code = self.process.returncode
        self.kill()
        return CellResult(ok=False, name="process ended", message="" if code is None else str(code))

    def _family(self) -> list[Any]:
        """The process and what descends from it, also what left its session."""
        try:
            import psutil
        except ImportError:
            return []
        found = []
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            found = [root, *root.children(recursive=True)]
        return found

    def _resident_bytes(self) -> int:
        total = 0
        for process in self._family():
            with contextlib.suppress(Exception):
                total += process.memory_info().rss
        return total

    def kill(self) -> None:
        """End the process, its children and whatever else carries its mark."""
        family = self._family() if self.process.poll() is None else []
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        for process in [*family[1:], *self._strays()]:
            with contextlib.suppress(Exception):
                process.kill()

    def _strays(self) -> list[Any]:
        try:
            import psutil
        except ImportError:
            return []
        started = self.folder.stat().st_mtime - 5 if self.folder.exists() else 0.0
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                young = process.pid not in (os.getpid(), self.process.pid) and process.create_time() > started
                if young and process.environ().get("LLM_SCRATCH_GRADE") == self.mark:
                    found.append(process)
        return found


class _Collected:
    """What a process prints, gathered by a thread, never more than ``limit`` bytes of it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.data, self.closed = limit, bytearray(), False
        self.changed = threading.Condition()
        self.stopped = False

    def read_all(self, pipe: Any) -> None:
        with contextlib.suppress(OSError, ValueError), pipe:
            while chunk := os.read(pipe.fileno(), 65_536):
                with self.changed:
                    # A full buffer makes the printing process wait, until its limits end it.
                    while len(self.data) > self.limit and not self.stopped:
                        self.changed.wait(0.1)
                    if self.stopped:
                        break
                    self.data += chunk
                    self.changed.notify_all()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def clear(self) -> None:
        with self.changed:
            self.data.clear()
            self.changed.notify_all()

    def wait(self, seconds: float) -> None:
        with self.changed:
            if not self.closed:
                self.changed.wait(seconds)

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def split_at(self, frame: bytes) -> tuple[bytes, bytes | None]:
        """What stands before the frame, and the rest of the frame's line once it is complete."""
        with self.changed:
            before, found, after = bytes(self.data).partition(frame)
        line, complete, _ = after.partition(b"\n")
        return before, line if found and complete else None


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _result(text: bytes, answer: bytes) -> CellResult:
    """Read the worker's closing line, which a dishonest answer may have forged: trust no field of it."""
    try:
        fields = json.loads(answer)
        line, name = fields.get("line"), str(fields.get("name", ""))
        if name in REASONS:
            name = f"an exception called {name!r}"
        return CellResult(
            ok=fields["ok"] is True,
            text=_decode(text),
            name=name,
            message=str(fields.get("message", "")),
            line=line if isinstance(line, int) else None,
        )
    except (ValueError, KeyError, AttributeError, RecursionError):
        return CellResult(ok=False, name="process ended", text=_decode(text))
