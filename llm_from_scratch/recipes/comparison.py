"""What the comparisons share: opening the stored record, and a command that prints its table.

A comparison trains several models and keeps one record of them all (`recipes.publish` makes it).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from llm_from_scratch.recipes.results import RESULTS


def publish_command(name: str) -> str:
    """Return the command that makes the comparison's record again."""
    return f"python -m llm_from_scratch.recipes.publish {name}"


def read_record(
    name: str,
    folder: Path | None = None,
    *,
    entries: str,
    needed: tuple[str, ...],
    also: Callable[[dict], object] = lambda record: None,
) -> dict[str, object]:
    """Return the record of the comparison ``name``; ``folder`` is by default that of the stored one.

    Each item of the list ``record[entries]`` must have the fields ``needed``; ``also`` reads what
    else the record must hold, and may fail with a KeyError.
    Raises: FileNotFoundError if there is no record; ValueError if it is damaged.
    """
    path = (RESULTS / name if folder is None else folder) / "record.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `{publish_command(name)}` makes it")
    try:
        record = json.loads(path.read_bytes())
        if not all(key in entry for entry in record[entries] for key in needed):
            raise KeyError(f"one of {entries} lacks one of {needed}")
        also(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); `{publish_command(name)}` makes it again") from error
    return record


def print_table(
    arguments: list[str] | None, *, description: str, record: Callable[[], dict], table: Callable[[dict], str]
) -> int:
    """Answer ``--table``: print the table of the stored record and where it comes from."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--table", action="store_true", required=True, help="print the stored table")
    parser.parse_args(arguments)
    stored = record()
    print(table(stored))
    print(
        f"{stored['command']}  {stored['date']}  commit {stored['commit']}  {stored['hardware']['processor']}"
    )
    return 0
