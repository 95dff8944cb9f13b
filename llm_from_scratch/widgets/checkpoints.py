"""Reading what views over the checkpoints of a run are given: steps, numbers and sample texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_from_scratch.widgets import html

MAX_CHECKPOINTS, MAX_SAMPLES, MAX_CHARACTERS = 60, 4, 2000

Values = Sequence[float | None]


def read_steps(what: str, steps: Sequence[float]) -> list[float]:
    """Read the numbers of the checkpoints, called ``what`` in errors: 1 to 60, finite, ascending.

    >>> read_steps("steps", [0, 10.0, 12.5])
    [0, 10, 12.5]
    """
    found = [int(s) if float(s).is_integer() else float(s) for s in html.to_array(what, steps).tolist()]
    if not 1 <= len(found) <= MAX_CHECKPOINTS:
        raise ValueError(f"{what} must name 1 to {MAX_CHECKPOINTS} checkpoints, got {len(found)}")
    if any(not math.isfinite(step) for step in found) or found != sorted(set(found)):
        raise ValueError(f"{what} must be finite and ascend, got {found}")
    return found


def read_columns(
    what: str, columns: Mapping[str, Values] | None, count: int, most: int
) -> dict[str, list[float | None]]:
    """Read named columns of ``count`` numbers each, None for a gap; at most ``most`` columns.

    >>> read_columns("series", {"validation": [1, None]}, 2, 4)
    {'validation': [1.0, None]}
    """
    columns = columns or {}
    if len(columns) > most:
        raise ValueError(f"{what} may hold up to {most}, got {len(columns)}")
    found: dict[str, list[float | None]] = {}
    for name, values in columns.items():
        values = list(values)
        if len(values) != count:
            raise ValueError(f"{what}[{name!r}] has {len(values)} values for {count} checkpoints")
        for value in values:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and math.isfinite(value)):
                raise ValueError(f"{what}[{name!r}] holds {value!r}; give finite numbers, or None for a gap")
        found[str(name)] = [None if value is None else round(float(value), 6) for value in values]
    return found


def read_samples(what: str, samples: Mapping[str, Sequence[str]] | None, count: int) -> dict[str, list[str]]:
    """Read for each prompt one text a checkpoint: up to 4 prompts, texts of up to 2,000 characters.

    >>> read_samples("samples", {"The": [" x", " oak"]}, 2)
    {'The': [' x', ' oak']}
    """
    samples = samples or {}
    if len(samples) > MAX_SAMPLES:
        raise ValueError(f"{what} may hold up to {MAX_SAMPLES} prompts, got {len(samples)}")
    for prompt, texts in samples.items():
        if isinstance(texts, str) or len(texts) != count:
            raise ValueError(f"{what}[{prompt!r}] must hold one text for each of {count} checkpoints")
        for text in texts:
            if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
                raise ValueError(
                    f"{what}[{prompt!r}] must hold texts of up to {MAX_CHARACTERS} characters, got "
                    f"{text if not isinstance(text, str) else len(text)!r}"
                )
    return {str(prompt): list(texts) for prompt, texts in samples.items()}


def read_place(at: Any, count: int) -> int:
    """Return the place of a checkpoint from 0 on; ``at`` may count from the end. Raises: ValueError."""
    if isinstance(at, bool) or not isinstance(at, int) or not -count <= at < count:
        raise ValueError(f"at={at!r} must be one of {count} checkpoints, {-count} to {count - 1}")
    return at % count


def read_digits(digits: Any) -> int:
    """Check how many decimals are shown. Raises: ValueError."""
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 4:
        raise ValueError(f"digits={digits!r} must be a whole number from 0 to 4")
    return digits


def written(value: float | None, digits: int) -> str:
    """Write a number with a real minus sign, a gap as a dash.

    >>> written(-0.251, 2), written(None, 2)
    ('−0.25', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
