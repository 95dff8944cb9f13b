"""The encoder-only Transformer: reads a whole text at once, and gives a vector for each token.

Every position sees every other, so the model cannot predict the next token; BERT is trained to fill
in masked ones instead, and to tell whether one text follows another.

Legend: B sequences, T positions, C width of the model, V vocabulary entries, H heads.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.encoder_config import EncoderConfig
from llm_from_scratch.models.encoder_heads import MaskedLanguageHead, Pooler
from llm_from_scratch.models.ids import check_ids, check_range
from llm_from_scratch.nn.attention import MultiHeadAttention
from llm_from_scratch.nn.blocks import TransformerBlock
from llm_from_scratch.nn.feedforward import FeedForward
from llm_from_scratch.nn.norms import LayerNorm

__all__ = ["Encoder", "EncoderConfig"]


class Encoder(nn.Module):
    """Embed tokens, positions and segments, normalise, and pass the sum through the blocks.

    Formula: ``x = norm(E[ids] + P[positions] + S[segments])``, then ``x = block_l(x)`` for each
    layer. The blocks are those of the decoder without the causal mask, and with the norms after the
    sums (``norm_first=False``).

    Source: Devlin et al. 2019, section 3 and figure 2.

    >>> config = EncoderConfig.bert(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = Encoder(config)
    >>> hidden_BTC = model(torch.tensor([[1, 2, 3]]))
    >>> hidden_BTC.shape, model.masked_logits(hidden_BTC).shape, model.next_sentence_logits(hidden_BTC).shape
    (torch.Size([1, 3, 6]), torch.Size([1, 3, 11]), torch.Size([1, 2]))
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.segment_embedding = nn.Embedding(config.num_segments, config.d_model)
        self.embedding_norm = LayerNorm(config.d_model, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(build_encoder_block(config) for _ in range(config.num_layers))
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps) if config.norm_first else nn.Identity()
        self.pooler = Pooler(config.d_model) if config.pooler else None
        self.masked_language_head = MaskedLanguageHead(config) if config.masked_language_head else None
        self.next_sentence_head = nn.Linear(config.d_model, 2) if config.next_sentence_head else None
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew: normal with standard deviation 0.02; biases 0, norms 1 and 0.

        Source: the released code of Devlin et al. 2019, which cuts the normal at two deviations.
        """
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)):
                nn.init.normal_(part.weight, std=0.02)
            elif isinstance(part, LayerNorm):
                nn.init.ones_(part.weight)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)

    def num_parameters(self) -> int:
        """Count the trained numbers, shared ones once."""
        return sum(p.numel() for p in self.parameters())

    def embed(
        self, ids_BT: Int[Tensor, "B T"], segments_BT: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """The vectors that enter the first block; without segments, all belong to segment 0."""
        segments_BTC = self.segment_embedding.weight[0]
        if segments_BT is not None:
            segments_BTC = self.segment_embedding(segments_BT)
        x_BTC = self.token_embedding(ids_BT) + self.position_embedding.weight[: ids_BT.shape[1]]
        return self.dropout(self.embedding_norm(x_BTC + segments_BTC))

    def forward(
        self,
        ids_BT: Int[Tensor, "B T"],
        segments_BT: Int[Tensor, "B T"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        return_attention: bool = False,
    ) -> Float[Tensor, "B T C"] | tuple[Float[Tensor, "B T C"], list[Float[Tensor, "B H T T"]]]:
        """A vector for each position; with ``return_attention`` also each layer's ``weights_BHTT``.

        ``mask`` is True where attention is allowed, e.g. `padding_mask`. What comes out at padded
        positions means nothing.
        Raises: ValueError for ids and segments out of range, wrong shapes, and sequences longer
        than the context.
        """
        self.check(ids_BT, segments_BT)
        x_BTC = self.embed(ids_BT, segments_BT)
        attention = []
        for block in self.blocks:
            x_BTC = block(x_BTC, mask=mask, return_weights=return_attention)
            if return_attention:
                x_BTC, weights_BHTT = x_BTC
                attention.append(weights_BHTT)
        x_BTC = self.norm(x_BTC)
        return (x_BTC, attention) if return_attention else x_BTC

    def pool(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B C"]:
        """One vector a sequence, from what `forward` gives."""
        return self._part("pooler")(x_BTC)

    def masked_logits(self, x_BTC: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """The score of every vocabulary entry at every position, from what `forward` gives.

        The vectors of a few positions can be given alone, which saves the scores of the others.
        """
        return self._part("masked_language_head")(x_BTC, self.token_embedding.weight)

    def next_sentence_logits(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B 2"]:
        """Scores of "the second text follows the first" (0) and of "it does not" (1)."""
        return self._part("next_sentence_head")(self.pool(x_BTC))

    def check(self, ids_BT: Tensor, segments_BT: Tensor | None = None) -> None:
        """Raise ValueError for ids or segments that the model cannot read."""
        check_ids(ids_BT, vocab_size=self.config.vocab_size, limit=self.config.context_length)
        if segments_BT is None:
            return
        if segments_BT.shape != ids_BT.shape:
            raise ValueError(
                f"segments {tuple(segments_BT.shape)} must have the shape of ids {tuple(ids_BT.shape)}: "
                "the number of the text that each token belongs to"
            )
        check_range("segments", segments_BT, self.config.num_segments, kinds="segments")

    def _part(self, name: str) -> nn.Module:
        part = getattr(self, name)
        if part is None:
            raise ValueError(f"this encoder was built without it: set {name}=True in its config")
        return part


def build_encoder_block(config: EncoderConfig) -> TransformerBlock:
    """One block: attention in both directions, and a feed-forward layer."""
    kinds = {"exact": config.feedforward == "gelu_exact", "relu": config.feedforward == "relu"}
    return TransformerBlock(
        norm_1=LayerNorm(config.d_model, eps=config.norm_eps),
        attention=MultiHeadAttention(
            d_model=config.d_model, num_heads=config.num_heads, dropout=config.dropout
        ),
        norm_2=LayerNorm(config.d_model, eps=config.norm_eps),
        feedforward=FeedForward(d_model=config.d_model, d_ff=config.d_ff, **kinds),
        dropout=config.dropout,
        norm_first=config.norm_first,
    )
