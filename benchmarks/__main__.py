"""Run every benchmark of this folder, each in a process of its own: ``python -m benchmarks``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
HELPERS = {"__init__", "__main__", "ledger"}

names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
failed = []
for name in names:
    print(f"benchmarks.{name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
    if subprocess.run(command, cwd=FOLDER.parent, check=False).returncode:
        failed.append(name)
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
