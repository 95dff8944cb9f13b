"""Measure what this machine can read and compute, and where one token of SmolLM2 lies between the two.

    python -m benchmarks.roofline [--repeats 15] [--no-record]
    python -m benchmarks.roofline --table

Bandwidth: bytes a second while summing up an array far larger than the caches. Matrix rate: floating-point
operations a second (2 for each weight and vector) of all matrices of SmolLM2-135M, one layer after the
other as in the model, so that none is still in a cache when its turn comes again. That is measured for
batches of 1 to 512 vectors with torch, and for 1 to 16 with the compiled product and each format of the
weights. A step does ``2 * batch`` operations for each weight that it reads: below the batch at which
that, at the machine's best rate, takes longer than the reading, the memory decides.

The last part is the log of what was tried for one token: all its products, by each kernel at hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ledger import interleaved, median, print_latest, record
from llm_from_scratch.inference.native_library import native_library
from llm_from_scratch.inference.native_step import matrix_of
from llm_from_scratch.nn.weight_only import WeightOnlyLinear

NAME = "roofline"
# Rows and columns of SmolLM2-135M's matrices: queries, keys and values; output; gate; up; down; and at the
# end the output matrix.
BLOCK, NUM_LAYERS, HEAD = [(960, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)], 30, (49152, 576)
SHAPES = BLOCK * NUM_LAYERS + [HEAD]
WEIGHTS = sum(rows * columns for rows, columns in SHAPES)


def memory_bandwidth(megabytes: int = 1024, repeats: int = 7) -> float:
    """Bytes a second that all threads together read from memory: the best of ``repeats``."""
    array = torch.ones(megabytes * 2**20 // 4)
    seconds = interleaved({"sum": array.sum}, repeats + 1)["sum"]
    return array.numel() * 4 / min(seconds[1:])


def torch_products(batch: int, layers: list[nn.Linear]) -> Callable[[], None]:
    vectors = {C: torch.randn(batch, C) for C in (576, 1536)}

    def run() -> None:
        for layer in layers:
            F.linear(vectors[layer.in_features], layer.weight)

    return run


def compiled_products(batch: int, layers: list[nn.Module]) -> Callable[[], None]:
    """The same through `native/product.h`, for float32 and quantised layers."""
    vectors = {C: torch.randn(batch, C) for C in (576, 1536)}
    multiply, threads, kept, calls = native_library().multiply, torch.get_num_threads(), [], []
    for layer in layers:
        N, C = layer.weight.shape
        y_BN = torch.empty(batch, N)
        kept += [y_BN, vectors[C]]
        struct = matrix_of(layer, kept)
        calls.append((struct, batch, vectors[C].data_ptr(), C, y_BN.data_ptr(), threads))

    def run(kept: list[Tensor] = kept) -> None:
        for call in calls:
            multiply(*call)

    return run


def torch_alternatives(layers: list[nn.Linear]) -> dict[str, Callable[[], None]]:
    """The kernels of torch that could multiply one vector: what the compiled product had to beat."""
    x, half = (
        {C: torch.randn(1, C) for C in (576, 1536)},
        {C: torch.randn(1, C).bfloat16() for C in (576, 1536)},
    )
    weights = [layer.weight.detach() for layer in layers]
    packed = [torch.ops.mkldnn._reorder_linear_weight(w, 1) for w in weights]
    short = [w.bfloat16() for w in weights]
    eight = [(torch.randint(-127, 128, w.shape, dtype=torch.int8), torch.rand(len(w))) for w in weights]
    four = []
    for w in weights:
        q_NC = torch.randint(0, 16, w.shape, dtype=torch.int32)
        scales = torch.rand(w.shape[1] // 32, w.shape[0], 2, dtype=torch.bfloat16)
        four.append((w.shape[1], torch.ops.aten._convert_weight_to_int4pack_for_cpu(q_NC, 1), scales))
    pointwise, int4 = torch.ops.mkldnn._linear_pointwise, torch.ops.aten._weight_int4pack_mm_for_cpu
    pairs = list(zip(weights, packed, strict=True))
    return {
        "torch_fp32": lambda: [F.linear(x[w.shape[1]], w) for w in weights],
        "torch_fp32_prepacked": lambda: [pointwise(x[w.shape[1]], p, None, "none", [], "") for w, p in pairs],
        "torch_bf16": lambda: [F.linear(half[w.shape[1]], w) for w in short],
        "torch_int8_bf16": lambda: [
            torch._weight_int8pack_mm(half[q.shape[1]], q, s.bfloat16()) for q, s in eight
        ],
        "torch_int8_fp32": lambda: [torch._weight_int8pack_mm(x[q.shape[1]], q, s) for q, s in eight],
        "torch_int4_bf16": lambda: [int4(half[C], q, 32, s) for C, q, s in four],
    }


def table(figures: dict) -> str:
    """The figures as text: the two limits, operations a second by batch, and one token by each kernel."""
    rates, one = figures["gigaflops_by_batch"], figures["one_token_milliseconds"]
    lines = [
        f"memory read at {figures['read_gigabytes_per_second']} GB/s; "
        f"best rate of products {figures['best_gigaflops']:.0f} GFLOP/s",
        f"the two limits of fp32 meet at {figures['fp32_batch_where_reading_equals_computing']} vectors",
        f"{'GFLOP/s by vectors':22}" + "".join(f"{batch:>6}" for batch in rates["torch_fp32"]),
    ]
    for name, by_batch in rates.items():
        cells = (f"{rate:6.1f}" for rate in by_batch.values())
        lines.append(f"  {name.replace('_', ' '):20}" + "".join(cells))
    lines.append("all products of one token, milliseconds")
    for name, milliseconds in one.items():
        lines.append(f"  {name.replace('_', ' '):20}{milliseconds:7.1f}")
    lines.append(f"{figures['threads']} threads; medians of {figures['repeats']} rounds")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="rounds; medians are reported (default 15)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    parser.add_argument("--table", action="store_true", help="print the last recorded table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return

    torch.manual_seed(0)
    repeats = arguments.repeats
    layers = [nn.Linear(C, N, bias=False).requires_grad_(False) for N, C in SHAPES]
    formats: dict[str, list[nn.Module]] = {"fp32": layers}
    formats |= {f"int{b}": [WeightOnlyLinear(layer, bits=b) for layer in layers] for b in (8, 4)}
    bandwidth = memory_bandwidth()
    figures: dict[str, object] = {
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "weights": WEIGHTS,
        "flops_per_token": 2 * WEIGHTS,
        "read_gigabytes_per_second": round(bandwidth / 1e9, 1),
    }
    figures |= {
        f"{name}_megabytes_per_token": round(
            sum(each.num_bytes if name != "fp32" else each.weight.nbytes for each in group) / 1e6, 1
        )
        for name, group in formats.items()
    }
    with torch.inference_mode():
        tasks = torch_alternatives(layers)
        tasks |= {f"compiled_{name}": compiled_products(1, group) for name, group in formats.items()}
        interleaved(tasks, 2)
        figures["one_token_milliseconds"] = {
            name: median([s * 1e3 for s in taken]) for name, taken in interleaved(tasks, repeats).items()
        }
        print(json.dumps(figures, indent=2), flush=True)
        rates: dict[str, dict[str, float]] = {}
        for batch in (1, 2, 4, 8, 16, 32, 64, 128, 512):
            tasks = {"torch_fp32": torch_products(batch, layers)}
            if batch <= 16:
                tasks |= {
                    f"compiled_{name}": compiled_products(batch, group) for name, group in formats.items()
                }
            interleaved(tasks, 1)
            for name, taken in interleaved(tasks, 3 if batch > 16 else max(3, repeats // 2)).items():
                gigaflops = 2 * WEIGHTS * batch / float(median(taken)) / 1e9
                rates.setdefault(name, {})[str(batch)] = float(f"{gigaflops:.4g}")
    figures["gigaflops_by_batch"] = rates
    best = max(max(by_batch.values()) for by_batch in rates.values())
    figures["best_gigaflops"] = best
    figures["fp32_batch_where_reading_equals_computing"] = round(best * 1e9 * 4 / 2 / bandwidth, 1)
    print(table(figures))
    if not arguments.no_record:
        record(NAME, figures, packages=("torch",))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
