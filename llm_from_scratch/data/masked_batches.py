"""Batches for BERT's pretraining: pairs of texts, padded, masked, with the label of each pair.

The trainer knows inputs and targets of one shape. Position 0 holds [CLS], which is never masked, so its
target is free: there the label of the pair stands, or -100 where no label is asked for.

Legend: B pairs, T positions.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from llm_from_scratch.data.masking import NO_TARGET, choose_spans, choose_tokens, choose_words, corrupt
from llm_from_scratch.data.sentence_pairs import SentencePairs

Masking = Literal["token", "word", "span"]
KINDS = ("token", "word", "span")


class MaskedPairBatches:
    """Endless batches ``(inputs_BT, targets_BT)``. Batch n depends on ``seed`` and n alone.

    Args: ``special_ids`` are never masked and never drawn as random tokens; they must be the first ids of
    the vocabulary, 0 to n - 1. ``goes_on_V`` says of each token whether it goes on with a word
    ("##ing"); "word" masking needs it. ``labels``: whether position 0 has the pair's label as target.
    Raises: ValueError for an unknown masking, special ids that are not the first, a batch below 1.
    """

    def __init__(
        self,
        pairs: SentencePairs,
        *,
        batch_size: int,
        seed: int,
        vocab_size: int,
        mask_id: int,
        pad_id: int,
        special_ids: set[int],
        labels: bool = True,
        masking: Masking = "token",
        rate: float = 0.15,
        goes_on_V: Tensor | None = None,
    ):
        if masking not in KINDS:
            raise ValueError(f"masking must be one of {', '.join(KINDS)}, got {masking!r}")
        if masking == "word" and goes_on_V is None:
            raise ValueError('masking="word" needs goes_on_V: which tokens go on with a word')
        if set(special_ids) != set(range(len(special_ids))):
            raise ValueError(f"special_ids must be 0 to {len(special_ids) - 1}, got {sorted(special_ids)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.vocab_size, self.mask_id, self.pad_id = vocab_size, mask_id, pad_id
        self.num_special, self.labels, self.masking, self.rate = len(special_ids), labels, masking, rate
        self.goes_on_V = goes_on_V
        self.batches_drawn = 0

    def __iter__(self) -> MaskedPairBatches:
        return self

    def __next__(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Draw the next batch."""
        rng = np.random.default_rng((self.seed, self.batches_drawn))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.batches_drawn += 1
        drawn = [self.pairs.draw(rng) for _ in range(self.batch_size)]
        ids_BT = torch.full((self.batch_size, self.pairs.max_tokens), self.pad_id)
        for row, pair in enumerate(drawn):
            ids_BT[row, : len(pair.ids)] = torch.tensor(pair.ids)
        inputs_BT, targets_BT = self.mask(ids_BT, generator)
        if self.labels:
            targets_BT[:, 0] = torch.tensor([pair.label for pair in drawn])
        return inputs_BT, targets_BT

    def mask(self, ids_BT: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Choose and corrupt tokens of a padded batch."""
        maskable_BT = ids_BT >= self.num_special
        if self.masking == "token":
            chosen_BT = choose_tokens(maskable_BT, rate=self.rate, generator=generator)
        elif self.masking == "span":
            chosen_BT = choose_spans(maskable_BT, rate=self.rate, generator=generator)
        else:
            chosen_BT = choose_words(self._words(ids_BT, maskable_BT), rate=self.rate, generator=generator)
        return corrupt(
            ids_BT,
            chosen_BT,
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
            first_random_id=self.num_special,
            generator=generator,
        )

    def _words(self, ids_BT: Tensor, maskable_BT: Tensor) -> Tensor:
        """The number of each token's word. A piece after [SEP], which a cut can leave, begins one."""
        before_BT = torch.zeros_like(maskable_BT)
        before_BT[:, 1:] = maskable_BT[:, :-1]
        begins_BT = ~(self.goes_on_V[ids_BT] & before_BT)
        return torch.where(maskable_BT, begins_BT.cumsum(dim=1), NO_TARGET).clamp(min=-1)

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on from here."""
        return {"seed": self.seed, "batch_size": self.batch_size, "batches_drawn": self.batches_drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken. Raises: ValueError if it is of other batches."""
        mine = (self.seed, self.batch_size)
        if (state.get("seed"), state.get("batch_size")) != mine or "batches_drawn" not in state:
            raise ValueError(f"the state {state} is not of batches with seed and batch_size {mine}")
        self.batches_drawn = int(state["batches_drawn"])
