"""Models in Hugging Face's layout, read and written: GPT-2, Llama and its relatives, BERT, T5."""

from llm_from_scratch.interop.hugging_face.folder import load_folder, save_folder
from llm_from_scratch.interop.hugging_face.hub import from_hub

__all__ = ["from_hub", "load_folder", "save_folder"]
