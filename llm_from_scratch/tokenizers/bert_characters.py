"""What BERT's tokenizer asks of a character: whether it is a space, an accent, a sign, an ideograph.

Unicode's answers grow with each version. The tokenizers in use answer as Unicode 8 does, so that the ids
of a text stay what they were when the models were trained. Python's own tables are newer. ``_LATER`` holds
what they count as accents, punctuation or format characters, and Unicode 8 did not know.
"""

from __future__ import annotations

import unicodedata

# Ranges of code points, hexadecimal. Found by asking Hugging Face's tokenizers about every code point and
# comparing with Unicode 17; ordinary letters between two of them are inside, since nothing is asked of them.
_LATER = (
    "5c8-5c9 61d 7fd 890-8e2 9fd-9fe a76 afa-aff b53-b55 c04-c3c c77 c84 d00 d3b-d3c d81 eba ece 180f "
    "1885-1886 1abf-1af0 1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e63 a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6e "
    "10eab-10eff 10f46-10f89 11070-11074 110c2-110cd 111cf 1123e-11241 1133b 113bb-113e2 11438-1145e "
    "11660-1166c 116b9 1182f-1183b 1193b-11946 119d4-11aa2 11b00-11b09 11b60-11b66 11be1 11c30-11cb6 "
    "11d31-11d47 11d90-11d97 11df0 11ef3-11f5a 11fff 12ff1-12ff2 13430-13455 1611e-1612f 16d6d-16d6f "
    "16e97-16e9a 16f4f 16fe2-16fe4 1cf00-1cf46 1d127-1d128 1d25b-1d25c 1e000-1e02a 1e08f 1e130-1e136 "
    "1e2ae-1e2ef 1e4ec-1e4ef 1e5ee-1e5ff 1e6e3-1e6f5 1e944-1e95f"
)
_CHANGED = {
    "\u1734": "Mn",
    "\U0001171e": "Mn",
    "\u166d": "Po",
    "\U000111c9": "Po",
}  # their classes in Unicode 8
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def _characters(ranges: str) -> frozenset[str]:
    pairs = [[int(end, 16) for end in one.split("-")] for one in ranges.split()]
    return frozenset(chr(c) for pair in pairs for c in range(pair[0], pair[-1] + 1))


_LATER_CHARACTERS = _characters(_LATER)


def category(character: str) -> str:
    """Return the character's class in Unicode 8: "Mn" an accent, "P.." punctuation, "C.." control.

    Characters that came later count as letters ("Lo"); nothing here tells one letter from another.

    >>> category("!"), category("a"), category("\u0301"), category("\u061d")
    ('Po', 'Ll', 'Mn', 'Lo')
    """
    if character in _LATER_CHARACTERS:
        return "Lo"
    found = _CHANGED.get(character) or unicodedata.category(character)
    return "Lo" if found == "Cn" else found


def is_removed(character: str) -> bool:
    """Say whether cleaning drops the character: control and format characters, and U+FFFD."""
    return character == "\ufffd" or (category(character)[0] == "C" and character not in "\t\n\r")


def is_space(character: str) -> bool:
    """Say whether the character separates words."""
    return character in "\t\n\r" or category(character)[0] == "Z"


def is_punctuation(character: str) -> bool:
    """Say whether the character is a word of its own: punctuation, and every other sign of ASCII."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return category(character)[0] == "P"


def is_ideograph(character: str) -> bool:
    """Say whether the character is one of the Chinese ones, each of which becomes a word of its own.

    The fifth range ought to begin at U+2B820, where the block does; the tokenizers in use have this one.
    """
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)


def without_accents(text: str) -> str:
    """Take each letter apart from its accents, and drop the accents.

    >>> without_accents("Crème Brûlée")
    'Creme Brulee'
    """
    return "".join(c for c in unicodedata.normalize("NFD", text) if category(c) != "Mn")
