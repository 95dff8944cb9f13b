"""Conversations of one's own: a file with one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROLES = ("system", "user", "assistant")


def load_conversations(path: str | os.PathLike[str]) -> list[list[dict[str, str]]]:
    r"""Read a JSONL file; return the messages of each conversation.

    A line holds ``{"messages": [{"role": "user", "content": "..."}, ...]}`` or, for one question and its
    answer, ``{"prompt": "...", "answer": "..."}``. Empty lines are passed over. The text is UTF-8.

    Raises: FileNotFoundError; ValueError that names the file and the line, for what is no JSON, an
    unknown role, an empty or missing text, and a conversation without an answer; ValueError for a file
    without any conversation.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "talks.jsonl"
    ...     _ = path.write_text('{"prompt": "3+4?", "answer": "7"}\n', encoding="utf-8")
    ...     load_conversations(path)
    [[{'role': 'user', 'content': '3+4?'}, {'role': 'assistant', 'content': '7'}]]
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from None
    conversations = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            conversations.append(_messages(json.loads(line)))
        except (ValueError, RecursionError) as error:  # json's own error is a ValueError
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not conversations:
        raise ValueError(f"{path} holds no conversation; expected one JSON object a line")
    return conversations


def question_and_answer(question: str, answer: str, *, system: str = "") -> list[dict[str, str]]:
    """Return the messages of one question and its answer, an instruction before them if there is one.

    >>> [message["role"] for message in question_and_answer("3+4?", "7", system="Be brief.")]
    ['system', 'user', 'assistant']
    """
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _messages(entry: Any) -> list[dict[str, str]]:
    """The messages of one line."""
    if isinstance(entry, Mapping) and "messages" not in entry and {"prompt", "answer"} <= entry.keys():
        entry = {
            "messages": [
                {"role": "user", "content": entry["prompt"]},
                {"role": "assistant", "content": entry["answer"]},
            ]
        }
    if not isinstance(entry, Mapping) or not isinstance(entry.get("messages"), list):
        raise ValueError(
            f'expected {{"messages": [...]}} or {{"prompt": ..., "answer": ...}}, got {json.dumps(entry):.80}'
        )
    messages = [_message(message, place) for place, message in enumerate(entry["messages"], start=1)]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no message has the role assistant, so there is nothing to train on")
    return messages


def _message(message: Any, place: int) -> dict[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise ValueError(f"message {place} must have role and content, got {json.dumps(message):.80}")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(f"message {place} has the role {role!r}; expected one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"message {place} has no text: its content is {content!r:.40}")
    return {"role": role, "content": content}
