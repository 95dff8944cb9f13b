"""What the widgets share: reading arrays, showing tokens, packing numbers, and the HTML around a view.

The HTML of a widget holds three things, in this order:

1. A fallback of plain elements: an `<img>` with an SVG data address and alt text, the caption, a table
   inside `<details>`. It is what readers without JavaScript see, and what is left after JupyterLab's
   sanitiser has removed scripts and styles from a notebook it does not trust.
2. The data as JSON, with every `<` escaped, so that no token can end the script element early.
3. The widget's JavaScript file. It finds roots of its kind that are not mounted yet, builds the view in a
   shadow root and hides the fallback. If it fails, the fallback stays.

There are no ids in the page: the same widget can stand twice without a clash, and the HTML of a widget
depends on its contents alone.
"""

from __future__ import annotations

import base64
import html
import json
import unicodedata
from importlib import resources
from typing import Any
from urllib.parse import quote

import numpy as np

# Raised when the JavaScript and the data no longer fit: a script leaves data of another format alone.
FORMAT = 1

_NAMED = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
# Letters of the categories "other": control, format, surrogate, private use, unassigned.
_JOINERS = "\u200c\u200d"  # needed inside emoji and some scripts, so they stay


def to_array(name: str, value: Any) -> np.ndarray:
    """Read numbers from an array, a torch tensor or nested lists of either, as float64.

    torch is not imported: a tensor is known by its ``detach`` method.

    Raises: ValueError if the numbers are ragged, complex or no numbers at all.

    >>> to_array("weights", [[1, 0], [0.5, 0.5]]).shape
    (2, 2)
    """
    wanted = f"{name} must be a rectangular array of real numbers (numpy, torch or nested lists), got "
    try:
        array = np.asarray(_plain(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}{type(value).__name__}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{wanted}{type(value).__name__} of {array.dtype}")
    return array.astype(np.float64)


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # numpy knows no bfloat16, so every float is widened first; a complex tensor fails in to_array.
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def read_tokens(tokens: Any) -> list[str]:
    """Check that ``tokens`` is a non-empty sequence of strings.

    >>> read_tokens(("a", "b"))
    ['a', 'b']
    """
    if isinstance(tokens, str):
        raise ValueError(f"tokens must be a list with one string a token, got the single string {tokens!r}")
    tokens = list(tokens)
    if not tokens:
        raise ValueError("tokens is empty: a widget needs at least one token")
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            raise ValueError(
                f"tokens[{position}] is {token!r} of type {type(token).__name__}; every token must be a str: "
                "tokenizer.tokens_as_text(ids) gives them"
            )
    return tokens


def visible(token: str) -> str:
    r"""Show a token so that every character of it is seen, and none of them acts on the page.

    A space becomes ␣, a newline ↵, a tab ⇥; other control characters become their control picture, and
    invisible format characters (those that turn the writing direction too) their code point.

    >>> visible(" the"), visible("\n"), visible(""), visible("\u202e")
    ('␣the', '↵', '(empty)', '⟨U+202E⟩')
    """
    if not token:
        return "(empty)"
    return "".join(map(_visible_character, token))


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 32:
        return chr(0x2400 + code)
    if code == 127:
        return "␡"
    category = unicodedata.category(character)
    hidden = category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and character not in _JOINERS
    # Code points that XML does not allow, and blanks that are not the space.
    if hidden or category == "Zs" or code in (0xFFFE, 0xFFFF) or 0xFDD0 <= code <= 0xFDEF:
        return f"⟨U+{code:04X}⟩"
    return character


def shorten(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, the last an ellipsis.

    >>> shorten("attention", 5)
    'atte…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def pack(array: np.ndarray, dtype: str) -> str:
    """Write numbers as base64 of little-endian ``dtype``, the form the JavaScript reads.

    >>> pack(np.array([1, 2]), "u1")
    'AQI='
    """
    return base64.b64encode(np.ascontiguousarray(array).astype("<" + dtype).tobytes()).decode("ascii")


def escaped_json(data: Any) -> str:
    r"""Write ``data`` as JSON that is safe inside a script element, whatever strings it holds.

    >>> escaped_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    # ensure_ascii escapes lone surrogates and U+2028 as well; NaN would not be JSON.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def escaped(text: str) -> str:
    """Write text for HTML and SVG: markup escaped, lone surrogates replaced (they are no Unicode text)."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def svg_address(svg: str) -> str:
    """Write an SVG as a data address for the ``src`` of an image."""
    return "data:image/svg+xml," + quote(svg, safe=" =:;/,()+*!~@'?-._")


def script(kind: str) -> str:
    """Read the JavaScript of a widget: one script without dependencies.

    A line ``//= shared_make.js`` in its file stands for the contents of that file beside it, which several
    widgets share and which may hold such lines itself.
    """
    return _javascript(f"{kind}.js")


def _javascript(name: str) -> str:
    source = resources.files(__package__).joinpath("js", name).read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    return "".join(_javascript(line[4:].strip()) if line.startswith("//= ") else line for line in lines)


def widget_html(
    kind: str, data: dict[str, Any], *, svg: str, alt: str, caption: str, summary: str, table: str
) -> str:
    """Put a widget's HTML together: the fallback, the data and the script.

    ``svg`` and ``table`` are markup; ``alt``, ``caption`` and ``summary`` are text and are escaped here.
    """
    # `<` in the JavaScript would be harmless but for the two sequences that change how a script element is
    # parsed. The files contain neither; a test holds that.
    return f"""<div class="llm-widget tex2jax_ignore mathjax_ignore" data-llm-widget="{kind}">
<div class="llm-widget-fallback">
<p><strong>{escaped(data["title"])}</strong></p>
<p><img src="{svg_address(svg)}" alt="{escaped(alt)}" style="max-width: 100%; height: auto"></p>
<p>{escaped(caption)}</p>
<details><summary>{escaped(summary)}</summary>
<div style="overflow-x: auto">{table}</div>
</details>
</div>
<script type="application/json">{escaped_json({"format": FORMAT, **data})}</script>
</div>
<script>
{script(kind)}</script>
"""
