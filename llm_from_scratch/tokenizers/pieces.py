r"""How a text is cut into pieces before byte pairs are merged: one pattern a family, by name.

No merge spans two pieces, so the pattern decides what can become one token. A model's tokenizer works
only with the pattern that its merges were learnt with. Files name a pattern and never contain one: a
pattern from elsewhere could take for ever on a short text.

Sources: Radford et al. 2019 and its code (gpt2); the tokenizer files that were published with SmolLM2
(smollm), Llama 3 (llama3) and Qwen2 (qwen2).
"""

from __future__ import annotations

import regex

_CONTRACTIONS = r"'(?:[sdmt]|ll|ve|re)"

# Each alternative is tried in this order at each place; together they match every character.
PATTERNS: dict[str, regex.Pattern[str]] = {
    # Contractions; letters, digits or other signs, each run with at most one space before it; white
    # space, whose last space goes to the next word.
    "gpt2": regex.compile(_CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    # The same, after each digit was cut out as a piece of its own. So a digit takes no space with it, and
    # white space before a digit stays whole, as at the end of a text.
    "smollm": regex.compile(_CONTRACTIONS + r"|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"),
    # Contractions in either case; a word may begin with any one sign; up to three digits; line ends.
    "llama3": regex.compile(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    # The same with one digit at a time.
    "qwen2": regex.compile(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def pattern_named(name: str) -> regex.Pattern[str]:
    """Return the pattern of that name. Raises: ValueError that lists the names there are.

    >>> pattern_named("gpt2").findall("in 2026, we'll")
    ['in', ' 2026', ',', ' we', "'ll"]
    >>> pattern_named("smollm").findall("in 2026")
    ['in', ' ', '2', '0', '2', '6']
    """
    if name not in PATTERNS:
        raise ValueError(
            f"no pattern for pieces is named {name!r:.60}; there are {', '.join(map(repr, PATTERNS))}"
        )
    return PATTERNS[name]
