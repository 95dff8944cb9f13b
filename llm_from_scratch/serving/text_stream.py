"""From tokens to text as they come: whole characters only, and not past a stop text.

A token can end inside a character, and a stop text can begin in one token and end in another. So some
text is held back until the next tokens have shown what it is.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from llm_from_scratch.tokenizers import Tokenizer


@dataclass
class TextStream:
    """The text of a growing row of tokens; `add` and `end` return what can be shown of it since.

    Arguments: ``stops`` are texts that end it, and are not part of it: the one that begins first counts,
    of several that begin at one place the longest. ``silent`` are ids that have no text, as special
    tokens. Bytes that are no UTF-8 give U+FFFD; half a character at the end gives nothing.

    >>> from llm_from_scratch.tokenizers import BytePairTokenizer
    >>> tokenizer = BytePairTokenizer([])
    >>> stream = TextStream(tokenizer, stops=["END"])
    >>> [stream.add(i) for i in tokenizer.encode("é ENaEND, no more")]
    ['', 'é', ' ', '', '', 'ENa', '', '', '', '', '', '', '', '', '', '', '', '']
    >>> stream.stopped, stream.end()
    (True, '')
    """

    tokenizer: Tokenizer
    stops: Sequence[str] = ()
    silent: Collection[int] = ()
    stopped: bool = False  # a stop text has come: the rest is ignored
    length: int = 0  # characters returned so far
    starts: list[int] = field(default_factory=list)  # where in the text each token begins, in characters

    def __post_init__(self):
        """Nothing has been read, nothing is held back."""
        self._held = ""
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        """Read a token; return the text that is certain now."""
        if self.stopped:
            return ""
        self.starts.append(self.length + len(self._held))
        return self._cut(self._characters.decode(self._bytes_of(token)))

    def end(self) -> str:
        """Return what was held back for a stop text: no more tokens come. Half a character is left out."""
        held, self._held = self._held, ""
        return self._show(held)

    def _bytes_of(self, token: int) -> bytes:
        if token in self.silent:
            return b""
        if hasattr(self.tokenizer, "decode_bytes"):
            return self.tokenizer.decode_bytes([token])
        return self.tokenizer.decode([token]).encode("utf-8")

    def _cut(self, new: str) -> str:
        """Put new text behind what is held; return what no stop text can claim any more."""
        text = self._held + new
        found = [(text.find(stop), -len(stop)) for stop in self.stops if stop in text]
        if found:
            self.stopped, self._held = True, ""
            return self._show(text[: min(found)[0]])
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return self._show(text[: len(text) - keep])

    def _show(self, text: str) -> str:
        self.length += len(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that ``stop`` begins with, and does not end.

    >>> _overlap("see EN", "END"), _overlap("END", "END"), _overlap("none", "END")
    (2, 0, 0)
    """
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
