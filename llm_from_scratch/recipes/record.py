"""What a run writes about itself, so that its numbers can be traced and repeated."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

import llm_from_scratch
from llm_from_scratch.recipes.recipe import Recipe, flat_fields


def command_line(*arguments: str) -> str:
    """Write a command so that it can be pasted into a shell."""
    words = ["llm-scratch", *arguments]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def command_for(recipe: Recipe, *more: str) -> str:
    """Return the command that runs this recipe: its name and the fields that differ from its own.

    ``more`` is added at the end.

    >>> from llm_from_scratch.recipes import get, with_changes
    >>> command_for(with_changes(get("laptop"), {"steps": 5}))
    'llm-scratch train laptop --steps=5'
    """
    usual = flat_fields(type(recipe)())
    changed = {name: value for name, value in flat_fields(recipe).items() if value != usual[name]}
    options = (
        f"--{name.replace('_', '-')}={value}".replace("=None", "=none") for name, value in changed.items()
    )
    return command_line(recipe.command, recipe.name, *options, *more)


def in_words(record: dict, out: Path) -> str:
    """Say what a finished run reached and what comes next."""
    scores = record["losses"]
    minutes, seconds = divmod(round(record["seconds"]["total"]), 60)
    return (
        f"Trained in {minutes} min {seconds} s, {record['tokens_per_second']:,} tokens/s. On the whole "
        f"validation split: loss {scores['validation_whole_split']:.4f} nats a token, "
        f"perplexity {scores['perplexity']:.2f}, {scores['bits_per_byte']:.4f} bits a byte.\n"
        f"The model, its log and loss.svg lie in {out}. Next:\n  {command_line('sample', str(out))}"
    )


def surroundings(device: torch.device) -> dict[str, object]:
    """Return where and with what a run takes place: commit, hardware, versions, date (UTC).

    >>> sorted(surroundings(torch.device("cpu")))
    ['commit', 'date', 'hardware', 'versions']
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": {
            "device": device.type,
            "processor": _gpu(device) or _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # over a minute
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "llm_from_scratch": llm_from_scratch.__version__,
        },
    }


def _commit() -> str | None:
    """Return the commit of the checkout that the package lies in, "+" added if it was changed since."""
    folder = Path(llm_from_scratch.__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "llm_from_scratch")
    except (OSError, subprocess.SubprocessError):  # no git here
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _gpu(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        try:
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or platform.machine()
