"""How varied a set of texts is: distinct n-grams, self-BLEU, and repetition within one text.

A text is a list of tokens; `words` cuts a string into words and signs. None of the three measures
asks whether a text is any good: random words are as varied as can be.
"""

from collections.abc import Hashable, Sequence

Tokens = Sequence[Hashable]


def words(text: str) -> list[str]:
    """Cut a string into runs of letters and digits and runs of other signs, by nltk's `wordpunct_tokenize`.

    >>> words("It's 9 o'clock.")
    ['It', "'", 's', '9', 'o', "'", 'clock', '.']
    """
    from nltk.tokenize import wordpunct_tokenize

    return wordpunct_tokenize(text)


def ngrams(tokens: Tokens, n: int) -> list[tuple]:
    """All runs of ``n`` neighbouring tokens, in order; none if the text is shorter.

    Raises: ValueError if ``n`` is no whole number of at least 1.

    >>> ngrams("abc", 2)
    [('a', 'b'), ('b', 'c')]
    """
    if type(n) is not int or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """The share of different n-grams among all n-grams of the texts together.

    It falls with the amount of text, since there are only so many n-grams: compare sets of equal size.

    Units: from above 0, all n-grams the same, to 1, no n-gram twice.
    Raises: ValueError if no text has n tokens.
    Source: Li et al. 2016 (A diversity-promoting objective function), section 5.2. Departure: they
    divide by the number of tokens.

    >>> distinct(["abab"], 1), round(distinct(["abab", "abc"], 2), 2)  # ab ba ab, ab bc
    (0.5, 0.6)
    """
    found = [gram for text in texts for gram in ngrams(text, n)]
    if not found:
        raise ValueError(f"none of {len(texts)} texts has {n} tokens; give longer texts or a smaller n")
    return len(set(found)) / len(found)


def repeated_share(text: Tokens, n: int) -> float:
    """The share of n-grams of one text that have stood in it before.

    Formula: ``1 - distinct n-grams / n-grams``.
    Source: Welleck et al. 2020 (Neural text generation with unlikelihood training), section 6.1.

    >>> repeated_share("abababab", 4)  # abab baba abab baba abab
    0.6
    """
    return 1 - distinct([text], n)


def self_bleu(texts: Sequence[Tokens], *, max_n: int = 4) -> float:
    """How alike the texts are: the BLEU of each against all the others, averaged.

    BLEU is nltk's, with n-grams up to ``max_n`` in equal shares. Where no n-gram of a length matches,
    0.1 match is counted, so that one missing length does not make the whole product 0.

    Units: from 0, nothing in common, to 1, all texts equal.
    Raises: ValueError for fewer than two texts.
    Source: Zhu et al. 2018 (Texygen), section 3.3.

    >>> round(self_bleu([list("abcde")] * 3), 6)
    1.0
    >>> self_bleu([list("abcde"), list("fghij")])
    0.0
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares each text with the others, got {len(texts)}; give at least two")
    smooth = SmoothingFunction().method1
    shares = (1 / max_n,) * max_n
    scores = [
        sentence_bleu([*texts[:i], *texts[i + 1 :]], text, weights=shares, smoothing_function=smooth)
        for i, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)
