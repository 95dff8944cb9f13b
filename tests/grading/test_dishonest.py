"""Answers that cheat or misbehave gain nothing, break nothing, and get a plain reason.

All of them are answers to copies of one task, so that one run of the grader tries them all: that no
answer disturbs another is part of what is tested.
"""

import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from llm_from_scratch.grading import check_rng, report
from llm_from_scratch.grading.grade import grade_notebooks
from llm_from_scratch.grading.process import ExerciseProcess

from .conftest import QUICK, by_exercise

RIGHT = "def centre(x):\n    return x - x.mean()\n"
WRONG = "def centre(x):\n    return x + 1\n"
CHECK = """rng = check_rng("{0}")
for size in (3, 5):
    print(np.round(centre(rng.normal(size=size)), 4).tolist())"""
THIEF = """
import json
text = open(SOLUTIONS, encoding="utf-8").read()
source = next(c for c in json.loads(text)["cells"] if "answer" in c["metadata"].get("tags", []))["source"]
exec("".join(source))
"""
# What the checks print with the public seed, from which a student can take constants.
CONSTANTS = """
import numpy as np
from llm_from_scratch.grading.rng import PUBLIC_SEED
made = np.random.Generator(np.random.PCG64(np.random.SeedSequence([PUBLIC_SEED, 91, {number}])))
outputs = [x - x.mean() for x in (made.normal(size=3), made.normal(size=5))]
def centre(x):
    return outputs[0 if x.size == 3 else 1]
"""

# name: (answer, what the reason must contain). `SOLUTIONS` and `VICTIM` become paths.
ATTACKS = {
    "constants of the public seed": (CONSTANTS, "expected"),
    "allclose says yes": (f"np.allclose = np.array_equal = lambda *a, **k: True\n{WRONG}", "expected"),
    "print is silent": (f"import builtins\nbuiltins.print = lambda *a, **k: None\n{WRONG}", "(nothing)"),
    "print says correct": (
        f"import builtins\nold = print\nbuiltins.print = lambda *a, **k: old('correct')\n{WRONG}",
        "got",
    ),
    "stdout replaced": (f"import io, sys\nsys.stdout = io.StringIO()\n{WRONG}", "(nothing)"),
    "stdout closed": (f"import os\nos.close(1)\n{WRONG}", "ended the Python process"),
    "public seed kept": (
        "from llm_from_scratch.grading import rng as own\nown.use_seed = lambda seed: None\n" + CONSTANTS,
        "expected",
    ),
    "check_rng replaced": (
        "import llm_from_scratch.grading as g\nclass Zeros:\n    def normal(self, size):\n"
        "        return np.zeros(size)\ng.check_rng = check_rng = lambda label: Zeros()\n"
        "def centre(x):\n    return x\n",
        "expected",
    ),
    "Generator replaced": (
        "class Zeros:\n    def normal(self, size):\n        return np.zeros(size)\n"
        "np.random.default_rng = lambda *a: Zeros()\ndef centre(x):\n    return x\n",
        "expected",
    ),
    "shell replaced": (
        f"shell = get_ipython()\nshell.run_cell = lambda *a, **k: print('ok')\n{WRONG}",
        "",
    ),
    "json replaced": (
        f"import json\njson.loads = json.dumps = lambda *a, **k: '{{}}'\n"
        f"json.JSONEncoder.encode = lambda *a: 'x'\n{WRONG}",
        "",
    ),
    "expected text printed at definition": (f"print([0.1, 0.2, -0.3])\n{WRONG}", "expected"),
    "atexit": (f"import atexit\natexit.register(print, '[0.0]')\n{WRONG}", "expected"),
    "forged closing line": (
        "import os, sys, json\ndef forge():\n    frame = sys._getframe()\n    while frame:\n"
        "        word = frame.f_locals.get('word')\n        if word:\n"
        "            os.write(1, f'[0.0, 0.0, 0.0]\\n{word} {{\"ok\": true}}\\n'.encode())\n"
        "        frame = frame.f_back\nforge()\ndef centre(x):\n    forge()\n    return x\n",
        "",
    ),
    "commands stolen": (
        "import os\ntext = b''\nfor fd in range(3, 40):\n    try:\n        text += os.read(fd, 10000)\n"
        "    except OSError:\n        pass\n" + WRONG,
        "",
    ),
    "object that prints itself": (
        "class Sly:\n    def __init__(self, *a): pass\n    def __array__(self, *a, **k):\n"
        "        raise RuntimeError('sly')\ndef centre(x):\n    return Sly()\n",
        "sly",
    ),
    "os._exit": ("import os\nos._exit(0)", "ended the Python process"),
    "os._exit in the check": (
        "import os\ndef centre(x):\n    os._exit(0)",
        "the check of your answer ended the Python process",
    ),
    "sys.exit": ("import sys\nsys.exit(0)", "called exit"),
    "exit()": ("exit()", "called exit"),
    "crash of the interpreter": ("import faulthandler\nfaulthandler._sigsegv()", "ended the Python process"),
    "recursion": ("def centre(x):\n    return centre(x)", "RecursionError"),
    "endless loop": ("while True:\n    pass", "longer than 5 seconds"),
    "endless loop that cannot be interrupted": (
        "import signal\nfor s in (signal.SIGINT, signal.SIGTERM):\n    signal.signal(s, signal.SIG_IGN)\n"
        "def centre(x):\n    while True:\n        try:\n            pass\n        except BaseException:\n"
        "            pass",
        "longer than 5 seconds",
    ),
    "a gigabyte": ("hoard = bytearray(10**9)\n" + RIGHT, "memory"),
    "a gigabyte in pieces": ("hoard = [bytes(10**6) + b'x' for _ in range(1000)]\n" + RIGHT, "memory"),
    "a gigabyte of numbers": ("hoard = np.ones(10**9 // 8)\n" + RIGHT, "memory"),
    "gigabytes printed": ("while True:\n    print('x' * 1000)", "printed more than"),
    "one long line printed": ("print('x' * 10**8)\n" + RIGHT, "printed more than"),
    "bash cell": ("%%bash\ncat /etc/passwd", "another program"),
    "shell escape": ("!cat /etc/passwd\n" + RIGHT, "another program"),
    "get_ipython().system": ("get_ipython().system('true')\n" + RIGHT, "another program"),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])\n" + RIGHT, "another program"),
    "os.system": ("import os\nos.system('true')\n" + RIGHT, "another program"),
    "fork bomb": ("import os\nwhile True:\n    os.fork()", "another program"),
    "multiprocessing": (
        "import multiprocessing\nmultiprocessing.get_context('spawn').Process(target=print).start()\n"
        + RIGHT,
        "another program",
    ),
    "solution read": (THIEF, "may not read"),
    "solution read through os.open": (
        "import os\nos.read(os.open(SOLUTIONS, os.O_RDONLY), 10**6)\n" + RIGHT,
        "may not read",
    ),
    "solution read by numpy": ("np.fromfile(SOLUTIONS, dtype=np.uint8)\n" + RIGHT, "may not read"),
    "solution mapped": ("np.memmap(SOLUTIONS, mode='r')\n" + RIGHT, "may not read"),
    "solution run": ("%run $SOLUTIONS\n" + RIGHT, ""),
    "solution through a link": (
        "import os\nos.symlink(SOLUTIONS, 'mine')\n" + THIEF.replace("SOLUTIONS", "'mine'"),
        "may not read",
    ),
    "solution through a hard link": ("import os\nos.link(SOLUTIONS, 'mine')\n" + RIGHT, "may not"),
    "solution through a folder": (
        "import os\nf = os.open('/usr', os.O_RDONLY)\nos.chdir('/usr/lib')\n"
        "up = '../' * 30 + SOLUTIONS.lstrip('/')\nos.open(up, os.O_RDONLY, dir_fd=f)\n" + RIGHT,
        "may not read",
    ),
    "solutions listed": ("import os\nos.listdir(os.path.dirname(SOLUTIONS))\n" + RIGHT, "may not read"),
    "builtins replaced, then solution read": (
        "import builtins\nbuiltins.any = builtins.isinstance = lambda *a: False\n" + THIEF,
        "",
    ),
    "paths replaced, then solution read": (
        "import os, posixpath\nfake = lambda *a, **k: ('/usr/x', True)\n"
        "posixpath._joinrealpath = os.path.realpath = fake\n"
        "os.path.normpath = posixpath.abspath = os.fsdecode = lambda *a: '/usr/x'\n" + THIEF,
        "may not read",
    ),
    "grader's environment": (
        "import os\nopen(f'/proc/{os.getppid()}/environ', 'rb').read()\n" + RIGHT,
        "may not read",
    ),
    "grader's command line": (
        "import os\nopen(f'/proc/{os.getppid()}/cmdline', 'rb').read()\n" + RIGHT,
        "may not read",
    ),
    "grader's memory": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')\n" + RIGHT, "may not read"),
    "temporary folders listed": (
        "import os\nos.listdir(os.path.dirname(os.path.dirname(os.getcwd())))\n" + RIGHT,
        "may not read",
    ),
    "tests' folder read": ("open(VICTIM).read()\n" + RIGHT, "may not read"),
    "file overwritten": ("open(VICTIM, 'w').write('gone')\n" + RIGHT, "may not write"),
    "file removed": ("import os\nos.remove(VICTIM)\n" + RIGHT, "may not change"),
    "file renamed": ("import os\nos.rename(VICTIM, 'mine')\n" + RIGHT, "may not change"),
    "parent killed": ("import os\nos.kill(os.getppid(), 15)\n" + RIGHT, "may not signal"),
    "parent killed from C": (
        "import ctypes, os\nctypes.CDLL(None).kill(os.getppid(), 15)\n" + RIGHT,
        "may not load",
    ),
    "parent killed through pythonapi": (
        "import ctypes, os\nctypes.pythonapi.kill(os.getppid(), 15)\n" + RIGHT,
        "may not use",
    ),
    "hook searched for": ("import gc\ngc.get_objects()\n" + RIGHT, "may not use"),
    "network": (
        "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)\n" + RIGHT,
        "may not use the network",
    ),
    "syntax error": ("def centre(x:\n    return x", "Python cannot read the answer, line 1"),
    "null byte": ("x = '\0'\n" + RIGHT, ""),
    "helper in another cell": ("def centre(x):\n    return helper(x)", "must hold all it uses"),
    "error with wild text": (
        "raise ValueError('|</td><script>@everyone\\x1b[31m\\n```' * 5000)",
        "ValueError",
    ),
    "error without text": (
        "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute()",
        "no readable message",
    ),
    "error named like a limit": ("raise type('time limit', (Exception,), {})('!')", "raised"),
    "process stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "longer than"),
    "exhausts the parser": ("x = " + "-" * 100_000 + "1", ""),
    "deep attribute": ("x = a" + ".b" * 100_000, ""),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "not answered in the function": (
        "def centre(x):\n    y = 1\n    raise NotImplementedError",
        "not answered yet",
    ),
}
# Answers that are unusual and right.
HONEST = {
    "right": RIGHT,
    "np used for something else": RIGHT + "np = 3\nrng = None\ndel check_rng\n",
    "a thread that keeps running": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n" + RIGHT
    ),
    "prints at definition, warns in the check": (
        "import warnings\nprint('my notes')\ndef centre(x):\n    warnings.warn('look')\n"
        "    return x - x.mean()"
    ),
    "writes and reads its own file": (
        "open('notes.txt', 'w').write('5')\nassert open('notes.txt').read() == '5'\n" + RIGHT
    ),
    "imports more": "import statistics, random, tempfile\ntempfile.TemporaryFile().write(b'x')\n" + RIGHT,
    "top-level await": "import asyncio\nawait asyncio.sleep(0)\n" + RIGHT,
    "rounding to the other side": "def centre(x):\n    return x - x.mean() + 4e-5",
    "lone surrogate in a comment": RIGHT + "# \ud800",
}
LABELS = {name: f"91.{k}" for k, name in enumerate([*HONEST, *ATTACKS], start=1)}
FIRST = [
    "constants of the public seed", "allclose says yes", "print is silent", "stdout replaced",
    "check_rng replaced", "Generator replaced", "forged closing line", "os._exit", "endless loop",
    "a gigabyte", "gigabytes printed", "shell escape", "solution read", "solution through a link",
    "paths replaced, then solution read", "grader's environment", "file overwritten", "parent killed",
    "syntax error", "error with wild text",
]  # fmt: skip
POSIX_ONLY = {
    "solution through a folder",
    "parent killed",
    "parent killed from C",
    "fork bomb",
    "process stopped",
}


def course(folder, answers):
    """Write a solutions notebook with one copy of the task for each answer, and the answers' notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    setup = "import numpy as np\n\nfrom llm_from_scratch.grading import check_rng"
    cells = [_code("setup", setup, tags=["setup"])]
    handed = []
    for label, answer in answers.items():
        name = label.replace(".", "-")
        solution = "def centre(x):\n    # BEGIN SOLUTION\n    return x - x.mean()\n    # END SOLUTION"
        cells.append(_code(f"answer-{name}", solution, tags=["answer"], exercise=label, points=1))
        cells.append(_code(f"check-{name}", CHECK.format(label), tags=["check"], exercise=label))
        handed.append(_code(f"answer-{name}", answer, tags=["answer"], exercise=label))
    solutions = folder / "solutions" / "91_attacks.ipynb"
    solutions.parent.mkdir(exist_ok=True)
    _write(solutions, cells)
    _write(folder / "91_attacks.ipynb", handed)
    return solutions, folder / "91_attacks.ipynb"


def _code(identity, source, **metadata):
    return {"cell_type": "code", "id": identity, "metadata": metadata, "source": source, "outputs": []}


def _write(path, cells):
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")


def grade(folder, names):
    """Grade one notebook whose answers are the named ones. Returns the report and the rows by name."""
    victim = folder / "victim.txt"
    victim.write_text("here", encoding="utf-8")
    solutions = folder / "solutions" / "91_attacks.ipynb"
    texts = HONEST | {name: text for name, (text, _) in ATTACKS.items()}
    answers = {}
    for name in names:
        label = LABELS[name]
        answer = texts[name].replace("{number}", label.split(".")[1])
        answer = answer.replace("SOLUTIONS", repr(str(solutions))).replace("VICTIM", repr(str(victim)))
        answers[label] = answer
    solutions, handed = course(folder, answers)
    made = grade_notebooks([handed], solutions=solutions.parent, seed=11, limits=QUICK, jobs=2)
    assert victim.read_text(encoding="utf-8") == "here"
    rows = by_exercise(made)
    return made, {name: rows[LABELS[name]] for name in names}


def faults(rows):
    """The rows that are not as they should be: empty when the grader held."""
    found = []
    for name, row in rows.items():
        if name in HONEST:
            as_it_should = (row.result, row.why, row.scored) == ("correct", "", 1.0)
        else:
            known = row.result in ("wrong", "error", "not answered") and row.why
            as_it_should = row.scored == 0.0 and known and ATTACKS[name][1] in row.why
        if not as_it_should or "Traceback" in row.why:
            found.append((name, row.result, row.why))
    return found


def check_forms(made):
    """Whatever the answers printed, the three forms of the report stay well formed."""
    text, xml = report.markdown(made), report.junit(made)
    assert "<script>" not in text
    assert "@everyone" not in text
    assert "\x1b" not in text + xml
    table = [line for line in text.splitlines() if line.startswith("| 91.")]
    assert len(table) == len(made.rows)
    assert all(len(line) < 1500 for line in table)
    suite = ElementTree.fromstring(xml).find("testsuite")
    assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(made.rows)
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors")) == len(suite.findall("testcase/error"))


def test_what_students_try_first(tmp_path):
    made, rows = grade(tmp_path, ["right", "np used for something else", *FIRST])
    assert not faults(rows)
    check_forms(made)


@pytest.mark.slow
def test_every_attack_and_every_unusual_answer(tmp_path):
    names = [n for n in (*HONEST, *ATTACKS) if os.name == "posix" or n not in POSIX_ONLY]
    made, rows = grade(tmp_path, names)
    assert not faults(rows)
    check_forms(made)
    again, _ = grade(tmp_path, FIRST)
    assert [row for row in again.rows if row not in made.rows] == []


def test_nothing_is_left_running(tmp_path):
    grade(tmp_path, ["a thread that keeps running"])
    psutil = pytest.importorskip("psutil")
    for process in psutil.process_iter():
        try:
            command = process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
            parent = process.ppid()
        except psutil.Error:
            continue
        assert not (parent == os.getpid() and any("worker.py" in part for part in command))


def test_without_the_fences_the_thief_would_score(tmp_path, monkeypatch):
    """The tests above can fail: it is the fence that stops the thief."""
    monkeypatch.setattr(ExerciseProcess, "fence", lambda self: self.run("pass"))
    solutions = tmp_path / "solutions" / "91_attacks.ipynb"
    solutions, handed = course(tmp_path, {"91.1": THIEF.replace("SOLUTIONS", repr(str(solutions)))})
    assert grade_notebooks([handed], solutions=solutions.parent, limits=QUICK).full_marks


def test_with_the_public_seed_the_constants_would_score(tmp_path):
    """And it is the secret seed that stops the constants."""
    from llm_from_scratch.grading.rng import PUBLIC_SEED

    solutions, handed = course(tmp_path, {"91.1": CONSTANTS.format(number=1)})
    limits = {"solutions": solutions.parent, "limits": QUICK}
    assert grade_notebooks([handed], seed=PUBLIC_SEED, **limits).full_marks
    assert not grade_notebooks([handed], seed=PUBLIC_SEED + 1, **limits).full_marks


def test_the_constants_are_those_of_check_rng():
    rng = check_rng("91.1")
    first = rng.normal(size=3)
    space = {}
    exec(CONSTANTS.format(number=1), space)
    assert (space["outputs"][0] == first - first.mean()).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_compiled_code_is_held_too(tmp_path):
    """A file opened by compiled code raises no audit event; where Landlock is there, it is refused."""
    import ctypes

    if ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < 1:
        pytest.skip("this kernel has no Landlock")
    pytest.importorskip("torch")
    secret = tmp_path / "secret.txt"
    secret.write_text("sixteen bytes ..", encoding="utf-8")
    source = (
        f"import torch\nprint(bytes(torch.from_file({str(secret)!r}, size=7, dtype=torch.uint8).tolist()))"
    )
    with ExerciseProcess(QUICK, denied=[tmp_path]) as process:
        assert "sixteen" in process.run(source, seconds=60).text
        assert process.fence().ok
        result = process.run(source, seconds=60)
    assert not result.ok
    assert "sixteen" not in result.text


def test_tokens_in_the_environment_stay_outside(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "hidden")
    with ExerciseProcess(QUICK, denied=[]) as process:
        result = process.run("import os; print(sorted(os.environ), os.environ['HOME'], os.getcwd())")
        folder = str(Path(process.folder))
    assert "GITHUB_TOKEN" not in result.text
    assert result.text.count(Path(folder).name) >= 2
    assert not os.path.exists(folder)
