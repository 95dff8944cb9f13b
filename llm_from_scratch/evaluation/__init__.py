"""How well a model predicts text, in units that allow comparison."""

from llm_from_scratch.evaluation.perplexity import (
    TextScore,
    bits_per_byte,
    evaluate,
    evaluate_text,
    from_log_probabilities,
    perplexity,
    token_log_probabilities,
)

__all__ = [
    "TextScore",
    "bits_per_byte",
    "evaluate",
    "evaluate_text",
    "from_log_probabilities",
    "perplexity",
    "token_log_probabilities",
]
