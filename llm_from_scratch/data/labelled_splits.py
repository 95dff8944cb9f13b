"""Texts with labels in three fixed parts, such that no text of one part repeats a text of another.

The part of a text is drawn by a hash of its `near_form`: the text in small letters without digits and
punctuation. So it depends on the text alone, not on the order or the number of the others, and two messages
that differ in a telephone number, a price or a full stop are in one part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_NOT_LETTERS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class LabelledSplit:
    """Texts and the label of each: ``labels[i]`` indexes the data's ``label_names``."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Labelled texts in three parts. Train on the first, choose by the second, report the third once."""

    name: str
    label_names: tuple[str, ...]
    train: LabelledSplit
    validation: LabelledSplit
    test: LabelledSplit

    @property
    def num_classes(self) -> int:
        """The number of labels."""
        return len(self.label_names)


def near_form(text: str) -> str:
    """Return what two near duplicates share: small letters, without digits, punctuation and symbols.

    >>> near_form("Call 0906-120 NOW!") == near_form("call 0871 now")
    True
    """
    return _NOT_LETTERS.sub(" ", text.lower()).strip()


def place_of(text: str, salt: str) -> float:
    """Return the place of a text's near form in [0, 1), by sha256; ``salt`` draws the places anew."""
    digest = hashlib.sha256(f"{salt}\n{near_form(text)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits: exact in a float


def split_texts(
    name: str,
    label_names: Sequence[str],
    rows: Sequence[tuple[str, int]],
    *,
    test_share: float = 0.2,
    validation_share: float = 0.1,
    salt: str | None = None,
) -> LabelledTexts:
    """Split (text, label) rows into train, validation and test by the hash of each text.

    Of texts that are equal letter for letter, the first is kept. The order of the rows is kept.
    ``test_share`` and ``validation_share`` are parts of all near forms, in expectation; ``salt`` (by
    default the name) draws the parts anew.
    Raises: ValueError if the shares leave nothing to train on, if a text has two labels, or if a part
    lacks a label.

    >>> rows = [(f"{word} film number {n}", word == "good") for word in ("good", "bad") for n in "abcdefgh"]
    >>> parts = split_texts("films", ("negative", "positive"), rows, test_share=0.3, validation_share=0.3)
    >>> len(parts.train) + len(parts.validation) + len(parts.test)
    16
    """
    if not (test_share > 0 and validation_share > 0 and test_share + validation_share < 1):
        raise ValueError(
            f"test_share {test_share} and validation_share {validation_share} must be above 0 and leave "
            "a part to train on (their sum below 1)"
        )
    kept: dict[str, int] = {}
    for text, label in rows:
        if kept.setdefault(text, int(label)) != label:
            raise ValueError(
                f"{name}: the text {text[:60]!r} has the labels {label_names[kept[text]]!r} and "
                f"{label_names[label]!r}; keep one of them"
            )
    parts: dict[str, list[tuple[str, int]]] = {"test": [], "validation": [], "train": []}
    for text, label in kept.items():
        place = place_of(text, name if salt is None else salt)
        part = "test" if place < test_share else "train"
        if test_share <= place < test_share + validation_share:
            part = "validation"
        parts[part].append((text, label))
    for part, found in parts.items():
        missing = set(range(len(label_names))) - {label for _, label in found}
        if missing:
            raise ValueError(
                f"{name}: the {part} part, {len(found)} of {len(kept)} texts, has none of label "
                f"{label_names[min(missing)]!r}; give more texts of it"
            )
    return LabelledTexts(name=name, label_names=tuple(label_names), **{
        part: LabelledSplit(texts=tuple(text for text, _ in found), labels=tuple(label for _, label in found))
        for part, found in parts.items()
    })  # fmt: skip
