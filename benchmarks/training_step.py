"""Time one optimizer step beside transformers' models of the same shape.

    python -m benchmarks.training_step [--repeats 10] [--no-record]

The shape is that of the recipe shakespeare_char, as GPT-2 (with biases) and as Llama. Both sides begin
with the same weights and must agree on the loss of the first batch, or nothing is recorded. A step is
forward, backward, clipping and AdamW, in float32, with torch's fused attention on both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.ledger import interleaved, median, record
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.optimizers import build_adamw
from tests.models.hugging_face_weights import from_gpt2, from_llama, gpt2_like, llama_like

SIZES = {"vocab_size": 65, "context_length": 64, "d_model": 128, "num_layers": 4, "num_heads": 4}
BATCH_SIZE = 12  # sequences
WARMUP = 3  # steps that are not timed


def step_of(model: nn.Module, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a function that takes one optimizer step."""
    optimizer = build_adamw(model, learning_rate=1e-4, weight_decay=0.1)

    def step() -> None:
        loss_of().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(family: str, repeats: int) -> dict[str, float]:
    """Time both sides in turn and return the figures."""
    build, like, arrays_of = {
        "gpt2": (DecoderConfig.gpt2, gpt2_like, from_gpt2),
        "llama": (DecoderConfig.llama, llama_like, from_llama),
    }[family]
    torch.manual_seed(0)
    config = build(**SIZES)
    library, ours = like(config), Decoder(config)
    library.set_attn_implementation("sdpa")
    arrays = {name: array.detach() for name, array in library.state_dict().items()}
    ours.load_state_dict(arrays_of(arrays, config), strict=True)
    tokens = torch.randint(0, config.vocab_size, (BATCH_SIZE, config.context_length + 1))
    ids, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def library_loss() -> Tensor:
        return nn.functional.cross_entropy(
            library(ids, use_cache=False).logits.flatten(0, 1), targets.flatten()
        )

    def our_loss() -> Tensor:
        return ours(ids, targets)[1]

    with torch.no_grad():
        if abs(float(our_loss() - library_loss())) > 1e-5:
            raise SystemExit(f"{family}: the losses differ, so the times cannot be compared")
    tasks = {"ours": step_of(ours, our_loss), "library": step_of(library, library_loss)}
    interleaved(tasks, WARMUP)
    seconds = interleaved(tasks, repeats)
    mine, theirs = median(seconds["ours"]), median(seconds["library"])
    ratio = median([a / b for a, b in zip(seconds["ours"], seconds["library"], strict=True)])
    print(
        f"{family:6} ours {mine * 1e3:7.1f} ms   library {theirs * 1e3:7.1f} ms   ours / library {ratio:5.2f}"
    )
    return {
        f"{family}_step_seconds": mine,
        f"{family}_library_step_seconds": theirs,
        f"{family}_step_ratio": ratio,
        f"{family}_tokens_per_second": round(BATCH_SIZE * config.context_length / mine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each side")
    parser.add_argument("--no-record", action="store_true", help="print, but leave the ledger alone")
    arguments = parser.parse_args()
    figures: dict[str, float] = {"threads": torch.get_num_threads()}
    for family in ("gpt2", "llama"):
        figures |= compare(family, arguments.repeats)
    if not arguments.no_record:
        record("training_step", figures, packages=("torch", "transformers"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
