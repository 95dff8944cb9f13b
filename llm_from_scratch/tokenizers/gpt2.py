"""GPT-2's own tokenizer, from the file of its merges.

The file lists one merge a line, as two tokens in a printable spelling: byte b is written as the b-th
character of a table in which each of the 188 printable bytes stands for itself and the others for the
characters from U+0100 on. So a space is "Ġ" (U+0120). Source: Radford et al. 2019 and its code.
"""

from __future__ import annotations

import os
from pathlib import Path

from llm_from_scratch.tokenizers.byte_pair import ALPHABET, BytePairTokenizer

END_OF_TEXT = "<|endoftext|>"
_PRINTABLE_BYTES = 188
_SPELT = {
    (token.decode("latin-1") if i < _PRINTABLE_BYTES else chr(0x100 + i - _PRINTABLE_BYTES)): token
    for i, token in enumerate(ALPHABET)
}
_SPELLING = {token[0]: character for character, token in _SPELT.items()}


def spelt(token: bytes) -> str:
    """Return ``token`` in GPT-2's printable spelling.

    >>> spelt(b" the")
    'Ġthe'
    """
    return token.decode("latin-1").translate(_SPELLING)


def unspelt(spelling: str) -> bytes:
    """Return the bytes of a token in GPT-2's printable spelling. Raises: ValueError for another spelling.

    >>> unspelt("Ġthe")
    b' the'
    """
    try:
        return b"".join([_SPELT[character] for character in spelling])
    except KeyError as error:
        raise ValueError(
            f"token {spelling!r:.60} is not in GPT-2's spelling of bytes: it has no byte for {error}"
        ) from None


def read_gpt2_merges(path: str | os.PathLike[str]) -> BytePairTokenizer:
    """Return the tokenizer of a merges file (``vocab.bpe``, ``merges.txt``), with GPT-2's ids.

    ``data.artifacts.fetch("gpt2_merges")`` gets GPT-2's file. The end-of-text token takes the last id.

    Raises: FileNotFoundError; ValueError that names the line which is not a merge.
    """
    ids = {token: i for i, token in enumerate(ALPHABET)}
    merges: list[tuple[int, int]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        try:
            left, right = (unspelt(token) for token in line.split(" "))
            merges.append((ids[left], ids[right]))
        except (KeyError, ValueError):
            raise ValueError(
                f"{path}, line {number}: {line!r:.60} is not a merge of two tokens that exist by then"
            ) from None
        ids.setdefault(left + right, len(ids))
    return BytePairTokenizer(merges, [END_OF_TEXT])
