"""Whether constrained decoding keeps its promise: texts drawn under JSON schemas, counted if valid.

Two sources of scores: SmolLM2-135M-Instruct at temperature 1.5, and "equal scores", which gives every
token the same and so tests the constraint harder than any model would. A text counts as valid if
``json.loads`` reads it and the jsonschema library (``pip install jsonschema``), which shares no code with
ours, finds that it satisfies the schema.

``python -m llm_from_scratch.recipes.publish constrained_json`` draws 500 texts of each source;
``python -m llm_from_scratch.recipes.constrained_json --table`` prints the stored counts.

Legend: B sequences, T tokens, V vocabulary entries.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llm_from_scratch.decoding.constrained import constrain
from llm_from_scratch.decoding.sampling import sample
from llm_from_scratch.files import write_atomically
from llm_from_scratch.inference.fast_decoder import FastDecoder
from llm_from_scratch.interop.smollm2 import load_smollm2
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings

NAME = "constrained_json"
SAMPLES, TEMPERATURE, MAX_NEW_TOKENS = 500, 1.5, 40

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["name", "age"],
}
COLOURS = {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 5}
SHAPE = {
    "type": "object",
    "oneOf": [
        {
            "properties": {"kind": {"const": "circle"}, "radius": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["kind", "radius"],
        },
        {
            "properties": {
                "kind": {"const": "text"},
                "text": {"type": "string"},
                "bold": {"type": "boolean"},
            },
            "required": ["kind", "text"],
        },
    ],
}
TREE = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["word", "children"],
}
SCHEMAS: dict[str, Any] = {
    "person": PERSON, "colours": COLOURS, "shape": SHAPE, "tree": TREE, "any JSON": True,
}  # fmt: skip
PROMPT = "Answer with a JSON value.\n"


class EqualScores:
    """A model for which every token has the same score.

    >>> EqualScores(5)(torch.tensor([[1, 2]])).shape
    torch.Size([1, 2, 5])
    """

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def __call__(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return zeros, ``B T V``."""
        return torch.zeros(*ids_BT.shape, self.vocab_size)


def count_valid(
    model,
    tokenizer,
    *,
    samples: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = TEMPERATURE,
    schemas: dict[str, Any] = SCHEMAS,
) -> dict[str, tuple[int, int]]:
    """Draw ``samples`` texts, the schemas in turn; return (valid, drawn) for each schema.

    Sample number i is drawn with seed i.
    """
    import jsonschema

    prompt = tokenizer.encode(PROMPT)
    steps = {
        name: constrain(
            tokenizer, json_schema=schema, prompt_length=len(prompt), max_new_tokens=max_new_tokens
        )
        for name, schema in schemas.items()
    }
    valid, drawn = dict.fromkeys(schemas, 0), dict.fromkeys(schemas, 0)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for seed in range(samples):
        name = list(schemas)[seed % len(schemas)]
        ids = sample(
            model, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            stop_ids=steps[name].stop_ids, pipeline=[steps[name]],
        )  # fmt: skip
        drawn[name] += 1
        try:
            value = json.loads(tokenizer.decode_bytes(ids).decode("utf-8"))
            jsonschema.Draft202012Validator(schemas[name], format_checker=checker).validate(value)
        except (ValueError, RecursionError, jsonschema.ValidationError):
            continue
        valid[name] += 1
    return {name: (valid[name], drawn[name]) for name in schemas}


def make(folder: Path, *, say: Callable[[str], None] = print, samples: int = SAMPLES) -> dict[str, object]:
    """Draw from both sources; write record.json into ``folder`` and return it."""
    where = surroundings(torch.device("cpu"))
    loaded = load_smollm2()
    sources = {
        "equal scores": EqualScores(loaded.model.config.vocab_size),
        "SmolLM2": FastDecoder(loaded.model),
    }
    counts = []
    for source, model in sources.items():
        start = time.perf_counter()
        found = count_valid(model, loaded.tokenizer, samples=samples)
        say(
            f"{source}: {sum(v for v, _ in found.values())} of {samples}, {time.perf_counter() - start:.0f} s"
        )
        for schema, (valid, drawn) in found.items():
            counts.append({"source": source, "schema": schema, "valid": valid, "drawn": drawn})
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **where,
        "temperature": TEMPERATURE,
        "max_new_tokens": MAX_NEW_TOKENS,
        "counts": counts,
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged."""
    return read_record(NAME, folder, entries="counts", needed=("source", "schema", "valid", "drawn"))


def counts_table(record: dict[str, object]) -> str:
    """Return the counts as lines of text."""
    counts = record["counts"]
    sources = list(dict.fromkeys(count["source"] for count in counts))
    lines = [f"{'valid of drawn':15}" + "".join(f"{source:>16}" for source in sources)]
    by_place = {(c["schema"], c["source"]): f"{c['valid']} of {c['drawn']}" for c in counts}
    for schema in dict.fromkeys(count["schema"] for count in counts):
        lines.append(f"{schema:15}" + "".join(f"{by_place[schema, source]:>16}" for source in sources))
    sums = [
        [sum(c[key] for c in counts if c["source"] == source) for key in ("valid", "drawn")]
        for source in sources
    ]
    return "\n".join([*lines, f"{'all':15}" + "".join(f"{f'{v} of {d}':>16}" for v, d in sums)])


def main(arguments: list[str] | None = None) -> int:
    """Print the stored counts; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=counts_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
