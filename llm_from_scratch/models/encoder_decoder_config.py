"""The choices that make an encoder-decoder: its sizes, and which variant of each part it uses."""

from dataclasses import asdict, dataclass
from typing import Any

from llm_from_scratch.models.config_fields import (
    check_choice,
    check_dropout,
    check_heads_share,
    check_pairs,
    check_positive,
    check_size,
    config_from_dict,
)
from llm_from_scratch.nn.feedforward import swiglu_width

CHOICES = {
    "positions": ("sinusoidal", "relative"),
    "norm": ("layer", "rms"),
    "feedforward": ("relu", "gelu", "gelu_exact", "geglu"),
}


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """Sizes and variants of an `EncoderDecoder`.

    The defaults are those of the Transformer of 2017. `EncoderDecoderConfig.transformer` and
    `EncoderDecoderConfig.t5` fill the choices of the two families; any field can still be given.

    Raises: ValueError naming the field, its value and the way out.
    Sources: Vaswani et al. 2017, section 3; T5: Raffel et al. 2020, section 2.1.

    >>> config = EncoderDecoderConfig.t5(vocab_size=101, d_model=12, num_layers=2, num_heads=3)
    >>> config.num_decoder_layers, config.d_head, config.positions, config.norm
    (2, 4, 'relative', 'rms')
    >>> EncoderDecoderConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int  # entries, shared by source and target
    d_model: int  # columns of the vector that each position carries
    num_layers: int  # blocks of the encoder
    num_heads: int  # heads a block
    num_decoder_layers: int | None = None  # blocks of the decoder; None: num_layers
    context_length: int | None = None  # tokens: the longest source or target; None: any (relative only)
    d_head: int | None = None  # columns of one head; None: d_model / num_heads
    d_ff: int | None = None  # hidden width; None: 4 d_model, for geglu 8/3 d_model
    positions: str = "sinusoidal"  # added to the embeddings, or "relative": T5's numbers on the scores
    norm: str = "layer"  # "layer" or "rms"
    norm_first: bool = False  # norms before the branches, with one more after the last block
    feedforward: str = "relu"  # "relu", "gelu" (tanh form), "gelu_exact" or "geglu" (gated)
    bias: bool = True  # biases in the linear layers and in layer norms
    scale_embeddings: bool = True  # embeddings enter the blocks times sqrt(d_model)
    scale_scores: bool = True  # attention scores are divided by sqrt(d_head)
    scale_logits: bool = False  # vectors reach the output layer divided by sqrt(d_model)
    tie_embeddings: bool = True  # one matrix embeds source and target and scores the vocabulary
    relative_buckets: int = 32  # of distances, for relative positions
    relative_max_distance: int = 128  # tokens: from here on, distances share the last bucket
    dropout: float = 0.0  # probability, in training only
    norm_eps: float = 1e-5  # added to the variance or the mean square
    start_id: int = 0  # token that the decoder reads first

    def __post_init__(self):
        """Fill what was left to the defaults, then check."""
        for name in ("vocab_size", "d_model", "num_layers", "num_heads"):
            check_size(name, getattr(self, name))
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if self.d_head is None:
            check_heads_share(self.d_model, self.num_heads)
        width = swiglu_width(self.d_model) if self.feedforward == "geglu" else 4 * self.d_model
        defaults = {
            "num_decoder_layers": self.num_layers,
            "d_head": self.d_model // self.num_heads,
            "d_ff": width,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
            check_size(name, getattr(self, name))
        self._check_positions()
        check_dropout(self.dropout)
        check_positive("norm_eps", self.norm_eps)
        if not 0 <= self.start_id < self.vocab_size:
            raise ValueError(f"start_id={self.start_id} must be one of the {self.vocab_size} ids from 0 on")

    def _check_positions(self) -> None:
        if self.context_length is not None:
            check_size("context_length", self.context_length)
        elif self.positions == "sinusoidal":
            raise ValueError("sinusoidal positions stand in a table: give context_length, its rows in tokens")
        if self.positions == "sinusoidal":
            check_pairs(self.d_model)
        check_size("relative_buckets", self.relative_buckets)
        check_size("relative_max_distance", self.relative_max_distance)
        if self.positions == "relative" and not (
            self.relative_buckets >= 4 and self.relative_max_distance > self.relative_buckets // 2
        ):
            raise ValueError(
                f"relative_buckets={self.relative_buckets} must be at least 4, and relative_max_distance="
                f"{self.relative_max_distance} more than half of them: one distance each has a bucket"
            )

    @classmethod
    def transformer(cls, **fields: Any) -> "EncoderDecoderConfig":
        """The choices of 2017: sinusoids, layer norms after the sums, ReLU, one shared embedding."""
        family = {"positions": "sinusoidal", "norm": "layer", "norm_first": False, "feedforward": "relu"}
        return cls(**{**family, "scale_embeddings": True, "tie_embeddings": True, **fields})

    @classmethod
    def t5(cls, **fields: Any) -> "EncoderDecoderConfig":
        """T5's choices: relative bias, RMS norms before the branches, no biases, unscaled scores.

        The first version has ReLU, tied embeddings and scaled logits; version 1.1 has
        ``feedforward="geglu", tie_embeddings=False, scale_logits=False``.
        """
        family = {"positions": "relative", "norm": "rms", "norm_first": True, "feedforward": "relu"}
        family |= {"bias": False, "scale_embeddings": False, "scale_scores": False, "norm_eps": 1e-6}
        return cls(**{**family, "scale_logits": True, "tie_embeddings": True, **fields})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain numbers, strings and booleans, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderDecoderConfig":
        """The config that `to_dict` described. Raises ValueError for unknown or missing fields."""
        return config_from_dict(cls, values, "an encoder-decoder")
