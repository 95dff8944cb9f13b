"""What the data do to a small model: too little, repeated, in order, packed; one run each.

All runs train the same small decoder on paragraphs of the annual messages, with the laptop recipe's
tokenizer. ``python -m llm_from_scratch.recipes.publish pretraining_data`` trains them;
``python -m llm_from_scratch.recipes.pretraining_data --table`` prints the stored table.

Legend: B windows of a batch, T positions, N windows of a run.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.deduplication import deduplicate
from llm_from_scratch.data.loader import Batch, BatchLoader
from llm_from_scratch.data.packing import pack
from llm_from_scratch.evaluation.perplexity import token_log_probabilities
from llm_from_scratch.files import write_atomically
from llm_from_scratch.inference import generate
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.masks import document_mask
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.recipes.results import load_result
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import mean_loss, validation_batches

NAME = "pretraining_data"
CORPUS = "sotu"
TRAINING = TrainerConfig(steps=300, batch_size=8, learning_rate=4e-3, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the runs share, and how large each experiment is."""

    d_model: int = 64  # columns
    num_layers: int = 2  # blocks
    num_heads: int = 2  # heads a block
    context_length: int = 64  # tokens
    training: TrainerConfig = TRAINING
    eval_batches: int = 16  # of validation windows
    points: int = 5  # measurements on a curve, beside the one before training
    slices: tuple[int, ...] = (5_000, 20_000, 80_000)  # tokens of different paragraphs
    repeated: tuple[int, int] = (4_000, 10)  # tokens of a part, and how often each of its paragraphs stands
    copies: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)  # of each passage to be memorised
    passages: int = 6  # for each number of copies
    passage_lengths: tuple[int, int] = (16, 32)  # tokens of the prompt and of its continuation
    memory_steps: int = 450  # optimizer steps of the run that memorises
    order_steps: int = 100  # optimizer steps of each run in order
    seeds: tuple[int, ...] = (1, 2, 3)  # of the runs in order; the first two of those with boundaries
    boundary_steps: int = 150  # optimizer steps of each run with or without boundaries


class WithinDocuments(nn.Module):
    """A decoder whose attention stops at the borders of documents; called as the decoder is."""

    def __init__(self, model: Decoder, end_of_text: int):
        super().__init__()
        self.model, self.end_of_text = model, end_of_text

    @property
    def config(self) -> DecoderConfig:
        """The decoder's."""
        return self.model.config

    def forward(self, ids_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Score the next tokens, each from its own document."""
        return self.model(ids_BT, targets_BT, mask=document_mask(ids_BT, self.end_of_text))


class WindowsInOrder(Iterator):
    """Batches of the windows of a stream that begin at ``starts_N``, in that order, each once."""

    def __init__(self, tokens: np.ndarray, starts_N: np.ndarray, *, context_length: int, batch_size: int):
        self.tokens, self.starts_N = tokens, starts_N
        self.context_length, self.batch_size, self.drawn = context_length, batch_size, 0

    def __next__(self) -> Batch:
        """Return the next batch. Raises: StopIteration after the last whole one."""
        first = self.drawn * self.batch_size
        starts_B = self.starts_N[first : first + self.batch_size]
        if len(starts_B) < self.batch_size:
            raise StopIteration
        self.drawn += 1
        windows = self.tokens[starts_B[:, None] + np.arange(self.context_length + 1)].astype(np.int64)
        windows_BS = torch.from_numpy(windows)
        return windows_BS[:, :-1].contiguous(), windows_BS[:, 1:].contiguous()


class Bench:
    """The tokenizer, the paragraphs and the held-out windows that all runs share."""

    def __init__(self, settings: Settings, say: Callable[[str], None]):
        self.settings, self.say = settings, say
        _, self.tokenizer, _ = load_result("laptop")
        (self.end,) = self.tokenizer.special_ids.values()
        self.train_split, self.validation_split = load(CORPUS).split()
        self.paragraphs = self._paragraphs(self.train_split)
        held_out = self._paragraphs(self.validation_split)
        prompt, rest = settings.passage_lengths
        long_enough = [ids for ids in held_out if len(ids) >= prompt + rest]
        wanted = settings.passages * len(settings.copies)
        self.passages = [ids[: prompt + rest] for ids in long_enough[:wanted]]  # read by one run only
        taken = {id(ids) for ids in long_enough[:wanted]}
        self.held_out = [ids for ids in held_out if id(ids) not in taken]
        self.validation = self.windows(self.pack(self.held_out), settings.eval_batches)

    def _paragraphs(self, split: Corpus) -> list[list[int]]:
        """Encode each paragraph as a document of its own, in an order that is shuffled once."""
        texts = [text.strip() for document in split.documents for text in document.text.split("\n\n")]
        order = np.random.default_rng(10).permutation(len(texts))
        return [self.tokenizer.encode(texts[i]) for i in order if texts[i]]

    def pack(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        """Lay documents end to end, the end-of-text token in front and after each."""
        return pack([[], *documents], end_of_text=self.end)

    def take(self, num_tokens: int, skip: int = 0) -> list[list[int]]:
        """Return paragraphs of about ``num_tokens`` tokens, after the first ``skip`` tokens of them."""
        ends = np.cumsum([len(ids) + 1 for ids in self.paragraphs])
        return self.paragraphs[np.searchsorted(ends, skip) : np.searchsorted(ends, skip + num_tokens)]

    def windows(self, tokens: np.ndarray, count: int | None) -> list[Batch]:
        """Cut held-out tokens into the windows that are scored."""
        sizes = {"context_length": self.settings.context_length, "batch_size": 8}
        return validation_batches(tokens, **sizes, count=count)

    def train(
        self,
        tokens: np.ndarray,
        *,
        steps: int,
        seed: int = 1,
        within_documents: bool = False,
        batches: Iterator | None = None,
        look: Callable[[nn.Module, int], None] = lambda model, step: None,
    ) -> tuple[nn.Module, dict[str, object]]:
        """Train one small model; return it and its curve of training and validation losses."""
        s = self.settings
        training = replace(s.training, steps=steps, seed=seed)
        seed_everything(seed)
        config = DecoderConfig.llama(
            vocab_size=self.tokenizer.vocab_size,
            context_length=s.context_length,
            d_model=s.d_model,
            num_layers=s.num_layers,
            num_heads=s.num_heads,
            tie_embeddings=True,
        )
        model: nn.Module = Decoder(config)
        if within_documents:
            model = WithinDocuments(model, self.end)
        sizes = {"context_length": s.context_length, "batch_size": training.batch_size}
        batches = BatchLoader(tokens, **sizes, seed=seed) if batches is None else batches
        marks = {round(steps * point / s.points) for point in range(s.points + 1)}
        curve, recent, started = [], [], time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(model, training, batches=batches, validation=self.validation, folder=folder)
            for step in range(steps + 1):
                if step in marks:
                    train_loss = round(float(np.mean(recent)), 4) if recent else None
                    curve.append(
                        {"step": step, "train": train_loss, "validation": round(trainer.evaluate(), 4)}
                    )
                    look(model, step)
                    recent = []
                if step < steps:
                    recent.append(trainer.train_step()["loss"])
        seconds = round(time.perf_counter() - started, 1)
        return model.eval(), {"tokens": len(tokens), "seed": seed, "curve": curve, "seconds": seconds}


def overfitting(bench: Bench) -> Iterator[dict[str, object]]:
    """The same number of steps on ever more different text."""
    for size in (*bench.settings.slices, None):
        documents = bench.paragraphs if size is None else bench.take(size)
        _, run = bench.train(bench.pack(documents), steps=bench.settings.training.steps)
        yield {"name": f"slice of {run['tokens']:,}", "unique_tokens": run["tokens"], **run}


def duplicates(bench: Bench) -> Iterator[dict[str, object]]:
    """Half of the text replaced by copies of a small part; then the copies removed again."""
    part, copies = bench.settings.repeated
    different = bench.take(part * copies)
    small = bench.take(part, skip=part * copies)
    mixed = different + copies * small
    mixed = [mixed[i] for i in np.random.default_rng(10).permutation(len(mixed))]
    kept = deduplicate([bench.tokenizer.decode(ids) for ids in mixed])
    both = {"half of it copies": mixed, "copies removed": [mixed[i] for i in kept]}
    unique = len(bench.pack(different + small))
    windows = bench.windows(bench.pack(small), None)
    for name, documents in both.items():
        model, run = bench.train(bench.pack(documents), steps=bench.settings.training.steps)
        on_part = round(mean_loss(model, windows), 4)
        yield {"name": name, "unique_tokens": unique, "loss_on_repeated_part": on_part, **run}


def memorisation(bench: Bench) -> Iterator[dict[str, object]]:
    """Passages that stand up to 64 times among other text, and how many are continued word for word."""
    s = bench.settings
    prompt, rest = s.passage_lengths
    groups = {c: bench.passages[n * s.passages : (n + 1) * s.passages] for n, c in enumerate(s.copies)}
    documents = bench.take(s.slices[-1]) + [ids for c, group in groups.items() for ids in c * group]
    documents = [documents[i] for i in np.random.default_rng(10).permutation(len(documents))]
    tokens = bench.pack(documents)
    looks: list[dict[str, object]] = []

    def look(model: Decoder, step: int) -> None:
        for copies, group in groups.items():
            exact, nats, matched = 0, [], []
            for ids in group:
                written = generate(model, [bench.end, *ids[:prompt]], max_new_tokens=rest, temperature=0)
                same = np.asarray(written) == np.asarray(ids[prompt:])
                exact += bool(same.all())
                matched.append(int(rest if same.all() else same.argmin()))
                nats.append(-float(token_log_probabilities(model, ids, start_id=bench.end)[prompt:].mean()))
            looks.append(
                {
                    "step": step,
                    "copies": copies,
                    "exact": exact,
                    "of": len(group),
                    "tokens_right": round(float(np.mean(matched)), 2),  # before the first wrong one
                    "nats": round(float(np.mean(nats)), 4),
                }
            )

    _, run = bench.train(tokens, steps=s.memory_steps, look=look)
    read = s.memory_steps * s.training.batch_size * s.context_length / len(tokens)
    yield {"name": "passages among other text", "times_read": round(read, 2), "looks": looks, **run}


def order(bench: Bench) -> Iterator[dict[str, object]]:
    """The same windows of two centuries forwards, backwards and shuffled, with several seeds."""
    s = bench.settings
    tokens = pack(
        (bench.tokenizer.encode(d.text) for d in bench.train_split.documents), end_of_text=bench.end
    )
    years = {"before 1860": (0, 1859), "1860 to 1929": (1860, 1929), "since 1930": (1930, 9999)}
    eras = {}
    for era, span in years.items():
        texts = [bench.tokenizer.encode(d.text) for d in bench.validation_split.between(*span).documents]
        eras[era] = bench.windows(pack(texts, end_of_text=bench.end), s.eval_batches)
    sizes = {"context_length": s.context_length, "batch_size": s.training.batch_size}
    for seed in s.seeds:
        rng = np.random.default_rng(seed)
        count = s.order_steps * s.training.batch_size
        starts_N = np.sort(rng.integers(0, len(tokens) - s.context_length, size=count))
        ways = {
            "in order of time": starts_N,
            "backwards": starts_N[::-1],
            "shuffled": rng.permutation(starts_N),
        }
        for way, starts in ways.items():
            batches = WindowsInOrder(tokens, starts, **sizes)
            model, run = bench.train(tokens, steps=s.order_steps, seed=seed, batches=batches)
            losses = {era: round(mean_loss(model, windows), 4) for era, windows in eras.items()}
            yield {"name": way, "by_era": losses, **run}


def boundaries(bench: Bench) -> Iterator[dict[str, object]]:
    """Paragraphs packed behind one another: attention that crosses their borders, and one that does not."""
    s, tokens = bench.settings, bench.pack(bench.paragraphs)
    held_out = bench.windows(bench.pack(bench.held_out), 2 * s.eval_batches)
    for seed in s.seeds[:2]:
        for within in (False, True):
            model, run = bench.train(tokens, steps=s.boundary_steps, seed=seed, within_documents=within)
            decoder = model.model if within else model
            ways = {"across": decoder, "within": WithinDocuments(decoder, bench.end)}
            losses = {way: round(mean_loss(reader, held_out), 4) for way, reader in ways.items()}
            name = "trained within documents" if within else "trained across documents"
            yield {"name": name, "scored": losses, **run}


EXPERIMENTS: dict[str, Callable[[Bench], Iterator[dict[str, object]]]] = {
    function.__name__: function for function in (overfitting, duplicates, memorisation, order, boundaries)
}


def make(
    folder: Path, *, say: Callable[[str], None] = print, settings: Settings | None = None
) -> dict[str, object]:
    """Train every run of every experiment; write record.json into ``folder`` after each, and return it."""
    settings = Settings() if settings is None else settings
    where = surroundings(choose_device("cpu"))
    bench = Bench(settings, say)
    record: dict[str, object] = {
        "comparison": NAME,
        "command": publish_command(NAME),
        **where,
        "settings": json.loads(json.dumps(asdict(settings))),  # tuples become lists, as when it is read
        "runs": [],
    }
    for name, experiment in EXPERIMENTS.items():
        for run in experiment(bench):
            record["runs"].append({"experiment": name, **run})
            write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
            last = run["curve"][-1]
            say(f"{name}, {run['name']}: train {last['train']}, validation {last['validation']}")
    return record


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record. Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> load_record()["runs"][0]["experiment"]
    'overfitting'
    """
    return read_record(NAME, folder, entries="runs", needed=("experiment", "name", "tokens", "seed", "curve"))


def runs_of(experiment: str, record: dict[str, object] | None = None) -> list[dict[str, object]]:
    """Return the runs of one experiment. Raises: ValueError naming those there are."""
    if experiment not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {experiment!r}; there are {', '.join(EXPERIMENTS)}")
    record = load_record() if record is None else record
    return [run for run in record["runs"] if run["experiment"] == experiment]


def comparison_table(record: dict[str, object] | None = None) -> str:
    """Return the last losses of every run as lines of text."""
    record = load_record() if record is None else record
    lines = [f"{'experiment':14}{'run':28}{'seed':>5}{'tokens':>11}{'train':>8}{'validation':>12}"]
    for run in record["runs"]:
        last = run["curve"][-1]
        lines.append(
            f"{run['experiment']:14}{run['name']:28}{run['seed']:5}{run['tokens']:11,}"
            f"{last['train']:8.3f}{last['validation']:12.3f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=comparison_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
