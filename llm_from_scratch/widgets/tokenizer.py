"""The tokenizer explorer: type text, see its tokens, and watch the merges make them."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from llm_from_scratch.widgets import html
from llm_from_scratch.widgets.tokenizer_codec import (
    character_classes,
    check_text,
    pack_merges,
    read_vocabulary,
)

MAX_CHARACTERS = 2_000  # encoded and drawn; the page says so when more is typed
MAX_BYTES = 500_000  # bytes of HTML above which the constructor warns: the limit of a whole chapter
DRAWN = 80  # tokens in the fallback's picture and table
TEXT = "The state of the Union is strong, unbelievably so: 1,862 ships. 語 🙂"
_WIDTH = 700
_STYLE = (
    "text{font:13px monospace;fill:#1c2430}.i text{font-size:11px;fill:#566070}.b{fill:#fff}"
    "path{stroke:#77818f}.o{fill:#e4eefa}.e{fill:#fdf0da}.p{stroke-dasharray:4 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.i text{fill:#b4bcc7}.b{fill:#1b1e24}"
    ".o{fill:#1d3350}.e{fill:#43341b}}"
)


class TokenizerExplorer:
    """A byte-pair tokenizer as an interactive view, which encodes in the page, without a kernel.

    Shown as the last line of a notebook cell. In the view: a box to type text into; its tokens with their
    ids or UTF-8 bytes; counts; the merges one at a time (slider, buttons, play), from single bytes to the
    encoding; a switch that recognises special tokens, off at first as in ``BytePairTokenizer.encode``;
    export as SVG and CSV. The ids are those of ``BytePairTokenizer.encode``.

    Args:
        merges: pairs (left id, right id) in the order of their ranks. Ids 0 to 255 are the bytes in GPT-2's
            order; a merge that makes a new token takes the next id.
        special_tokens: texts, whose ids follow those of the merges, or a mapping from text to id.
        text: what is shown first. Above 2,000 characters the first 2,000 are kept, with a warning.
        pieces: the name of the pattern that cuts a text before any merge; "gpt2" is the only one.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    A lone surrogate is refused as the tokenizer refuses it: here by ValueError, in the page by a message in
    place of the tokens. A browser's text box turns every line end into a newline, U+000A, so a carriage
    return is only met in ``text``.

    Raises: ValueError for merges of ids that do not exist or repeat, special tokens that are empty, repeat
    or take the id of a merge, a text that is no Unicode text, and an unknown ``pieces``.

    >>> TokenizerExplorer([(71, 72)], ["<|end|>"], "hi!")
    TokenizerExplorer(258 tokens, 'hi!' is 2 tokens)
    """

    def __init__(
        self,
        merges: Iterable[tuple[int, int]],
        special_tokens: Iterable[str] | Mapping[str, int] = (),
        text: str = TEXT,
        pieces: str = "gpt2",
        title: str = "Tokenizer explorer",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        if pieces != "gpt2":
            raise ValueError(f"pieces is {pieces!r}; the only pattern is 'gpt2'")
        check_text("text", text)
        self.vocabulary = read_vocabulary(merges, special_tokens)
        if len(text) > MAX_CHARACTERS:
            warnings.warn(
                f"{len(text)} characters are more than the {MAX_CHARACTERS} the explorer encodes: the first "
                f"{MAX_CHARACTERS} are kept",
                stacklevel=2,
            )
        self.text, self.pieces, self.title = text[:MAX_CHARACTERS], pieces, title
        self.ids, self.begins = self.vocabulary.encode(self.text)
        self.tokens = [self.vocabulary.tokens[i] for i in self.ids]
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()
        if len(self._html) > MAX_BYTES:
            warnings.warn(
                f"this view is {len(self._html) / 1e6:.1f} MB of HTML, more than {MAX_BYTES / 1e6:.1f} MB: "
                "pass fewer merges (merges[:20_000])",
                stacklevel=2,
            )

    @classmethod
    def of(cls, tokenizer: Any, text: str = TEXT, **options: Any) -> TokenizerExplorer:
        """Explore a tokenizer that has ``merges``, ``special_tokens`` (or ``special_ids``) and ``encode``.

        Raises: ValueError if it has no merges of byte ids, or encodes ``text`` in another way.
        """
        merges = getattr(tokenizer, "merges", None)
        if merges is None or not callable(getattr(tokenizer, "encode", None)):
            raise ValueError(
                f"tokenizer is a {type(tokenizer).__name__} without merges and encode; the explorer shows "
                "byte-pair tokenizers such as BytePairTokenizer"
            )
        special = getattr(tokenizer, "special_ids", None)
        special = getattr(tokenizer, "special_tokens", ()) if special is None else special
        view = cls(merges, special, text, **options)
        ids = [int(i) for i in tokenizer.encode(view.text)]
        if ids != view.ids:
            raise ValueError(
                f"{type(tokenizer).__name__}.encode cuts the text in another way than GPT-2's pattern and "
                f"these merges do: {ids[:8]} against {view.ids[:8]}"
            )
        return view

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        size = len(self.vocabulary.tokens) + len(self.vocabulary.special)
        text = html.shorten(self.text, 40)
        return f"TokenizerExplorer({size} tokens, {text!r} is {_count(len(self.ids), 'token')})"

    def _default_caption(self) -> str:
        return (
            "Each box is a token: its text above, its id below. A wider gap marks where the text is cut "
            "before any merge. A rank is the place of a merge in the order of training, counted from 0. "
            "⟨ ⟩ holds bytes, in base 16, where a token holds a part of a character."
        )

    def _default_alt(self) -> str:
        some = ", ".join(
            f"{html.shorten(shown(token), 16)} ({i})"
            for token, i in zip(self.tokens[:12], self.ids[:12], strict=True)
        )
        more = ", and so on" if len(self.tokens) > 12 else ""
        return f"{self._counts()}. The tokens with their ids: {some or 'none'}{more}."

    def _counts(self) -> str:
        size = len(self.text.encode("utf-8"))
        counts = [_count(len(self.text), "character"), _count(size, "UTF-8 byte")]
        return f"{', '.join(counts)}, {_count(len(self.ids), 'token')}"

    def _build(self) -> str:
        data = {
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
            "text": self.text,
            "limit": MAX_CHARACTERS,
            "merges": pack_merges(self.vocabulary.merges),
            "special": list(self.vocabulary.special.items()),
            "classes": character_classes(),
        }
        some = f", the first {DRAWN}" if len(self.ids) > DRAWN else ""
        return html.widget_html(
            "tokenizer",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary=f"Table of the tokens{some} ({self._counts()})",
            table=self._table(),
        )

    def _picture(self) -> str:
        """Draw the tokens of the first text as boxes in lines: the fallback's picture."""
        boxes: dict[str, str] = {}
        words, ids, x, y = "", "", 8, 8
        for n, (token, token_id) in enumerate(zip(self.tokens[:DRAWN], self.ids, strict=False)):
            name = html.shorten(shown(token), 24)
            width = 12 + 8 * max(_columns(name), len(str(token_id)))
            x += 6 if n in self.begins and x > 8 else 0
            if x > 8 and x + width > _WIDTH - 8:
                x, y = 8, y + 46
            kind = "oe"[n % 2] + (" p" if "⟨" in name else "")
            boxes[kind] = boxes.get(kind, "") + f"M{x} {y}h{width}v40h-{width}z"
            words += f'<text x="{x + 6}" y="{y + 17}">{html.escaped(name)}</text>'
            ids += f'<text x="{x + 6}" y="{y + 33}">{token_id}</text>'
            x += width + 4
        left = len(self.ids) - DRAWN
        if left > 0:
            words += f'<text x="8" y="{y + 62}">and {_count(left, "token")} more</text>'
        paths = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in boxes.items())
        height = y + 48 + (24 if left > 0 else 0)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}"><style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>'
            f'{paths}{words}<g class="i">{ids}</g></svg>'
        )

    def _table(self) -> str:
        rows = "".join(
            f"<tr><td>{n}</td><td>{html.escaped(shown(token))}</td><td>{token_id}</td>"
            f"<td>{token.hex(' ').upper()}</td></tr>"
            for n, (token, token_id) in enumerate(zip(self.tokens[:DRAWN], self.ids, strict=False))
        )
        head = "<tr><th>Position</th><th>Token</th><th>Id</th><th>UTF-8 bytes</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def shown(token: bytes) -> str:
    r"""Show a token's bytes: whole characters as text, and parts of one as ⟨bytes in base 16⟩.

    >>> shown(b" the"), shown("語".encode()[:2]), shown("é".encode()[1:] + b"!")
    ('␣the', '⟨E8 AA⟩', '⟨A9⟩!')
    """
    parts: list[str] = []
    pending: list[str] = []  # bytes that are no whole character
    for character in token.decode("utf-8", "surrogateescape"):
        if 0xDC80 <= ord(character) <= 0xDCFF:
            pending.append(f"{ord(character) - 0xDC00:02X}")
            continue
        parts += _flush(pending)
        # A mark that joins the letter before it needs something to stand on.
        lone = unicodedata.category(character)[0] == "M" and (not parts or parts[-1].endswith("⟩"))
        joiner = f"⟨U+{ord(character):04X}⟩" if character in "\u200c\u200d" else None
        parts.append(joiner or ("◌" if lone else "") + html.visible(character))
    return "".join(parts + _flush(pending))


def _flush(pending: list[str]) -> list[str]:
    joined = [f"⟨{' '.join(pending)}⟩"] if pending else []
    pending.clear()
    return joined


def _columns(text: str) -> int:
    """How many columns of a monospaced font a text takes: wide letters and emoji take two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
