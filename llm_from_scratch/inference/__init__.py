"""Fast generation: what need not be computed twice is stored, and the tokens stay the same."""

from llm_from_scratch.inference.batch import generate_batch
from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.drafts import DecoderDraft, Draft, NGramDraft, PromptLookup
from llm_from_scratch.inference.fast_decoder import FastDecoder
from llm_from_scratch.inference.fast_ragged_pass import FastRaggedPass, fastest_pass
from llm_from_scratch.inference.generate import CachedModel, generate, stream
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.inference.native_step import NativeStep
from llm_from_scratch.inference.quantise import load_quantised, quantise_weights, save_quantised, weight_bytes
from llm_from_scratch.inference.quantised_cache import QuantisedCache
from llm_from_scratch.inference.ragged_pass import ragged_forward
from llm_from_scratch.inference.request import Drawn, Request, Ticket
from llm_from_scratch.inference.scheduler import QueueFull, Scheduler
from llm_from_scratch.inference.slot_cache import SlotCache
from llm_from_scratch.inference.speculative import Tally, speculative_generate, speculative_stream
from llm_from_scratch.inference.worker import Closed, Worker
from llm_from_scratch.nn.weight_only import WeightOnlyEmbedding, WeightOnlyLinear

__all__ = [
    "CachedModel",
    "Closed",
    "DecoderDraft",
    "Draft",
    "Drawn",
    "FastDecoder",
    "FastRaggedPass",
    "KVCache",
    "NGramDraft",
    "NativeStep",
    "PromptLookup",
    "QuantisedCache",
    "QueueFull",
    "Request",
    "Scheduler",
    "SlotCache",
    "Tally",
    "Ticket",
    "WeightOnlyEmbedding",
    "WeightOnlyLinear",
    "Worker",
    "cached_forward",
    "fastest_pass",
    "generate",
    "generate_batch",
    "load_quantised",
    "quantise_weights",
    "ragged_forward",
    "save_quantised",
    "speculative_generate",
    "speculative_stream",
    "stream",
    "weight_bytes",
]
