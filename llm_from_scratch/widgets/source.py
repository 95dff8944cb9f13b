"""Show the package's own source in a chapter, so that no chapter keeps a copy of it."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any


class ShownSource:
    """The source of one function or class, as Markdown with a folded, highlighted block of code.

    Markdown rather than HTML: each host then highlights the code in its own colours, light or dark.
    """

    def __init__(self, name: str, code: str) -> None:
        self.name = name
        self.code = code

    def _repr_markdown_(self) -> str:
        longest = max((len(run) for run in re.findall(r"`+", self.code)), default=0)
        fence = "`" * max(3, longest + 1)
        return (
            f"<details><summary>Source of <code>{self.name}</code></summary>\n\n"
            f"{fence}python\n{self.code}\n{fence}\n\n</details>"
        )

    def __repr__(self) -> str:
        return f"Source of {self.name} ({len(self.code.splitlines())} lines)"


def show_source(thing: Any, *, docstring: bool = True) -> ShownSource:
    """Return the source of a function, method or class of the package, folded, for a notebook cell to show.

    ``docstring=False`` leaves the docstrings out, where the chapter's text has said what they say.

    Raises: ValueError if Python has no source for ``thing`` (a built-in, or defined outside a file).

    >>> show_source(show_source).name
    'llm_from_scratch.widgets.source.show_source'
    """
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        code = textwrap.dedent(inspect.getsource(thing)).rstrip()
    except (OSError, TypeError) as error:
        raise ValueError(
            f"no source for {thing!r}: give a function, a method or a class from a file"
        ) from error
    if not docstring:
        code = _without_docstrings(code)
    return ShownSource(f"{thing.__module__}.{thing.__qualname__}", code)


def _without_docstrings(code: str) -> str:
    r"""Cut the docstrings out and leave every other line as it was written.

    >>> print(_without_docstrings('def f(x):\n    "Doc."\n    return x  # kept'))
    def f(x):
        return x  # kept
    """
    import ast

    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is None or len(node.body) == 1:
            continue
        first = node.body[0]
        end = first.end_lineno
        while end < len(lines) and not lines[end].strip():
            end += 1
        for number in range(first.lineno - 1, end):
            lines[number] = None
    return "\n".join(line for line in lines if line is not None)
