"""The modules of tools/ under names of their own: they are scripts, not a package."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load_tool(name):
    """Import tools/NAME.py, once."""
    known = f"_tool_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, TOOLS / f"{name}.py")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture(scope="session")
def tool():
    """`tool("notebooks")` imports tools/notebooks.py."""
    return load_tool
