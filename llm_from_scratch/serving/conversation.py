"""A conversation that fits the model: the turns so far, and what is left out of a long one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from llm_from_scratch.files import write_atomically
from llm_from_scratch.serving.served_model import ServedModel


@dataclass
class Conversation:
    """Questions and answers, with an instruction before them.

    >>> talk = Conversation(system="Be brief.")
    >>> talk.ask("Hello?"); talk.answer("Hello.")
    >>> [message["role"] for message in talk.messages]
    ['system', 'user', 'assistant']
    """

    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    forgotten: int = 0  # turns at the beginning that the model is not told any more

    @property
    def messages(self) -> list[dict[str, str]]:
        """All of it, as a chat template takes it."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self.turns

    def ask(self, question: str) -> None:
        """Add a question."""
        self.turns.append({"role": "user", "content": question})

    def answer(self, text: str) -> None:
        """Add the answer to the last question."""
        self.turns.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Drop the last question."""
        self.turns.pop()

    def reset(self) -> None:
        """Forget the turns; the instruction stays."""
        self.turns.clear()
        self.forgotten = 0

    def encode(self, served: ServedModel, room: int) -> list[int]:
        """The tokens to continue, at most ``room``: the oldest questions are left out with their answers.

        What has been left out once stays so. Raises: ValueError if not even the last question fits.
        """
        while True:
            first = [{"role": "system", "content": self.system}] if self.system else []
            ids = served.encode_messages(first + self.turns[self.forgotten :])
            if len(ids) <= room:
                return ids
            if self.forgotten + 2 >= len(self.turns):
                raise ValueError(f"the message takes {len(ids)} tokens; there is room for {room}: shorten it")
            self.forgotten += 2

    def save(self, path: Path) -> None:
        """Write the messages as JSON. Raises: FileExistsError."""
        if path.exists():
            raise FileExistsError(f"{path} exists already; choose another name")
        write_atomically(path, json.dumps({"messages": self.messages}, ensure_ascii=False, indent=2) + "\n")
