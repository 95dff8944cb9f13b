"""A small BERT on the State of the Union messages, and what next-sentence prediction adds to it.

Three seeds are trained with next-sentence prediction and three without: then the second text always follows
the first and the loss is that of the masked tokens alone, as in RoBERTa. The first model with both tasks is
kept.

``python -m llm_from_scratch.recipes.publish bert_small`` trains them;
``python -m llm_from_scratch.recipes.bert_small --table`` prints the stored figures.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.masked_batches import MaskedPairBatches
from llm_from_scratch.data.sentence_pairs import SentencePairs, encode_documents
from llm_from_scratch.evaluation.pretraining_baselines import NeighbourCounts, SharedWords
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.models.encoder_pretraining import PretrainingEncoder
from llm_from_scratch.nn.sinusoidal import sinusoidal_positions
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.tokenizers import WordPieceTokenizer
from llm_from_scratch.tokenizers.wordpiece_training import learn_vocabulary
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.weights import load_weights, weights_as_bytes

NAME = "bert_small"
VALIDATION_SEED = 2_000_003  # of held-out batches: the same pairs and masks for every model
BASELINE_PAIRS = 4096  # training pairs on which the word-overlap threshold is chosen

TRAINING = TrainerConfig(
    steps=3000, batch_size=32, learning_rate=5e-3, weight_decay=0.01, beta2=0.98, eval_every=300,
    eval_batches=8, seed=0, device="cpu", warmup_fraction=0.05,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BertSmallConfig:
    """What all models share."""

    vocab_size: int = 4096  # WordPiece tokens
    context_length: int = 32  # tokens of a pair
    d_model: int = 64  # columns
    num_layers: int = 2  # blocks
    num_heads: int = 2  # heads a block
    norm_first: bool = True  # BERT's norms come after the sums
    position_size: float = 0.03  # positions begin as sinusoids times this, and are trained on
    rate: float = 0.3  # share of tokens to predict in training (BERT: 0.15)
    scored_rate: float = 0.15  # the same when a model is scored
    training: TrainerConfig = TRAINING
    seeds: tuple[int, ...] = (0, 1, 2)
    scored_batches: int = 48  # held-out batches of 32 pairs on which a model is scored

    def model_config(self, vocab_size: int) -> EncoderConfig:
        """BERT's choices at this size."""
        return EncoderConfig.bert(
            vocab_size=vocab_size,
            context_length=self.context_length,
            d_model=self.d_model,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            norm_first=self.norm_first,
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The corpus as token ids: documents of sentences, to train on and held out."""

    tokenizer: WordPieceTokenizer
    train: list[list[list[int]]]
    held_out: list[list[list[int]]]

    def batches(
        self, config: BertSmallConfig, *, held_out: bool, nsp: bool, labels: bool, batch_size: int, seed: int
    ) -> MaskedPairBatches:
        """Masked pairs; without ``nsp`` the second text always follows the first."""
        ids = self.tokenizer.special_ids
        pairs = SentencePairs(
            documents=self.held_out if held_out else self.train,
            cls_id=ids["[CLS]"],
            sep_id=ids["[SEP]"],
            max_tokens=config.context_length,
            random_share=0.5 if nsp else 0.0,
        )
        return MaskedPairBatches(
            pairs,
            batch_size=batch_size,
            seed=seed,
            vocab_size=self.tokenizer.vocab_size,
            mask_id=ids["[MASK]"],
            pad_id=ids["[PAD]"],
            special_ids=set(ids.values()),
            labels=labels,
            rate=config.scored_rate if held_out else config.rate,
        )

    def scored(self, config: BertSmallConfig, *, nsp: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The held-out batches on which every model and every baseline is scored."""
        batches = self.batches(
            config, held_out=True, nsp=nsp, labels=nsp, batch_size=32, seed=VALIDATION_SEED + nsp
        )
        return [next(batches) for _ in range(config.scored_batches)]


def prepare(config: BertSmallConfig) -> Data:
    """Learn the vocabulary from the training speeches and encode all speeches."""
    parts = [[document.text for document in part.documents] for part in load("sotu").split()]
    tokenizer = WordPieceTokenizer(learn_vocabulary(parts[0], vocab_size=config.vocab_size))
    train, held_out = (encode_documents(part, tokenizer.encode) for part in parts)
    return Data(tokenizer=tokenizer, train=train, held_out=held_out)


def build(config: BertSmallConfig, tokenizer: WordPieceTokenizer) -> PretrainingEncoder:
    """Return an untrained model."""
    ids = tokenizer.special_ids
    encoder = Encoder(config.model_config(tokenizer.vocab_size))
    waves_TC = sinusoidal_positions(torch.arange(config.context_length), config.d_model)
    with torch.no_grad():
        encoder.position_embedding.weight.copy_(config.position_size * waves_TC)
    marks = {"sep_id": ids["[SEP]"], "pad_id": ids["[PAD]"], "cls_id": ids["[CLS]"], "mask_id": ids["[MASK]"]}
    return PretrainingEncoder(encoder, **marks)


def train_one(
    data: Data,
    config: BertSmallConfig,
    training: TrainerConfig,
    *,
    nsp: bool,
    threads: int | None = None,
) -> tuple[bytes, dict[str, object]]:
    """Train one model; return its weights and its figures. ``threads``: of torch, None as it is."""
    if threads is not None:
        torch.set_num_threads(threads)
    started, cpu = time.perf_counter(), time.process_time()
    seed_everything(training.seed)
    model = build(config, data.tokenizer)
    sizes = {"batch_size": training.batch_size}
    validation = data.batches(config, held_out=True, nsp=False, labels=False, **sizes, seed=VALIDATION_SEED)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            training,
            batches=data.batches(config, held_out=False, nsp=nsp, labels=nsp, **sizes, seed=training.seed),
            validation=[next(validation) for _ in range(training.eval_batches)],
            folder=Path(folder),
        )
        if not trainer.fit():
            raise KeyboardInterrupt
        log = trainer.log.read()
    figures = {
        "nsp": nsp,
        "seed": training.seed,
        "parameters": model.encoder.num_parameters(),
        "steps": training.steps,
        "masked_loss_by_step": {r["step"]: round(r["val_loss"], 4) for r in log if "val_loss" in r},
        **score(model, data, config, nsp=nsp),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    return weights_as_bytes(model, dtype=torch.float16), figures


@torch.no_grad()
def score(model: PretrainingEncoder, data: Data, config: BertSmallConfig, *, nsp: bool) -> dict[str, float]:
    """Loss (nats) and accuracy on held-out masked tokens; with ``nsp`` accuracy on held-out pairs."""
    model.eval()
    nats = right = tokens = pairs_right = pairs = 0
    for ids_BT, targets_BT in data.scored(config, nsp=False):
        masked_N, _, logits_NV, _ = model.scores(ids_BT, targets_BT)
        nats += float(F.cross_entropy(logits_NV, masked_N, reduction="sum"))
        right += int((logits_NV.argmax(dim=-1) == masked_N).sum())
        tokens += len(masked_N)
    for ids_BT, targets_BT in data.scored(config, nsp=True) if nsp else ():
        _, label_B, _, logits_B2 = model.scores(ids_BT, targets_BT)
        pairs_right += int((logits_B2.argmax(dim=-1) == label_B).sum())
        pairs += len(label_B)
    figures = {"masked_loss": round(nats / tokens, 4), "masked_accuracy": round(right / tokens, 4)}
    return figures | ({"pair_accuracy": round(pairs_right / pairs, 4)} if nsp else {})


def baselines(data: Data, config: BertSmallConfig) -> dict[str, dict[str, float]]:
    """The same held-out batches, guessed by counts: masked tokens, and pairs."""
    special = len(data.tokenizer.special_ids)
    documents = (list(chain.from_iterable(document)) for document in data.train)
    counts = NeighbourCounts(documents, vocab_size=data.tokenizer.vocab_size, num_special=special)
    found = {}
    for name, sides in (("unigram", (False, False)), ("left", (True, False)), ("both", (True, True))):
        nats = right = tokens = 0
        for ids_BT, targets_BT in data.scored(config, nsp=False):
            log_NV = counts.log_probabilities(ids_BT, targets_BT, left=sides[0], right=sides[1])
            masked_N = targets_BT[targets_BT >= 0]
            nats -= float(log_NV.gather(1, masked_N[:, None]).sum())
            right += int((log_NV.argmax(dim=-1) == masked_N).sum())
            tokens += len(masked_N)
        found[name] = {"masked_loss": round(nats / tokens, 4), "masked_accuracy": round(right / tokens, 4)}
    found["scored"] = {"masked_tokens": tokens, "pairs": 32 * config.scored_batches}
    words = SharedWords(counts.unigram_V, sep_id=data.tokenizer.special_ids["[SEP]"], num_special=special)
    drawn = data.batches(config, held_out=False, nsp=True, labels=True, batch_size=BASELINE_PAIRS, seed=77)
    ids_BT, targets_BT = next(drawn)
    fitted = words.fit(ids_BT.tolist(), targets_BT[:, 0].tolist())
    held_out = data.scored(config, nsp=True)
    pairs = [row for ids_BT, _ in held_out for row in ids_BT.tolist()]
    labels = [int(label) for _, targets_BT in held_out for label in targets_BT[:, 0]]
    most = max(sum(labels), len(labels) - sum(labels)) / len(labels)
    found["majority"] = {"pair_accuracy": round(most, 4)}
    found["shared_words"] = {
        "pair_accuracy": round(words.accuracy(pairs, labels), 4),
        "pair_accuracy_training": round(fitted, 4),
    }
    return found


def make(
    folder: Path, *, say: Callable = print, config: BertSmallConfig | None = None, workers: int = 1
) -> dict[str, object]:
    """Train everything; write the record and the kept model into ``folder``; return the record.

    With more than one of ``workers``, as many models train at a time, each in a process of its own and
    on one thread.
    """
    config = config or BertSmallConfig()
    started = time.perf_counter()
    about = surroundings(torch.device("cpu"))
    data = prepare(config)
    say(f"{sum(map(len, data.train)):,} sentences, {data.tokenizer.vocab_size:,} tokens in the vocabulary")
    jobs = [
        (replace(config.training, seed=seed), nsp) for nsp in (True, False) for seed in config.seeds
    ]  # the first is kept
    if workers == 1:
        results = [train_one(data, config, training, nsp=nsp) for training, nsp in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            running = [
                pool.submit(train_one, data, config, training, nsp=nsp, threads=1) for training, nsp in jobs
            ]
            results = [one.result() for one in running]
    weights, kept = results[0]
    model = build(config, data.tokenizer)
    load_weights(model, weights)
    record = {
        "recipe": NAME,
        "command": publish_command(NAME),
        **about,
        "processes": workers,
        "config": asdict(config),
        "corpus": {
            "train_sentences": sum(map(len, data.train)),
            "train_tokens": sum(len(sentence) for document in data.train for sentence in document),
        },
        "baselines": baselines(data, config),
        "kept": kept | {f"{k}_float16": v for k, v in score(model, data, config, nsp=True).items()},
        "runs": [figures for _, figures in results],
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }
    write_result(folder, weights=weights, tokenizer=data.tokenizer, record=record)
    say(figures_table(record))
    return record


def write_result(
    folder: Path, *, weights: bytes, tokenizer: WordPieceTokenizer, record: dict[str, object]
) -> None:
    """Write a model, its tokenizer and, last, its record: a folder without one holds no result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)  # no mixture of two results
    write_atomically(folder / "model.safetensors", weights)
    tokenizer.save(folder / "tokenizer.json")
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")


def load_record(folder: Path = RESULTS / NAME) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if damaged."""
    needed = ("nsp", "seed", "masked_loss", "masked_accuracy")
    return read_record(
        NAME,
        folder,
        entries="runs",
        needed=needed,
        also=lambda record: (record["kept"]["pair_accuracy"], record["baselines"]["both"], record["config"]),
    )


def load_model(folder: Path = RESULTS / NAME) -> tuple[PretrainingEncoder, WordPieceTokenizer]:
    """Open the kept model (float16 on disk, float32 in memory) and its tokenizer.

    Raises: FileNotFoundError if there is no record; ValueError if the weights do not fit.
    """
    return open_model(folder, load_record(folder)["config"])


def open_model(folder: Path, stored: dict) -> tuple[PretrainingEncoder, WordPieceTokenizer]:
    """Build the model that the ``config`` of a record describes and load what lies in its folder."""
    shared = {name: value for name, value in stored.items() if name not in ("training", "seeds")}
    tokenizer = WordPieceTokenizer.load(folder / "tokenizer.json")
    model = build(BertSmallConfig(**shared), tokenizer)
    weights = folder / "model.safetensors"
    load_weights(model, weights.read_bytes(), origin=str(weights))
    return model.eval(), tokenizer


def figures_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text."""
    record = load_record() if record is None else record
    rows = [(f"counts: {name}", one) for name, one in record["baselines"].items() if name != "scored"]
    for run in record["runs"]:
        rows.append((f"{'with' if run['nsp'] else 'without'} NSP, seed {run['seed']}", run))
    lines = [f"{'':24}{'masked: nats':>14}{'right':>8}{'pairs: right':>14}"]
    for name, figures in rows:
        cells = (figures.get(key, "") for key in ("masked_loss", "masked_accuracy", "pair_accuracy"))
        lines.append(f"{name:24}" + "".join(f"{c!s:>{w}}" for c, w in zip(cells, (14, 8, 14), strict=True)))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=figures_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
