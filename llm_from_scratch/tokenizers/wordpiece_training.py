"""Learn a WordPiece vocabulary from text: the merges of byte-pair encoding, written in BERT's form.

BERT's own training code was never published. What is known of it (Schuster and Nakajima 2012) merges the
pair of pieces that raises the likelihood of the text most, where byte-pair encoding merges the most
frequent pair. This module takes the merges of byte-pair encoding, which the package has, inside the words
that `WordPieceTokenizer` cuts: a token that begins a word is written as it is, one inside a word with "##".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer
from llm_from_scratch.tokenizers.wordpiece import FIRST, MASK, PADDING, SEPARATOR, UNKNOWN, WordPieceTokenizer

SPECIAL = (PADDING, UNKNOWN, FIRST, SEPARATOR, MASK)
_BYTES = 256


def learn_vocabulary(
    texts: Iterable[str],
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = SPECIAL,
    lower_case: bool = True,
    least_count: int = 20,
) -> list[str]:
    """Return ``vocab_size`` tokens: the special ones, the characters, then the merges in their order.

    A character stands there once for the start of a word and once ("##") for the inside of one, wherever
    it occurs ``least_count`` times at such a place; rarer ones become [UNK]. A merge that was only a step
    on the way to a longer one, so that the cut writes it less often than that, is left out. A small text
    runs out of pairs, and the vocabulary is then smaller.

    Raises: ValueError if the texts are empty, or the characters alone need more than ``vocab_size``.
    Departs from BERT: pairs are merged by frequency, see above.

    >>> learn_vocabulary(["low lower lowest"], vocab_size=20, least_count=1)[5:]
    ['##e', '##o', '##r', '##s', '##t', '##w', 'l', 'low', 'lower', 'lowest']
    """
    cutter = WordPieceTokenizer([UNKNOWN], lower_case=lower_case)
    words = [cutter.words(text) for text in texts]
    counts: Counter[str] = Counter()
    for word in (word for part in words for word in part):
        counts[word[0]] += 1
        counts.update(f"##{character}" for character in word[1:])
    characters = sorted(piece for piece, count in counts.items() if count >= least_count)
    vocabulary = [*special_tokens, *characters]
    if not characters:
        raise ValueError(f"no character occurs {least_count} times in the texts; lower least_count")
    if len(vocabulary) > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: {len(special_tokens)} special tokens and "
            f"{len(characters)} characters need {len(vocabulary)}"
        )
    spaced = ("".join(f" {word}" for word in part) for part in words)
    pairs = BytePairTokenizer.train(spaced, vocab_size=2 * vocab_size + _BYTES)
    pieces = (pairs.decode([i]) for i in range(_BYTES, pairs.vocab_size))
    pieces = [piece[1:] if piece.startswith(" ") else f"##{piece}" for piece in pieces]
    whole = [piece for piece in dict.fromkeys(pieces) if "\ufffd" not in piece]  # no part of a character
    merged = [piece for piece in whole if piece not in vocabulary]
    used = _uses([*vocabulary, *merged], Counter(word for part in words for word in part), lower_case)
    merged = [piece for piece in merged if used[piece] >= least_count]
    return vocabulary + merged[: vocab_size - len(vocabulary)]


def _uses(vocabulary: list[str], words: Counter[str], lower_case: bool) -> Counter[str]:
    """How often each token is written when every word is cut: a step on the way of merges may never be."""
    cutter = WordPieceTokenizer(vocabulary, lower_case=lower_case)
    used: Counter[str] = Counter()
    for word, count in words.items():
        for i in cutter.encode(word):
            used[vocabulary[i]] += count
    return used
