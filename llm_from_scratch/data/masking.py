"""Masking: which tokens a masked language model must predict, and what it sees in their places.

Two questions, two functions. *Which* tokens: `choose_tokens` draws each by itself, `choose_words` draws
whole words, `choose_spans` runs of tokens. *What stands there*: `corrupt` puts [MASK] in most of the
chosen places, a random token in some, and leaves the rest as they are.

Legend: B sequences, T positions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NO_TARGET = -100  # a position that is not predicted


def choose_tokens(
    maskable_BT: Bool[Tensor, "B T"], *, rate: float = 0.15, generator: torch.Generator | None = None
) -> Bool[Tensor, "B T"]:
    """Choose each maskable token with probability ``rate``, independently of all others.

    Departs from Devlin et al. 2019, whose code chooses a fixed number a sequence; the expected number is
    the same. ``transformers`` chooses as this function does.

    >>> choose_tokens(torch.tensor([[False, True, True]]), rate=1.0)
    tensor([[False,  True,  True]])
    """
    _check_share("rate", rate)
    return (torch.rand(maskable_BT.shape, generator=generator) < rate) & maskable_BT


def choose_words(
    word_BT: Int[Tensor, "B T"], *, rate: float = 0.15, generator: torch.Generator | None = None
) -> Bool[Tensor, "B T"]:
    """Choose each word with probability ``rate``, and with a word all of its tokens.

    ``word_BT`` is the number of the word that each token belongs to, -1 for tokens that are never
    chosen ([CLS], [SEP], padding); see `word_numbers`. One draw at the first token decides for the word,
    so the expected share of chosen *tokens* is ``rate`` too.

    Source: the whole-word masking of BERT's later models (May 2019), by the rule of ``transformers``.
    """
    _check_share("rate", rate)
    first_BT = torch.ones_like(word_BT, dtype=torch.bool)
    first_BT[:, 1:] = word_BT[:, 1:] != word_BT[:, :-1]
    drawn_BT = (torch.rand(word_BT.shape, generator=generator) < rate) & first_BT & (word_BT >= 0)
    start_BT = torch.where(first_BT, torch.arange(word_BT.shape[1]), 0).cummax(dim=1).values
    return drawn_BT.gather(1, start_BT)


def word_numbers(tokens: list[str], special_tokens: tuple[str, ...] = ()) -> list[int]:
    """Number the words that WordPiece tokens belong to: "##" goes on with the word before.

    >>> word_numbers(["[CLS]", "un", "##afford", "##able", "!", "[SEP]"], ("[CLS]", "[SEP]"))
    [-1, 0, 0, 0, 1, -1]
    """
    numbers, last = [], -1
    for place, token in enumerate(tokens):
        if token in special_tokens:
            numbers.append(-1)
            continue
        goes_on = token.startswith("##") and len(token) > 2 and place > 0 and numbers[-1] >= 0
        last += not goes_on
        numbers.append(last)
    return numbers


def choose_spans(
    maskable_BT: Bool[Tensor, "B T"],
    *,
    rate: float = 0.15,
    stop: float = 0.2,
    longest: int = 10,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "B T"]:
    """Choose runs of tokens until ``rate`` of each sequence's maskable tokens is chosen.

    A run's length follows the geometric distribution ``P(n) ~ stop (1 - stop)^(n-1)``, cut at ``longest``
    tokens; at the defaults the mean is 3.8. It begins anywhere, ends at a token that is not maskable or
    already chosen, and the last run is cut where the budget ends. A sequence with a maskable token and a
    rate above 0 has at least one chosen.

    Source: Joshi et al. 2020 (SpanBERT), section 3.1; there a run begins at the start of a word.
    """
    _check_share("rate", rate)
    if not 0 < stop <= 1 or longest < 1:
        raise ValueError(f"stop must lie in (0, 1] and longest be at least 1, got {stop} and {longest}")
    weights = stop * (1 - stop) ** torch.arange(longest, dtype=torch.float64)
    chosen_BT = torch.zeros_like(maskable_BT)
    for chosen_T, maskable_T in zip(chosen_BT, maskable_BT, strict=True):
        count = int(maskable_T.sum())
        left = min(count, max(1, round(rate * count))) if rate > 0 else 0
        while left > 0:
            free = (maskable_T & ~chosen_T).nonzero().flatten()
            start = int(free[torch.randint(len(free), (), generator=generator)])
            length = 1 + int(torch.multinomial(weights, 1, generator=generator))
            for place in range(start, min(start + min(length, left), len(maskable_T))):
                if not maskable_T[place] or chosen_T[place]:
                    break
                chosen_T[place] = True
                left -= 1
    return chosen_BT


def corrupt(
    ids_BT: Int[Tensor, "B T"],
    chosen_BT: Bool[Tensor, "B T"],
    *,
    mask_id: int,
    vocab_size: int,
    first_random_id: int = 0,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Return what the model reads, and what it must predict: the original where chosen, -100 elsewhere.

    Of the chosen tokens ``mask_share`` become [MASK], ``random_share`` a token drawn uniformly from
    ``first_random_id`` to ``vocab_size - 1``, and the rest stay. ``ids_BT`` itself is left as it is.

    Source: Devlin et al. 2019, section 3.1 and appendix A.1.
    Raises: ValueError if the shapes differ, or a share lies outside [0, 1] or both exceed 1 together.

    >>> corrupt(torch.tensor([[7, 8]]), torch.tensor([[True, False]]), mask_id=1, vocab_size=9, mask_share=1,
    ...         random_share=0)
    (tensor([[1, 8]]), tensor([[   7, -100]]))
    """
    _check_share("mask_share", mask_share)
    _check_share("random_share", random_share)
    if mask_share + random_share > 1 + 1e-9:
        raise ValueError(f"mask_share and random_share exceed 1 together: {mask_share} + {random_share}")
    if chosen_BT.shape != ids_BT.shape:
        raise ValueError(f"chosen {tuple(chosen_BT.shape)} must have the shape of ids {tuple(ids_BT.shape)}")
    if not 0 <= first_random_id < vocab_size:
        raise ValueError(f"first_random_id must lie in 0 to {vocab_size - 1}, got {first_random_id}")
    draw_BT = torch.rand(ids_BT.shape, generator=generator)
    random_BT = torch.randint(first_random_id, vocab_size, ids_BT.shape, generator=generator)
    inputs_BT = torch.where(chosen_BT & (draw_BT < mask_share), mask_id, ids_BT)
    replaced_BT = chosen_BT & (draw_BT >= mask_share) & (draw_BT < mask_share + random_share)
    inputs_BT = torch.where(replaced_BT, random_BT, inputs_BT)
    return inputs_BT, torch.where(chosen_BT, ids_BT, NO_TARGET)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}; 15 percent is 0.15")
