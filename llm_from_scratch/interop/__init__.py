"""Published models in our code: weights, tokenizers and chat templates of other people's files."""

from llm_from_scratch.interop.chat import encode_chat, render_chat
from llm_from_scratch.interop.gguf import load_gguf
from llm_from_scratch.interop.hugging_face import from_hub, load_folder, save_folder
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.interop.minilm import load_minilm, sentence_embeddings
from llm_from_scratch.interop.smollm2 import load_smollm2

__all__ = [
    "Loaded",
    "encode_chat",
    "from_hub",
    "load_folder",
    "load_gguf",
    "load_minilm",
    "load_smollm2",
    "render_chat",
    "save_folder",
    "sentence_embeddings",
]
