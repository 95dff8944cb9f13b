"""The JSON objects that answers are sent as, whole or in pieces.

Source: OpenAI's API reference, "The completion object", "The chat completion object" and "The chat
completion chunk object".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_from_scratch.inference import Drawn
from llm_from_scratch.serving.choices import Piece
from llm_from_scratch.serving.served_model import ServedModel


def token_text(data: bytes) -> str:
    r"""A token's text; one that is no whole character is written as its bytes.

    >>> token_text(b" the"), token_text("语".encode()[:2])
    (' the', 'bytes:\\xe8\\xaf')
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


@dataclass
class Answers:
    """Builds the objects for one request: `chunk` for each piece of a stream, `whole` at once."""

    served: ServedModel
    is_chat: bool
    with_logprobs: bool = False
    with_usage: bool = False  # in a stream: each chunk has the field, and one more chunk the counts
    prompt_texts: Sequence[str] = ()  # what each answer begins with, if the prompt shall be echoed
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self):
        """Draw a name for the answers."""
        self.id = ("chatcmpl-" if self.is_chat else "cmpl-") + secrets.token_hex(12)
        self._begun: set[int] = set()

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One event of a stream."""
        first = piece.index not in self._begun
        self._begun.add(piece.index)
        choice = {
            "index": piece.index,
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish,
        }
        if self.is_chat:
            delta = {"role": "assistant"} if first else {}
            if piece.text or first:
                delta["content"] = piece.text
            choice["delta"] = delta
        else:
            choice["text"] = (self._echo(piece.index) if first else "") + piece.text
        extra = {"usage": None} if self.with_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **extra}

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The last event of a stream that was asked for its counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def whole(self, pieces: Sequence[Piece], usage: dict[str, Any]) -> dict[str, Any]:
        """All answers at once, from all their pieces."""
        choices = []
        for index in sorted({piece.index for piece in pieces}):
            own = [piece for piece in pieces if piece.index == index]
            text = self._echo(index) + "".join(piece.text for piece in own)
            choice: dict[str, Any] = {"index": index, "finish_reason": own[-1].finish}
            if self.is_chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = text
            choice["logprobs"] = self._logprobs([token for piece in own for token in piece.tokens])
            choices.append(choice)
        return {**self._head("chat.completion"), "choices": choices, "usage": usage}

    def _head(self, chat_kind: str) -> dict[str, Any]:
        kind = chat_kind if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}

    def _echo(self, index: int) -> str:
        return self.prompt_texts[index] if self.prompt_texts else ""

    def _logprobs(self, tokens: Sequence[tuple[Drawn, int]]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        if self.is_chat:
            entries = [
                {
                    **self._entry(drawn.token, drawn.logprob),
                    "top_logprobs": [self._entry(*top) for top in drawn.top],
                }
                for drawn, _ in tokens
            ]
            return {"content": entries, "refusal": None}
        name = self.served.token_bytes
        return {
            "tokens": [token_text(name(drawn.token)) for drawn, _ in tokens],
            "token_logprobs": [drawn.logprob for drawn, _ in tokens],
            "top_logprobs": [
                {token_text(name(token)): value for token, value in drawn.top} for drawn, _ in tokens
            ],
            "text_offset": [start for _, start in tokens],
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = self.served.token_bytes(token)
        return {"token": token_text(data), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The counts of a request, in tokens.

    >>> usage(3, 4)
    {'prompt_tokens': 3, 'completion_tokens': 4, 'total_tokens': 7}
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
