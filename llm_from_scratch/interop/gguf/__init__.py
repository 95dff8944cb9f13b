"""Read GGUF: one file that holds a model's weights, its sizes, its tokenizer and its chat template."""

from llm_from_scratch.interop.gguf.dequantise import dequantise
from llm_from_scratch.interop.gguf.load import load_gguf
from llm_from_scratch.interop.gguf.reader import GGUFFile, TensorInfo

__all__ = ["GGUFFile", "TensorInfo", "dequantise", "load_gguf"]
