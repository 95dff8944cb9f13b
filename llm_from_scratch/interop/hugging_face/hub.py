"""Download a model's folder from the Hugging Face Hub, where a network exists, and load it."""

from __future__ import annotations

from typing import Any

from llm_from_scratch.interop.hugging_face.folder import load_folder
from llm_from_scratch.interop.loaded import Loaded

# What `load_folder` reads, and no pickles.
FILES = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
    "chat_template.jinja", "spiece.model", "tokenizer.model",
)  # fmt: skip


def from_hub(name: str, *, revision: str | None = None, **options: Any) -> Loaded:
    """Download the files of the model ``name``, such as "openai-community/gpt2", and load them.

    ``revision`` is a branch, a tag, or, to get the same files for ever, the hash of a commit. What was
    downloaded once is taken from huggingface_hub's cache. ``options`` are those of `load_folder`.

    Raises: ValueError if the name is unknown, or huggingface_hub is not installed; OSError if there is no
    network and the cache lacks the model.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise ValueError(
            "from_hub needs huggingface_hub: pip install 'llm-from-scratch[interop]', or download the folder "
            "by other means and pass it to load_folder"
        ) from None
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(FILES))
    except HFValidationError as error:
        raise ValueError(f"{name!r:.100} is no name of a model: {error}") from None
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise OSError(
            f"{name!r:.100} is not in the local cache, and the Hub cannot be reached "
            f"({type(error).__name__}). Download the folder where there is a network, and "
            "pass it to load_folder"
        ) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"the Hub has no {name!r:.100}, revision {revision!r:.60}, or does not show it: "
            f"{str(error)[:200]}"
        ) from None
    return load_folder(folder, **options)
