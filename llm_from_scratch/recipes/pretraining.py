"""The laptop recipe watched while it learns: losses by kind of token, by position, and samples.

The run is that of `llm-scratch train laptop`, step for step. At twelve checkpoints the model scores the
same held-out tokens and continues the same prompts. N-gram models, counted from growing parts of the same
training text, stand beside it, and are scored on the same tokens.

``python -m llm_from_scratch.recipes.publish pretraining`` trains;
``python -m llm_from_scratch.recipes.pretraining --table`` prints the stored table.

Legend: B windows of a batch, T positions, N tokens.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.loader import Batch, BatchLoader
from llm_from_scratch.evaluation.token_kinds import loss_by_kind, token_kinds
from llm_from_scratch.files import write_atomically
from llm_from_scratch.inference import generate
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.ngram import KneserNey, NGramModel, Vocabulary
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.laptop import Laptop
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.recipes.text import END_OF_TEXT, encode
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches

NAME = "pretraining"
CHECKPOINTS = (0, 10, 25, 50, 100, 170, 300, 500, 800, 1100, 1400, 1700)  # optimizer steps taken
PROMPTS = ("The people of the United States", "In the year 18")
SAMPLE = {"max_new_tokens": 48, "temperature": 0.8, "top_k": 50, "seed": 10}
PROBE_BATCHES = 30  # of validation windows, those that every checkpoint scores
POSITION_EDGES = (0, 1, 4, 16, 64, 128)  # places in a window: the bins' edges
NGRAM_ORDERS = (1, 2, 3, 5)
NGRAM_SHARES = (1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0)  # of the training documents, for the learning curve


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    recipe: Laptop | None = None,
    checkpoints: Sequence[int] = CHECKPOINTS,
    probe_batches: int = PROBE_BATCHES,
) -> dict[str, object]:
    """Train the laptop recipe with its own tokenizer, measure at each checkpoint, write record.json."""
    recipe = Laptop() if recipe is None else recipe
    where = surroundings(choose_device("cpu"))
    _, tokenizer, laptop = load_result("laptop")
    train_split, validation_split = load(recipe.corpus).split()
    train_tokens, validation_tokens = encode(tokenizer, train_split), encode(tokenizer, validation_split)
    sizes = {"context_length": recipe.context_length, "batch_size": recipe.training.batch_size}
    probe = validation_batches(validation_tokens, **sizes, count=probe_batches)
    kinds = probe_kinds(tokenizer, validation_tokens, probe, sizes["batch_size"] * sizes["context_length"])
    seed_everything(recipe.training.seed)
    model = Decoder(recipe.model_config(tokenizer.vocab_size))
    entries, started = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer(
            model,
            recipe.training,
            batches=BatchLoader(train_tokens, **sizes, seed=recipe.training.seed),
            validation=probe,
            folder=Path(temporary),
        )
        recent: list[float] = []  # training losses since the last checkpoint
        for step in range(max(checkpoints) + 1):
            if step in checkpoints:
                entries.append(measure(model, probe, kinds, tokenizer))
                mean = round(float(np.mean(recent)), 4) if recent else None
                entries[-1] |= {"step": step, "tokens": trainer.tokens, "training_loss": mean}
                say(f"step {step}: {entries[-1]['loss']:.4f} nats a token")
                recent = []
            if step < max(checkpoints):
                recent.append(trainer.train_step()["loss"])
    seconds = round(time.perf_counter() - started, 1)
    say("Counting n-grams ...")
    record = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **where,
        "parameters": model.num_parameters(),
        "seconds": seconds,
        "published_laptop_loss": laptop["losses"]["validation_whole_split"],
        "prompts": list(PROMPTS),
        "sample_settings": SAMPLE,
        "position_edges": list(POSITION_EDGES),
        "kind_counts": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "checkpoints": entries,
        **ngram_references(tokenizer, train_split, validation_split, probe, kinds),
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def probe_kinds(tokenizer: object, tokens: np.ndarray, probe: list[Batch], batch_tokens: int) -> list[str]:
    """The kind of every target of the probe, in the order in which the batches hold them."""
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    kinds = token_kinds([texts[i] for i in tokens], end_of_text=END_OF_TEXT)
    return [kinds[n] for n in probe_places(tokens, probe, batch_tokens)]


def probe_places(tokens: np.ndarray, probe: list[Batch], batch_tokens: int) -> list[int]:
    """Where each target of the probe stands in the stream.

    The probe's batches lie ``count`` to the stream, evenly; each is found by its first place, a multiple
    of the tokens of a whole batch, and checked against the stream.
    """
    places, start = [], 0
    for inputs_BT, targets_BT in probe:
        targets = targets_BT.flatten().numpy()
        while not (
            len(tokens) > start + len(targets)
            and tokens[start] == int(inputs_BT[0, 0])
            and np.array_equal(tokens[start + 1 : start + 1 + len(targets)], targets)
        ):
            start += batch_tokens
            if start >= len(tokens):
                raise ValueError("a batch of the probe does not lie in the stream of tokens")
        places += range(start + 1, start + 1 + len(targets))
        start += batch_tokens
    return places


@torch.no_grad()
def measure(model: Decoder, probe: list[Batch], kinds: list[str], tokenizer: object) -> dict[str, object]:
    """Score the probe and continue the prompts: loss, loss by kind and by position, samples."""
    losses = []
    with evaluation_mode(model):
        for inputs_BT, targets_BT in probe:
            logits_BTV = model(inputs_BT)
            losses.append(F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none"))
        (end,) = tokenizer.special_ids.values()
        samples = []
        for prompt in PROMPTS:
            ids = generate(model, [end, *tokenizer.encode(prompt)], stop_ids=[end], **SAMPLE)
            samples.append(tokenizer.decode([i for i in ids if i != end]))
    losses_NT = torch.cat([losses_BT for losses_BT in losses if losses_BT.shape == losses[0].shape])
    flat = torch.cat([losses_BT.flatten() for losses_BT in losses]).double().numpy()
    by_position = [
        round(float(losses_NT[:, low:high].mean()), 4)
        for low, high in itertools.pairwise(POSITION_EDGES)
        if low < losses_NT.shape[1]
    ]
    return {
        "loss": round(float(flat.mean()), 4),
        "by_kind": {kind: round(loss, 4) for kind, loss in loss_by_kind(flat, kinds).items()},
        "by_position": by_position,
        "samples": samples,
    }


def ngram_references(
    tokenizer: object, train: Corpus, validation: Corpus, probe: list[Batch], kinds: list[str]
) -> dict[str, object]:
    """Kneser-Ney models on the probe: by order and kind, and by the share of the documents counted."""
    read, scored = ([tokenizer.encode(d.text) for d in split.documents] for split in (train, validation))
    (end,) = tokenizer.special_ids.values()
    stream = np.concatenate([np.asarray([*ids, end]) for ids in scored])
    places = np.asarray(probe_places(stream, probe, probe[0][0].numel()))
    vocabulary = Vocabulary((i for i in range(tokenizer.vocab_size) if i != end), unknown=False)
    order = np.random.default_rng(10).permutation(len(read))

    def score(documents: list[list[int]], n: int) -> tuple[np.ndarray, int]:
        model = NGramModel(order=n, smoothing=KneserNey()).fit(documents, vocabulary=vocabulary)
        return -model.score(scored)[places], model.counts.num_events

    by_order, curve = [], []
    for n in NGRAM_ORDERS:
        losses, tokens = score(read, n)
        by_kind = {kind: round(loss, 4) for kind, loss in loss_by_kind(losses, kinds).items()}
        by_order.append(
            {"order": n, "tokens": tokens, "loss": round(float(losses.mean()), 4), "by_kind": by_kind}
        )
    for share in NGRAM_SHARES:
        some = [read[i] for i in order[: max(1, round(share * len(read)))]]
        losses, tokens = score(some, max(NGRAM_ORDERS))
        curve.append({"tokens": tokens, "loss": round(float(losses.mean()), 4)})
    return {"ngrams": by_order, "ngram_curve": curve}


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> load_record()["checkpoints"][0]["step"]
    0
    """
    needed = ("step", "tokens", "loss", "by_kind", "by_position", "samples")
    return read_record(
        NAME, folder, entries="checkpoints", needed=needed, also=lambda record: record["ngrams"][0]["by_kind"]
    )


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the losses by kind at each checkpoint, and those of the n-grams, as lines of text."""
    record = load_record() if record is None else record
    kinds = list(record["checkpoints"][-1]["by_kind"])
    lines = ["step       all " + " ".join(f"{kind[:10]:>10}" for kind in kinds)]
    rows = [(str(e["step"]), e) for e in record["checkpoints"]]
    rows += [(f"{e['order']}-gram", e) for e in record["ngrams"]]
    for name, entry in rows:
        values = " ".join(f"{entry['by_kind'][kind]:10.2f}" for kind in kinds)
        lines.append(f"{name:8} {entry['loss']:5.2f} {values}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
