"""The ledger: one record of every benchmark run, one line each, in ``ledger.jsonl``.

A figure without its command, commit, date and machine cannot be compared with anything. So each
benchmark ends by calling ``record``, and the book takes its figures from the ledger with ``latest``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_from_scratch.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "benchmarks" / "ledger.jsonl"


def record(
    name: str, figures: dict[str, Any], *, packages: tuple[str, ...] = (), ledger: Path = LEDGER
) -> dict:
    """Append one run to the ledger and return it.

    ``figures`` holds what was measured, the unit in each name (``train_seconds``). ``packages`` are the
    ones whose versions matter beside Python and numpy.
    """
    command = " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *map(shlex.quote, sys.argv[1:])])
    entry = entry_now(name, figures, command=command, packages=packages)
    lines = ledger.read_text(encoding="utf-8") if ledger.is_file() else ""
    write_atomically(ledger, lines + json.dumps(entry) + "\n")
    return entry


def entry_now(
    name: str, figures: dict[str, Any], *, command: str, packages: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What ``record`` would append for a run that ends now: the figures and their circumstances."""
    return {
        "name": name,
        "command": command,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": bool(
            _git(
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                "llm_from_scratch",
                "benchmarks",
                ":(exclude)benchmarks/ledger.jsonl",  # it grows by each run
            )
        ),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in ("numpy", *packages)},
        },
        "figures": figures,
    }


def latest(name: str, ledger: Path = LEDGER) -> dict:
    """Return the last record of the benchmark ``name``. Raises: ValueError if there is none."""
    entries = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    for entry in reversed(entries):
        if entry["name"] == name:
            return entry
    raise ValueError(f"the ledger has no run of {name!r}; there are {sorted({e['name'] for e in entries})}")


def print_latest(name: str, table: Callable[[dict], str]) -> None:
    """Print the last record of a benchmark as its table, with what must be known to compare it."""
    entry = latest(name)
    print(table(entry["figures"]))
    print(circumstances(entry))


def circumstances(entry: dict) -> str:
    """Command, date, commit and machine of a record, in three lines."""
    commit, machine = (entry["commit"] or "unknown")[:10], entry["hardware"]
    moment, load = entry["date"][:16].replace("T", " "), machine["load_1min"]
    changed = ", uncommitted changes" if entry["changed_files"] else ""
    return "\n".join(
        (
            entry["command"],
            f"{moment} UTC, load {load}, commit {commit}{changed}",
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
            f"{machine['system']}",
        )
    )


def interleaved(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time the tasks in turn, ``repeats`` rounds, and return the seconds of each.

    In turn, because the speed of a shared machine drifts: what slows one task then slows the other too.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    """Return the median, rounded to four digits that mean something."""
    return float(f"{statistics.median(values):.4g}")


def hardware() -> dict[str, Any]:
    """Describe the machine: processor, cores, memory, how busy it is, operating system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": usable,
        "memory_gb": round(memory / 1e9, 1) if memory else None,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
