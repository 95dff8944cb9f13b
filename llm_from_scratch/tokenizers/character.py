"""One token a character: the simplest tokenizer that loses nothing of the text it was trained on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from llm_from_scratch.tokenizers.storage import Fields, read_fields, write_fields
from llm_from_scratch.tokenizers.text import check_ids, shown


class CharacterTokenizer:
    """A token is a character (a Unicode code point); ids follow the order of the code points.

    A character that training did not see has no id, and encoding it is an error: there is no unknown
    token that would hide the loss.

    >>> tokenizer = CharacterTokenizer.train("banana")
    >>> tokenizer.encode("ban"), tokenizer.decode([2, 0, 2]), tokenizer.vocab_size
    ([1, 0, 2], 'nan', 3)
    """

    kind = "character"

    def __init__(self, characters: Sequence[str]):
        """Take the vocabulary: different single characters, by id."""
        if not characters:
            raise ValueError("the vocabulary is empty; a character tokenizer needs at least one character")
        for character in characters:
            if not isinstance(character, str) or len(character) != 1:
                raise ValueError(f"each entry of the vocabulary must be one character, got {character!r:.60}")
        self.characters = tuple(characters)
        self._ids = {character: i for i, character in enumerate(self.characters)}
        if len(self._ids) != len(self.characters):
            raise ValueError("the vocabulary holds a character twice")

    @classmethod
    def train(cls, text: str | Iterable[str]) -> CharacterTokenizer:
        """Give each character of ``text`` (one string, or several) an id.

        Raises: ValueError if there is no character to learn from.
        """
        characters: set[str] = set()
        for part in [text] if isinstance(text, str) else text:
            characters.update(part)
        if not characters:
            raise ValueError(
                "the text to train on is empty; a character tokenizer needs at least one character"
            )
        return cls(sorted(characters))

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Return one id for each character.

        Raises: ValueError for a character that training did not see.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"the character {unknown!r} (U+{ord(unknown):04X}) at position {text.index(unknown)} is not "
                f"one of the {self.vocab_size} that this tokenizer was trained on. Train on text that has "
                "it, or use BytePairTokenizer, which encodes any text"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``. Raises: ValueError for an id outside the vocabulary."""
        return "".join([self.characters[i] for i in check_ids(ids, self.vocab_size)])

    def tokens_as_text(self, ids: Iterable[int]) -> list[str]:
        """Return each token as text for people: a space is shown as ␣, a line end as ↵."""
        ids = check_ids(ids, self.vocab_size)
        return [shown(self.characters[i].encode("utf-8", "surrogatepass")) for i in ids]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Store the tokenizer as ``path`` (or ``tokenizer.json`` in it, if it is a folder)."""
        write_fields(path, self.kind, {"characters": list(self.characters)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharacterTokenizer:
        """Read a saved tokenizer. Raises: FileNotFoundError, ValueError (it names the field)."""
        return cls.from_fields(read_fields(path, cls.kind))

    @classmethod
    def from_fields(cls, fields: Fields) -> CharacterTokenizer:
        """Build the tokenizer from the fields of its file."""
        characters = fields.texts("characters")
        try:
            return cls(characters)
        except ValueError as error:
            raise fields.wrong("characters", f"is damaged: {error}") from None

    def __repr__(self) -> str:
        return f"CharacterTokenizer({self.vocab_size} characters)"
