"""Files of one's own: preferences and plain text; and what of a file is kept back to validate on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from llm_from_scratch.data.labelled_splits import place_of

Example = TypeVar("Example")
VALIDATION_SHARE = 0.1  # of a file's examples
PAIR = ("prompt", "chosen", "rejected")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8. Raises: FileNotFoundError; ValueError for another encoding."""
    if not path.is_file():
        raise FileNotFoundError(f"--data: there is no file {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from None


def read_preferences(path: Path) -> list[tuple[str, str, str]]:
    r"""Return ``(prompt, chosen, rejected)`` of each line of a JSONL file with these fields.

    Raises: FileNotFoundError; ValueError that names file, line and what is wrong.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pairs.jsonl"
    ...     _ = path.write_text('{"prompt": "3+4?", "chosen": "7", "rejected": "8"}\n', encoding="utf-8")
    ...     read_preferences(path)
    [('3+4?', '7', '8')]
    """
    found: list[tuple[str, str, str]] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        texts = [row.get(name) for name in PAIR] if isinstance(row, dict) else [None] * 3
        for name, text in zip(PAIR, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{path}, line {number}: {name} must be a text, got {text!r:.60}")
        prompt, chosen, rejected = (text.strip() for text in texts)
        if chosen == rejected:
            raise ValueError(f"{path}, line {number}: chosen and rejected are the same text")
        found.append((prompt, chosen, rejected))
    if not found:
        raise ValueError(f"{path} holds no preferences; expected one JSON object a line")
    return found


def kept_back(
    examples: Sequence[Example], text_of: Callable[[Example], str], *, origin: str
) -> tuple[list[Example], list[Example]]:
    """Part examples into those to train on and about a tenth, one at least, to validate on.

    Which ones validate depends on their texts alone, and texts that differ in digits and punctuation only
    are never in both parts.
    Raises: ValueError if there are not two different texts.

    >>> train, validation = kept_back([f"text {a}{b}" for a in "abcd" for b in "efghi"], str, origin="texts")
    >>> len(train), len(validation)
    (18, 2)
    """
    places = [place_of(text_of(example), "kept back") for example in examples]
    different = sorted(set(places))
    if len(different) < 2:
        raise ValueError(f"{origin} has {len(different)} different texts: at least 2 are needed")
    limit = different[max(1, round(VALIDATION_SHARE * len(different)))]
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example, place in zip(examples, places, strict=True):
        parts[place < limit].append(example)
    return parts
