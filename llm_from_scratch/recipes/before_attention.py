"""The language models before attention, on one text: n-grams, bigram, fixed window, RNN, LSTM, GRU.

All read the tokens of the laptop recipe's tokenizer and predict the same validation tokens, so their
losses can stand in one table. ``python -m llm_from_scratch.recipes.publish before_attention`` trains
them; ``python -m llm_from_scratch.recipes.before_attention --table`` prints the stored table.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.evaluation import TextScore, evaluate, from_log_probabilities
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.fixed_window import FixedWindow, FixedWindowConfig
from llm_from_scratch.models.neural_bigram import NeuralBigram
from llm_from_scratch.models.ngram import KneserNey, NGramModel, Vocabulary
from llm_from_scratch.models.recurrent_lm import RecurrentLM, RecurrentLMConfig
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import RESULTS, load_result
from llm_from_scratch.recipes.text import ScoredSplit, encode, scored_split
from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches
from llm_from_scratch.training.weights import load_weights, weights_as_bytes

NAME = "before_attention"
COMMAND = publish_command(NAME)
CORPUS = "sotu"
CONTEXT_LENGTH = 128  # tokens that a neural model reads at most: the laptop recipe's
NGRAM_ORDERS = (2, 3, 4, 5)
# What the laptop recipe's Transformer was trained with, so that every model reads as many tokens.
TRAINING = TrainerConfig(steps=1700, batch_size=8, eval_every=170, eval_batches=16)
TRIAL_STEPS = 170  # optimizer steps at each candidate learning rate, warm-up and decay included
KEPT = ("fixed_window", "gru")  # whose weights the chapters load


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A neural model of the comparison."""

    label: str  # as printed in the table
    build: Callable[[int], nn.Module]  # from the size of the vocabulary
    learning_rates: tuple[float, ...]  # candidates; a short trial of each decides


def _recurrent(kind: str, d_model: int) -> Callable[[int], nn.Module]:
    return lambda vocab_size: RecurrentLM(
        RecurrentLMConfig(kind=kind, vocab_size=vocab_size, d_model=d_model)
    )


def _fixed_window(vocab_size: int) -> nn.Module:
    return FixedWindow(FixedWindowConfig(vocab_size=vocab_size, window=4, d_model=160, d_hidden=256))


# The widths give each model about the 1.9 million parameters of the laptop recipe's Transformer. The
# bigram cannot be made to fit: it has a score for every pair of tokens.
CONTENDERS = {
    "neural_bigram": Contender(label="neural bigram", build=NeuralBigram, learning_rates=(0.1, 0.3, 1.0)),
    "fixed_window": Contender(
        label="fixed window, 4 tokens", build=_fixed_window, learning_rates=(2e-3, 4e-3, 8e-3)
    ),
    "rnn": Contender(label="RNN", build=_recurrent("rnn", 388), learning_rates=(1e-3, 2e-3, 4e-3)),
    "lstm": Contender(label="LSTM", build=_recurrent("lstm", 292), learning_rates=(4e-3, 8e-3, 1.6e-2)),
    "gru": Contender(label="GRU", build=_recurrent("gru", 314), learning_rates=(4e-3, 8e-3, 1.6e-2)),
}


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    contenders: dict[str, Contender] = CONTENDERS,
    training: TrainerConfig = TRAINING,
    trial_steps: int = TRIAL_STEPS,
) -> dict[str, object]:
    """Train and score every model; write record.json and the kept weights into ``folder``.

    The neural models are scored as they are trained: in windows of ``CONTEXT_LENGTH`` tokens that do
    not overlap, each begun with an empty memory, as the laptop recipe's Transformer is. An n-gram
    model reads the tokens before its prediction within the document. Every model predicts the same
    tokens: all those of the validation split, the end of each document included.
    """
    where = surroundings(choose_device("cpu"))
    transformer, tokenizer, laptop = load_result("laptop")
    train_split, validation_split = load(CORPUS).split()
    train_tokens, scored = encode(tokenizer, train_split), scored_split(tokenizer, CORPUS)
    say("Counting n-grams ...")
    read, to_score = _token_documents(tokenizer, train_split), _token_documents(tokenizer, validation_split)
    models = [_score_ngram(read, to_score, scored, tokenizer.vocab_size, order) for order in NGRAM_ORDERS]
    two_thirds = [ids for i, ids in enumerate(read) if i % 3 < 2]  # about what the neural models read
    fewer = _score_ngram(two_thirds, to_score, scored, tokenizer.vocab_size, NGRAM_ORDERS[-1])
    models.append({**fewer, "name": fewer["name"] + "_two_thirds", "label": fewer["label"] + ", 2/3 of text"})
    kept = {}
    for name, contender in contenders.items():
        model, entry = _train_contender(
            name, contender, train_tokens, scored, tokenizer.vocab_size, training, trial_steps, say
        )
        models.append(entry)
        say(f"{contender.label}: {entry['nats_per_token']:.4f} nats a token, {entry['seconds']:.0f} s")
        if name in KEPT:
            kept[name] = weights_as_bytes(model, dtype=torch.float16)
    models.append(
        {
            "name": "transformer",
            "label": "Transformer (laptop recipe)",
            "parameters": laptop["parameters"],
            "tokens_read": laptop["tokens_trained_on"],
            **_figures(_score(transformer, scored)),
        }
    )
    record = {"comparison": NAME, "command": COMMAND, **where, "models": models}
    (folder / "record.json").unlink(missing_ok=True)  # without it there is no result: no mixture of two
    for name, weights in kept.items():
        write_atomically(folder / f"{name}.safetensors", weights)
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record: where and when it was made, and the figures of each model.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> [model["label"] for model in load_record()["models"]][-1]
    'Transformer (laptop recipe)'
    """
    needed = ("label", "parameters", "tokens_read", "nats_per_token", "perplexity", "bits_per_byte")
    return read_record(NAME, folder, entries="models", needed=needed)


def load_model(name: str, folder: Path | None = None) -> tuple[nn.Module, object]:
    """Return a kept model in evaluation mode, and its tokenizer.

    The weights are stored in float16 and opened in float32.
    Raises: ValueError for a model whose weights are not kept, or whose file is damaged.

    >>> model, tokenizer = load_model("gru")
    >>> model.config.kind
    'gru'
    """
    if name not in KEPT:
        raise ValueError(f"the weights of {name!r} are not kept; those of {', '.join(KEPT)} are")
    _, tokenizer, _ = load_result("laptop")
    model = CONTENDERS[name].build(tokenizer.vocab_size)
    path = (RESULTS / NAME if folder is None else folder) / f"{name}.safetensors"
    load_weights(model, path.read_bytes(), origin=str(path))
    return model.eval(), tokenizer


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the figures of a record as lines of text, the worst model first.

    ``tokens`` are those that the model was trained on.

    >>> print(comparison_table().splitlines()[0].split())
    ['model', 'parameters', 'tokens', 'nats/token', 'perplexity', 'bits/byte']
    """
    models = (load_record() if record is None else record)["models"]
    lines = [
        f"{'model':32}{'parameters':>11}{'tokens':>10}{'nats/token':>11}{'perplexity':>11}{'bits/byte':>10}"
    ]
    for model in sorted(models, key=lambda model: -model["nats_per_token"]):
        lines.append(
            f"{model['label']:32}{model['parameters']:11,}{model['tokens_read']:10,}"
            f"{model['nats_per_token']:11.3f}{model['perplexity']:11.1f}{model['bits_per_byte']:10.3f}"
        )
    return "\n".join(lines)


def _token_documents(tokenizer, split: Corpus) -> list[list[int]]:
    return [tokenizer.encode(document.text) for document in split.documents]


def _score_ngram(
    read: list[list[int]], to_score: list[list[int]], scored: ScoredSplit, vocab_size: int, order: int
) -> dict[str, object]:
    """Count the training documents and score the validation ones; the end of a document is ``</s>``."""
    started = time.perf_counter()
    vocabulary = Vocabulary((i for i in range(vocab_size) if i != scored.start_id), unknown=False)
    model = NGramModel(order=order, smoothing=KneserNey()).fit(read, vocabulary=vocabulary)
    score = from_log_probabilities(model.score(to_score), num_bytes=scored.num_bytes)
    return {
        "name": f"kneser_ney_{order}",
        "label": f"Kneser-Ney, order {order}",
        "parameters": sum(model.counts.num_grams(n) for n in range(1, order + 1)),  # counts kept
        "tokens_read": model.counts.num_events,
        **_figures(score),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _train_contender(
    name: str,
    contender: Contender,
    train_tokens: np.ndarray,
    scored: ScoredSplit,
    vocab_size: int,
    training: TrainerConfig,
    trial_steps: int,
    say: Callable[[str], None],
) -> tuple[nn.Module, dict[str, object]]:
    """Try each learning rate in a short run, train with the best one, score the best checkpoint."""
    started = time.perf_counter()
    trials = {}
    for rate in contender.learning_rates:
        short = replace(training, steps=trial_steps, learning_rate=rate, eval_every=trial_steps)
        trials[rate] = round(_train(contender, vocab_size, train_tokens, scored, short)[1], 4)
        say(f"{contender.label}, trial at {rate:g}: {trials[rate]:.4f}")
    rate = min(trials, key=trials.get)
    model, _, last_loss, tokens = _train(
        contender, vocab_size, train_tokens, scored, replace(training, learning_rate=rate)
    )
    entry = {
        "name": name,
        "label": contender.label,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_read": tokens,
        "learning_rate": rate,
        "trials": {f"{rate:g}": loss for rate, loss in trials.items()},  # validation nats after trial_steps
        "training_loss": last_loss,
        **_figures(_score(model, scored)),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if isinstance(model, RecurrentLM):
        entry["nats_per_token_state_carried"] = round(_score_carried(model, scored).nats_per_token, 4)
    return model, entry


def _train(
    contender: Contender, vocab_size: int, tokens: np.ndarray, scored: ScoredSplit, config: TrainerConfig
) -> tuple[nn.Module, float, float, int]:
    """Return the model of the best checkpoint, its loss, the last training loss, the tokens trained on."""
    seed_everything(config.seed)
    model = contender.build(vocab_size)
    sizes = {"context_length": CONTEXT_LENGTH, "batch_size": config.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            config,
            batches=BatchLoader(tokens, **sizes, seed=config.seed),
            validation=validation_batches(scored.tokens, **sizes, count=config.eval_batches),
            folder=Path(folder),
        )
        if not trainer.fit():
            raise KeyboardInterrupt
        load_weights(model, load_checkpoint(Path(folder), "best").weights)
        losses = [line["loss"] for line in trainer.log.read() if "loss" in line]
    return model.eval(), trainer.best_loss, round(losses[-1], 4), trainer.tokens


def _score(model: nn.Module, scored: ScoredSplit) -> TextScore:
    """Score the whole validation split in windows that do not overlap."""
    return evaluate(
        model,
        scored.tokens,
        num_bytes=scored.num_bytes,
        start_id=scored.start_id,
        context_length=CONTEXT_LENGTH,
        stride=CONTEXT_LENGTH,
    )


@torch.no_grad()
def _score_carried(model: RecurrentLM, scored: ScoredSplit) -> TextScore:
    """Score the split as one stream: the state is carried from the first token to the last."""
    stream = torch.from_numpy(np.concatenate([[scored.start_id], scored.tokens]).astype(np.int64))
    log_probabilities, states = [], None
    for start in range(0, len(stream) - 1, 1024):
        targets = stream[start + 1 : start + 1025]
        logits_BTV, states = model.step(stream[None, start : start + len(targets)], states)
        log_probabilities.append(logits_BTV[0].log_softmax(-1).gather(1, targets[:, None])[:, 0])
    return from_log_probabilities(torch.cat(log_probabilities), num_bytes=scored.num_bytes)


def _figures(score: TextScore) -> dict[str, float | int]:
    return {
        "nats_per_token": round(score.nats_per_token, 4),
        "perplexity": round(score.perplexity, 2),
        "bits_per_byte": round(score.bits_per_byte, 4),
        "tokens_scored": score.num_tokens,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
