"""What quantised weights cost: perplexity and bytes at 32, 16, 8 and 4 bits, on speeches not trained on.

Two models. SmolLM2-135M is read from a file whose matrices of the blocks are 4-bit numbers already, in
groups of 32 (GGUF's Q4_1): 4 bits in groups of 32 find the same grid again and look free. The laptop
recipe's model was trained in full precision, so there every format rounds something.

``python -m llm_from_scratch.recipes.publish quantisation`` measures;
``python -m llm_from_scratch.recipes.quantisation --table`` prints the stored table.
"""

import copy
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from llm_from_scratch.data.corpora import load
from llm_from_scratch.evaluation.perplexity import token_log_probabilities
from llm_from_scratch.files import write_atomically
from llm_from_scratch.inference.quantise import quantise_weights, weight_bytes
from llm_from_scratch.interop.smollm2 import load_smollm2
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.recipes.text import scored_split
from llm_from_scratch.training.precision import choose_device

NAME = "quantisation"
CORPUS = "sotu"
SMOLLM2_TOKENS = 4096  # of the validation split's speeches, from the first on
LAPTOP_TOKENS = 65_536  # likewise
SMOLLM2_CONTEXT = 512  # tokens of each window; windows do not overlap


def _bfloat16(model: Decoder) -> Decoder:
    """Weights rounded to bfloat16, arithmetic in float32."""
    return copy.deepcopy(model).bfloat16().float()


FORMATS: dict[str, Callable[[Decoder], Decoder]] = {
    "fp32": lambda model: model,
    "bf16": _bfloat16,
    "int8": lambda model: quantise_weights(model, bits=8),
    "int4, groups of 32": lambda model: quantise_weights(model, bits=4, group_size=32),
    "int4, groups of 64": lambda model: quantise_weights(model, bits=4, group_size=64),
    "int4, groups of 128": lambda model: quantise_weights(model, bits=4, group_size=128),
    "int4, embedding too": lambda model: quantise_weights(model, bits=4, group_size=32, embedding_bits=4),
}


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    formats: dict[str, Callable[[Decoder], Decoder]] = FORMATS,
    tokens: int = SMOLLM2_TOKENS,
) -> dict[str, object]:
    """Score both models in every format; write record.json into ``folder`` and return it.

    The loss of a format is that of the float32 model on the same tokens plus a difference, whose standard
    error comes from the differences of the single tokens.
    """
    where = surroundings(choose_device("cpu"))
    entries = []
    for name, (model, score) in {"smollm2": _smollm2(tokens), "laptop": _laptop()}.items():
        reference_N: Tensor | None = None
        for label, change in formats.items():
            started = time.perf_counter()
            changed = change(model).eval()
            losses_N = -score(changed).double()
            reference_N = losses_N if reference_N is None else reference_N
            entry = {"model": name, "format": label, **_figures(losses_N, reference_N)}
            entry["bytes"] = weight_bytes(changed) // (2 if label == "bf16" else 1)
            entry["seconds"] = round(time.perf_counter() - started, 1)
            entries.append(entry)
            say(f"{name}, {label}: perplexity {entry['perplexity']:.3f} ({entry['loss_percent']:+.2f} %)")
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **where,
        "note": "SmolLM2's file holds 4-bit weights (Q4_1, groups of 32), so 'fp32' is their widened form "
        "and int4 in groups of 32 finds the same grid; the laptop model was trained in full precision "
        "and is stored in float16",
        "entries": entries,
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> sorted({entry["model"] for entry in load_record()["entries"]})
    ['laptop', 'smollm2']
    """
    needed = ("model", "format", "perplexity", "loss_percent", "bytes")
    return read_record(NAME, folder, entries="entries", needed=needed)


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text; ``loss`` is the growth of the perplexity."""
    lines = [f"{'model':9}{'weights':22}{'megabytes':>10}{'perplexity':>11}{'loss %':>8}{'+-':>6}"]
    for entry in (load_record() if record is None else record)["entries"]:
        lines.append(
            f"{entry['model']:9}{entry['format']:22}{entry['bytes'] / 1e6:10.1f}{entry['perplexity']:11.3f}"
            f"{entry['loss_percent']:8.2f}{entry['loss_percent_error']:6.2f}"
        )
    return "\n".join(lines)


def _smollm2(tokens: int) -> tuple[Decoder, Callable[[Decoder], Tensor]]:
    """The model, and how it scores the first tokens of the validation speeches."""
    loaded = load_smollm2()
    _, validation = load(CORPUS).split()
    ids: list[int] = []
    for document in validation.documents:
        ids += loaded.tokenizer.encode(document.text)
        if len(ids) > tokens:
            break
    ids_N = np.array(ids[: tokens + 1])
    windows = {"context_length": SMOLLM2_CONTEXT, "stride": SMOLLM2_CONTEXT, "batch_size": 2}
    return loaded.model, lambda model: token_log_probabilities(model, ids_N, **windows)


def _laptop() -> tuple[Decoder, Callable[[Decoder], Tensor]]:
    """The model, and how it scores the first tokens of the validation split."""
    model, tokenizer, _ = load_result("laptop")
    split = scored_split(tokenizer, CORPUS)
    windows = {"start_id": split.start_id, "stride": model.config.context_length, "batch_size": 32}
    return model, lambda model: token_log_probabilities(model, split.tokens[:LAPTOP_TOKENS], **windows)


def _figures(losses_N: Tensor, reference_N: Tensor) -> dict[str, float | int]:
    difference_N = losses_N - reference_N
    growth = math.exp(float(difference_N.mean()))
    return {
        "nats_per_token": round(float(losses_N.mean()), 5),
        "perplexity": round(math.exp(float(losses_N.mean())), 4),
        "loss_percent": round(100 * (growth - 1), 3),
        "loss_percent_error": round(100 * growth * float(difference_N.std()) / math.sqrt(len(losses_N)), 3),
        "tokens_scored": len(losses_N),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
