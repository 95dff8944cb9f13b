"""The choices that make an encoder: its sizes, its parts, and the heads on top of it."""

from dataclasses import asdict, dataclass
from typing import Any

from llm_from_scratch.models.config_fields import (
    check_choice,
    check_dropout,
    check_heads_share,
    check_positive,
    check_size,
    config_from_dict,
)

CHOICES = {"feedforward": ("gelu", "gelu_exact", "relu")}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes, variants and heads of an `Encoder`. The defaults are BERT's.

    Raises: ValueError naming the field, its value and the way out.
    Source: Devlin et al. 2019, section 3.

    >>> config = EncoderConfig.bert(vocab_size=101, context_length=32, d_model=12, num_layers=2, num_heads=3)
    >>> config.d_ff, config.num_segments, config.masked_language_head
    (48, 2, True)
    >>> EncoderConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int  # entries
    context_length: int  # tokens: the longest sequence the model reads
    d_model: int  # columns of the vector that each position carries
    num_layers: int  # blocks
    num_heads: int  # heads a block
    d_ff: int | None = None  # hidden width; None: 4 d_model
    num_segments: int = 2  # kinds of segment: the first and the second text of a pair
    feedforward: str = "gelu_exact"  # "gelu" is the tanh form; "relu"
    norm_first: bool = False  # norms before the branches (as in GPT-2), with one more at the end
    pooler: bool = True  # a layer on the first token's vector, for tasks on the whole sequence
    masked_language_head: bool = False  # scores the vocabulary at every position
    next_sentence_head: bool = False  # scores whether the second text follows the first; needs pooler
    tie_embeddings: bool = True  # the masked-language head ends in the token embedding
    dropout: float = 0.0  # probability, in training only
    norm_eps: float = 1e-12  # added to the variance

    def __post_init__(self):
        """Fill what was left to the defaults, then check."""
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        for name in ("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "num_segments"):
            check_size(name, getattr(self, name))
        check_size("d_ff", self.d_ff)
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        check_heads_share(self.d_model, self.num_heads)
        check_dropout(self.dropout)
        check_positive("norm_eps", self.norm_eps)
        if self.next_sentence_head and not self.pooler:
            raise ValueError("next_sentence_head=True reads the pooled vector; set pooler=True as well")

    @classmethod
    def bert(cls, **fields: Any) -> "EncoderConfig":
        """BERT as it is pre-trained: with the masked-language and the next-sentence head."""
        return cls(**{"masked_language_head": True, "next_sentence_head": True, **fields})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain numbers, strings and booleans, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """The config that `to_dict` described. Raises ValueError for unknown or missing fields."""
        return config_from_dict(cls, values, "an encoder")
