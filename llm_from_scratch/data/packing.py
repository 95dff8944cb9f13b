"""Put the tokens of many documents into one stream.

A model trains on windows of a fixed length; documents have any length. So the documents are laid end to
end, with an end-of-text token after each, and windows are cut from the stream. The model learns from the
token that what follows has nothing to do with what came before. Nothing is padded and nothing is lost.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt

_MOST = np.iinfo(np.uint32).max


def pack(
    documents: Iterable[Sequence[int]], *, end_of_text: int | None = None
) -> UInt[np.ndarray, " tokens"]:
    """Join the token ids of ``documents`` into one array, each followed by ``end_of_text``.

    The array is uint16 where all ids fit (2 bytes a token), else uint32. With ``end_of_text=None``
    nothing is put between the documents.

    Raises: ValueError if there is no token at all, an id is no whole number, or one lies outside 0 to
    4,294,967,295.

    >>> pack([[5, 6], [7]], end_of_text=9)
    array([5, 6, 9, 7, 9], dtype=uint16)
    """
    end = [] if end_of_text is None else [end_of_text]
    parts = [_integers([*document, *end]) for document in documents]
    stream = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if len(stream) == 0:
        raise ValueError("there is no token to pack: every document is empty, or there is none")
    least, most = int(stream.min()), int(stream.max())
    if least < 0 or most > _MOST:
        raise ValueError(f"token ids must lie in 0 to {_MOST}, got {least} to {most}")
    return stream.astype(np.uint16 if most <= np.iinfo(np.uint16).max else np.uint32)


def _integers(ids: list[int]) -> np.ndarray:
    """Return ``ids`` as int64; numpy alone would cut 2.7 down to 2 without a word."""
    try:
        return np.fromiter(map(operator.index, ids), dtype=np.int64, count=len(ids))
    except TypeError as error:  # "'float' object cannot be interpreted as an integer"
        raise ValueError(f"token ids must be whole numbers in one row: {error}") from None
    except OverflowError:
        raise ValueError(f"token ids must lie in 0 to {_MOST}, got one of more than 64 bits") from None
