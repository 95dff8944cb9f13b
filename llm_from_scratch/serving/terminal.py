"""A chat in the terminal: answers appear as they are written, and commands begin with a slash."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from llm_from_scratch.decoding.sampling import stream
from llm_from_scratch.inference import CachedModel
from llm_from_scratch.serving.conversation import Conversation
from llm_from_scratch.serving.served_model import ServedModel
from llm_from_scratch.serving.text_stream import TextStream

# What a model draws must not move the cursor or ring the bell of the terminal.
CONTROL_SIGNS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
SETTINGS = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "seed": int,
    "max_new_tokens": int,
}
HELP = """/reset               forget the conversation
/system [TEXT]       show or set the instruction that comes first
/settings            show how answers are drawn
/settings NAME VALUE change it: temperature, top_k, top_p, min_p, seed, max_new_tokens ("none" turns off)
/save FILE           write the conversation as JSON
/quit                leave, as Ctrl-D does; Ctrl-C stops an answer"""


@dataclass
class Terminal:
    """Reads questions from ``lines``, a terminal or a pipe, and writes the answers to ``out``.

    ``model`` keeps the keys and values of the conversation, so that of each turn only what is new is read.
    In a terminal there are prompts; what the program itself says goes to ``notes``, stderr.
    """

    served: ServedModel
    model: CachedModel
    context_length: int
    talk: Conversation = field(default_factory=Conversation)
    settings: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.7, "max_new_tokens": 512})
    lines: TextIO = field(default_factory=lambda: sys.stdin)
    out: Console = field(default_factory=lambda: Console(highlight=False))
    notes: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def run(self) -> None:
        """Talk until /quit or the end of the input."""
        while (line := self._read()) is not None:
            line = line.strip()
            if not line:
                continue
            if line.startswith("/"):
                if line.split()[0] == "/quit":
                    return
                self._say(self._obey(line))
            else:
                self._reply(line)

    def _read(self) -> str | None:
        """The next line; None at the end."""
        if not self.lines.isatty():
            return self.lines.readline() or None
        while True:
            try:
                return self.out.input("[bold]> [/bold]")
            except EOFError:
                self.out.out("")
                return None
            except KeyboardInterrupt:
                self.out.out("")
                self._say("/quit or Ctrl-D leaves")

    def _reply(self, question: str) -> None:
        """Answer a question; what cannot be answered is not kept."""
        self.talk.ask(question)
        wanted, before = self.settings["max_new_tokens"], self.talk.forgotten
        try:
            room = self.context_length - min(wanted, self.context_length // 2)
            ids = self.talk.encode(self.served, room)
            if self.talk.forgotten > before:
                turns = (self.talk.forgotten - before) // 2
                self._say(f"The context of {self.context_length} tokens is full: {turns} of the oldest "
                          f"turns {'is' if turns == 1 else 'are'} forgotten.")  # fmt: skip
            limit = min(wanted, self.context_length - len(ids))
            settings = {**self.settings, "max_new_tokens": limit, "stop_ids": self.served.stop_ids}
            pieces = self._pieces(stream(self.model, ids, **settings))
        except (ValueError, KeyboardInterrupt) as error:
            self.talk.take_back()
            self.talk.forgotten = before
            self._say("stopped" if isinstance(error, KeyboardInterrupt) else str(error))
            return
        said = ""
        try:
            for piece in pieces:
                said += piece
                self.out.out(piece.translate(CONTROL_SIGNS), end="", highlight=False)
            self.out.out("")
        except KeyboardInterrupt:
            self.out.out("")
            self._say("stopped")
        for token in self.served.loaded.tokenizer.special_tokens:
            said = said.replace(token, "")  # spelt letter by letter, it would end the message
        self.talk.answer(said)

    def _pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        text = TextStream(self.served.loaded.tokenizer, silent=self.served.silent_ids)
        for token in tokens:
            if piece := text.add(token):
                yield piece

    def _obey(self, line: str) -> str:
        """Carry out a command; returns what there is to say."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/reset":
            self.talk.reset()
            return "The conversation is forgotten."
        if name == "/system":
            self.talk.system = rest or self.talk.system
            return f"The instruction: {self.talk.system or 'none'}"
        if name == "/settings":
            return self._change(rest.split()) if rest else self._shown_settings()
        if name == "/save":
            try:
                self.talk.save(Path(rest or "conversation.json").expanduser())
            except OSError as error:
                return f"Not saved: {error}"
            return f"Saved in {rest or 'conversation.json'}."
        return HELP if name == "/help" else f"There is no command {name}.\n{HELP}"

    def _shown_settings(self) -> str:
        return "\n".join(f"{name:15} {self.settings.get(name, 'none')}" for name in SETTINGS)

    def _change(self, words: list[str]) -> str:
        if len(words) != 2 or words[0] not in SETTINGS:
            return f"Write /settings NAME VALUE, with one of {', '.join(SETTINGS)}."
        name, value = words
        changed = {key: old for key, old in self.settings.items() if key != name}
        try:
            if value != "none":
                changed[name] = SETTINGS[name](value)
            elif name == "max_new_tokens":
                raise ValueError("max_new_tokens must be a number")
            stream(self.model, [0], **{**changed, "max_new_tokens": changed["max_new_tokens"]})
        except ValueError as error:
            return f"Not changed: {error}"
        self.settings = changed
        return f"{name} is {value}."

    def _say(self, text: str) -> None:
        self.notes.print(text, style="dim", markup=False)
