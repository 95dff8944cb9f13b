"""Draw texts under JSON schemas and count how many are valid.

Run ``python -m llm_from_scratch.inference.constrained_check --samples 500``.

Two sources of scores: SmolLM2-135M-Instruct, and "uniform", which gives every token the same score and
so tests the constraint harder than any model would. A text counts as valid if ``json.loads`` reads it
and the jsonschema library (`pip install jsonschema`) finds that it satisfies the schema.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from llm_from_scratch.decoding.constrained import constrain
from llm_from_scratch.decoding.sampling import sample
from llm_from_scratch.inference.generate import generate
from llm_from_scratch.interop.smollm2 import load_smollm2

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


def count_valid(
    model,
    tokenizer,
    *,
    samples: int,
    max_new_tokens: int = 40,
    temperature: float = 1.5,
    draw: Callable[..., list[int]] = sample,
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
        ids = draw(
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


def main(arguments: list[str] | None = None) -> None:
    """Print how many of the samples are valid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--uniform", action="store_true", help="equal scores instead of SmolLM2's")
    options = parser.parse_args(arguments)
    loaded = load_smollm2()
    model, tokenizer, draw = loaded.model, loaded.tokenizer, generate
    if options.uniform:
        model, draw = UniformModel(model.config.vocab_size), sample
    start = time.perf_counter()
    counts = count_valid(
        model, tokenizer, samples=options.samples, max_new_tokens=options.max_new_tokens,
        temperature=options.temperature, draw=draw,
    )  # fmt: skip
    for name, (valid, drawn) in counts.items():
        print(f"{name:10} {valid} of {drawn} valid")
    valid, drawn = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    source = "equal scores" if options.uniform else "SmolLM2-135M-Instruct"
    print(
        f"{valid} of {drawn} samples valid ({source}, temperature {options.temperature:g}, at most "
        f"{options.max_new_tokens} tokens, {time.perf_counter() - start:.0f} s)"
    )


class UniformModel:
    """Every token has the same score.

    >>> UniformModel(5)(torch.tensor([[1, 2]])).shape
    torch.Size([1, 2, 5])
    """

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def __call__(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return zeros of shape (B, T, V)."""
        return torch.zeros(1, 1, self.vocab_size).expand(*ids_BT.shape, -1)


if __name__ == "__main__":
    main()
