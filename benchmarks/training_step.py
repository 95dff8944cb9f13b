"""Time one optimizer step beside the models of transformers and litgpt of the same shape.

    python -m benchmarks.training_step [--repeats 20] [--no-record]
    python -m benchmarks.training_step --table

Two shapes: 4 layers, 128 wide, context 64, batch 12 (the recipe shakespeare_char), and 6 layers, 384 wide,
context 256, batch 8; each as GPT-2 (with biases) and as Llama. All sides begin with the same weights and must
agree on the loss of the first batch, or nothing is recorded. A step is forward, backward, clipping and the
same AdamW, in float32, with torch's fused attention on each side. "compiled" is `torch.compile`: of ours its
blocks (`training.block_options`), of a peer the whole model.

litgpt has no learned positions, so it stands beside Llama only. It is not among the packages of this project,
since it asks for older ones: ``pip install --target FOLDER --no-deps litgpt lightning lightning-utilities
torchmetrics jsonargparse``, then PYTHONPATH=FOLDER. Without it, its rows are missing.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.ledger import interleaved, median, print_latest, record
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.block_options import compile_blocks
from llm_from_scratch.training.optimizers import build_adamw
from tests.models.hugging_face_weights import from_gpt2, from_llama, gpt2_like, llama_like

NAME = "training_step"
SHAPES = {
    "4x128": ({"context_length": 64, "d_model": 128, "num_layers": 4, "num_heads": 4}, 12),
    "6x384": ({"context_length": 256, "d_model": 384, "num_layers": 6, "num_heads": 6}, 8),
}
VOCABULARY = 65  # entries: the characters of Tiny Shakespeare
WARMUP = 3  # steps that are not timed
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def our_loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    return model(ids_BT, targets_BT)[1]


def transformers_loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    logits_BTV = model(ids_BT, use_cache=False).logits
    return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def litgpt_loss(model: nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(ids_BT).flatten(0, 1), targets_BT.flatten())


def litgpt_like(config: DecoderConfig, state: dict[str, Tensor]) -> nn.Module:
    """Build the Llama of litgpt with the sizes of ``config``, with the weights of our ``state``."""
    from litgpt.config import Config
    from litgpt.model import GPT

    model = GPT(
        Config(
            name="llama", block_size=config.context_length, vocab_size=config.vocab_size,
            padded_vocab_size=config.vocab_size, n_layer=config.num_layers, n_head=config.num_heads,
            n_embd=config.d_model, intermediate_size=config.d_ff, norm_class_name="RMSNorm",
            norm_eps=config.norm_eps, mlp_class_name="LLaMAMLP", rotary_percentage=1.0,
            rope_base=int(config.rope_base), parallel_residual=False, bias=False,
        )
    )  # fmt: skip
    names = {"token_embedding": "transformer.wte", "norm": "transformer.ln_f", "head": "lm_head"}
    parts = {
        "attention.qkv": "attn.qkv", "attention.output": "attn.proj", "feedforward.gate": "mlp.fc_1",
        "feedforward.up": "mlp.fc_2", "feedforward.down": "mlp.proj", "norm_1": "norm_1", "norm_2": "norm_2",
    }  # fmt: skip
    for layer in range(config.num_layers):
        names |= {f"blocks.{layer}.{ours}": f"transformer.h.{layer}.{name}" for ours, name in parts.items()}
    arrays = {f"{name}.weight": state[f"{ours}.weight"] for ours, name in names.items()}
    model.load_state_dict(arrays, strict=True)
    return model


def sides(family: str, config: DecoderConfig) -> dict[str, tuple[nn.Module, Loss]]:
    """Every side by name: a model with the same weights, and how its loss is computed."""
    like, arrays_of = {"gpt2": (gpt2_like, from_gpt2), "llama": (llama_like, from_llama)}[family]
    library, ours = like(config), Decoder(config)
    library.set_attn_implementation("sdpa")
    arrays = {name: array.detach() for name, array in library.state_dict().items()}
    ours.load_state_dict(arrays_of(arrays, config), strict=True)
    found: dict[str, tuple[nn.Module, Loss]] = {
        "ours": (ours, our_loss),
        "ours, compiled": (compile_blocks(copy.deepcopy(ours)), our_loss),
        "transformers": (library, transformers_loss),
        "transformers, compiled": (torch.compile(copy.deepcopy(library)), transformers_loss),
    }
    if family == "llama" and importlib.util.find_spec("litgpt"):
        theirs = litgpt_like(config, ours.state_dict())
        found["litgpt"] = theirs, litgpt_loss
        found["litgpt, compiled"] = torch.compile(copy.deepcopy(theirs)), litgpt_loss
    return found


def step_of(model: nn.Module, loss_of: Loss, ids_BT: Tensor, targets_BT: Tensor) -> Callable[[], None]:
    """Return a function that takes one optimizer step."""
    optimizer = build_adamw(model, learning_rate=1e-4, weight_decay=0.1)

    def step() -> None:
        loss_of(model, ids_BT, targets_BT).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(shape: str, family: str, repeats: int, *, compiled: bool = True) -> dict[str, object]:
    """Time all sides in turn and return the row of figures."""
    torch.manual_seed(0)
    sizes, batch_size = SHAPES[shape]
    build = {"gpt2": DecoderConfig.gpt2, "llama": DecoderConfig.llama}[family]
    config = build(vocab_size=VOCABULARY, **sizes)
    tokens = torch.randint(0, VOCABULARY, (batch_size, config.context_length + 1))
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    found = {name: side for name, side in sides(family, config).items() if compiled or "," not in name}
    with torch.no_grad():
        losses = {name: float(loss_of(model, *batch)) for name, (model, loss_of) in found.items()}
    if max(losses.values()) - min(losses.values()) > 1e-5:
        raise SystemExit(f"{shape} {family}: the losses differ, so the times cannot be compared: {losses}")
    tasks = {name: step_of(model, loss_of, *batch) for name, (model, loss_of) in found.items()}
    interleaved(tasks, WARMUP)
    seconds = interleaved(tasks, repeats)
    return {
        "label": f"{shape} as {family}",
        "tokens": batch[0].numel(),
        "step_seconds": {name: median(times) for name, times in seconds.items()},
        "tokens_per_second": {name: round(batch[0].numel() / median(s)) for name, s in seconds.items()},
        **speedups(seconds),
    }


def speedups(seconds: dict[str, list[float]]) -> dict[str, object]:
    """How many times faster ours is than the fastest peer: both as they are, both compiled, best of both."""
    ours = [name for name in seconds if name.startswith("ours")]
    peers = [name for name in seconds if not name.startswith("ours")]

    def ratio(mine: str, theirs: str) -> float:
        return median([b / a for a, b in zip(seconds[mine], seconds[theirs], strict=True)])

    def fastest(names: list[str]) -> str:
        return min(names, key=lambda name: median(seconds[name]))

    plain = fastest([name for name in peers if "," not in name])
    figures: dict[str, object] = {"best_peer": plain, "speedup": ratio("ours", plain)}
    if len(ours) > 1:
        both = fastest([name for name in peers if "," in name])
        figures |= {"best_compiled_peer": both, "compiled_speedup": ratio("ours, compiled", both)}
        figures["compiled_to_plain_peer_speedup"] = ratio("ours, compiled", plain)
    return figures


def table(figures: dict) -> str:
    """One line for each side: milliseconds, tokens a second, and how ours compares."""
    lines = []
    for row in figures["rows"]:
        lines.append(f"{row['label']}, {row['tokens']:,} tokens a step")
        for name, seconds in row["step_seconds"].items():
            lines.append(
                f"  {name:24}{seconds * 1e3:9.1f} ms{row['tokens_per_second'][name]:10,} tokens a second"
            )
        lines.append(f"  ours is {row['speedup']:.2f} times as fast as {row['best_peer']}")
        if "compiled_speedup" in row:
            lines.append(
                f"  compiled, {row['compiled_speedup']:.2f} times as fast as {row['best_compiled_peer']}"
            )
            lines.append(
                f"  compiled, {row['compiled_to_plain_peer_speedup']:.2f} times as fast as {row['best_peer']}"
            )
    lines.append(f"{figures['threads']} threads")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="timed steps of each side")
    parser.add_argument("--table", action="store_true", help="print the last recorded run")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled sides")
    parser.add_argument("--no-record", action="store_true", help="print, but leave the ledger alone")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return
    rows = []
    for shape in SHAPES:
        for family in ("gpt2", "llama"):
            rows.append(compare(shape, family, arguments.repeats, compiled=not arguments.no_compile))
    figures = {"threads": torch.get_num_threads(), "rows": rows}
    print(table(figures))
    if not arguments.no_record:
        peers = ["torch", "transformers"]
        peers += [name for name in ("litgpt",) if importlib.util.find_spec(name)]
        record(NAME, figures, packages=tuple(peers))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
