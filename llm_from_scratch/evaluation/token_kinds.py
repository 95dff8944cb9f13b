"""What a token is in its text: a function word, a name, a number, the rest of a word.

The mean loss of a language model hides what it has learned. The kinds below split it. They come from the
spelling of the tokens and of their neighbours alone, so every text can be sorted, and some tokens are
sorted wrongly: a name that begins a sentence counts as a word, and so does a name in small letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

KINDS = (
    "function word",  # a whole word of the closed list below
    "other word",  # the first token of any other word
    "name",  # the first token of a word with a capital letter inside a sentence
    "rest of a word",  # every further token of a word
    "number",  # a token with a digit
    "punctuation",  # a token with neither letter nor digit, but for blanks
    "line break",
    "end of text",
)
# Words of the closed classes: determiners, prepositions, conjunctions, pronouns, auxiliary verbs.
FUNCTION_WORDS = frozenset(
    """a an the this that these those every each all any some no both such
    of in to for with on by at from into upon under over between among through against during before after
    about within without and or but nor if as than because while when where which who whom whose what
    i we you he she it they me us him her them my our your his its their itself themselves
    is are was were be been being am have has had do does did will would shall should may might can could
    must not there so only also more most""".split()  # noqa: SIM905
)
_SENTENCE_ENDS = '.!?:\n"”'


def token_kinds(texts: Sequence[str], *, end_of_text: str | None = None) -> list[str]:
    r"""Name the kind of each token, one of `KINDS`, from the tokens' texts in their order.

    A word goes on where a token that begins with a letter follows one that ends with a letter, or an
    apostrophe between letters. A token that holds a blank belongs to what follows the blank. The last
    token cannot be seen to end its word; it is taken to.
    Raises: ValueError if ``texts`` is one string instead of a sequence of them.

    >>> kinds = token_kinds([" of", " Con", "gress", " 18", ".", "\n", "<|end|>"], end_of_text="<|end|>")
    >>> print(", ".join(kinds))
    function word, name, rest of a word, number, punctuation, line break, end of text
    """
    if isinstance(texts, str):
        raise ValueError(f"texts must be one string for each token, got the single string {texts[:40]!r}")
    kinds: list[str] = []
    before, sentence_begins = "", True
    for n, text in enumerate(texts):
        following = texts[n + 1] if n + 1 < len(texts) else ""
        kind = _kind(text, before, following, sentence_begins, end_of_text)
        kinds.append(kind)
        if kind == "end of text":
            before, sentence_begins = "", True
            continue
        before = text or before
        if text.strip(" "):
            sentence_begins = text.rstrip(" ")[-1] in _SENTENCE_ENDS
    return kinds


def loss_by_kind(losses: Sequence[float] | np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    """Return the mean of ``losses`` over the tokens of each kind that occurs, in the order of `KINDS`.

    Units: whatever the losses are in; nats a token in this book.
    Raises: ValueError if there are not as many losses as kinds, or a kind is unknown.

    >>> loss_by_kind([1.0, 3.0, 2.0], ["number", "number", "name"])
    {'name': 2.0, 'number': 2.0}
    """
    losses_N: Float[np.ndarray, " N"] = np.asarray(losses, dtype=np.float64)
    if losses_N.shape != (len(kinds),):
        raise ValueError(f"there must be one loss for each kind, got {losses_N.shape} and {len(kinds)}")
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(KINDS)}")
    kinds_N = np.asarray(kinds)
    return {kind: float(losses_N[kinds_N == kind].mean()) for kind in KINDS if (kinds_N == kind).any()}


def _kind(text: str, before: str, following: str, sentence_begins: bool, end_of_text: str | None) -> str:
    if end_of_text is not None and text == end_of_text:
        return "end of text"
    core = text.strip(" ")
    if any(c.isdigit() for c in core):
        return "number"
    if not any(c.isalpha() for c in core):
        return "line break" if "\n" in core else "punctuation"
    if text[0].isalpha() and before[-1:].isalpha():
        return "rest of a word"
    if core[0] in "'’" and before[-1:].isalpha():
        return "rest of a word"
    ends = not following[:1].isalpha()  # else the word goes on
    word = core.lstrip("'’\"“(-—\n")
    if ends and word.lower() in FUNCTION_WORDS:
        return "function word"
    return "name" if word[:1].isupper() and not sentence_begins else "other word"
