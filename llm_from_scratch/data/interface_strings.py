"""The strings of a real interface in English and Chinese: Django's message catalogues.

A catalogue (.mo) is what gettext looks translations up in. Django carries one for each of its
applications and languages. Together they hold about 800 different English strings: labels, months,
short sentences, and messages with places to fill in, such as ``Add another %(model)s``.
"""

from __future__ import annotations

import gettext
import io
import zipfile
from pathlib import Path

from llm_from_scratch.data.artifacts import fetch

_ENDINGS = ("locale/zh_Hans/LC_MESSAGES/django.mo", "locale/zh_Hans/LC_MESSAGES/djangojs.mo")
_CONTEXT_END = "\x04"  # in a catalogue: "abbrev. month\x04Jan."


def interface_strings(archive: Path | None = None) -> tuple[tuple[str, str], ...]:
    """Return pairs (English, Chinese), one for each English string, sorted by it.

    ``archive`` is a wheel of Django; without it, the one that `artifacts.fetch("django_zh")` returns,
    which may download it. Where an English string has several translations, because several
    applications or contexts use it, the first in the order of the files and of the contexts counts.
    Strings without a translation are left out; of a string with a plural, the singular is kept.

    Raises: ValueError if the archive is damaged or holds no Chinese catalogue; what ``fetch`` raises.
    """
    archive = fetch("django_zh") if archive is None else Path(archive)
    try:
        with zipfile.ZipFile(archive) as package:
            names = sorted(name for name in package.namelist() if name.endswith(_ENDINGS))
            catalogues = [_read(package.read(name)) for name in names]
    except (zipfile.BadZipFile, EOFError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{archive.name} is damaged ({error}); remove it and fetch it again") from None
    if not catalogues:
        raise ValueError(f"{archive.name} holds no file that ends in {_ENDINGS[0]}; it is no wheel of Django")
    pairs: dict[str, str] = {}
    for catalogue in catalogues:
        for english, chinese in sorted(catalogue.items()):
            pairs.setdefault(english.rpartition(_CONTEXT_END)[2], chinese)
    return tuple(sorted(pairs.items()))


def _read(content: bytes) -> dict[str, str]:
    """Return one catalogue's translated strings."""
    # gettext has no public way to list what a catalogue holds. Keys are strings, or (string, form)
    # where there is a plural; the empty string is the header.
    entries = gettext.GNUTranslations(io.BytesIO(content))._catalog
    found = {}
    for key, translation in entries.items():
        english, form = key if isinstance(key, tuple) else (key, 0)
        if english and translation and form == 0:
            found[english] = translation
    return found
