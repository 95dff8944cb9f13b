"""SentencePiece, through its own library, behind the same face as the tokenizers written here.

SentencePiece learns on raw text with no pieces cut beforehand; a space is a sign like any other (written
U+2581, "▁"). Its usual model, unigram, starts from many candidates and drops those that the likelihood
of the text misses least. Source: Kudo and Richardson 2018; Kudo 2018 for the unigram model.

Departure from the library's defaults: the text is not normalised, no space is put in front, runs of
spaces are kept, and a character without a token falls back to its bytes. So decoding gives the text back.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from llm_from_scratch.tokenizers.special_tokens import allowed_tokens, check_special_tokens, split_at
from llm_from_scratch.tokenizers.storage import Fields, read_fields, write_fields
from llm_from_scratch.tokenizers.text import check_ids, check_text, shown

_SPACE = "\u2581"  # how SentencePiece writes a space
_MAX_LINE_BYTES = 1 << 16  # longer lines are cut; the library would leave them out


class SentencePieceTokenizer:
    """Encode text with a SentencePiece model (needs the package sentencepiece).

    A text that itself holds U+2581 is refused, because SentencePiece would give it back as a space.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes):
        """Take a trained model as the library stores it. Raises: ValueError if it is damaged."""
        try:
            self._processor = _library().SentencePieceProcessor(model_proto=model)
            self._size = self._processor.get_piece_size()
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"this is not a SentencePiece model ({error})") from None
        if not model or not self._size:
            raise ValueError("this is not a SentencePiece model (it has no tokens)")
        self._model = model
        pieces = range(self._size)
        self.special_tokens = tuple(
            self._processor.id_to_piece(i) for i in pieces if self._processor.is_control(i)
        )
        self.special_ids = {token: self._processor.piece_to_id(token) for token in self.special_tokens}

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Iterable[str] = (),
        model_type: Literal["unigram", "bpe"] = "unigram",
    ) -> SentencePieceTokenizer:
        """Learn from one text or several documents, line by line.

        ``vocab_size`` counts the 256 byte tokens, the unknown token and the special tokens too.

        Raises: ValueError if the text is empty, or the library finds ``vocab_size`` too small or too
        large for it (the message is the library's and gives the limit).
        """
        special_tokens = check_special_tokens(special_tokens)
        model = io.BytesIO()
        lines = _lines([text] if isinstance(text, str) else text, special_tokens)
        first = next(lines, None)
        if first is None:
            raise ValueError("the text to train on is empty; SentencePiece needs text to learn from")
        try:
            _library().SentencePieceTrainer.train(
                sentence_iterator=_chain(first, lines),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=model_type,
                control_symbols=list(special_tokens),
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                max_sentence_length=_MAX_LINE_BYTES + 4,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,  # several add floating-point numbers in an order that varies
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"SentencePiece cannot train {vocab_size} tokens on this text: {error}"
            ) from None
        return cls(model.getvalue())

    @property
    def vocab_size(self) -> int:
        """The number of tokens: learnt ones, 256 bytes, the unknown token and special tokens."""
        return self._size

    @property
    def model(self) -> bytes:
        """The model as the library stores it: what ``SentencePieceProcessor(model_proto=...)`` opens."""
        return self._model

    def encode(self, text: str, *, allowed_special: str | Collection[str] = ()) -> list[int]:
        """Return the ids of ``text``. Special tokens as in ``BytePairTokenizer.encode``.

        Raises: ValueError for a lone surrogate, U+2581 or U+0000, which SentencePiece cannot give back.
        """
        check_text(text)
        for sign in (_SPACE, "\0"):
            if sign in text:
                raise ValueError(
                    f"the text holds U+{ord(sign):04X} at position {text.index(sign)}, which SentencePiece "
                    "would lose; replace it, or use BytePairTokenizer, which encodes any text"
                )
        ids: list[int] = []
        for i, part in enumerate(split_at(text, allowed_tokens(allowed_special, self.special_tokens))):
            ids += [self.special_ids[part]] if i % 2 else self._processor.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``; broken characters as U+FFFD, special tokens as their text."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that ``ids`` stand for, whether or not they are valid UTF-8."""
        return b"".join(map(self._token, check_ids(ids, self.vocab_size)))

    def tokens_as_text(self, ids: Iterable[int]) -> list[str]:
        """Return each token as text for people, as the other tokenizers do."""
        return [shown(self._token(i)) for i in check_ids(ids, self.vocab_size)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Store the tokenizer as ``path`` (or ``tokenizer.json`` in it, if it is a folder)."""
        write_fields(path, self.kind, {"model": base64.b64encode(self._model).decode("ascii")})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SentencePieceTokenizer:
        """Read a saved tokenizer. Raises: FileNotFoundError, ValueError (it names the field)."""
        return cls.from_fields(read_fields(path, cls.kind))

    @classmethod
    def from_fields(cls, fields: Fields) -> SentencePieceTokenizer:
        """Build the tokenizer from the fields of its file."""
        try:
            return cls(base64.b64decode(fields.text("model"), validate=True))
        except (binascii.Error, ValueError) as error:
            raise fields.wrong("model", f"is damaged: {error}") from None

    def __repr__(self) -> str:
        return f"SentencePieceTokenizer({self.vocab_size} tokens, special: {list(self.special_tokens)})"

    def _token(self, i: int) -> bytes:
        piece = self._processor.id_to_piece(i)
        if self._processor.is_byte(i):
            return bytes([int(piece[1:-1], 16)])  # written <0x0A>
        return piece.replace(_SPACE, " ").encode("utf-8")


def _library() -> Any:
    """Import the library when it is first used."""
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "SentencePieceTokenizer needs the package sentencepiece: python -m pip install sentencepiece"
        ) from None
    return sentencepiece


def _lines(documents: Iterable[str], special_tokens: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of the documents without special tokens, NUL and U+2581; cut long ones."""
    for document in documents:
        check_text(document)
        for part in split_at(document, special_tokens)[::2]:
            for line in part.replace("\0", " ").replace(_SPACE, " ").split("\n"):
                step = _MAX_LINE_BYTES // 4  # characters, of at most 4 bytes each
                yield from (line[i : i + step] for i in range(0, len(line), step))


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
