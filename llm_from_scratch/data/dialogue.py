"""Short questions and answers in English, as users of a chat program wrote them: the ChatterBot corpus.

Read from a published package (`artifacts`), a YAML file a topic. The answers play a robot in places, and
nobody has checked them: they teach a model to answer briefly, not to be right.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.deduplication import words

_TOPIC = re.compile(r"chatterbot_corpus/data/english/(\w+)\.yml")


def load_dialogue(
    archive: Path | None = None, *, topics: Sequence[str] | None = None, longest: int = 300
) -> tuple[tuple[str, str], ...]:
    """Return pairs (what is said, what is answered), by topic in alphabetical order, then as in the file.

    ``archive`` is a wheel of chatterbot-corpus; without it, `artifacts.fetch("dialogue")`. ``topics``
    keeps some of the 21 topics; ``longest`` (characters) leaves out longer answers, most of them programs.
    A conversation gives the pair of its first two utterances: what follows is in some files the
    conversation's next turn and in others one more answer. Of pairs that differ in nothing but
    capitals, punctuation and white space, the first is kept.
    The file has 2,026 conversations; 870 pairs are left, since the topic tech_support repeats 10 of them
    in 1,050 conversations.
    Raises: ValueError if the archive is no such wheel, for an unknown topic or a ``longest`` below 1;
    ModuleNotFoundError without PyYAML; what `artifacts.fetch` raises.
    """
    try:
        import yaml  # late: not everybody who uses this package has it
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "load_dialogue reads YAML, and PyYAML is not installed: pip install pyyaml"
        ) from None
    if longest < 1:
        raise ValueError(f"longest must be at least 1 character, got {longest}")
    archive = fetch("dialogue") if archive is None else Path(archive)
    try:
        with zipfile.ZipFile(archive) as package:
            files = {found[1]: name for name in package.namelist() if (found := _TOPIC.fullmatch(name))}
            unknown = sorted(set(topics or ()) - files.keys())
            read = {} if unknown else {
                topic: yaml.safe_load(package.read(files[topic]).decode("utf-8"))["conversations"]
                for topic in sorted(files if topics is None else topics)
            }  # fmt: skip
            pairs = [_pair(conversation) for topic in read.values() for conversation in topic]
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{archive.name} is no wheel of chatterbot-corpus ({error!r})") from None
    if unknown or not files:
        raise ValueError(
            f"{archive.name} has no topic {unknown}; it has {', '.join(sorted(files)) or 'none'}"
        )
    kept: dict[tuple[str, str], tuple[str, str]] = {}
    for question, answer in pairs:
        if question and answer and len(answer) <= longest:
            kept.setdefault((" ".join(words(question)), " ".join(words(answer))), (question, answer))
    return tuple(kept.values())


def _pair(conversation: Sequence[str]) -> tuple[str, str]:
    question, answer = (_tidy(str(each)) for each in conversation[:2])
    return question, answer


def _tidy(text: str) -> str:
    """Make runs of white space one space, except in an answer that quotes a program."""
    return text.strip() if "```" in text else " ".join(text.split())
