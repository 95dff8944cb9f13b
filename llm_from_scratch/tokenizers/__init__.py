"""Text to token ids and back: characters, byte pairs, SentencePiece, WordPiece."""

from __future__ import annotations

import os
from typing import get_args

from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer
from llm_from_scratch.tokenizers.character import CharacterTokenizer
from llm_from_scratch.tokenizers.published_byte_pair import PublishedBytePairTokenizer
from llm_from_scratch.tokenizers.sentencepiece import SentencePieceTokenizer
from llm_from_scratch.tokenizers.storage import read_fields
from llm_from_scratch.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BytePairTokenizer",
    "CharacterTokenizer",
    "PublishedBytePairTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "load_tokenizer",
]

Tokenizer = (
    CharacterTokenizer
    | BytePairTokenizer
    | PublishedBytePairTokenizer
    | SentencePieceTokenizer
    | WordPieceTokenizer
)
_KINDS = {cls.kind: cls for cls in get_args(Tokenizer)}


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Open any saved tokenizer: a ``tokenizer.json``, or the folder that holds one.

    Raises: FileNotFoundError if there is none; ValueError, naming the field, if it is damaged.
    """
    fields = read_fields(path)
    kind = fields.text("kind")
    if kind not in _KINDS:
        raise fields.wrong("kind", f"is {kind!r:.60}; there are {', '.join(map(repr, _KINDS))}")
    return _KINDS[kind].from_fields(fields)
