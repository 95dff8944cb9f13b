"""Replay: some rows of every batch come from the old texts, so that what they taught is not lost.

Legend: B windows of a batch, T tokens of a window.
"""

from collections.abc import Iterator

import torch

from llm_from_scratch.data.loader import Batch, BatchLoader


class ReplayBatches(Iterator):
    """Endless batches whose first rows are windows of the new texts and whose last are windows of the old.

    Formula: the share of old text is ``old.batch_size / (new.batch_size + old.batch_size)``, in every batch.
    A batch of mixed rows has the gradient of ``(1 - share) * loss_new + share * loss_old``, where a batch
    that is old or new as a whole would move the model to and fro.

    Arguments: ``new`` and ``old`` give windows of one length. Give them different seeds, or equal places of
    the two streams meet in every batch.
    Raises: ValueError for two window lengths.
    Source: Ratcliff 1990 and Robins 1995 (rehearsal: old items trained on beside the new ones).

    >>> new = BatchLoader(range(100, 200), context_length=4, batch_size=3, seed=0)
    >>> old = BatchLoader(range(100), context_length=4, batch_size=1, seed=1)
    >>> batches = ReplayBatches(new, old)
    >>> ids_BT, targets_BT = next(batches)
    >>> batches.share, (ids_BT[:, 0] < 100).tolist()
    (0.25, [False, False, False, True])
    """

    def __init__(self, new: BatchLoader, old: BatchLoader):
        if new.context_length != old.context_length:
            raise ValueError(
                f"new and old windows must be of one length, got {new.context_length} and "
                f"{old.context_length} tokens: rows of one batch are as long as each other"
            )
        self.new, self.old = new, old
        self.batch_size = new.batch_size + old.batch_size  # windows in a batch
        self.share = old.batch_size / self.batch_size  # of old windows

    def __next__(self) -> Batch:
        """Draw the next batch."""
        parts = zip(next(self.new), next(self.old), strict=True)
        ids_BT, targets_BT = (torch.cat(pair) for pair in parts)
        return ids_BT, targets_BT

    def state_dict(self) -> dict[str, object]:
        """Return what is needed to go on from here."""
        return {"new": self.new.state_dict(), "old": self.old.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from where ``state`` was taken. Raises: ValueError as `BatchLoader` does."""
        if not isinstance(state, dict) or state.keys() != {"new", "old"}:
            raise ValueError("the state of the batches is damaged: it must hold new and old")
        self.new.load_state_dict(state["new"])
        self.old.load_state_dict(state["old"])

    def read_rows(self, share: int, shares: int) -> None:
        """Read only one part of the rows, as `BatchLoader.read_rows`: of the new and of the old alike.

        Raises: ValueError if one of the two numbers of rows does not divide.
        """
        self.new.read_rows(share, shares)
        self.old.read_rows(share, shares)
