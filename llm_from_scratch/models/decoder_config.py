"""The choices that make a decoder: its sizes, and which variant of each part it uses."""

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
from llm_from_scratch.nn.rope_scaling import RopeScaling

CHOICES = {
    "positions": ("learned", "rope", "sinusoidal", "relative", "alibi", "none"),
    "norm": ("layer", "rms"),
    "feedforward": ("gelu", "gelu_exact", "swiglu", "relu2"),
}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and variants of a `Decoder`.

    The defaults are GPT-2's. `DecoderConfig.gpt2` and `DecoderConfig.llama` fill the choices of
    the two families; any field can still be given.

    Raises: ValueError naming the field, its value and the way out, for sizes that are no positive
    integers, widths that heads cannot share evenly, and unknown variants.
    Sources: GPT-2: Radford et al. 2019, section 2.3; Llama: Touvron et al. 2023, section 2.2;
    grouped-query attention: Ainslie et al. 2023.

    >>> config = DecoderConfig.llama(vocab_size=101, context_length=32, d_model=12, num_layers=2, num_heads=6)
    >>> config.d_head, config.num_kv_heads, config.d_ff, config.positions
    (2, 6, 32, 'rope')
    >>> DecoderConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int  # entries
    context_length: int  # tokens: the longest sequence the model reads
    d_model: int  # columns of the vector that each position carries
    num_layers: int  # blocks
    num_heads: int  # query heads a block
    num_kv_heads: int | None = None  # key/value heads a block; None: as many as num_heads
    d_head: int | None = None  # columns of one head; None: d_model / num_heads
    d_ff: int | None = None  # hidden width; None: 4 d_model for gelu, 8/3 d_model for swiglu
    positions: str = "learned"  # vectors added: "learned", "sinusoidal"; "rope" turns queries and keys;
    # numbers added to the scores by distance: "relative" (T5's, learned), "alibi"; "none": no positions
    norm: str = "layer"  # "layer" or "rms"
    feedforward: str = "gelu"  # "gelu" (GPT-2's tanh form), "gelu_exact", "swiglu", "relu2" (squared)
    bias: bool = True  # biases in the linear layers and in layer norms
    qkv_bias: bool | None = None  # biases of queries, keys and values; None: as bias says (Qwen2: True)
    qk_norm: bool = False  # an RMS norm on each query and key head (Qwen3)
    sliding_window: int | None = None  # tokens that a position sees, itself included; None: all (Mistral)
    tie_embeddings: bool = True  # the output layer is the token embedding
    ngram_rows: tuple[int, ...] = ()  # rows of the tables of pairs, triples, .. of tokens; (): no tables
    zero_outputs: bool = False  # the last matrix of each branch, and an untied output layer, start at 0
    dropout: float = 0.0  # probability, in training only
    rope_base: float = 10000.0  # rotary positions: the last pair turns by about 1/base a token
    rope_scaling: RopeScaling | None = None  # rotary positions: frequencies changed for longer texts
    rotary_fraction: float = 1.0  # rotary positions: the part of each head's columns that turns
    relative_buckets: int = 32  # of distances, for "relative" positions
    relative_max_distance: int = 128  # tokens: from here on, distances share the last bucket
    norm_eps: float = 1e-5  # added to the variance or the mean square

    def __post_init__(self):
        """Fill what was left to the defaults, then check."""
        if self.num_kv_heads is None:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        if self.qkv_bias is None:
            object.__setattr__(self, "qkv_bias", self.bias)
        for name in ("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "num_kv_heads"):
            check_size(name, getattr(self, name))
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if self.d_ff is None:
            d_ff = swiglu_width(self.d_model) if self.feedforward == "swiglu" else 4 * self.d_model
            object.__setattr__(self, "d_ff", d_ff)
        check_size("d_ff", self.d_ff)
        if self.sliding_window is not None:
            check_size("sliding_window", self.sliding_window)
        object.__setattr__(self, "ngram_rows", tuple(self.ngram_rows))  # a list, as JSON gives it
        for rows in self.ngram_rows:
            check_size("a table of ngram_rows", rows)
        self._check_heads()
        self._check_positions()
        check_dropout(self.dropout)
        for name in ("rope_base", "norm_eps"):
            check_positive(name, getattr(self, name))

    def _check_heads(self) -> None:
        if self.d_head is None:
            check_heads_share(self.d_model, self.num_heads)
            object.__setattr__(self, "d_head", self.d_model // self.num_heads)
        check_size("d_head", self.d_head)
        if self.num_heads % self.num_kv_heads:
            divisors = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}; "
                f"choose num_kv_heads from {divisors}"
            )

    def _check_positions(self) -> None:
        if isinstance(self.rope_scaling, dict):  # as `to_dict` writes it
            scaling = config_from_dict(RopeScaling, self.rope_scaling, "rope scaling")
            object.__setattr__(self, "rope_scaling", scaling)
        if not isinstance(self.rope_scaling, RopeScaling | None):
            raise ValueError(f"rope_scaling must be None or a RopeScaling, got {self.rope_scaling!r}")
        if self.rope_scaling is not None and self.positions != "rope":
            raise ValueError(f"rope_scaling needs positions='rope', got positions={self.positions!r}")
        if not 0.0 < self.rotary_fraction <= 1.0:
            raise ValueError(
                f"rotary_fraction={self.rotary_fraction} must lie in (0, 1]; 1.0 turns all columns"
            )
        if self.positions == "rope" and (self.rotary_width % 2 or self.rotary_width < 2):
            raise ValueError(
                f"d_model={self.d_model} over num_heads={self.num_heads} gives heads of the odd width "
                f"{self.d_head}, and rope turns columns in pairs; choose an even d_model / num_heads"
                if self.rotary_width == self.d_head
                else f"rotary_fraction={self.rotary_fraction} of d_head={self.d_head} columns is "
                f"{self.rotary_width}, and rope turns columns in pairs; choose one that gives an even number"
            )
        if self.positions == "sinusoidal":
            check_pairs(self.d_model)
        check_size("relative_buckets", self.relative_buckets)
        check_size("relative_max_distance", self.relative_max_distance)
        exact = self.relative_buckets // 2  # distances that have a bucket to themselves
        if self.positions == "relative" and not 0 < exact < self.relative_max_distance:
            raise ValueError(
                f"relative_buckets={self.relative_buckets} needs relative_max_distance above {exact}, got "
                f"{self.relative_max_distance}, and at least two buckets; half of them hold one distance each"
            )

    @property
    def rotary_width(self) -> int:
        """Columns of one head that rotary positions turn."""
        return int(self.d_head * self.rotary_fraction)

    @classmethod
    def gpt2(cls, **fields: Any) -> "DecoderConfig":
        """GPT-2's choices: learned positions, layer norm, tanh-GELU, biases, tied output layer."""
        family = {"positions": "learned", "norm": "layer", "feedforward": "gelu"}
        return cls(**{**family, "bias": True, "tie_embeddings": True, "norm_eps": 1e-5, **fields})

    @classmethod
    def llama(cls, **fields: Any) -> "DecoderConfig":
        """Llama's choices: rotary positions, RMS norm, SwiGLU, no biases, untied output layer."""
        family = {"positions": "rope", "norm": "rms", "feedforward": "swiglu"}
        return cls(**{**family, "bias": False, "tie_embeddings": False, "norm_eps": 1e-5, **fields})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain numbers, strings and booleans, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DecoderConfig":
        """The config that `to_dict` described. Raises ValueError for unknown or missing fields."""
        return config_from_dict(cls, values, "a decoder")
