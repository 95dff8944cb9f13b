"""Two labelled collections of short English texts: sentences of film reviews, and text messages.

Both are read out of published packages (`artifacts`); neither is part of this project. The sentences are
short quotations from reviews by many authors: read them, train on them, do not publish them again.
"""

from __future__ import annotations

import csv
import html
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.labelled_splits import LabelledTexts, split_texts

NEUTRAL = 0.5  # a mean score closer to 0 than this is neither positive nor negative
_SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_SWALLOWED = re.compile(r"\n(ham|spam)\t")  # the start of a message within another


def load_labelled(name: str) -> LabelledTexts:
    """Return the collection ``name``, fetched on first use, in fixed parts (see `labelled_splits`).

    ``"film_sentiment"``: 10,070 sentences from film reviews, each judged by at least 20 people from -4
    (very negative) to 4. Labels: 0 ``negative`` (mean at most -0.5; 5,075) and 1 ``positive`` (at least
    0.5; 4,995). Of the file's 10,605 sentences, 533 lie between and are left out; 2 repeat another.
    Train 7,019, validation 1,063, test 1,988 (50.0 %, 49.0 % and 48.5 % positive). The texts had lost
    their hyphens before they came here ("co writer"). Source: Hutto and
    Gilbert 2014 (VADER); the sentences are from the film reviews of Pang and Lee.

    ``"sms_spam"``: 5,159 text messages. Labels: 0 ``ham`` (a message that somebody wanted; 4,518) and
    1 ``spam`` (641, 12.4 %). Train 3,685, validation 517, test 957 (12.2 %, 13.0 % and 13.1 % spam). The
    package's table has 4,837 rows, but 8 of them hold several messages, one of them 28,174 characters of
    messages, because a stray quotation mark hid the ends of lines from whoever read the original. They
    are taken apart here, which gives back all 5,574 messages of the publication, 4,827 ham and 747 spam.
    Of those, 415 repeat another letter for letter and are left out; 72 more differ in digits and
    punctuation alone, and lie in one part with what they repeat. The parts were drawn twice: in the first
    draw 16.4 % of the validation part was spam. Source: Almeida, Gomez Hidalgo and Yamakami 2011.

    In both, entities of HTML (``&amp;``) are replaced by their characters, runs of white space by one
    space, and characters at the places of Windows-1252 by what they meant there. Other damage of the
    source is left as it is: a few messages have a letter out of another code page.
    Raises: ValueError for another name; what `artifacts.fetch` raises.
    """
    if name not in _READERS:
        raise ValueError(f"no labelled texts are named {name!r}; there are {', '.join(map(repr, _READERS))}")
    read, label_names = _READERS[name]
    rows = read(fetch(name))
    salt = "sms_spam, second draw" if name == "sms_spam" else name
    return split_texts(name, label_names, rows, test_share=0.2, validation_share=0.1, salt=salt)


def clean(text: str) -> str:
    r"""Replace entities of HTML, misplaced characters of Windows-1252 and runs of white space.

    >>> clean("Tom &amp;  Jerry\x92s ")
    'Tom & Jerry’s'
    """
    text = html.unescape(text)
    text = re.sub(r"[\x80-\x9f]", lambda found: found[0].encode("latin-1").decode("cp1252", "ignore"), text)
    return " ".join(text.split())


def read_film_sentiment(archive: Path) -> list[tuple[str, int]]:
    """Return (sentence, 1 if positive else 0) from the archive of the snippets, without the neutral ones.

    Raises: ValueError if the archive is not that one.
    """
    try:
        with tarfile.open(archive, "r:gz") as package:
            content = package.extractfile(_SNIPPETS).read().decode("utf-8")
        rows = [line.split("\t") for line in content.split("\r\n") if line]
        scored = [(clean(text), float(score)) for _, score, text in rows]
    except (KeyError, tarfile.TarError, EOFError, UnicodeDecodeError, ValueError, AttributeError) as error:
        raise ValueError(f"{archive.name} is not the archive of the snippets ({error!r})") from None
    return [(text, int(score > 0)) for text, score in scored if abs(score) >= NEUTRAL]


def read_sms_spam(table: Path) -> list[tuple[str, int]]:
    """Return (message, 1 if spam else 0) from the table, and the messages hidden in its rows.

    Raises: ValueError if the table has no columns ``spam`` and ``text``.
    """
    rows = []
    for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"), newline="")):
        try:
            first, *others = _SWALLOWED.split(row["text"])
            rows.append((clean(first), int(row["spam"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{table.name} is not the table of messages ({error!r})") from None
        rows += [
            (clean(text), int(label == "spam")) for label, text in zip(others[::2], others[1::2], strict=True)
        ]
    return rows


_READERS: dict[str, tuple[Callable[[Path], list[tuple[str, int]]], tuple[str, str]]] = {
    "film_sentiment": (read_film_sentiment, ("negative", "positive")),
    "sms_spam": (read_sms_spam, ("ham", "spam")),
}
