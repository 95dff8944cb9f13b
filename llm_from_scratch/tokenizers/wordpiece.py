"""WordPiece, BERT's tokenizer: words, and below them the longest pieces that the vocabulary holds.

First the text is made plain: control characters go, white space becomes spaces, accents and capitals go
(in an uncased vocabulary). Then it is cut into words at spaces, and each punctuation mark and each
Chinese character becomes a word. Then each word is cut: the longest piece of the vocabulary that begins
it, then the longest that goes on from there ("##" marks a piece inside a word), and so on. A word that
cannot be cut to the end is one [UNK].

So, unlike byte pairs, the ids do not give back the text: capitals, accents and spaces are lost.

Source: Devlin et al. 2019 and its code; the greedy cut: Wu et al. 2016, section 4.1, and Song et al. 2021.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from llm_from_scratch.tokenizers.bert_characters import (
    category,
    is_ideograph,
    is_punctuation,
    is_removed,
    is_space,
    without_accents,
)
from llm_from_scratch.tokenizers.special_tokens import allowed_tokens, split_at
from llm_from_scratch.tokenizers.storage import Fields, read_fields, write_fields
from llm_from_scratch.tokenizers.text import check_ids, check_text

UNKNOWN, FIRST, SEPARATOR, PADDING, MASK = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"
_INSIDE = "##"
_MAX_WORD = 100  # characters; a longer word is [UNK], as in BERT's code
_MAX_CACHED_WORDS = 1 << 16


class WordPieceTokenizer:
    """Encode text as words and pieces of words.

    Arguments: ``vocabulary[i]`` is the text of token i. ``lower_case`` drops capitals and accents.
    Raises: ValueError if a token is empty or stands there twice, or [UNK] is missing.

    >>> tokenizer = WordPieceTokenizer(["[UNK]", "un", "##afford", "##able", "price", "!"])
    >>> ids = tokenizer.encode("Unaffordable prices!")
    >>> ids, tokenizer.tokens_as_text(ids)
    ([1, 2, 3, 0, 5], ['un', '##afford', '##able', '[UNK]', '!'])
    """

    kind = "wordpiece"

    def __init__(self, vocabulary: Sequence[str], *, lower_case: bool = True):
        self._tokens = list(vocabulary)
        self._id_of = {token: i for i, token in enumerate(self._tokens)}
        if "" in self._id_of:
            raise ValueError(f"token {self._id_of['']} of the vocabulary is empty")
        if len(self._id_of) != len(self._tokens):
            twice = next(token for i, token in enumerate(self._tokens) if self._id_of[token] != i)
            raise ValueError(f"the vocabulary holds {twice!r:.60} twice")
        if UNKNOWN not in self._id_of:
            raise ValueError(f"the vocabulary lacks {UNKNOWN}, which stands for what it cannot write")
        self.lower_case = lower_case
        special = (PADDING, UNKNOWN, FIRST, SEPARATOR, MASK)
        self.special_ids = {token: self._id_of[token] for token in special if token in self._id_of}
        self.special_tokens = tuple(self.special_ids)
        self._longest = max(map(len, self._tokens))
        self._ids_of_word: dict[str, list[int]] = {}

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, lower_case: bool = True) -> WordPieceTokenizer:
        """Read BERT's ``vocab.txt``: one token a line, the first line id 0.

        Raises: FileNotFoundError; ValueError that names the file.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
            return cls(lines[:-1] if lines[-1] == "" else lines, lower_case=lower_case)
        except ValueError as error:
            raise ValueError(f"{path} is no WordPiece vocabulary: {error}") from None

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self._tokens)

    def words(self, text: str) -> list[str]:
        """Cut ``text`` into words, made plain.

        >>> WordPieceTokenizer(["[UNK]"]).words("Crème brûlée, 法国!")
        ['creme', 'brulee', ',', '法', '国', '!']
        """
        check_text(text)
        text = "".join(" " if is_space(c) else c for c in text if not is_removed(c))
        text = "".join(f" {c} " if is_ideograph(c) else c for c in text)
        if self.lower_case:
            text = "".join(c.lower() for c in without_accents(text))  # each by itself, wherever it stands
        text = "".join(f" {c} " if is_punctuation(c) else c for c in text)
        return [word for word in "".join(" " if category(c) == "Zs" else c for c in text).split(" ") if word]

    def encode(self, text: str, *, allowed_special: str | Collection[str] = ()) -> list[int]:
        """Return the ids of ``text``, without [CLS] and [SEP]; `encode_for_bert` adds those.

        The text "[SEP]" is ordinary text unless ``allowed_special`` names it ("all" allows every one).
        """
        check_text(text)
        ids: list[int] = []
        for i, part in enumerate(split_at(text, allowed_tokens(allowed_special, self.special_tokens))):
            if i % 2:
                ids.append(self.special_ids[part])
            else:
                for word in self.words(part):
                    ids += self._cut(word)
        return ids

    def encode_for_bert(
        self, first: str, second: str | None = None, *, max_tokens: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Return ids and segments of ``[CLS] first [SEP]``, or of ``[CLS] first [SEP] second [SEP]``.

        The segment is 0 up to the first [SEP], then 1. With ``max_tokens`` the longer of the two texts
        loses tokens at its end until all fits.

        Raises: ValueError if the vocabulary lacks [CLS] or [SEP], or ``max_tokens`` leaves no room.
        """
        if FIRST not in self.special_ids or SEPARATOR not in self.special_ids:
            raise ValueError(f"this vocabulary lacks {FIRST} or {SEPARATOR}, so it is not BERT's")
        one, two = self.encode(first), [] if second is None else self.encode(second)
        added = 2 if second is None else 3
        if max_tokens is not None:
            if max_tokens < added:
                raise ValueError(f"max_tokens={max_tokens} leaves no room: {added} tokens are added")
            excess = len(one) + len(two) - (max_tokens - added)
            while excess > 0:
                (one if len(one) >= len(two) else two).pop()
                excess -= 1
        cls_id, sep_id = self.special_ids[FIRST], self.special_ids[SEPARATOR]
        ids = [cls_id, *one, sep_id]
        if second is None:
            return ids, [0] * len(ids)
        return [*ids, *two, sep_id], [0] * len(ids) + [1] * (len(two) + 1)

    def decode(self, ids: Iterable[int]) -> str:
        """Return words with spaces between them; what `encode` dropped does not come back.

        >>> WordPieceTokenizer(["[UNK]", "un", "##able", "!"]).decode([1, 2, 3])
        'unable !'
        """
        text = " ".join(self._tokens[i] for i in check_ids(ids, self.vocab_size))
        return text.replace(f" {_INSIDE}", "")

    def tokens_as_text(self, ids: Iterable[int]) -> list[str]:
        """Return each token as it stands in the vocabulary."""
        return [self._tokens[i] for i in check_ids(ids, self.vocab_size)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Store the tokenizer as ``path`` (or ``tokenizer.json`` in it, if it is a folder)."""
        write_fields(path, self.kind, {"lower_case": int(self.lower_case), "vocabulary": self._tokens})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WordPieceTokenizer:
        """Read a saved tokenizer. Raises: FileNotFoundError, ValueError (it names the field)."""
        return cls.from_fields(read_fields(path, cls.kind))

    @classmethod
    def from_fields(cls, fields: Fields) -> WordPieceTokenizer:
        """Build the tokenizer from the fields of its file, checking each."""
        lower_case = fields.integer("lower_case")
        if lower_case not in (0, 1):
            raise fields.wrong("lower_case", f"is {lower_case}, expected 0 or 1")
        try:
            return cls(fields.texts("vocabulary"), lower_case=lower_case == 1)
        except ValueError as error:
            raise fields.wrong("vocabulary", f"is damaged: {error}") from None

    def __repr__(self) -> str:
        return f"WordPieceTokenizer({self.vocab_size} tokens, {'un' if self.lower_case else ''}cased)"

    def _cut(self, word: str) -> list[int]:
        """Return the pieces of one word: the longest first piece, then the longest next one, and so on."""
        if word in self._ids_of_word:
            return self._ids_of_word[word]
        ids, start = [], 0
        while start < len(word) and len(word) <= _MAX_WORD:
            prefix = _INSIDE if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                if (piece := self._id_of.get(prefix + word[start:end])) is not None:
                    ids.append(piece)
                    start = end
                    break
            else:
                break
        if start < len(word):
            ids = [self._id_of[UNKNOWN]]
        if len(self._ids_of_word) >= _MAX_CACHED_WORDS:
            self._ids_of_word.clear()
        self._ids_of_word[word] = ids
        return ids
