"""From scores to text: which next tokens stay possible, and which one is drawn."""

from llm_from_scratch.decoding.logits import apply_temperature, keep_min_p, keep_top_k, keep_top_p
from llm_from_scratch.decoding.sampling import next_token_probabilities, sample, stream

__all__ = [
    "apply_temperature",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "next_token_probabilities",
    "sample",
    "stream",
]
