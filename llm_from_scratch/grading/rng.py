"""The random numbers that the check cells of the exercises draw their inputs from.

In the book and in a student's own runs the numbers come from a public seed, so that everybody sees the
same inputs. The grader puts a secret seed in its place, after the student's answer has run and right
before the check cell runs.
"""

from __future__ import annotations

import re

import numpy as np

PUBLIC_SEED = 20_260_101

_seed: int = PUBLIC_SEED


def check_rng(exercise: str) -> np.random.Generator:
    """Return a fresh generator for one exercise; every call starts the same sequence again.

    Each exercise has its own sequence, so that checks do not depend on which of them ran before.

    Raises: ValueError if ``exercise`` is not of the form "chapter.number".

    >>> a, b = check_rng("1.3"), check_rng("1.3")
    >>> bool(a.random() == b.random())
    True
    >>> bool(check_rng("1.3").random() == check_rng("1.4").random())
    False
    """
    if not isinstance(exercise, str) or not re.fullmatch(r"\d+\.\d+", exercise):
        raise ValueError(f'exercise must look like "6.2" (chapter.number), got {exercise!r}')
    chapter, number = exercise.split(".")
    return np.random.default_rng([_seed, int(chapter), int(number)])


def use_seed(seed: int) -> None:
    """Replace the public seed in this process. The grader calls this right before a check cell.

    Raises: ValueError if the seed is negative.
    """
    global _seed
    if seed < 0:
        raise ValueError(f"seed must be 0 or larger, got {seed}")
    _seed = int(seed)
