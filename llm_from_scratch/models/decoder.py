"""The decoder-only Transformer: reads tokens, and at each position predicts the next one.

One model covers two families; `DecoderConfig` says which parts it is built from.

Legend: B sequences, T positions, C width of the model, V vocabulary entries, L layers, H heads.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.models.decoder_parts import build_block
from llm_from_scratch.models.ids import check_ids, check_targets
from llm_from_scratch.models.loss import next_token_loss
from llm_from_scratch.models.shared_parts import build_norm, build_relative_bias
from llm_from_scratch.nn.alibi import alibi_bias
from llm_from_scratch.nn.ngram_embedding import NgramEmbedding
from llm_from_scratch.nn.norms import LayerNorm, RMSNorm
from llm_from_scratch.nn.positions import Rotary, rotary_table
from llm_from_scratch.nn.sinusoidal import sinusoidal_positions

__all__ = ["Decoder", "DecoderConfig", "next_token_loss"]


class Decoder(nn.Module):
    """Embed the tokens, pass them through the blocks, score every vocabulary entry.

    Formula: ``x = E[ids] (+ P[positions])``; ``x = block_l(x)`` for each layer; ``logits =
    norm(x) W^T``, where W is E itself when the embeddings are tied. The logits at position t
    depend on tokens 0 .. t alone.

    When the embeddings are tied there is no output layer to keep in step: the forward pass reads
    the embedding's own weight, so nothing that loads, moves or casts the model can part the two,
    and the state holds the matrix once.

    Sources: Radford et al. 2019 (GPT-2), Touvron et al. 2023 (Llama), Press and Wolf 2017 (tying).

    >>> config = DecoderConfig.gpt2(vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3)
    >>> model = Decoder(config)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.ngrams = None
        if config.ngram_rows:
            self.ngrams = NgramEmbedding(
                vocab_size=config.vocab_size, d_model=config.d_model, rows=config.ngram_rows
            )
        self.register_tables()
        self.relative_bias = build_relative_bias(config, bidirectional=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.num_layers))
        self.norm = build_norm(config)
        self.head = (
            None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        self.initialise()

    def register_tables(self) -> None:
        """Compute what is known of each position beforehand: no weights, and not part of the state.

        Called when the model is built; of a model on the meta device, by the loader that fills it.
        """
        config = self.config
        if self.token_embedding.weight.is_meta:
            return
        if config.positions == "sinusoidal":
            waves_TC = sinusoidal_positions(torch.arange(config.context_length), config.d_model)
            self.register_buffer("sinusoids_TC", waves_TC, persistent=False)
        elif config.positions == "rope":
            table = rotary_table(
                config.context_length,
                config.rotary_width,
                base=config.rope_base,
                scaling=config.rope_scaling,
            )
            self.register_buffer("rope_cos_TF", table[0], persistent=False)
            self.register_buffer("rope_sin_TF", table[1], persistent=False)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew from torch's global random generator.

        Matrices and embeddings: normal with mean 0 and standard deviation 0.02; biases 0; norms
        at weight 1 and bias 0. The last matrix of each residual branch is drawn smaller, by
        ``1 / sqrt(2 num_layers)``, so that the sum of all 2 num_layers branches starts with the
        variance that one branch would have. With ``zero_outputs`` it starts at 0, and so does an output
        layer of its own: each block at first passes on what it reads, and all tokens are equally likely.

        Source: Radford et al. 2018, section 4.1 (0.02), and 2019, section 2.3 (residual scaling).
        Departure: GPT-2's released code draws learned positions with 0.01; here they take 0.02.
        """
        scaled = {part for block in self.blocks for part in (block.attention.output, block.feedforward.down)}
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)):
                std = 0.02 / math.sqrt(2 * self.config.num_layers) if part in scaled else 0.02
                nn.init.normal_(part.weight, std=std)
            elif isinstance(part, (LayerNorm, RMSNorm)):
                nn.init.ones_(part.weight)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
        for part in (*scaled, self.head) if self.config.zero_outputs else ():
            if part is not None:
                nn.init.zeros_(part.weight)

    @property
    def output_weight(self) -> Float[Tensor, "V C"]:
        """The matrix that turns the last vectors into logits: the token embedding itself if tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def num_parameters(self, *, embeddings: bool = True) -> int:
        """Count the trained numbers, shared ones once.

        With ``embeddings=False`` the tables looked up by token and by position are left out; an
        untied output layer still counts, since every one of its numbers takes part in every token.
        """
        tables = [self.token_embedding, self.position_embedding]
        tables += [] if self.ngrams is None else self.ngrams.tables
        looked_up = sum(table.weight.numel() for table in tables if table is not None)
        return sum(p.numel() for p in self.parameters()) - (0 if embeddings else looked_up)

    def embed(
        self,
        ids_BT: Int[Tensor, "B T"],
        start: int = 0,
        positions_T: Int[Tensor, "T"] | None = None,
        earlier_BS: Int[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], Rotary | None]:
        """The vectors that enter the first block, and the rotary table of their positions.

        The positions run from ``start`` on, unless ``positions_T`` names each. Tables of n-grams look at
        the tokens before too: those that are not part of ``ids_BT`` are ``earlier_BS``. Sinusoids have
        entries up to 1 and are not learned, so the embeddings that they are added to are scaled by
        sqrt(d_model) (Vaswani et al. 2017, section 3.4).
        """
        where = slice(start, start + ids_BT.shape[1]) if positions_T is None else positions_T
        x_BTC, rope = self.token_embedding(ids_BT), None
        if self.ngrams is not None:
            if positions_T is not None or (start and earlier_BS is None):
                raise ValueError(
                    "the model looks up n-grams (ngram_rows), for which the tokens before each new one are "
                    "needed here; read whole texts with the model itself, or through inference.CachedModel"
                )
            x_BTC = x_BTC + self.ngrams(ids_BT, earlier_BS)
        if self.config.positions == "learned":
            x_BTC = x_BTC + self.position_embedding.weight[where]
        elif self.config.positions == "sinusoidal":
            x_BTC = x_BTC * math.sqrt(self.config.d_model) + self.sinusoids_TC[where]
        elif self.config.positions == "rope":
            rope = self.rope_cos_TF[where], self.rope_sin_TF[where]
        return self.dropout(x_BTC), rope

    def score_bias(self, T: int, S: int | None = None) -> Float[Tensor, "H T S"] | None:
        """What every layer adds to its scores by distance: T5's learned numbers, ALiBi's penalty, or None.

        Of S positions, by default T, the last T are the queries.
        """
        if self.relative_bias is not None:
            return self.relative_bias(T, S)
        if self.config.positions == "alibi":
            weight = self.output_weight
            return alibi_bias(self.config.num_heads, T, S, device=weight.device).to(weight.dtype)
        return None

    def forward(
        self,
        ids_BT: Int[Tensor, "B T"],
        targets_BT: Int[Tensor, "B T"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        return_attention: bool = False,
        ignore_index: int = -100,
    ) -> Float[Tensor, "B T V"] | tuple[Tensor | list[Tensor], ...]:
        """Score the next token at every position.

        Returns ``logits_BTV``; with targets ``(logits_BTV, loss)``; with ``return_attention`` a
        list of each layer's ``weights_BHTT`` is appended. The loss is the mean cross-entropy in
        nats over targets other than ``ignore_index``, and 0 if there is none.

        ``targets_BT[b, t]`` is the token that follows ``ids_BT[b, t]``: shift before the call.
        ``mask`` (True = may attend, e.g. `padding_mask`) is added to the causal one. Learned and
        sinusoidal positions count padding in front of a text too, so pad at the end.
        Raises: ValueError for ids or targets outside the vocabulary, wrong shapes, and sequences
        longer than the context.
        """
        self.check_ids(ids_BT, targets_BT, ignore_index)
        x_BTC, rope = self.embed(ids_BT)
        inputs = {"mask": mask, "rope": rope, "bias": self.score_bias(ids_BT.shape[1])}
        attention = []
        for block in self.blocks:
            x_BTC = block(x_BTC, **inputs, return_weights=return_attention)
            if return_attention:
                x_BTC, weights_BHTT = x_BTC
                attention.append(weights_BHTT)
        logits_BTV = F.linear(self.norm(x_BTC), self.output_weight)
        results = [logits_BTV]
        if targets_BT is not None:
            results.append(next_token_loss(logits_BTV, targets_BT, ignore_index=ignore_index))
        if return_attention:
            results.append(attention)
        return results[0] if len(results) == 1 else tuple(results)

    def attention_maps(
        self, ids_T: Int[Tensor, "T"] | list[int]
    ) -> tuple[Float[Tensor, "L H T T"], Float[Tensor, "L H T T"]]:
        """Weights and scores of every head on one sequence; see `llm_from_scratch.models.attention_maps`."""
        from llm_from_scratch.models.attention_maps import attention_maps

        return attention_maps(self, ids_T)

    def check_ids(self, ids_BT: Tensor, targets_BT: Tensor | None = None, ignore_index: int = -100) -> None:
        """Raise ValueError for ids or targets that the model cannot read."""
        V = self.config.vocab_size
        check_ids(ids_BT, vocab_size=V, limit=self.config.context_length)
        if targets_BT is not None:
            check_targets(targets_BT, ids_BT, vocab_size=V, ignore_index=ignore_index)
