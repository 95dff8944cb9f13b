"""Time generation with SmolLM2-135M beside transformers' ``generate``.

    python -m benchmarks.generation [--repeats 5] [--no-record]
    python -m benchmarks.generation --table

A prompt of 64 tokens, 128 new ones, greedy, one text: seconds from the call to the last token, so the
reading of the prompt is included. Both sides have the same float32 weights and threads, and must write
the same tokens, or nothing is recorded; so must 8 texts at once, the same prompt in each. Of quantised
weights it is recorded how many first tokens they share with float32. Then the time to read 512 tokens.

What bounds each: to read every weight once takes ``bytes / bandwidth``, measured here by summing up an
array that no cache can hold. Generation with one text cannot be faster than that.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ledger import interleaved, median, print_latest, record
from benchmarks.roofline import memory_bandwidth
from llm_from_scratch.data.corpora import load
from llm_from_scratch.decoding import sampling
from llm_from_scratch.inference import CachedModel, FastDecoder, quantise_weights, weight_bytes
from llm_from_scratch.interop import load_smollm2
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import Decoder

NAME = "generation"
PROMPT, NEW, LONG_PROMPT, BATCH = 64, 128, 512, 8  # tokens, tokens, tokens, texts


def open_library(model: Decoder) -> torch.nn.Module:
    """The same weights in transformers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as library_logging

    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        save_folder(model, Path(folder))
        library = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    library.set_attn_implementation("sdpa")
    library.generation_config.eos_token_id = None  # the end of a text does not end the measurement
    return library


def library_tokens(library, ids_BT: Tensor) -> list[list[int]]:
    with torch.inference_mode():
        found_BT = library.generate(
            ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            max_new_tokens=NEW,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    return found_BT[:, ids_BT.shape[1] :].tolist()


def our_tokens(model: CachedModel, ids_BT: Tensor) -> list[list[int]]:
    """One text through the sampler that everybody uses; several by the likeliest token of each."""
    model.cache = None
    if len(ids_BT) == 1:
        return [sampling.sample(model, ids_BT[0], max_new_tokens=NEW, temperature=0)]
    for _ in range(NEW):
        ids_BT = torch.cat((ids_BT, model(ids_BT)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return ids_BT[:, -NEW:].tolist()


def read_prompt(model: CachedModel, ids_BT: Tensor) -> Tensor:
    model.cache = None
    return model(ids_BT)


def library_reads(library, ids_BT: Tensor) -> Tensor:
    with torch.inference_mode():
        return library(ids_BT, use_cache=True, logits_to_keep=1).logits


def in_common(left: list[int], right: list[int]) -> int:
    return next((i for i, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]), len(left))


def compare(tasks: dict[str, Callable], unit: str, amount: int, repeats: int) -> dict[str, float]:
    """Figures of each task, in ``unit`` a second, and how many times as fast as the library each is."""
    seconds = interleaved(tasks, repeats)
    figures = {}
    for name, taken in seconds.items():
        figures[f"{name}_{unit}_per_second"] = median([amount / s for s in taken])
        if "library" in seconds and name != "library":
            pairs = zip(seconds["library"], taken, strict=True)
            figures[f"{name}_{unit}_speedup"] = median([theirs / ours for theirs, ours in pairs])
    print(json.dumps(figures, indent=2), flush=True)
    return figures


def table(figures: dict) -> str:
    """The figures as text: a row for each way, its bound beside what was reached."""
    lines = [
        f"{'SmolLM2-135M':21}{'weights':>8}{'bound':>7}{'one text':>9}{'of the':>8}{'times':>8}"
        f"{'8 texts':>8}{'reads 512':>10}",
        f"{'':21}{'MB':>8}{'tok/s':>7}{'tok/s':>9}{'bound':>8}{'library':>8}{'tok/s':>8}{'tok/s':>10}",
    ]
    ways = {
        "library": ("transformers, fp32", "fp32"),
        "cached": ("cache in torch, fp32", "fp32"),
        "fp32": ("compiled step, fp32", "fp32"),
        "int8": ("compiled step, int8", "int8"),
        "int4": ("compiled step, int4", "int4"),
    }
    for way, (label, weights) in ways.items():
        bound, one = figures[f"{weights}_bound_tokens_per_second"], figures[f"{way}_tokens_per_second"]
        eight = figures.get(f"{way}_batch8_tokens_per_second")
        lines.append(
            f"{label:21}{figures[f'{weights}_megabytes']:8}{bound:7.0f}{one:9.1f}{one / bound:8.0%}"
            f"{figures.get(f'{way}_tokens_speedup', 1.0):8.1f}{'-' if eight is None else f'{eight:.0f}':>8}"
            f"{figures[f'{way}_prompt_tokens_per_second']:10.0f}"
        )
    lines.append(
        f"memory read at {figures['read_gigabytes_per_second']} GB/s, {figures['threads']} threads; "
        f"medians of {figures['repeats']} rounds"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are reported (default 5)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    parser.add_argument("--table", action="store_true", help="print the last recorded table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return

    loaded = load_smollm2()
    model = loaded.model.eval()
    text = load("sotu").documents[0].text
    ids_BT = torch.tensor([loaded.tokenizer.encode(text)])
    short_BT, long_BT = ids_BT[:, :PROMPT], ids_BT[:, :LONG_PROMPT]
    library = open_library(model)
    quantised = {"int8": quantise_weights(model, bits=8), "int4": quantise_weights(model, bits=4)}
    fast = {name: FastDecoder(m, room=NEW, compile=True) for name, m in {"fp32": model, **quantised}.items()}
    ours = {"cached": CachedModel(model, room=NEW), **fast}

    figures: dict[str, float] = {"repeats": arguments.repeats, "threads": torch.get_num_threads()}
    figures["read_gigabytes_per_second"] = round(memory_bandwidth() / 1e9, 1)
    for name, each in {"fp32": model, **quantised}.items():
        figures[f"{name}_megabytes"] = round(weight_bytes(each) / 1e6)
        bound = figures["read_gigabytes_per_second"] * 1e3 / figures[f"{name}_megabytes"]
        figures[f"{name}_bound_tokens_per_second"] = round(bound, 1)
    expected = library_tokens(library, short_BT)[0]
    eight_BT = short_BT.expand(BATCH, -1)
    for name, each in ours.items():
        shared = figures[f"{name}_first_tokens_shared"] = in_common(our_tokens(each, short_BT)[0], expected)
        if name in ("cached", "fp32") and shared < NEW:
            raise SystemExit(f"{name}: other tokens than transformers', so the times cannot be compared")
    if our_tokens(fast["fp32"], eight_BT) != [expected] * BATCH:
        raise SystemExit("8 texts at once: other tokens than one by one, so the times cannot be compared")

    one = {"library": lambda: library_tokens(library, short_BT)}
    one |= {name: lambda each=each: our_tokens(each, short_BT) for name, each in ours.items()}
    figures |= compare(one, "tokens", NEW, arguments.repeats)
    eight = {f"{name}_batch8": lambda each=each: our_tokens(each, eight_BT) for name, each in fast.items()}
    figures |= compare(eight, "tokens", BATCH * NEW, max(2, arguments.repeats // 2))
    for name in fast:
        ratio = figures[f"{name}_batch8_tokens_per_second"] / figures[f"{name}_tokens_per_second"]
        figures[f"{name}_batch8_over_batch1"] = round(ratio, 2)
    read = {"library": lambda: library_reads(library, long_BT)}
    read |= {name: lambda each=each: read_prompt(each, long_BT) for name, each in ours.items()}
    figures |= compare(read, "prompt_tokens", LONG_PROMPT, arguments.repeats)
    print(table(figures))
    if not arguments.no_record:
        record(NAME, figures, packages=("torch", "transformers"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
