"""Embeddings of the last few tokens together: what a table can know without any attention.

Legend: B sequences, T positions, S = T plus the tokens before them, C width of the model, V entries of
the vocabulary, R rows of a table.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

HASH_PRIME = 2_654_435_761  # spreads neighbouring numbers over the rows


class NgramEmbedding(nn.Module):
    """A vector for each pair of tokens, one for each triple, and so on, looked up and added.

    Formula: for n = 2, 3, ..: ``x_t += E_n[row(ids[t - n + 1 .. t])]``. The n ids, read as the digits of
    one number in base V + 1, give the n-gram's number; where a table has fewer rows R than there are
    n-grams, ``(number * prime mod 2^32) mod R`` picks the row, and n-grams that meet share it. The digit V
    stands for what lies before the first token. A vector depends on the tokens up to t alone.

    With bigrams and trigrams, the counts that n-gram models keep need no longer be rebuilt by attention
    and feed-forward layers.

    Arguments: ``rows`` has one entry for each n from 2 on. ``(V + 1)^2`` rows give each pair its own.
    Raises: ValueError for no table, a table without rows, and n-grams too long for a 64-bit number.
    Source: hashing: Weinberger et al. 2009, section 2; as embeddings of a language model: Clark et al.
    2022 (Canine), section 3.1, and Roy et al. 2022 (N-Grammer), section 3.

    >>> table = NgramEmbedding(vocab_size=5, d_model=4, rows=(36,))
    >>> table(torch.tensor([[1, 2, 1, 2]]))[0, 1].equal(table(torch.tensor([[4, 1, 2]]))[0, 2])
    True
    """

    def __init__(self, *, vocab_size: int, d_model: int, rows: tuple[int, ...]):
        super().__init__()
        if not rows or min(rows) < 1:
            raise ValueError(f"rows must name at least one table of at least one row, got {tuple(rows)}")
        longest = len(rows) + 1
        if (vocab_size + 1) ** longest >= 2**63:
            raise ValueError(
                f"{longest}-grams of {vocab_size} tokens do not fit into 64 bits; give fewer than "
                f"{len(rows)} tables"
            )
        self.vocab_size, self.rows = vocab_size, tuple(rows)
        for n, count in enumerate(rows, start=2):  # no ModuleList: that is what a model's blocks are
            self.add_module(f"table_{n}", nn.Embedding(count, d_model))

    @property
    def tables(self) -> list[nn.Embedding]:
        """The tables of pairs, triples and so on."""
        return list(self.children())

    @property
    def reach(self) -> int:
        """How many tokens before its own a vector depends on."""
        return len(self.rows)

    def rows_of(self, ids_BS: Int[Tensor, "B S"], new: int) -> list[Int[Tensor, "B T"]]:
        """The rows of the last ``new`` positions, one tensor for each table."""
        missing = self.reach + new - ids_BS.shape[1]
        if missing > 0:
            front = ids_BS.new_full((ids_BS.shape[0], missing), self.vocab_size)
            ids_BS = torch.cat((front, ids_BS), dim=1)
        S, base, found = ids_BS.shape[1], self.vocab_size + 1, []
        number_BT = ids_BS[:, S - new :]
        for back, count in enumerate(self.rows, start=1):
            number_BT = number_BT + ids_BS[:, S - new - back : S - back] * base**back
            if base ** (back + 1) <= count:
                found.append(number_BT)
            else:
                found.append(number_BT * HASH_PRIME % 2**32 % count)
        return found

    def forward(
        self, ids_BT: Int[Tensor, "B T"], earlier_BS: Int[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """The sum of the vectors at each position; ``earlier_BS`` are tokens that precede ``ids_BT``."""
        T = ids_BT.shape[1]
        ids_BS = ids_BT if earlier_BS is None else torch.cat((earlier_BS[:, -self.reach :], ids_BT), dim=1)
        rows = self.rows_of(ids_BS, T)
        first, *others = self.tables
        x_BTC = first(rows[0])
        for table, rows_BT in zip(others, rows[1:], strict=True):
            x_BTC = x_BTC + table(rows_BT)
        return x_BTC
