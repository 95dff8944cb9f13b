"""Never complete one of a list of token sequences.

Legend: B sequences, T tokens so far, V vocabulary entries.
"""

import operator
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llm_from_scratch.decoding.pipeline import check_history


def forbid_sequences(
    ids_BT: Int[Tensor, "B T"], logits_BV: Float[Tensor, "B V"], *, sequences: Iterable[Sequence[int]]
) -> Float[Tensor, "B V"]:
    """Give score minus infinity to each token that would complete one of the ``sequences`` of tokens.

    A sequence of one token is forbidden always; a longer one only where the text ends in all its
    tokens but the last. The beginning may lie in the prompt.

    One word is many token sequences: with a space before it, in capitals, or split elsewhere. Each
    that must not appear has to be listed.

    Raises: ValueError for an empty sequence, and for an id outside the vocabulary.

    >>> forbid_sequences(torch.tensor([[3, 1]]), torch.zeros(1, 4), sequences=[[0], [1, 2], [0, 3]]).tolist()
    [[-inf, 0.0, -inf, 0.0]]
    """
    check_history(ids_BT, logits_BV)
    texts = ids_BT.tolist()
    forbidden_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    for sequence in sequences:
        *beginning, last = _checked(sequence, vocab_size=logits_BV.shape[-1])
        for row, ids_T in enumerate(texts):
            if len(beginning) <= len(ids_T) and ids_T[len(ids_T) - len(beginning) :] == beginning:
                forbidden_BV[row, last] = True
    return logits_BV.masked_fill(forbidden_BV, -torch.inf)


def _checked(sequence: Sequence[int], *, vocab_size: int) -> list[int]:
    """The ids of one forbidden sequence, as plain integers."""
    try:
        ids = [operator.index(token) for token in sequence]
    except TypeError:
        raise ValueError(
            f"a forbidden sequence must be a list of token ids, got {sequence!r}; encode the word first"
        ) from None
    if not ids:
        raise ValueError("a forbidden sequence is empty; leave it out, or give at least one token id")
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"token {token} of the forbidden sequence {ids} lies outside the vocabulary of {vocab_size} "
                f"tokens; ids run from 0 to {vocab_size - 1}"
            )
    return ids
