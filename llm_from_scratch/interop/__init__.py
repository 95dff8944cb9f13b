"""Published models in our code: weights, tokenizers and chat templates of other people's files."""

from llm_from_scratch.interop.gguf import load_gguf
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.interop.smollm2 import load_smollm2

__all__ = ["Loaded", "load_gguf", "load_smollm2"]
