"""Fill in the blank: sentences in which any token can be hidden, and what a masked model puts there.

Shape letters: T tokens of a sentence, V vocabulary entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_from_scratch.widgets import html

SHOWN = 10  # likeliest tokens of a blank that travel with the page
MAX_SENTENCES, MAX_TOKENS = 12, 64
_STYLE = "text{font:12px sans-serif;fill:#1c2430}.b{fill:#fff}.c{fill:#1b5fae}.a{fill:#a33f00}"


class FillBlank:
    """What a masked language model expects at each place of a sentence, that place being hidden.

    Shown as the last line of a notebook cell. In the view: the sentence as buttons, one a token; the
    hidden one as a blank; the ten likeliest tokens as bars; the probability and the rank of the token that
    stood there; the entropy in bits. The sentence is chosen from a list. Export as SVG and CSV.

    Args:
        sentences: for each sentence its tokens, as `tokenizer.tokens_as_text` writes them.
        probabilities: for each sentence an array [T, V]: row t is the distribution at place t when the
            token there is hidden and the others are seen.
        vocabulary: the text of each of the V tokens.
        sentence, place: which sentence, and which of its tokens is hidden at first, counted from 0.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Raises: ValueError for shapes that do not fit, rows that do not sum to 1, a token of a sentence that
    the vocabulary lacks, more than 12 sentences or 64 tokens.

    >>> FillBlank([["a", "b"]], [[[0.75, 0.25], [0.5, 0.5]]], ["a", "b"])
    FillBlank(1 sentence, place 0: 'a' has probability 0.75, rank 1)
    """

    def __init__(
        self,
        sentences: list[list[str]],
        probabilities: list[Any],
        vocabulary: list[str],
        *,
        sentence: int = 0,
        place: int = 0,
        title: str = "Fill in the blank",
        caption: str | None = None,
        alt: str | None = None,
    ) -> None:
        self.vocabulary = html.read_tokens(vocabulary)
        id_of = {token: i for i, token in enumerate(self.vocabulary)}
        if not 1 <= len(sentences) <= MAX_SENTENCES:
            raise ValueError(f"{len(sentences)} sentences were given; the view takes 1 to {MAX_SENTENCES}")
        if len(sentences) != len(probabilities):
            raise ValueError(f"{len(sentences)} sentences need as many arrays, got {len(probabilities)}")
        self.sentences = [html.read_tokens(tokens) for tokens in sentences]
        self.blanks = [
            _blanks(number, tokens, rows, self.vocabulary, id_of)
            for number, (tokens, rows) in enumerate(zip(self.sentences, probabilities, strict=True))
        ]
        _check_place("sentence", sentence, len(self.sentences))
        _check_place("place", place, len(self.sentences[sentence]))
        self.sentence, self.place, self.title = sentence, place, title
        self.caption = (
            "Choose a token to hide it. The bars are the model's ten likeliest tokens for the blank, each "
            "with its probability; the marked one is the token that stood there. A token that begins with "
            "## goes on with the word before it."
            if caption is None
            else caption
        )
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()

    @classmethod
    def live(cls, model: Any, tokenizer: Any, text: str | None = None, **options: Any) -> Any:
        """Controls that ask a model about any text: needs ipywidgets and a running kernel.

        ``model.blank_probabilities(ids)`` returns [T, V]; ``tokenizer`` has ``encode``,
        ``tokens_as_text`` and ``vocab_size``.
        """
        from llm_from_scratch.widgets.live import blank_controls

        return blank_controls(model, tokenizer, text, cls, **options)

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        one = self.blanks[self.sentence][self.place]
        token, count = self.sentences[self.sentence][self.place], len(self.sentences)
        return (
            f"FillBlank({count} sentence{'' if count == 1 else 's'}, place {self.place}: {token!r} has "
            f"probability {one['answer'][0]:.2f}, rank {one['answer'][1]})"
        )

    def _default_alt(self) -> str:
        tokens, one = self.sentences[self.sentence], self.blanks[self.sentence][self.place]
        words = [html.visible(token) for token in tokens]
        words[self.place] = "____"
        best = ", ".join(f"{html.shorten(html.visible(t), 20)} {p:.2f}" for t, p in one["top"][:3])
        return (
            f"{html.shorten(' '.join(words), 200)} The likeliest tokens for the blank: {best}. The token "
            f"that stood there, {html.shorten(html.visible(tokens[self.place]), 20)}, has probability "
            f"{one['answer'][0]:.2f} and rank {one['answer'][1]}."
        )

    def _build(self) -> str:
        data = {name: getattr(self, name) for name in ("title", "caption", "alt", "sentence", "place")}
        data["sentences"] = [
            {
                "tokens": [[token, html.visible(token)] for token in tokens],
                "blanks": [
                    {**one, "top": [[token, html.visible(token), p] for token, p in one["top"]]}
                    for one in row
                ],
            }
            for tokens, row in zip(self.sentences, self.blanks, strict=True)
        ]
        return html.widget_html(
            "fill_blank",
            data,
            svg=self._picture(),
            alt=self.alt,
            caption=self.caption,
            summary="Table of all places of this sentence",
            table=self._table(),
        )

    def _picture(self) -> str:
        """The bars of the first blank: the fallback's picture."""
        one, answer = self.blanks[self.sentence][self.place], self.sentences[self.sentence][self.place]
        longest, marks = one["top"][0][1], []
        for row, (token, p) in enumerate(one["top"]):
            y, bar = 8 + 22 * row, 280 * p / longest
            marks.append(
                f'<text x="122" y="{y + 14}" text-anchor="end">'
                f"{html.escaped(html.shorten(html.visible(token), 16))}</text>"
                f'<rect class="{"a" if token == answer else "c"}" x="130" y="{y + 3}" '
                f'width="{max(bar, 0.5):.1f}" height="14"/>'
                f'<text x="{136 + bar:.1f}" y="{y + 14}">{p:.3f}</text>'
            )
        high = 16 + 22 * len(one["top"])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 {high}" width="480" height="{high}">'
            f'<style>{_STYLE}</style><rect class="b" width="100%" height="100%"/>{"".join(marks)}</svg>'
        )

    def _table(self) -> str:
        rows = []
        for token, one in zip(self.sentences[self.sentence], self.blanks[self.sentence], strict=True):
            best = ", ".join(f"{html.shorten(html.visible(t), 20)} {p:.2f}" for t, p in one["top"][:3])
            p, rank = one["answer"]
            cells = (
                html.shorten(html.visible(token), 40),
                f"{p:.3f}",
                str(rank),
                f"{one['entropy']:.1f}",
                best,
            )
            rows.append("<tr>" + "".join(f"<td>{html.escaped(cell)}</td>" for cell in cells) + "</tr>")
        names = ("Hidden token", "Its probability", "Its rank", "Entropy (bits)", "Likeliest")
        head = "".join(f"<th>{name}</th>" for name in names)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _blanks(number: int, tokens: list[str], rows: Any, vocabulary: list[str], id_of: dict[str, int]) -> list:
    """What travels of each place: the likeliest tokens, the answer's probability and rank, the entropy."""
    array_TV = html.to_array(f"probabilities[{number}]", rows)
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"sentence {number} has {len(tokens)} tokens; the view takes up to {MAX_TOKENS}")
    if array_TV.shape != (len(tokens), len(vocabulary)):
        raise ValueError(
            f"probabilities[{number}] must have the shape [{len(tokens)}, {len(vocabulary)}], one row a "
            f"token and one column a vocabulary entry, got {list(array_TV.shape)}"
        )
    valid = np.isfinite(array_TV).all() and (array_TV >= 0).all()
    if not valid or np.abs(array_TV.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(f"each row of probabilities[{number}] must hold numbers from 0 on that sum to 1")
    found = []
    for token, row_V in zip(tokens, array_TV, strict=True):
        if token not in id_of:
            raise ValueError(f"the vocabulary lacks {token!r:.60}, a token of sentence {number}")
        order_V = np.argsort(-row_V, kind="stable")
        answer, positive = float(row_V[id_of[token]]), row_V[row_V > 0]
        found.append(
            {
                "top": [(vocabulary[i], round(float(row_V[i]), 4)) for i in order_V[:SHOWN]],
                "answer": [round(answer, 4), int((row_V > answer).sum()) + 1],
                "entropy": round(float(-(positive * np.log2(positive)).sum()) + 0.0, 2),
            }
        )
    return found


def _check_place(name: str, value: Any, count: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise ValueError(f"{name}={value!r} must be a whole number from 0 to {count - 1}")
