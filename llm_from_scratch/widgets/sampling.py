"""The sampling playground: one distribution over the next token, and what each setting does to it.

Shape letters: V vocabulary entries.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from llm_from_scratch.widgets import html

NAMED = 200  # most likely tokens that travel with their text; the others are counted as "all the rest"
EXACT = 4096  # most likely tokens whose logits travel as float32; those after them as uint16
MAX_BYTES = 500_000  # bytes of HTML above which the constructor warns: the limit of a whole chapter
MAX_DRAWS = 100_000  # draws that the browser makes at each change of a setting


class SamplingPlayground:
    """The logits of the next token, reshaped by temperature, top-k, top-p and min-p, and drawn from.

    Shown as the last line of a notebook cell. In the view: logits and probabilities as bars, four settings,
    entropy in bits and the effective number of choices 2^H, seeded draws beside the theory with their total
    variation distance and chi-square test, export as SVG and CSV.

    Order of the steps, as in ``llm_from_scratch.decoding.logits`` and in transformers: temperature, top-k,
    top-p, min-p, each on the renormalised result of the one before. Tied tokens: the lower id first.

    Args:
        tokens: the vocabulary, one string a token.
        logits: [V], the score of each token; finite, and all V of them: a probability depends on every one.
        prompt: the text before the next token.
        temperature: 0.05 to 5; top_k: tokens kept, None for all; top_p: probability mass kept, in (0, 1],
            None for all; min_p: smallest kept ratio to the most likely token, in [0, 1], None for 0.
        draws: number of draws, 0 to 100,000; seed: of the draws, 0 to 2^32 - 1.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Precision: the order of the tokens is the same at every temperature, so the logits travel sorted: the
    first 4,096 as float32, later ones as uint16 on their own range. For a range of 20 nats that changes a
    probability in the tail by less than 0.02 % of itself at temperature 1. The text of the first 200 tokens
    travels too; the others are shown as one sum.

    Raises: ValueError for empty tokens, a wrong shape, logits that are not finite and settings out of range.

    >>> SamplingPlayground(["a", "b", "c"], [2.0, 1.0, 0.0], prompt="a b")
    SamplingPlayground(3 tokens, prompt='a b')
    """

    def __init__(
        self,
        tokens: list[str],
        logits: Float[Any, "V"],
        prompt: str | None = None,
        title: str = "Sampling playground",
        caption: str | None = None,
        alt: str | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        draws: int = 1000,
        seed: int = 0,
    ) -> None:
        self.tokens = html.read_tokens(tokens)
        self.logits = _read_logits(logits, len(self.tokens))
        self.prompt, self.title = prompt, title
        self.settings = _check_settings(
            len(self.tokens),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            draws=draws,
            seed=seed,
        )
        # Stable, so tied tokens stand in the order of their ids, as in decoding.logits.
        self._order = np.argsort(-self.logits, kind="stable")
        exponentials = np.exp(self.logits - self.logits.max())
        self._probabilities = exponentials / exponentials.sum()
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()
        if len(self._html) > MAX_BYTES:
            warnings.warn(
                f"this view is {len(self._html) / 1e6:.1f} MB of HTML, more than {MAX_BYTES / 1e6:.1f} MB, "
                f"because its vocabulary has {len(self.tokens):,} tokens: keep it out of stored notebooks",
                stacklevel=2,
            )

    @classmethod
    def live(cls, model: Any, tokenizer: Any, prompt: str | None = None, **options: Any) -> Any:
        """Return ipywidgets controls: a prompt and a button that recompute the logits in the kernel.

        ``model(ids)`` returns logits [1, T, V] for ids [1, T]; the last position is shown. ``options`` go
        to ``SamplingPlayground``. Needs ipywidgets, which the extra ``book`` installs.
        """
        from llm_from_scratch.widgets import live

        return live.sampling_controls(model, tokenizer, prompt, cls, **options)

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        count = len(self.tokens)
        return f"SamplingPlayground({count} token{'s' * (count != 1)}, prompt={self.prompt!r})"

    def _default_caption(self) -> str:
        return (
            "Temperature divides the logits; top-k, top-p and min-p then drop tokens, in this order, and "
            "what is left is renormalised."
        )

    def _default_alt(self) -> str:
        after = f" after “{html.shorten(html.visible(self.prompt), 60)}”" if self.prompt else ""
        likely = ", ".join(
            f"{html.shorten(html.visible(self.tokens[i]), 16)} {self._probabilities[i]:.3f}"
            for i in self._order[:5]
        )
        return f"Probabilities of the next token{after} at temperature 1: {likely}."

    def _build(self) -> str:
        named = self._order[:NAMED]
        ranked = self.logits[self._order]
        tail = ranked[EXACT:]
        low, high = (float(tail[-1]), float(tail[0])) if tail.size else (0.0, 0.0)
        step = (high - low) / 65535
        data = {
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
            "prompt": None if self.prompt is None else html.visible(self.prompt).replace("␣", " "),
            "size": len(self.tokens),
            "ids": named.tolist(),
            "tokens": [self.tokens[i] for i in named],
            "shown": [html.visible(self.tokens[i]) for i in named],
            "logits": html.pack(ranked[:EXACT], "f4"),
            "tail": html.pack(np.rint((tail - low) / (step or 1.0)), "u2"),
            "tailLow": low,
            "tailStep": step,
            "settings": self.settings,
        }
        rows = [
            (html.visible(self.tokens[i]), self.logits[i], self._probabilities[i]) for i in self._order[:12]
        ]
        rest = len(self.tokens) - len(rows)
        if rest > 0:
            rows.append((f"all other {rest:,}", None, self._probabilities[self._order[12:]].sum()))
        return html.widget_html(
            "sampling",
            data,
            svg=_picture(rows),
            alt=self.alt,
            caption=self.caption,
            summary="Table of the most likely next tokens at temperature 1",
            table=_table(rows),
        )


def _read_logits(value: Any, count: int) -> np.ndarray:
    logits = html.to_array("logits", value)
    if logits.ndim > 1 and logits.size == logits.shape[-1]:
        logits = logits.reshape(-1)  # a batch of one
    if logits.ndim != 1:
        raise ValueError(
            f"logits must have the shape [V], got {list(logits.shape)}: pick one position, logits[0, -1]"
        )
    if len(logits) != count:
        raise ValueError(f"logits has {len(logits)} entries, but there are {count} tokens: one logit a token")
    if not np.isfinite(logits).all():
        place = int(np.argmin(np.isfinite(logits)))
        raise ValueError(
            f"logits[{place}] is {logits[place]}: logits must be finite. Pass them as the model gives them; "
            "the playground does the filtering"
        )
    if np.abs(logits).max() > 1e30:
        raise ValueError(f"logits reach {np.abs(logits).max():.3g}: beyond 1e30 they do not fit float32")
    # What the browser reads is float32; rounding here keeps the order of ties the same on both sides.
    return logits.astype(np.float32).astype(np.float64)


def _check_settings(size: int, **settings: Any) -> dict[str, float]:
    top_k = settings["top_k"]
    filled = {
        "temperature": settings["temperature"],
        "top_k": 0 if top_k is None else top_k,
        "top_p": 1.0 if settings["top_p"] is None else settings["top_p"],
        "min_p": 0.0 if settings["min_p"] is None else settings["min_p"],
        "draws": settings["draws"],
        "seed": settings["seed"],
    }
    whole = ("top_k", "draws", "seed")
    limits = {
        "temperature": (0.05, 5.0),
        "top_k": (0 if top_k is None else 1, math.inf),
        "top_p": (0.0, 1.0),
        "min_p": (0.0, 1.0),
        "draws": (0, MAX_DRAWS),
        "seed": (0, 2**32 - 1),
    }
    for name, value in filled.items():
        low, high = limits[name]
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        fits = number and low <= value <= high and (name != "top_p" or value > 0)
        if not fits or (name in whole and value != int(value)):
            kind = "a whole number" if name in whole else "a number"
            bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high:,}"
            raise ValueError(
                f"{name} must be {kind} {bounds}{' (0 excluded)' * (name == 'top_p')}, got {value!r}"
                + ("; None turns it off" if name in ("top_k", "top_p", "min_p") else "")
            )
        filled[name] = int(value) if name in whole else float(value)
    filled["top_k"] = min(filled["top_k"], size)
    return filled


def _picture(rows: list[tuple[str, float | None, float]]) -> str:
    """Draw the most likely tokens as bars: the fallback's picture."""
    line, left, width = 22, 130, 480
    longest = max(probability for _, _, probability in rows)
    marks = []
    for number, (token, _, probability) in enumerate(rows):
        name = html.escaped(html.shorten(token, 16))
        y = 8 + line * number
        bar = (width - left - 70) * probability / longest
        marks.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>'
            f'<rect class="c" x="{left}" y="{y + 3}" width="{max(bar, 0.5):.1f}" height="14" rx="2"/>'
            f'<text x="{left + bar + 6:.1f}" y="{y + 14}">{probability:.3f}</text>'
        )
    height = 16 + line * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>text{{font:12px monospace;fill:#1f2733}}.b{{fill:#fff}}.c{{fill:#2b6cb0}}'
        "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.b{fill:#181b20}.c{fill:#6faae6}}</style>"
        f'<rect class="b" width="100%" height="100%"/>{"".join(marks)}</svg>'
    )


def _table(rows: list[tuple[str, float | None, float]]) -> str:
    lines = "".join(
        f"<tr><td>{html.escaped(html.shorten(name, 40))}</td>"
        f"<td>{'' if logit is None else f'{logit:.3f}'}</td><td>{probability:.4f}</td></tr>"
        for name, logit, probability in rows
    )
    head = "<tr><th>Token</th><th>Logit</th><th>Probability</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"
