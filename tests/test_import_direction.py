"""Imports inside the package go one way only, and importing it costs and prints nothing needless."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llm_from_scratch

ROOT = Path(llm_from_scratch.__file__).parent
NAME = "llm_from_scratch"

# A part may import itself and the parts of earlier rows, not the others of its own row. The first
# row is what every part may use; it needs nothing of the package.
LAYERS = (
    {"", "files"},  # "" is llm_from_scratch/__init__.py, which holds the version
    {"tokenizers", "nn", "widgets", "grading", "autograd"},
    {"models", "data"},
    {"training", "decoding", "interop", "evaluation"},
    {"finetuning", "inference"},
    {"serving"},
    {"recipes"},
    {"cli"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# What only some readers have installed, or what takes long to load: imported where it is used.
LATE = {
    "IPython", "accelerate", "datasets", "fastapi", "h11", "ipywidgets", "jupyter_client", "matplotlib",
    "nbclient", "nbformat", "nltk", "openai", "pandas", "peft", "playwright", "pyarrow", "pytest", "scipy",
    "sentencepiece", "sklearn", "tensorboard", "tokenizers", "transformers", "trl", "uvicorn",
}  # fmt: skip

# One file a concept: past this many lines a file is split; the files of a model are shorter still.
LONGEST, LONGEST_MODEL = 400, 250


def modules() -> dict[str, Path]:
    """Each module's dotted name below the package, and its file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_parts(source: str, package: tuple[str, ...]) -> set[str]:
    """The parts of the package (its first-level names) that a source file imports, anywhere in it.

    ``package`` is the dotted path, below llm_from_scratch, of the package that holds the file.
    """
    targets = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = [NAME, *package][: 2 + len(package) - node.level] + base
            targets += [[*base, alias.name] for alias in node.names] if base == [NAME] else [base]
    inside = [target for target in targets if target and target[0] == NAME]
    names = {target[1] if len(target) > 1 else "" for target in inside}
    return {name if name in LEVEL or (ROOT / name).exists() else "" for name in names}


def wrong_way(part: str, imported: set[str]) -> set[str]:
    """Those of the imported parts that do not lie below ``part``."""
    return {name for name in imported if name != part and LEVEL[name] >= LEVEL[part]}


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module):
    path = modules()[module]
    part = module.split(".")[0]
    assert part in LEVEL, f"{part} has no place in the layers; give it one in this file"
    package = tuple(path.relative_to(ROOT).parts[:-1])
    wrong = wrong_way(part, imported_parts(path.read_text(encoding="utf-8"), package))
    assert not wrong, f"{module} imports {sorted(wrong)}, which do not lie below {part}"


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("nn", "from llm_from_scratch.models import decoder", {"models"}),
        ("nn", "import llm_from_scratch.training.trainer as t", {"training"}),
        ("models", "from llm_from_scratch import training", {"training"}),
        ("models", "from ..training import trainer", {"training"}),
        ("models", "from .. import data", {"data"}),
        ("models", "def f():\n    from llm_from_scratch.decoding import sample", {"decoding"}),
        ("widgets", "from llm_from_scratch.nn import attention", {"nn"}),
        ("tokenizers", "if True:\n    import llm_from_scratch.nn", {"nn"}),
        ("models", "from .decoder import Decoder\nfrom ..nn import attention\nimport torch.nn", set()),
        ("training", "from llm_from_scratch import __version__\nfrom llm_from_scratch.files import x", set()),
        ("recipes", "import llm_from_scratch", set()),
    ],
)
def test_this_check_sees_what_it_must(part, source, wrong):
    assert wrong_way(part, imported_parts(source, (part,))) == wrong


def test_importing_every_module_prints_nothing_and_loads_nothing_late():
    names = [f"{NAME}.{name}" if name else NAME for name in modules() if not name.endswith("__main__")]
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {names!r}:",
            "    importlib.import_module(name)",
            f"late = sorted({LATE!r} & set(sys.modules))",
            "sys.exit(f'loaded at import: {late}' if late else 0)",
        ]
    )
    run = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_package_itself_loads_no_torch():
    code = f"import sys, {NAME}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("module", modules())
def test_no_file_holds_more_than_one_concept_needs(module):
    lines = len(modules()[module].read_text(encoding="utf-8").splitlines())
    assert lines <= (LONGEST_MODEL if module.split(".")[0] in ("models", "nn") else LONGEST)
