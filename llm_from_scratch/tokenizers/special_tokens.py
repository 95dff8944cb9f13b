"""Special tokens: ids that mean something to the program, such as the end of a text.

They have a name, "<|endoftext|>" for one. That name in a text is ordinary text, unless the caller says
that it stands for the token: otherwise whoever writes a prompt could end it, or speak as the system.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import regex

from llm_from_scratch.tokenizers.text import check_text


def check_special_tokens(special_tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the special tokens as a tuple of different, non-empty strings, or raise ValueError."""
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a list of strings, got one string: [{special_tokens!r}]?")
    tokens = tuple(special_tokens)
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise ValueError(f"a special token must be non-empty text, got {token!r}")
        check_text(token)
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"special tokens must differ from each other, got {list(tokens)}")
    return tokens


def allowed_tokens(allowed: str | Collection[str], special_tokens: Sequence[str]) -> tuple[str, ...]:
    """Return the special tokens that ``allowed`` names: "all", one name, or several.

    Raises: ValueError for a name that is not a special token.
    """
    if allowed == "all":
        return tuple(special_tokens)
    names = (allowed,) if isinstance(allowed, str) else tuple(allowed)
    for name in names:
        if name not in special_tokens:
            raise ValueError(
                f"{name!r} is not a special token of this tokenizer; it has {list(special_tokens)}"
            )
    return names


def split_at(text: str, tokens: Sequence[str]) -> list[str]:
    """Cut ``text`` at ``tokens``: ordinary text at even places, the tokens at odd ones.

    Where two tokens begin at one place, the longer one is taken.

    >>> split_at("one<end>two", ["<end>"])
    ['one', '<end>', 'two']
    """
    if not tokens:
        return [text]
    longest_first = sorted(tokens, key=len, reverse=True)
    return regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)
