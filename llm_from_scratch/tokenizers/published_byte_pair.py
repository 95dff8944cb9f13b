"""Byte-pair encoding with the vocabulary of a published model, whose ids follow no rule of ours.

`BytePairTokenizer` numbers its tokens by their birth: bytes, merges, special tokens. Published files list
each token with its id instead, in any order; some leave out bytes that their training text never held.
The merges work as before. Only the numbers are looked up.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer, _PieceCache
from llm_from_scratch.tokenizers.gpt2 import spelt, unspelt
from llm_from_scratch.tokenizers.pairs import Pair
from llm_from_scratch.tokenizers.pieces import pattern_named
from llm_from_scratch.tokenizers.special_tokens import check_special_tokens
from llm_from_scratch.tokenizers.storage import Fields, write_fields

RULES = ("nfc", "whole_pieces")


class PublishedBytePairTokenizer(BytePairTokenizer):
    """Encode text with given tokens, given merges and given special tokens.

    Arguments: ``tokens[i]`` holds the bytes of token i. ``merges`` are pairs of ids in the order in which
    they apply; what a pair joins to must be a token. ``special_tokens`` are ids of tokens that stand for
    themselves and come from no merge. ``pieces`` names the pattern that cuts the text (`pieces.PATTERNS`).

    Two rules of some families: with ``nfc``, text is first brought into Unicode's composed form, so "e" and a
    combining accent become "é" (Qwen2); ``decode`` then gives the composed text back. With
    ``whole_pieces``, a piece that is a token as a whole is that token, whatever the merges make of it
    (Llama 3). Composition follows the Unicode version of this Python.

    A byte that is no token here cannot be written: ``encode`` drops it, as the published tokenizers do,
    and ``missing_bytes`` tells which they are.

    Raises: ValueError naming the token or the merge that is wrong.

    >>> tokens = [b"<|end|>", b"b", b"a", b"ab"]
    >>> tokenizer = PublishedBytePairTokenizer(tokens, [(2, 1)], special_tokens=[0])
    >>> tokenizer.encode("abba"), tokenizer.decode([3, 1, 2])
    ([3, 1, 2], 'abba')
    >>> tokenizer.encode("a<|end|>", allowed_special="all")
    [2, 0]
    """

    kind = "published_byte_pair"

    def __init__(
        self,
        tokens: Sequence[bytes],
        merges: Iterable[Pair],
        special_tokens: Iterable[int] = (),
        *,
        pieces: str = "gpt2",
        nfc: bool = False,
        whole_pieces: bool = False,
    ):
        self._piece, self.pieces = pattern_named(pieces), pieces
        self.nfc, self.whole_pieces = nfc, whole_pieces
        self._bytes = list(tokens)
        self.merges = tuple(merges)
        self.special_ids = _special_ids(self._bytes, special_tokens)
        self.special_tokens = check_special_tokens(self.special_ids)
        special = set(self.special_ids.values())
        id_of: dict[bytes, int] = {}
        for i, token in enumerate(self._bytes):
            if i in special:
                continue
            if not token:
                raise ValueError(f"token {i} is empty")
            if id_of.setdefault(token, i) != i:
                raise ValueError(f"tokens {id_of[token]} and {i} are both {token!r:.60}")
        self._merge_of = {}
        for rank, (left, right) in enumerate(self.merges):
            if not (0 <= left < len(self._bytes) and 0 <= right < len(self._bytes)):
                raise ValueError(
                    f"merge {rank} joins {left} and {right}, outside the {len(self._bytes)} tokens"
                )
            joined = id_of.get(self._bytes[left] + self._bytes[right])
            if joined is None:
                both = f"{self._bytes[left]!r:.40} and {self._bytes[right]!r:.40}"
                raise ValueError(f"merge {rank} joins {both} to what is no token")
            if (left, right) in self._merge_of:
                raise ValueError(f"merge {rank} joins {left} and {right}, which an earlier merge joined")
            self._merge_of[left, right] = (rank, joined)
        self._id_of_piece = id_of if whole_pieces else {}
        self._id_of_byte = {byte: id_of[bytes([byte])] for byte in range(256) if bytes([byte]) in id_of}
        self._ids_of_piece = _PieceCache(self)

    @classmethod
    def from_spellings(
        cls,
        vocabulary: Sequence[str] | Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        special_tokens: Iterable[int] = (),
        **rules: Any,
    ) -> PublishedBytePairTokenizer:
        """Build the tokenizer from tokens and merges in GPT-2's printable spelling ("Ġthe").

        ``vocabulary`` lists the tokens by id, or gives each token's id; its ids must be 0, 1, 2 and so on
        without a gap. Special tokens are spelt as they are. ``rules`` are ``pieces``, ``nfc`` and
        ``whole_pieces``.
        """
        if isinstance(vocabulary, Mapping):
            spellings = sorted(vocabulary, key=vocabulary.__getitem__)
            if [vocabulary[token] for token in spellings] != list(range(len(spellings))):
                raise ValueError(f"the ids of the {len(spellings)} tokens are not 0 to {len(spellings) - 1}")
        else:
            spellings = list(vocabulary)
        special = list(special_tokens)
        is_special = set(special)
        tokens, id_of = [], {}
        for i, spelling in enumerate(spellings):
            tokens.append(spelling.encode("utf-8") if i in is_special else unspelt(spelling))
            if i not in is_special:
                id_of[spelling] = i
        pairs = []
        for rank, (left, right) in enumerate(merges):
            if left not in id_of or right not in id_of:
                missing = left if left not in id_of else right
                raise ValueError(f"merge {rank} names {missing!r:.60}, which is no token")
            pairs.append((id_of[left], id_of[right]))
        return cls(tokens, pairs, special, **rules)

    @classmethod
    def train(cls, *_: object, **__: object) -> BytePairTokenizer:
        """Raise ValueError: a published vocabulary is read; BytePairTokenizer.train learns a new one."""
        raise ValueError("a published vocabulary cannot be trained; BytePairTokenizer.train learns a new one")

    @property
    def missing_bytes(self) -> bytes:
        """The bytes that no token stands for, which ``encode`` has to drop."""
        return bytes(byte for byte in range(256) if byte not in self._id_of_byte)

    def save(self, path) -> None:
        """Store the tokenizer as ``path`` (or ``tokenizer.json`` in it, if it is a folder)."""
        special = set(self.special_ids.values())
        fields = {
            "pieces": self.pieces,
            "tokens": [
                token.decode("utf-8") if i in special else spelt(token) for i, token in enumerate(self._bytes)
            ],
            "special_tokens": sorted(special),
            "merges": [list(pair) for pair in self.merges],
        }
        if rules := [name for name in RULES if getattr(self, name)]:
            fields["rules"] = rules
        write_fields(path, self.kind, fields)

    @classmethod
    def from_fields(cls, fields: Fields) -> PublishedBytePairTokenizer:
        """Build the tokenizer from the fields of its file, checking each."""
        for position, i in enumerate(fields.array("special_tokens")):
            if type(i) is not int:
                raise fields.wrong(
                    "special_tokens", f"holds {i!r:.60} at position {position}, expected an id"
                )
        for rank, pair in enumerate(fields.array("merges")):
            if not (isinstance(pair, list) and len(pair) == 2 and all(type(i) is int for i in pair)):
                raise fields.wrong("merges", f"holds {pair!r:.60} at position {rank}, expected two ids")
        rules = dict.fromkeys(fields.texts("rules") if fields.has("rules") else (), True)
        if unknown := [name for name in rules if name not in RULES]:
            raise fields.wrong("rules", f"names {unknown[0]!r:.60}; known are {', '.join(RULES)}")
        special = fields.array("special_tokens")
        is_special = set(special)
        try:
            tokens = [
                token.encode("utf-8") if i in is_special else unspelt(token)
                for i, token in enumerate(fields.texts("tokens"))
            ]
            merges = [(left, right) for left, right in fields.array("merges")]
            return cls(tokens, merges, special, pieces=fields.text("pieces"), **rules)
        except ValueError as error:
            raise ValueError(f"{fields.path} is damaged: {error}") from None

    def __repr__(self) -> str:
        return f"PublishedBytePairTokenizer({self.vocab_size} tokens, special: {list(self.special_tokens)})"

    def _pieces_of(self, text: str) -> list[str]:
        return super()._pieces_of(unicodedata.normalize("NFC", text) if self.nfc else text)

    def _merge_piece(self, piece: str) -> list[int]:
        whole = self._id_of_piece.get(piece.encode("utf-8")) if self.whole_pieces else None
        return super()._merge_piece(piece) if whole is None else [whole]

    def _byte_ids(self, piece: str) -> list[int]:
        id_of = self._id_of_byte
        return [id_of[byte] for byte in piece.encode("utf-8") if byte in id_of]


def _special_ids(tokens: Sequence[bytes], special_tokens: Iterable[int]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i in special_tokens:
        if not 0 <= i < len(tokens):
            raise ValueError(f"special token {i} is outside the {len(tokens)} tokens")
        try:
            text = tokens[i].decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"special token {i} is {tokens[i]!r:.60}, which is no UTF-8 text") from None
        if ids.setdefault(text, i) != i:
            raise ValueError(f"special tokens {ids[text]} and {i} are both {text!r:.60}")
    return ids
