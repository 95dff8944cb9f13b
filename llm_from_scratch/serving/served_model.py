"""A model with what a server needs to know of it: how texts become tokens, and where an answer ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_from_scratch.interop.chat import encode_chat
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.models.decoder import Decoder

ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>")  # besides the eos_token that a model names
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A decoder, its tokenizer and its chat template, under the name that clients ask for.

    ``start_ids`` are put before a text that is no chat, for models that were trained so. ``stop_ids``
    end an answer; they are, like all special tokens, not part of its text.
    """

    name: str
    loaded: Loaded
    start_ids: tuple[int, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    longest_token: int = 1 << 30  # bytes
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970

    @classmethod
    def from_loaded(cls, name: str, loaded: Loaded, start_ids: Sequence[int] = ()) -> ServedModel:
        """Find the tokens that end an answer. Raises: ValueError for what cannot be served."""
        if not isinstance(loaded.model, Decoder):
            raise ValueError(
                f"{name} is a {type(loaded.model).__name__}; only a decoder, as GPT-2, continues texts"
            )
        if loaded.tokenizer is None:
            raise ValueError(f"{name} came without a tokenizer, and clients send texts")
        special = getattr(loaded.tokenizer, "special_ids", {})
        ends = {loaded.special_tokens.get("eos_token"), *ENDS}
        stop_ids = frozenset(i for token, i in special.items() if token in ends)
        served = cls(name=name, loaded=loaded, start_ids=tuple(start_ids), stop_ids=stop_ids)
        longest = max(len(served.token_bytes(i)) for i in range(loaded.tokenizer.vocab_size))
        return replace(served, longest_token=longest)

    @property
    def silent_ids(self) -> frozenset[int]:
        """Tokens that have no text in an answer."""
        return frozenset(getattr(self.loaded.tokenizer, "special_ids", {}).values())

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        tokenizer = self.loaded.tokenizer
        if hasattr(tokenizer, "decode_bytes"):
            return tokenizer.decode_bytes([token])
        return tokenizer.decode([token]).encode("utf-8")

    def fewest_tokens(self, text: str) -> int:
        """No encoding of the text has fewer tokens: a bound that costs nothing, for texts of any length."""
        return len(text.encode("utf-8")) // self.longest_token

    def encode_prompt(self, prompt: str | list[int]) -> list[int]:
        """The tokens of a text to continue, or those given, as they are.

        Special tokens written in a text are text; who means the tokens sends their ids.
        Raises: ValueError for ids and characters that the model does not have.
        """
        if not isinstance(prompt, str):
            size = self.loaded.model.config.vocab_size
            if outside := [i for i in prompt if not 0 <= i < size]:
                raise ValueError(f"token id {outside[0]} is outside the vocabulary of {size} tokens")
            return prompt
        ids = [*self.start_ids, *self.loaded.tokenizer.encode(prompt)]
        if not ids:
            ids = sorted(self.stop_ids)[:1] or self.loaded.tokenizer.encode("\n")
        return ids

    def encode_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The tokens of a chat, up to where the answer begins.

        Raises: ValueError for messages that are none, or hold a special token, or that the template refuses;
        if the model has no chat template.
        """
        if self.loaded.chat_template is None:
            raise ValueError(f"{self.name} has no chat template; it continues texts: use /v1/completions")
        return encode_chat(self.loaded, [plain_message(message) for message in messages])


def plain_message(message: Mapping[str, Any]) -> dict[str, str]:
    """Role and text of a message; a content that is a list of text parts is joined.

    >>> plain_message({"role": "user", "content": [{"type": "text", "text": "Hello"}]})
    {'role': 'user', 'content': 'Hello'}
    """
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"the role of a message must be one of {', '.join(ROLES)}, got {role!r:.60}")
    others = set(message) - {"role", "content", "name", "refusal", "annotations"}
    if any(message[other] for other in others):
        raise ValueError(f"messages of this server hold text only, got {', '.join(sorted(others))!s:.60}")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
        if any(kind != "text" for kind in kinds) or not all(isinstance(part, str) for part in parts):
            raise ValueError("the parts of a message must be of the type text, with a text each")
        content = "".join(parts)
    if not isinstance(content, str):
        raise ValueError(
            f"the content of a message must be a string or a list of text parts, got {content!r:.60}"
        )
    return {"role": ROLES[role], "content": content}
