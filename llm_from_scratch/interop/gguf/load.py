"""Open a GGUF file as a model, a tokenizer, a config and a chat template."""

from __future__ import annotations

import os

import torch

from llm_from_scratch.interop.gguf.fields import Metadata
from llm_from_scratch.interop.gguf.llama import read_model
from llm_from_scratch.interop.gguf.reader import GGUFFile
from llm_from_scratch.interop.gguf.tokenizer import read_tokenizer, special_ids
from llm_from_scratch.interop.loaded import Loaded


def load_gguf(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, context_length: int | None = None
) -> Loaded:
    """Load a model of the Llama family with its tokenizer.

    Weights stored as F32, F16, BF16, Q8_0, Q4_0 or Q4_1 are widened to ``dtype``. ``context_length``
    keeps the tables of positions short; None makes them as long as the file says the model may read.
    The model takes part in no training until `model.train()`.

    Raises: FileNotFoundError; ValueError that names the file, the field, and what is wrong with it.
    """
    with GGUFFile(path) as file:
        metadata = Metadata(file)
        tokenizer = read_tokenizer(metadata)
        template = metadata.text("tokenizer.chat_template", None)
        roles = special_ids(metadata, tokenizer.vocab_size)
        names = {role: tokenizer.decode([i]) for role, i in roles.items()}
        model = read_model(file, dtype=dtype, context_length=context_length)
        if model.config.vocab_size != tokenizer.vocab_size:
            raise file.wrong(
                "metadata 'tokenizer.ggml.tokens'",
                f"lists {tokenizer.vocab_size} tokens, and the model has {model.config.vocab_size}",
            )
    return Loaded(
        model=model, tokenizer=tokenizer, config=model.config, chat_template=template, special_tokens=names
    )
