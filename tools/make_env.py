"""Create or refresh the project's environment: ``python3 tools/make_env.py .venv``.

Runs with any Python that the project supports and needs nothing installed. The versions are those in
constraints.txt, which were tested together. Where they do not fit (a newer Python, another system), pip
chooses within the ranges of pyproject.toml instead, and this says so. pip's output is kept in
VENV/install.log.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "book,test,interop,serve"
NEEDED_GB = 4  # torch alone is 1 GB unpacked, or several with CUDA

# What pip writes -> what to do about it. The first that is found in the log is shown.
CAUSES = [
    (
        r"No space left on device|Errno 28|disk is full",
        "The disk is full. Free about {gb} GB, or choose another place: make VENV=/path/with/space book",
    ),
    (
        r"Could not find a version that satisfies the requirement setuptools|"
        r"Temporary failure in name resolution|Failed to establish a new connection|NewConnectionError|"
        r"NameResolutionError|Network is unreachable|Name or service not known|getaddrinfo failed|"
        r"nodename nor servname|ProxyError|ConnectTimeout|Max retries exceeded",
        "The package registry cannot be reached. Check the network; behind a proxy set HTTPS_PROXY; with a "
        "mirror set PIP_INDEX_URL. Then run the same command again.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "The registry's certificate was refused: see PIP_CERT, or the clock.",
    ),
    (r"Permission denied|Errno 13", "A file may not be written. Does the folder belong to you?"),
    (r"requires a different Python|Requires-Python", "A package does not support Python {version}."),
    (
        r"error: (command|subprocess).*(gcc|cl\.exe|clang)|Failed building wheel",
        "A package has no build for this system.",
    ),
]  # fmt: skip
# Reasons for which the same install may succeed without the exact pins.
PINS_DO_NOT_FIT = re.compile(
    r"No matching distribution found for [\w.-]+==|ResolutionImpossible|Requires-Python|"
    r"conflicting dependencies|Failed building wheel|"
    r"Could not find a version that satisfies the requirement [\w.-]+=="
)


def fail(message: str) -> None:
    """Say what is wrong and stop."""
    sys.exit(f"\nThe environment was not created. {message}")


def check_python() -> None:
    """Stop unless this Python is one that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = tuple(int(n) for n in re.search(r'requires-python = ">=(\d+)\.(\d+)"', text).groups())
    if sys.version_info[:2] < needed:
        name = f"{needed[0]}.{needed[1]}"
        fail(
            f"Python {name} or newer is needed; {sys.executable} is {sys.version.split()[0]}. "
            f"Name another one: make PYTHON=python{name} book"
        )


def python_of(venv: Path) -> Path:
    """The environment's interpreter."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def is_usable(venv: Path) -> bool:
    """Whether the environment works, has pip, and is of this Python's version."""
    code = "import pip, sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python_of(venv), "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.returncode == 0 and answer.stdout.split() == [str(n) for n in sys.version_info[:2]]


def create(venv: Path) -> None:
    """Create the environment, unless a usable one is there."""
    if is_usable(venv):
        return
    if venv.exists():
        if any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists():
            fail(f"{venv} exists and is no Python environment. Choose another folder: make VENV=.venv2 book")
        shutil.rmtree(venv)  # broken, or of another Python
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        fail(f"This Python lacks the module ensurepip. On Debian and Ubuntu: sudo apt install {name}")
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode != 0:
        fail((made.stderr or made.stdout).strip()[-1000:])


def show_progress(log: Path, done: threading.Event) -> None:
    """On a terminal, one line that is written over; elsewhere, a line each minute."""
    start, terminal = time.monotonic(), sys.stdout.isatty()
    while not done.wait(1 if terminal else 60):
        seconds = int(time.monotonic() - start)
        doing = re.findall(
            r"^(?:Collecting|Downloading|Installing|Building) .*", log.read_text("utf-8", "replace"), re.M
        )
        what = doing[-1].split("(")[0].strip()[:60] if doing else "starting"
        print(
            f"\r  {seconds:4d} s  {what:<60}" if terminal else f"  {seconds} s  {what}",
            end="" if terminal else "\n",
        )
        sys.stdout.flush()
    if terminal:
        print("\r" + " " * 72 + "\r", end="")


def install(venv: Path, log: Path, *, pinned: bool) -> bool:
    """Run pip; return whether it succeeded. Its output goes to the log."""
    command = [str(python_of(venv)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "-e", f".[{EXTRAS}]"]
    if pinned:
        command += ["-c", "constraints.txt"]
    done = threading.Event()
    with open(log, "w", encoding="utf-8") as file:
        watcher = threading.Thread(target=show_progress, args=(log, done), daemon=True)
        watcher.start()
        try:
            code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode
        finally:
            done.set()
            watcher.join()
    return code == 0


def explain(text: str) -> str:
    """The cause of a failed install in words, from pip's output, or its last lines.

    >>> explain("ERROR: [Errno 28] No space left on device")
    'The disk is full. Free about 4 GB, or choose another place: make VENV=/path/with/space book'
    """
    for pattern, advice in CAUSES:
        if re.search(pattern, text):
            return advice.format(gb=NEEDED_GB, version=sys.version.split()[0])
    lines = [line for line in text.splitlines() if line.strip()]
    return "pip said:\n  " + "\n  ".join(lines[-12:])


def main(folder: str) -> None:
    """Create the environment in ``folder`` and install the project into it."""
    check_python()
    venv = Path(folder)
    venv = venv if venv.is_absolute() else ROOT / venv
    fresh = not is_usable(venv)
    if fresh:
        print(
            f"Creating the environment in {venv} (a few minutes and about {NEEDED_GB} GB, the first time) ..."
        )
    else:
        print(f"Refreshing the environment in {venv} ...")
    sys.stdout.flush()
    start = time.monotonic()
    create(venv)
    log = venv / "install.log"
    if not install(venv, log, pinned=True):
        text = log.read_text(encoding="utf-8", errors="replace")
        if not PINS_DO_NOT_FIT.search(text) or re.search(CAUSES[1][0], text):
            fail(f"{explain(text)}\nThe whole output is in {log}")
        os.replace(log, venv / "install-pinned.log")
        print(
            "The tested versions in constraints.txt do not fit this Python or system "
            f"(see {venv / 'install-pinned.log'}).\n"
            "Installing the newest versions that pyproject.toml allows; printed numbers may differ slightly."
        )
        if not install(venv, log, pinned=False):
            text = log.read_text(encoding="utf-8", errors="replace")
            fail(f"{explain(text)}\nThe whole output is in {log}")
    print(f"The environment is ready after {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
