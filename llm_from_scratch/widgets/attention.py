"""The attention explorer: every head of a model over one text, to be touched and read off.

Shape letters: L layers, H heads, T tokens; the first T is the query (row), the second the key (column).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from llm_from_scratch.widgets import html

MAX_TOKENS = 64  # tokens shown; a larger matrix is neither readable nor small
MAX_BYTES = 500_000  # bytes of HTML above which the constructor warns: the limit of a whole chapter
SUM_TOLERANCE = 5e-3  # how far a row may be from 1: 64 bfloat16 weights stay within it
FILLED = 5_000.0  # nats below the largest score of a row from which a score is taken for a mask's filling
MASKED = -32768  # the int16 that stands for a score of minus infinity
STEPS = 65534  # steps of the int16 scale, -32767 to 32767


class AttentionExplorer:
    """Attention weights of all layers and heads over one text, as an interactive view.

    Shown as the last line of a notebook cell. In the view: layer and head, a map of each head, the row and
    column of a token on hover, a pin (click, Enter or Space; Escape unpins), the exact value of a cell, the
    entropy of a row in bits and the effective number of tokens 2^H, export as SVG and CSV. With ``scores``
    also: the scores before the softmax, and a switch for the causal mask that recomputes the softmax.

    Args:
        tokens: the text, one string a token. Above 64 tokens the first 64 are kept, with a warning.
        weights: [layers, heads, T, T], each row a distribution over the keys. The list that
            ``model(ids, return_attention=True)`` returns, one [1, heads, T, T] a layer, is read too.
        scores: the same shape, scaled scores before the softmax; minus infinity where masked. Scores of the
            later tokens must be there (not masked) for the mask switch to appear.
        causal: whether a token could see only itself and the tokens before it.
        layer, head: what is shown first, counted from 0 as in the arrays.
        title, caption: text above and below; alt: what the picture says, for those who do not see it.

    Precision: without scores the weights travel as uint8, w = byte / 255, so the view prints two decimals
    and the true value is within 0.002. With scores these travel as int16 on the range of their head, and the
    browser computes the weights from them, to three decimals where that range is below 130 nats. A
    score 5,000 below the largest of its row counts as masked: its weight is 0, and the value is a fill-in.
    Entropies without scores are computed here from the weights as given.

    Raises: ValueError for empty tokens, a wrong shape, numbers that are not finite, negative weights, rows
    that do not sum to 1, weights on later tokens under ``causal=True``, and scores whose softmax is not
    the weights.

    >>> view = AttentionExplorer(["a", "b"], [[[[1.0, 0.0], [0.25, 0.75]]]])
    >>> view
    AttentionExplorer(2 tokens, 1 layer, 1 head)
    """

    def __init__(
        self,
        tokens: list[str],
        weights: Float[Any, "layers heads T T"],
        scores: Float[Any, "layers heads T T"] | None = None,
        causal: bool = True,
        title: str = "Attention explorer",
        caption: str | None = None,
        alt: str | None = None,
        *,
        layer: int = 0,
        head: int = 0,
    ) -> None:
        self.tokens = html.read_tokens(tokens)
        weights_LHTT = _read("weights", weights, len(self.tokens))
        scores_LHTT = None if scores is None else _read("scores", scores, len(self.tokens))
        _check_weights(weights_LHTT, scores_LHTT, causal)
        if scores_LHTT is not None:
            top_LHT1 = scores_LHTT.max(-1, keepdims=True)
            scores_LHTT = np.where(scores_LHTT < top_LHT1 - FILLED, -np.inf, scores_LHTT)
            _check_scores(scores_LHTT, weights_LHTT, causal)
        for name, index, size in (
            ("layer", layer, weights_LHTT.shape[0]),
            ("head", head, weights_LHTT.shape[1]),
        ):
            if not 0 <= index < size:
                raise ValueError(f"{name}={index} does not exist: weights has {name}s 0 to {size - 1}")
        if len(self.tokens) > MAX_TOKENS:
            self.tokens, weights_LHTT, scores_LHTT = _first(
                MAX_TOKENS, self.tokens, weights_LHTT, scores_LHTT
            )
        self.weights, self.scores, self.causal = weights_LHTT, scores_LHTT, bool(causal)
        self.layer, self.head, self.title = int(layer), int(head), title
        self.caption = self._default_caption() if caption is None else caption
        self.alt = self._default_alt() if alt is None else alt
        self._html = self._build()
        if len(self._html) > MAX_BYTES:
            warnings.warn(
                f"this view is {len(self._html) / 1e6:.1f} MB of HTML, more than {MAX_BYTES / 1e6:.1f} MB: "
                "pass fewer layers (weights[:4]), fewer tokens, or no scores",
                stacklevel=2,
            )

    @classmethod
    def live(cls, model: Any, tokenizer: Any, text: str | None = None, **options: Any) -> Any:
        """Return ipywidgets controls: a text box and a button that recompute the view in the kernel.

        ``model`` offers ``attention_maps(ids)``, which returns the weights or the pair (weights, scores);
        otherwise ``model(ids, return_attention=True)`` is called. ``options`` go to ``AttentionExplorer``.
        Needs ipywidgets, which the extra ``book`` installs.
        """
        from llm_from_scratch.widgets import live

        return live.attention_controls(model, tokenizer, text, cls, **options)

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        layers, heads = self.weights.shape[:2]
        return (
            f"AttentionExplorer({_count(len(self.tokens), 'token')}, {_count(layers, 'layer')}, "
            f"{_count(heads, 'head')})"
        )

    def _default_caption(self) -> str:
        return (
            "Each row is a query: the token that looks. Each column is a key: the token that is looked at. "
            "The colour grows with the weight."
        )

    def _default_alt(self) -> str:
        table = self.weights[self.layer, self.head]
        names = [html.shorten(html.visible(token), 16) for token in self.tokens]
        looks = "; ".join(
            f"{name} mostly at {names[int(row.argmax())]} ({row.max():.2f})"
            for name, row in zip(names[:8], table[:8], strict=True)
        )
        more = ", and so on" if len(self.tokens) > 8 else ""
        return f"Attention weights of layer {self.layer}, head {self.head}: {looks}{more}."

    def _build(self) -> str:
        layers, heads = self.weights.shape[:2]
        data: dict[str, Any] = {
            "title": self.title,
            "caption": self.caption,
            "alt": self.alt,
            "tokens": self.tokens,
            "shown": [html.visible(token) for token in self.tokens],
            "layers": layers,
            "heads": heads,
            "layer": self.layer,
            "head": self.head,
            "causal": self.causal,
        }
        if self.scores is None:
            data["weights"] = html.pack(np.rint(self.weights.clip(0, 1) * 255), "u1")
            data["entropy"] = html.pack(_entropy_bits(self.weights), "f4")
        else:
            data["scores"] = _pack_scores(self.scores)
            above = np.triu(np.ones(self.scores.shape[-2:], dtype=bool), 1)
            data["maskable"] = bool(above.any() and np.isfinite(self.scores[..., above]).any())
        return html.widget_html(
            "attention",
            data,
            svg=_picture(self.tokens, self.weights[self.layer, self.head], self.causal),
            alt=self.alt,
            caption=self.caption,
            summary=f"Table of layer {self.layer}, head {self.head}: where each token looks",
            table=_table(self.tokens, self.weights[self.layer, self.head]),
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _read(name: str, value: Any, length: int) -> np.ndarray:
    array = html.to_array(name, value)
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]  # one batch of one sequence a layer
    if array.ndim != 4:
        hint = {3: f": add the layer axis, {name}[None]", 5: ": pick one sequence of the batch"}
        raise ValueError(
            f"{name} must have the shape [layers, heads, T, T], got {list(array.shape)}"
            f"{hint.get(array.ndim, '')}"
        )
    if array.shape[2:] != (length, length) or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, but {length} tokens need "
            f"[layers, heads, {length}, {length}]"
        )
    if np.isnan(array).any() or np.isposinf(array).any() or (name == "weights" and np.isneginf(array).any()):
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}{list(place)} is {array[place]}: the values must be finite")
    return array


def _check_weights(weights: np.ndarray, scores: np.ndarray | None, causal: bool) -> None:
    if weights.min() < -1e-6:
        place = np.unravel_index(weights.argmin(), weights.shape)
        raise ValueError(
            f"weights{[int(i) for i in place]} is {weights.min():.4g}: weights are not negative. "
            "Scores before the softmax go into scores="
        )
    sums = weights.sum(-1)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if scores is not None:  # a row whose every key is masked has no weights, by definition
        wrong &= ~(np.isneginf(scores).all(-1) & (np.abs(sums) <= SUM_TOLERANCE))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"weights{list(place)} sums to {sums[place]:.4f}, every row must sum to 1: pass the weights "
            "after the softmax, from a model in eval mode (dropout changes the sums)"
        )
    if causal:
        later = np.triu(weights, 1)
        if later.max() > SUM_TOLERANCE:
            place = tuple(int(i) for i in np.unravel_index(later.argmax(), later.shape))
            raise ValueError(
                f"weights{list(place)} is {later.max():.4f}, a weight on a later token, which a causal mask "
                "forbids: pass causal=False for a model that looks both ways"
            )


def _check_scores(scores: np.ndarray, weights: np.ndarray, causal: bool) -> None:
    if scores.shape != weights.shape:
        raise ValueError(
            f"scores has shape {list(scores.shape)}, weights {list(weights.shape)}: they must agree"
        )
    difference = np.abs(_softmax(scores, causal) - weights)
    if difference.max() > SUM_TOLERANCE:
        place = [int(i) for i in np.unravel_index(difference.argmax(), difference.shape)]
        raise ValueError(
            f"the softmax of scores{place} differs from the weight by {difference.max():.4f}: scores must be "
            "divided by sqrt(d_k) already, and both must come from one call of a model in eval mode"
        )


def _softmax(scores: np.ndarray, causal: bool) -> np.ndarray:
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], dtype=bool)), scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = powers.sum(-1, keepdims=True)
    return powers / np.where(total == 0, 1.0, total)


def _entropy_bits(weights: np.ndarray) -> np.ndarray:
    return -(weights * np.log2(np.where(weights > 0, weights, 1.0))).sum(-1)


def _first(count: int, tokens: list[str], weights: np.ndarray, scores: np.ndarray | None) -> tuple:
    weights, kept = weights[..., :count, :count], tokens[:count]
    sums = weights.sum(-1, keepdims=True)
    lost = 1 - float(sums.min())
    note = (
        "" if lost <= SUM_TOLERANCE else f" Rows lost up to {lost:.2f} of their weight and were renormalised."
    )
    warnings.warn(
        f"{len(tokens)} tokens are more than the {count} the explorer shows: the first {count} are kept."
        f"{note}",
        stacklevel=3,
    )
    weights = weights / np.where(sums > 0, sums, 1.0)
    return kept, weights, None if scores is None else scores[..., :count, :count]


def _pack_scores(scores: np.ndarray) -> dict[str, Any]:
    """Put each head's scores on its own scale of 65,534 steps: score = middle + step * integer."""
    flat = scores.reshape(-1, scores.shape[-1] * scores.shape[-2])
    finite = np.isfinite(flat)
    low = np.where(finite, flat, np.inf).min(-1)
    high = np.where(finite, flat, -np.inf).max(-1)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
    middle, step = (low + high) / 2, (high - low) / STEPS
    steps = (np.where(finite, flat, 0.0) - middle[:, None]) / np.where(step > 0, step, 1.0)[:, None]
    integers = np.where(finite, np.rint(steps), MASKED)
    return {"values": html.pack(integers, "i2"), "middle": middle.tolist(), "step": step.tolist()}


def _picture(tokens: list[str], weights_TT: np.ndarray, causal: bool) -> str:
    """Draw one head as SVG: the fallback's picture. Cells of one shade in a row are one rectangle."""
    size, cell, left, top = len(tokens), 18, 96, 96
    names = [html.escaped(html.shorten(html.visible(token), 11)) for token in tokens]
    levels = np.rint(np.sqrt(weights_TT.clip(0, 1)) * 16).astype(int)  # 16 shades of the square root
    paths: dict[int, list[str]] = {}
    for row in range(size):
        start = 0
        for column in range(1, size + 1):
            if column == size or levels[row, column] != levels[row, start]:
                if levels[row, start]:
                    run = f"M{start} {row}h{column - start}v1h{start - column}z"
                    paths.setdefault(int(levels[row, start]), []).append(run)
                start = column
    shades = "".join(
        f'<path fill-opacity="{level / 16:.3g}" d="{"".join(runs)}"/>'
        for level, runs in sorted(paths.items())
    )
    rows = "".join(
        f'<text x="{left - 6}" y="{top + cell * i + 13}" text-anchor="end">{name}</text>'
        for i, name in enumerate(names)
    )
    columns = "".join(
        f'<text transform="translate({left + cell * i + 13} {top - 6}) rotate(-90)">{name}</text>'
        for i, name in enumerate(names)
    )
    width, height = left + cell * size + 8, top + cell * size + 8
    stairs = f'<path class="m" d="M1 0H{size}V{size - 1}{"h-1v-1" * (size - 1)}z"/>' if causal else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>text{{font:11px monospace;fill:#1f2733}}.b{{fill:#fff}}.c{{fill:#0b4a8f}}'
        ".m{fill:#eceff3}@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.b{fill:#181b20}.c{fill:#8cc2ff}"
        f'.m{{fill:#24282f}}}}</style><rect class="b" width="100%" height="100%"/>{rows}{columns}'
        f'<g transform="translate({left} {top}) scale({cell})">{stairs}<g class="c">{shades}</g></g></svg>'
    )


def _table(tokens: list[str], weights_TT: np.ndarray) -> str:
    names = [html.escaped(html.shorten(html.visible(token), 40)) for token in tokens]
    bits = _entropy_bits(weights_TT)
    lines = []
    for row, name in enumerate(names):
        order = np.argsort(-weights_TT[row], kind="stable")[:3]
        looks = ", ".join(
            f"{names[key]} {weights_TT[row, key]:.2f}" for key in order if weights_TT[row, key] > 0
        )
        lines.append(f"<tr><td>{row}</td><td>{name}</td><td>{looks}</td><td>{bits[row]:.2f}</td></tr>")
    head = "<tr><th>Position</th><th>Token</th><th>Largest weights</th><th>Entropy, bits</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"
