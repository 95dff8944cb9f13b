"""From scores to text: which next tokens stay possible, and which one is drawn."""

from llm_from_scratch.decoding.bad_words import forbid_sequences
from llm_from_scratch.decoding.constrained import Constraint, constrain, generate_json
from llm_from_scratch.decoding.contrastive import contrastive_search
from llm_from_scratch.decoding.logits import (
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)
from llm_from_scratch.decoding.pipeline import LogitFunction, Pipeline, run_pipeline, scores_only
from llm_from_scratch.decoding.repetition import (
    forbid_repeated_ngrams,
    penalise_presence_and_frequency,
    penalise_repetition,
)
from llm_from_scratch.decoding.rerank import Ranked, best_of_n, rerank
from llm_from_scratch.decoding.sampling import next_token_probabilities, sample, stream
from llm_from_scratch.decoding.search import BeamResult, Hypothesis, beam_search, greedy_search

__all__ = [
    "BeamResult",
    "Constraint",
    "Hypothesis",
    "LogitFunction",
    "Pipeline",
    "Ranked",
    "apply_temperature",
    "beam_search",
    "best_of_n",
    "constrain",
    "contrastive_search",
    "forbid_repeated_ngrams",
    "forbid_sequences",
    "generate_json",
    "greedy_search",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "keep_typical",
    "next_token_probabilities",
    "penalise_presence_and_frequency",
    "penalise_repetition",
    "rerank",
    "run_pipeline",
    "sample",
    "scores_only",
    "stream",
]
