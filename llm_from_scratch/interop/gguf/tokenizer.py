"""The tokenizer inside a GGUF file: byte-level byte pairs, as in GPT-2."""

from __future__ import annotations

from llm_from_scratch.interop.gguf.fields import Metadata
from llm_from_scratch.tokenizers.published_byte_pair import PublishedBytePairTokenizer

# The file's name for how the text is cut, and ours.
PIECES = {"gpt-2": "gpt2", "smollm": "smollm"}
_SPECIAL_TYPES = {2, 3, 4}  # unknown, control, user-defined; 1 is ordinary, 5 unused, 6 a byte
_SPECIAL_NAMES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


def read_tokenizer(metadata: Metadata) -> PublishedBytePairTokenizer:
    """Return the file's tokenizer. Raises: ValueError that names the entry and what is wrong with it."""
    kind = metadata.text("tokenizer.ggml.model")
    if kind != "gpt2":
        raise metadata.wrong(
            "tokenizer.ggml.model",
            f"is {kind!r:.60}; byte-level byte pairs ('gpt2') are read here. "
            "read_model(file) takes the model alone",
        )
    pieces = metadata.text("tokenizer.ggml.pre", "gpt-2")
    if pieces not in PIECES:
        known = ", ".join(map(repr, PIECES))
        raise metadata.wrong("tokenizer.ggml.pre", f"is {pieces!r:.60}; {known} are read here")
    tokens = metadata.texts("tokenizer.ggml.tokens")
    special = set(special_ids(metadata, len(tokens)).values())
    if "tokenizer.ggml.token_type" in metadata:
        types = metadata.integers("tokenizer.ggml.token_type", len(tokens))
        special = {i for i, kind in enumerate(types) if kind in _SPECIAL_TYPES}
    merges = []
    for rank, merge in enumerate(metadata.texts("tokenizer.ggml.merges")):
        pair = merge.split(" ")
        if len(pair) != 2:
            raise metadata.wrong("tokenizer.ggml.merges", f"holds {merge!r:.60} at position {rank}, no pair")
        merges.append((pair[0], pair[1]))
    try:
        return PublishedBytePairTokenizer.from_spellings(
            tokens, merges, sorted(special), pieces=PIECES[pieces]
        )
    except ValueError as error:
        raise metadata.wrong("tokenizer.ggml", f"is damaged: {error}") from None


def special_ids(metadata: Metadata, num_tokens: int) -> dict[str, int]:
    """Return the ids that the file gives a role to, such as ``{"eos_token": 2}``."""
    ids = {}
    for name, ours in _SPECIAL_NAMES.items():
        key = f"tokenizer.ggml.{name}_token_id"
        if key in metadata:
            i = metadata.file.metadata[key]
            if type(i) is not int or not 0 <= i < num_tokens:
                raise metadata.wrong(key, f"is {i!r:.60}; the tokens are 0 to {num_tokens - 1}")
            ids[f"{ours}_token"] = i
    return ids
