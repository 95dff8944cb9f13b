"""The encoder-decoder Transformer: reads a source text, and writes a target text token by token.

The encoder sees the whole source at once. The decoder sees the target up to where it writes, and
through cross-attention all that the encoder made of the source.

Legend: B pairs of texts, S source positions, T target positions, C width of the model, V vocabulary
entries, H heads.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.models import encoder_decoder_parts as parts
from llm_from_scratch.models.encoder_decoder_config import EncoderDecoderConfig
from llm_from_scratch.models.ids import check_ids, check_targets
from llm_from_scratch.models.loss import next_token_loss
from llm_from_scratch.models.shared_parts import build_relative_bias
from llm_from_scratch.nn.cross_attention import CrossAttention
from llm_from_scratch.nn.norms import LayerNorm, RMSNorm
from llm_from_scratch.nn.sinusoidal import sinusoidal_positions

__all__ = ["EncoderDecoder", "EncoderDecoderConfig", "shift_right"]


class EncoderDecoder(nn.Module):
    """Two stacks of blocks over one embedding, the second reading the first.

    Formula: ``memory = encode(source)``; ``logits = decode(ids, memory)``, where the logits at
    target position t depend on the whole source and on target tokens 0 .. t.

    Sources: Vaswani et al. 2017, section 3 and figure 1; T5: Raffel et al. 2020, section 2.1.
    Departure: T5's code also drops entries inside the feed-forward layer and after the last norm.

    >>> config = EncoderDecoderConfig.t5(vocab_size=11, d_model=6, num_layers=2, num_heads=3)
    >>> model = EncoderDecoder(config)
    >>> model(torch.tensor([[5, 6, 7]]), torch.tensor([[0, 8]])).shape
    torch.Size([1, 2, 11])
    """

    def __init__(self, config: EncoderDecoderConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.register_tables()
        self.dropout = nn.Dropout(config.dropout)
        self.encoder_bias = build_relative_bias(config, bidirectional=True)
        self.encoder = nn.ModuleList(parts.build_encoder_block(config) for _ in range(config.num_layers))
        self.encoder_norm = parts.build_last_norm(config)
        self.decoder_bias = build_relative_bias(config, bidirectional=False)
        self.decoder = nn.ModuleList(
            parts.build_decoder_block(config) for _ in range(config.num_decoder_layers)
        )
        self.decoder_norm = parts.build_last_norm(config)
        self.head = (
            None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        self.initialise()

    def register_tables(self) -> None:
        """Compute the sinusoids beforehand: no weights, and not part of the state.

        Called when the model is built; of a model on the meta device, by the loader that fills it.
        """
        if self.token_embedding.weight.is_meta:
            return
        if self.config.positions == "sinusoidal":
            waves_TC = sinusoidal_positions(torch.arange(self.config.context_length), self.config.d_model)
            self.register_buffer("sinusoids_TC", waves_TC, persistent=False)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew from torch's global random generator.

        A matrix that reads n numbers: normal with standard deviation ``1 / sqrt(n)``; where scores
        are not divided by ``sqrt(d_head)``, the matrices that make queries are, here, once. The
        embeddings: 1 where they enter the blocks as they are, ``1 / sqrt(d_model)`` where they are
        multiplied by ``sqrt(d_model)``. Biases 0; norms at weight 1 and bias 0.

        Source: the released code of Raffel et al. 2020.
        """
        enters_as_it_is = not self.config.scale_embeddings and (
            self.config.scale_logits or self.head is not None
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)
            elif isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=self.config.d_model**-0.5)
            elif isinstance(part, (LayerNorm, RMSNorm)):
                nn.init.ones_(part.weight)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
        if enters_as_it_is:
            nn.init.normal_(self.token_embedding.weight)
        if not self.config.scale_scores:
            for block in (*self.encoder, *self.decoder):
                columns = self.config.num_heads * self.config.d_head
                block.attention.qkv.weight[:columns] /= math.sqrt(self.config.d_head)
                if isinstance(getattr(block, "cross", None), CrossAttention):
                    block.cross.query.weight /= math.sqrt(self.config.d_head)

    @property
    def output_weight(self) -> Float[Tensor, "V C"]:
        """The matrix that turns the last vectors into logits: the token embedding itself if tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def num_parameters(self) -> int:
        """Count the trained numbers, shared ones once."""
        return sum(p.numel() for p in self.parameters())

    def embed(self, ids_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """The vectors that enter the first block of either stack."""
        x_BTC = self.token_embedding(ids_BT)
        if self.config.scale_embeddings:
            x_BTC = x_BTC * math.sqrt(self.config.d_model)
        if self.config.positions == "sinusoidal":
            x_BTC = x_BTC + self.sinusoids_TC[: ids_BT.shape[1]]
        return self.dropout(x_BTC)

    def encode(
        self, source_BS: Int[Tensor, "B S"], source_mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "B S C"]:
        """Read the sources: a vector for each position. ``source_mask`` is False at padding."""
        self._check("source", source_BS)
        bias = None if self.encoder_bias is None else self.encoder_bias(source_BS.shape[1])
        x_BSC = self.embed(source_BS)
        for block in self.encoder:
            x_BSC = block(x_BSC, mask=source_mask, bias=bias)
        return self.encoder_norm(x_BSC)

    def decode(
        self,
        ids_BT: Int[Tensor, "B T"],
        memory_BSC: Float[Tensor, "B S C"],
        source_mask: Bool[Tensor, "..."] | None = None,
        *,
        return_attention: bool = False,
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], list[Float[Tensor, "B H T S"]]]:
        """Score the next target token at every position; also each layer's cross-attention if asked."""
        self._check("ids", ids_BT)
        bias = None if self.decoder_bias is None else self.decoder_bias(ids_BT.shape[1])
        x_BTC, attention = self.embed(ids_BT), []
        for block in self.decoder:
            x_BTC = block(
                x_BTC, memory_BSC, memory_mask=source_mask, bias=bias, return_weights=return_attention
            )
            if return_attention:
                x_BTC, weights_BHTS = x_BTC
                attention.append(weights_BHTS)
        x_BTC = self.decoder_norm(x_BTC)
        if self.config.scale_logits:
            x_BTC = x_BTC * self.config.d_model**-0.5
        logits_BTV = F.linear(x_BTC, self.output_weight)
        return (logits_BTV, attention) if return_attention else logits_BTV

    def forward(
        self,
        source_BS: Int[Tensor, "B S"],
        ids_BT: Int[Tensor, "B T"],
        targets_BT: Int[Tensor, "B T"] | None = None,
        *,
        source_mask: Bool[Tensor, "..."] | None = None,
        ignore_index: int = -100,
    ) -> Float[Tensor, "B T V"] | tuple[Float[Tensor, "B T V"], Float[Tensor, ""]]:
        """Return ``logits_BTV``, and with targets the mean loss in nats too.

        ``ids_BT`` is what the decoder reads, ``shift_right(targets_BT, ...)``: the target at t is
        the token after the one read at t. ``source_mask``, e.g. `padding_mask`, is False at the
        source's padding, for the encoder and for the decoder that reads it.
        Raises: ValueError for ids out of range, wrong shapes, and texts longer than the context.
        """
        logits_BTV = self.decode(ids_BT, self.encode(source_BS, source_mask), source_mask)
        if targets_BT is None:
            return logits_BTV
        check_targets(targets_BT, ids_BT, vocab_size=self.config.vocab_size, ignore_index=ignore_index)
        return logits_BTV, next_token_loss(logits_BTV, targets_BT, ignore_index=ignore_index)

    def _check(self, name: str, ids: Tensor) -> None:
        check_ids(ids, vocab_size=self.config.vocab_size, limit=self.config.context_length, name=name)


def shift_right(
    targets_BT: Int[Tensor, "B T"], *, start_id: int, pad_id: int = 0, ignore_index: int = -100
) -> Int[Tensor, "B T"]:
    """What the decoder reads while it learns to write the targets: each one a step later.

    Formula: ``ids[0] = start_id``, ``ids[t] = targets[t - 1]``. Targets that the loss ignores are
    read as ``pad_id``, since no embedding has their number.

    >>> shift_right(torch.tensor([[7, 8, 1, -100]]), start_id=0).tolist()
    [[0, 7, 8, 1]]
    """
    ids_BT = torch.roll(targets_BT, 1, dims=1)
    ids_BT[:, 0] = start_id
    return ids_BT.masked_fill(ids_BT == ignore_index, pad_id)
