"""Training the upper blocks of a decoder: what lies below them is frozen, so it is computed once.

Where adapters sit in the upper blocks alone, the vectors that enter the first of these depend on the
text only. They are kept after the first time, and each further pass over the same text, in a later epoch,
with another seed or as a reference, begins in the middle of the model.

Legend: B sequences, T positions, C width, V vocabulary entries, K positions that have a target.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.finetuning.instructions import NO_TARGET
from llm_from_scratch.models.decoder import Decoder

Memory = dict[tuple[int, ...], Tensor]  # the ids of a text to the vectors that leave the lower blocks


class UpperBlocks(nn.Module):
    """The blocks of ``model`` from ``first`` on, which read what the frozen ones below them left.

    They are the model's own blocks, not copies: what is trained here is trained there. Called as
    ``upper(ids_BT)`` it returns the model's logits; as ``upper(ids_BT, targets_BT)`` it returns the logits
    of the K positions that have a target alone, ``(logits_KV, loss)``, since the output layer, V rows,
    costs as much as many blocks.

    Arguments: texts are padded at the end with ``pad_id``, which must not be an id that has a target
    after it. ``memory`` may be shared by several models with the same lower blocks; it grows with every new
    text, 4 C bytes a token in float32.
    Raises: ValueError for a first block that does not exist, a model with dropout (its vectors differ each
    time), and lower blocks that are trained.

    >>> from llm_from_scratch.models.decoder import DecoderConfig
    >>> sizes = {"vocab_size": 11, "context_length": 7, "d_model": 6, "num_layers": 3, "num_heads": 3}
    >>> model = Decoder(DecoderConfig.gpt2(**sizes)).requires_grad_(False)
    >>> upper, ids_BT = UpperBlocks(model, first=2, pad_id=0), torch.tensor([[3, 1, 4], [1, 5, 9]])
    >>> torch.allclose(upper(ids_BT), model(ids_BT), atol=1e-6), len(upper.memory)
    (True, 2)
    """

    def __init__(self, model: Decoder, *, first: int, pad_id: int, memory: Memory | None = None):
        super().__init__()
        count = len(model.blocks)
        if not 0 < first < count:
            raise ValueError(f"first must be a block from 1 to {count - 1}, got {first}")
        if model.config.dropout > 0:
            raise ValueError(
                f"the model has dropout {model.config.dropout}, so what its lower blocks leave differs each "
                "time; train it as a whole"
            )
        below = (model.token_embedding, *model.blocks[:first])
        if any(parameter.requires_grad for part in below for parameter in part.parameters()):
            raise ValueError(f"the blocks below {first} are trained; freeze them, or train the whole model")
        self.blocks, self.norm = model.blocks[first:], model.norm
        self.first, self.pad_id = first, pad_id
        self.memory = {} if memory is None else memory
        self._whole = (model,)  # in a tuple: what lies below is no part of this module

    def hidden(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """The vectors that the output layer reads."""
        (model,) = self._whole
        x_BTC, rope = self._below(ids_BT)
        bias = model.score_bias(ids_BT.shape[1])
        for block in self.blocks:
            x_BTC = block(x_BTC, mask=None, rope=rope, bias=bias)
        return self.norm(x_BTC)

    def logits_at(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "K V"], Int[Tensor, "K"], Int[Tensor, "K"]]:
        """Logits, target and row of each position that has a target."""
        kept_BT = targets_BT != NO_TARGET
        logits_KV = F.linear(self.hidden(ids_BT)[kept_BT], self._whole[0].output_weight)
        return logits_KV, targets_BT[kept_BT], kept_BT.nonzero()[:, 0]

    def forward(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Score the next token: everywhere, or with targets where there is one."""
        if targets_BT is None:
            return F.linear(self.hidden(ids_BT), self._whole[0].output_weight)
        logits_KV, targets_K, _ = self.logits_at(ids_BT, targets_BT)
        total = F.cross_entropy(logits_KV, targets_K, reduction="sum")
        return logits_KV, total / max(len(targets_K), 1)

    def log_probabilities(
        self, ids_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B"]:
        """The log-probability of each row's targets, nats: a ``score`` for `preference.PreferenceModel`."""
        logits_KV, targets_K, rows_K = self.logits_at(ids_BT, targets_BT)
        nats_K = -F.cross_entropy(logits_KV, targets_K, reduction="none")
        return nats_K.new_zeros(len(ids_BT)).index_add(0, rows_K, nats_K)

    @torch.no_grad()
    def _below(self, ids_BT: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The vectors that enter the first of these blocks: from memory, or computed and kept."""
        (model,) = self._whole
        model.check_ids(ids_BT)
        texts = [self._text(row) for row in ids_BT.tolist()]
        missing = sorted({text for text in texts if text not in self.memory})
        if missing:
            longest = max(map(len, missing))
            new_BT = torch.tensor([[*text, *[self.pad_id] * (longest - len(text))] for text in missing])
            x_BTC, rope = model.embed(new_BT)
            bias = model.score_bias(longest)
            for block in model.blocks[: self.first]:
                x_BTC = block(x_BTC, mask=None, rope=rope, bias=bias)
            for text, x_TC in zip(missing, x_BTC, strict=True):
                self.memory[text] = x_TC[: len(text)].clone()
        x_BTC, rope = model.embed(ids_BT)  # for the rotary table; the padding's vectors are read by nobody
        x_BTC = torch.zeros_like(x_BTC)
        for row_TC, text in zip(x_BTC, texts, strict=True):
            row_TC[: len(text)] = self.memory[text]
        return x_BTC, rope

    def _text(self, row: list[int]) -> tuple[int, ...]:
        """The ids without the padding at the end; one token stays."""
        while len(row) > 1 and row[-1] == self.pad_id:
            row.pop()
        return tuple(row)
