"""What every tokenizer does with text and ids: check them, and show a token to people."""

from __future__ import annotations

import operator
from collections.abc import Iterable


def check_text(text: str) -> None:
    """Raise unless ``text`` is a string that UTF-8 can write.

    A lone surrogate (U+D800 to U+DFFF) is half of a character in UTF-16. It is not a character, so no
    UTF-8 exists for it, and a tokenizer over bytes cannot give it back.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds the lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, "
            "which is not a character and has no UTF-8. Read the source with the right encoding, or drop "
            "it: text.encode('utf-8', 'ignore').decode('utf-8')"
        ) from None


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Return ``ids`` (a list, array or tensor) as plain integers that lie in the vocabulary."""
    plain = [operator.index(i) for i in (ids.tolist() if hasattr(ids, "tolist") else ids)]
    for position, i in enumerate(plain):
        if not 0 <= i < vocab_size:
            raise ValueError(
                f"token id {i} at position {position} is not in the vocabulary, whose ids are 0 to "
                f"{vocab_size - 1}; was the text encoded with another tokenizer?"
            )
    return plain


def shown(token: bytes) -> str:
    r"""Return a token as one line of text for people: spaces, line ends and broken bytes are visible.

    >>> shown(b" the"), shown(b"\n"), shown("语".encode()[:2])
    ('␣the', '↵', '\\xe8\\xaf')
    """
    text = token.decode("utf-8", errors="backslashreplace")
    text = text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
