"""Compare what a student's check cell printed with what the solution's printed.

Text must be equal. Numbers printed with three decimals or more may differ by one unit in the last printed
place, and any number with a fractional part by a millionth of its size: two correct programs that add in
another order can round to either side. Whole numbers must be equal. The numbers within that distance are
set equal, and nbval's comparison, which knows the kinds of output that a notebook has, then decides.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)?(?:\.\d*)?(?:(?<=[\d.])[eE][-+]?\d+)?")
MIN_DECIMALS = 3  # 0.4 and 0.5 are not near: at coarse rounding a difference is hardly ever rounding's
RELATIVE = 1e-6


def same_output(expected: str, got: str) -> bool:
    """Whether nbval takes the two printed texts for equal, after numbers that are near are set equal.

    >>> same_output("loss 2.0794", "loss 2.0795"), same_output("loss 2.0794", "loss 2.0796")
    (True, False)
    >>> same_output("3 tokens", "4 tokens"), same_output("[ 0.5 -0.  ]", "[0.5 0. ]")
    (False, True)
    """
    expected_lines, got_lines = _lines(expected), _lines(got)
    paired = [
        want if _near(want, have) else have for want, have in zip(expected_lines, got_lines, strict=False)
    ]
    got_text = "\n".join(paired + got_lines[len(paired) :])
    return _nbval_equal("\n".join(expected_lines), got_text)


def first_difference(expected: str, got: str) -> tuple[int, str, str]:
    """Line number (from 1), expected line and printed line of the first pair that differs."""
    expected_lines, got_lines = _lines(expected), _lines(got)
    for index in range(max(len(expected_lines), len(got_lines))):
        want = expected_lines[index] if index < len(expected_lines) else None
        have = got_lines[index] if index < len(got_lines) else None
        if want is None or have is None or not _near(want, have):
            return index + 1, "(nothing)" if want is None else want, "(nothing)" if have is None else have
    return 0, "", ""


def _lines(text: str) -> list[str]:
    """Lines with spacing made uniform: numpy pads its columns by the widest number."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        line = re.sub(r"\s+", " ", line).strip()
        lines.append(re.sub(r"(?<=[\[(]) | (?=[\])])", "", line))
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _pieces(line: str) -> tuple[list[str], list[str]]:
    """The text between the numbers, and the numbers."""
    numbers, texts, end = [], [], 0
    for match in NUMBER.finditer(line):
        token = match.group()
        before = line[match.start() - 1] if match.start() else " "
        if not any(c.isdigit() for c in token) or before.isalnum() or before == "_":
            continue  # a dot or sign alone, or part of a name such as q2
        texts.append(line[end : match.start()])
        numbers.append(token)
        end = match.end()
    return [*texts, line[end:]], numbers


def _near(want: str, have: str) -> bool:
    if want == have:
        return True
    if len(have) > 2 * len(want) + 200:  # no rounding does that; a long line is not searched for numbers
        return False
    want_texts, want_numbers = _pieces(want)
    have_texts, have_numbers = _pieces(have)
    return want_texts == have_texts and all(
        _number_near(w, h) for w, h in zip(want_numbers, have_numbers, strict=True)
    )


def _number_near(want: str, have: str) -> bool:
    if want == have:
        return True
    decimals = max(_decimals(want), _decimals(have))
    if decimals == 0 and "." not in want + have:
        return False  # two whole numbers
    a, b = float(want.replace(",", "")), float(have.replace(",", ""))
    if a == b:
        return True  # -0. and 0., 1e-05 and 1.0e-05
    _, _, exponent = want.lower().partition("e")
    unit = 10.0 ** (int(exponent[:4] or 0) - decimals) if decimals >= MIN_DECIMALS else 0.0
    return abs(a - b) <= max(1.001 * unit, RELATIVE * abs(a))


def _decimals(number: str) -> int:
    return len(number.lower().partition("e")[0].partition(".")[2])


def _nbval_equal(expected: str, got: str) -> bool:
    """Ask nbval, without a kernel: the outputs are lists of stream outputs as in a notebook file."""
    from nbformat.v4 import new_output
    from nbval.plugin import IPyNbCell, coalesce_streams, nocolors

    class Comparison(IPyNbCell):
        """nbval's comparison of a cell that has already run elsewhere."""

        def format_output_compare(self, key, left, right):
            """The report words the difference itself."""

    cell = object.__new__(Comparison)
    cell.parent = SimpleNamespace(
        skip_compare=("metadata", "traceback", "output_type", "name", "execution_count"),
        sanitize_patterns={},
    )
    cell.colors = nocolors

    def outputs(text: str) -> list[object]:
        return coalesce_streams([new_output("stream", name="stdout", text=text)] if text else [])

    return bool(cell.compare_outputs(outputs(got), outputs(expected)))
