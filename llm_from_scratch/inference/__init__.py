"""Fast generation: what need not be computed twice is stored, and the tokens stay the same."""

from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.generate import CachedModel, generate, stream
from llm_from_scratch.inference.kv_cache import KVCache

__all__ = ["CachedModel", "KVCache", "cached_forward", "generate", "stream"]
