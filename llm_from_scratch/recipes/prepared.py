"""Train from a folder of prepared tokens in place of a corpus."""

from pathlib import Path

import numpy as np

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.files import sha256_of
from llm_from_scratch.data.shards import TOKENIZER, TokenFolder, open_folder
from llm_from_scratch.files import write_atomically
from llm_from_scratch.recipes.results import load_result, result_names
from llm_from_scratch.recipes.text import ScoredSplit
from llm_from_scratch.tokenizers import Tokenizer, load_tokenizer
from llm_from_scratch.tokenizers.gpt2 import read_gpt2_merges


def tokenizer_named(name: str) -> Tokenizer:
    """Return the tokenizer called ``name``: a file or folder, "gpt2", or that of a committed result.

    A folder may be one of Hugging Face's, with a config.json beside the tokenizer.
    Raises: FileNotFoundError if there is none of that name; ValueError if it cannot be read.
    """
    path = Path(name)
    if path.is_dir() and (path / "tokenizer_config.json").is_file():
        from llm_from_scratch.interop.hugging_face.tokenizer import read_tokenizer

        found = read_tokenizer(path, "")
        if found is None:
            raise ValueError(f"the folder {path} holds no tokenizer file that is read here")
        return found
    if path.exists():
        return load_tokenizer(path)
    if name == "gpt2":
        return read_gpt2_merges(fetch("gpt2_merges"))
    if name in result_names():
        return load_result(name)[1]
    raise FileNotFoundError(
        f"there is no tokenizer {name!r}: give a tokenizer.json or its folder, gpt2, or a committed result "
        f"({', '.join(result_names())})"
    )


def open_prepared(data: str, run_tokenizer: Path, *, verify: bool) -> tuple[Tokenizer, TokenFolder]:
    """Open a folder of tokens for a run, and give the run its tokenizer if it has none yet.

    ``verify`` reads every shard once and compares its sha256.
    Raises: FileNotFoundError and ValueError as `open_folder`; ValueError if the run has another tokenizer.
    """
    begun = sha256_of(run_tokenizer) if run_tokenizer.is_file() else None
    folder = open_folder(data, tokenizer_sha256=begun)
    if verify:
        folder.verify()
    if begun is None:
        write_atomically(run_tokenizer, (Path(data) / TOKENIZER).read_bytes())
    return load_tokenizer(run_tokenizer), folder


def first_validation_tokens(folder: TokenFolder, limit: int) -> np.ndarray:
    """Return the beginning of the validation split: at most ``limit`` tokens.

    Raises: ValueError if there are fewer than two.
    """
    tokens = folder.tokens("validation")
    if len(tokens) < 2:
        raise ValueError(f"{folder.path} has {len(tokens)} validation tokens: prepare more with --validation")
    return tokens.window(0, min(len(tokens), limit))


def scored_folder(data: str) -> ScoredSplit:
    """Return the whole validation split of a folder, ready to be scored."""
    folder = open_folder(data)
    tokens = folder.tokens("validation")
    return ScoredSplit(
        tokens=tokens.window(0, len(tokens)),
        start_id=folder.end_of_text,
        num_bytes=folder.text_bytes("validation"),
    )
