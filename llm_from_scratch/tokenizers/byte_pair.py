r"""Byte-level byte-pair encoding, as in GPT-2: any text becomes tokens, and none is lost.

A text is cut into pieces (roughly: a word with the space before it). Each piece is written as UTF-8
bytes, which are the first 256 tokens. Merges then join neighbours inside a piece, in the order in which
training learnt them. ``pairs`` holds the definition of a merge, ``byte_pair_training`` the training.

Ids: 0 to 255 are the bytes, in GPT-2's order (the 188 printable ones of Latin-1 first, then the rest);
then one id a merge; then the special tokens. With GPT-2's merges, the ids are GPT-2's.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain, pairwise

from llm_from_scratch.tokenizers.byte_pair_training import learn_merges
from llm_from_scratch.tokenizers.pairs import Pair
from llm_from_scratch.tokenizers.pieces import PATTERNS
from llm_from_scratch.tokenizers.special_tokens import allowed_tokens, check_special_tokens, split_at
from llm_from_scratch.tokenizers.storage import Fields, read_fields, write_fields
from llm_from_scratch.tokenizers.text import check_ids, check_text, shown

PIECE = PATTERNS["gpt2"]  # how a text is cut (Radford et al. 2019, section 2.2)

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ALPHABET: tuple[bytes, ...] = tuple(
    bytes([byte]) for byte in [*_PRINTABLE, *sorted(set(range(256)) - set(_PRINTABLE))]
)
_BYTE_ID = {token[0]: i for i, token in enumerate(ALPHABET)}

_MAX_VOCABULARY_BYTES = 1 << 28  # a hostile file can double a token's length with each merge
_MAX_CACHED_PIECES = 1 << 18
_MAX_CACHED_LENGTH = 256  # characters; longer pieces hardly recur


class BytePairTokenizer:
    """Encode text as merged bytes.

    >>> tokenizer = BytePairTokenizer.train("low lower lowest", vocab_size=259, special_tokens=["<|end|>"])
    >>> ids = tokenizer.encode("lower!")
    >>> tokenizer.tokens_as_text(ids), tokenizer.decode(ids)
    (['low', 'e', 'r', '!'], 'lower!')
    """

    kind = "byte_pair"
    _piece = PIECE  # a published vocabulary may cut the text in another way

    def __init__(self, merges: Iterable[Pair], special_tokens: Iterable[str] = ()):
        """Take the merges in order. Raises: ValueError if one joins tokens that do not exist yet."""
        self.merges = tuple(merges)
        self.special_tokens = check_special_tokens(special_tokens)
        self._bytes = list(ALPHABET)  # of each token, by id
        self._merge_of: dict[Pair, tuple[int, int]] = {}  # pair -> (its place in the order, its token)
        id_of = {token: i for i, token in enumerate(self._bytes)}
        total = 0
        for rank, (left, right) in enumerate(self.merges):
            if not (0 <= left < len(self._bytes) and 0 <= right < len(self._bytes)):
                raise ValueError(
                    f"merge {rank} joins {left} and {right}; only {len(self._bytes)} ids exist then"
                )
            if (left, right) in self._merge_of:
                raise ValueError(f"merge {rank} joins {left} and {right}, which an earlier merge joined")
            total += len(self._bytes[left]) + len(self._bytes[right])
            if total > _MAX_VOCABULARY_BYTES:
                raise ValueError(
                    f"the tokens of the first {rank + 1} merges exceed {_MAX_VOCABULARY_BYTES} bytes"
                )
            token = self._bytes[left] + self._bytes[right]
            new_id = id_of.setdefault(token, len(self._bytes))
            if new_id == len(self._bytes):
                self._bytes.append(token)
            self._merge_of[left, right] = (rank, new_id)
        self.special_ids = {token: len(self._bytes) + i for i, token in enumerate(self.special_tokens)}
        self._bytes += [token.encode("utf-8") for token in self.special_tokens]
        self._ids_of_piece = _PieceCache(self)

    @classmethod
    def train(
        cls, text: str | Iterable[str], *, vocab_size: int, special_tokens: Iterable[str] = ()
    ) -> BytePairTokenizer:
        """Learn merges from one text or several documents until there are ``vocab_size`` tokens.

        ``vocab_size`` counts the 256 bytes and the special tokens too. A text that is too small runs out
        of pairs, and the vocabulary is then smaller: ask the tokenizer's ``vocab_size``. Where a special
        token stands in the text, the text is cut, and nothing is learnt from the token itself.

        Raises: ValueError if the text is empty, or ``vocab_size`` below 256 + the special tokens.
        """
        special_tokens = check_special_tokens(special_tokens)
        least = len(ALPHABET) + len(special_tokens)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size must be at least {least} (256 bytes and {len(special_tokens)} special tokens), "
                f"got {vocab_size}"
            )
        counts: Counter[str] = Counter()
        for document in [text] if isinstance(text, str) else text:
            check_text(document)
            for part in split_at(document, special_tokens)[::2]:
                counts.update(PIECE.findall(part))
        if not counts:
            raise ValueError("the text to train on is empty; byte-pair encoding needs text to count")
        words = {piece.encode("utf-8"): count for piece, count in counts.items()}
        merges, _ = learn_merges(words, vocab_size - len(special_tokens), alphabet=ALPHABET)
        return cls(merges, special_tokens)

    @property
    def vocab_size(self) -> int:
        """The number of tokens: bytes, merges and special tokens."""
        return len(self._bytes)

    def encode(self, text: str, *, allowed_special: str | Collection[str] = ()) -> list[int]:
        """Return the ids of ``text``.

        The text of a special token, say "<|endoftext|>" typed by a user, is encoded as ordinary text
        unless ``allowed_special`` names it ("all" allows every one). So a prompt cannot smuggle in an
        end-of-text token; the program that means one asks for it, or takes it from ``special_ids``.

        Raises: ValueError for a lone surrogate, or for an allowed token that is not special here.
        """
        check_text(text)
        ids: list[int] = []
        for i, part in enumerate(split_at(text, allowed_tokens(allowed_special, self.special_tokens))):
            if i % 2:
                ids.append(self.special_ids[part])
            else:
                ids += chain.from_iterable(map(self._ids_of_piece.__getitem__, self._pieces_of(part)))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``.

        Ids that end inside a character, as sampled ones can, give U+FFFD there; ``decode_bytes`` gives
        the bytes as they are. Raises: ValueError for an id outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ``ids``, valid UTF-8 or not."""
        return b"".join([self._bytes[i] for i in check_ids(ids, self.vocab_size)])

    def tokens_as_text(self, ids: Iterable[int]) -> list[str]:
        r"""Return each token as text for people: spaces as ␣, parts of a character as \xNN."""
        return [shown(self._bytes[i]) for i in check_ids(ids, self.vocab_size)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Store the tokenizer as ``path`` (or ``tokenizer.json`` in it, if it is a folder)."""
        fields = {
            "pieces": "gpt2",  # the name of the pattern that cuts the text, never the pattern itself
            "vocab_size": self.vocab_size,
            "special_tokens": list(self.special_tokens),
            "merges": [list(pair) for pair in self.merges],
        }
        write_fields(path, self.kind, fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BytePairTokenizer:
        """Read a saved tokenizer. Raises: FileNotFoundError, ValueError (it names the field)."""
        return cls.from_fields(read_fields(path, cls.kind))

    @classmethod
    def from_fields(cls, fields: Fields) -> BytePairTokenizer:
        """Build the tokenizer from the fields of its file, checking each."""
        if fields.text("pieces") != "gpt2":
            raise fields.wrong("pieces", f"is {fields.text('pieces')!r:.60}, expected 'gpt2'")
        merges = fields.array("merges")
        for rank, pair in enumerate(merges):
            if not (isinstance(pair, list) and len(pair) == 2 and all(type(i) is int for i in pair)):
                raise fields.wrong("merges", f"holds {pair!r:.60} at position {rank}, expected two ids")
        try:
            special_tokens = check_special_tokens(fields.texts("special_tokens"))
        except ValueError as error:
            raise fields.wrong("special_tokens", f"is damaged: {error}") from None
        try:
            tokenizer = cls([(left, right) for left, right in merges], special_tokens)
        except ValueError as error:
            raise fields.wrong("merges", f"is damaged: {error}") from None
        if tokenizer.vocab_size != fields.integer("vocab_size"):
            says = f"is {fields.integer('vocab_size')}, but the merges make {tokenizer.vocab_size} tokens"
            raise fields.wrong("vocab_size", says)
        return tokenizer

    def __repr__(self) -> str:
        return f"BytePairTokenizer({self.vocab_size} tokens, special: {list(self.special_tokens)})"

    def _pieces_of(self, text: str) -> list[str]:
        """Cut ordinary text into the pieces that merges stay inside of."""
        return self._piece.findall(text)

    def _byte_ids(self, piece: str) -> list[int]:
        """Return the tokens that a piece is before any merge: its bytes."""
        return [_BYTE_ID[byte] for byte in piece.encode("utf-8")]

    def _merge_piece(self, piece: str) -> list[int]:
        """Apply the merges to one piece: the earliest learnt first, from left to right.

        A heap holds the possible merges, so that a piece of n bytes costs about n log n, not n squared.
        """
        ids = self._byte_ids(piece)
        before = list(range(-1, len(ids) - 1))
        after = list(range(1, len(ids) + 1))
        merge_of = self._merge_of
        heap = [(merge_of[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in merge_of]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            pair, j = self.merges[rank], after[i]
            if j == len(ids) or (ids[i], ids[j]) != pair:
                continue  # an earlier merge took one of the two
            ids[i], ids[j] = merge_of[pair][1], -1
            h, k = before[i], after[j]
            after[i] = k
            if k < len(ids):
                before[k] = i
                if (ids[i], ids[k]) in merge_of:
                    heapq.heappush(heap, (merge_of[ids[i], ids[k]][0], i))
            if h >= 0 and (ids[h], ids[i]) in merge_of:
                heapq.heappush(heap, (merge_of[ids[h], ids[i]][0], h))
        return [i for i in ids if i >= 0]


class _PieceCache(dict[str, list[int]]):
    """Ids by piece, made when first asked for: a few thousand pieces make up most of any text."""

    def __init__(self, tokenizer: BytePairTokenizer):
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> list[int]:
        ids = self._tokenizer._merge_piece(piece)
        if len(piece) <= _MAX_CACHED_LENGTH:
            if len(self) >= _MAX_CACHED_PIECES:
                self.clear()
            self[piece] = ids
        return ids
