"""What the recipes of text classification share: encoded texts, one training run, a ledger of finished runs.

The classes are two, so that a text's answer is one number, the margin: the logit of class 1 less that of
class 0. The probability of class 1 is its sigmoid.

Legend: N texts, B texts of a batch, T tokens of the longest.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from llm_from_scratch.data.labelled import load_labelled
from llm_from_scratch.data.labelled_batches import LabelledBatches, labelled_validation, padded
from llm_from_scratch.finetuning.layerwise import layerwise_groups
from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, count_trained
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.precision import autocast
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer

MAX_TOKENS = 64  # of a text, with the special ones; what is longer is cut
PARTS = ("train", "validation", "test")
VALIDATION_BATCH = 64  # texts

TRAINING = TrainerConfig(
    batch_size=32, learning_rate=1e-4, weight_decay=0.01, beta2=0.999, warmup_fraction=0.1,
    final_fraction=0.0, device="cpu", precision="bfloat16",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a pretrained model is tuned."""

    name: str
    learning_rate: float  # the peak, of the head
    decay: float = 1.0  # learning rate of a block, as a share of that of the block above
    unfreeze: float = 0.0  # share of the steps after which the embeddings begin; 0: all begin at once
    lora: LoraConfig | None = None  # None: all parameters are trained
    steps: int | None = None  # optimizer steps, where they are not those that a recipe gives to all


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Texts as token ids, cut to `MAX_TOKENS`, with their labels, by part."""

    name: str
    label_names: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]
    ids: dict[str, list[list[int]]]
    labels: dict[str, np.ndarray]

    @property
    def digest(self) -> str:
        """A name of the texts, their parts and labels, which changes with any of them."""
        parts = [(part, ids, self.labels[part].tolist()) for part, ids in self.ids.items()]
        return hashlib.sha256(repr((self.name, parts)).encode()).hexdigest()[:16]

    def draw(self, count: int, seed: int) -> np.ndarray:
        """The numbers of ``count`` training texts, equally many of each class as far as there are.

        >>> numbers = np.array([0, 0, 0, 1])
        >>> data = Encoded(name="", label_names=("a", "b"), texts={}, ids={}, labels={"train": numbers})
        >>> sorted(int(numbers[i]) for i in data.draw(2, seed=0))
        [0, 1]
        """
        order = np.random.default_rng((seed, 17)).permutation(len(self.labels["train"]))
        if count >= len(order):
            return order
        by_class = [order[self.labels["train"][order] == k] for k in range(len(self.label_names))]
        taken, classes = [], sorted(by_class, key=len)
        for number, members in enumerate(classes):  # the rarest first: what it lacks, the others give
            share = (count - len(taken)) // (len(classes) - number)
            taken += list(members[:share])
        return np.random.default_rng((seed, 18)).permutation(np.array(taken))


def encode_labelled(
    name: str, encode: Callable[[str], list[int]], *, limits: dict[str, int] | None = None
) -> Encoded:
    """Load the collection ``name`` and encode its texts; ``limits`` keeps only the first texts of a part."""
    data, limits = load_labelled(name), limits or {}
    parts = {part: getattr(data, part) for part in PARTS}
    return Encoded(
        name=name,
        label_names=data.label_names,
        texts={part: split.texts[: limits.get(part)] for part, split in parts.items()},
        ids={
            part: [encode(text) for text in split.texts[: limits.get(part)]] for part, split in parts.items()
        },
        labels={part: np.array(split.labels[: limits.get(part)]) for part, split in parts.items()},
    )


@torch.no_grad()
def margins(model: nn.Module, ids: Sequence[Sequence[int]], *, pad_id: int, precision: str) -> np.ndarray:
    """The margin of each text, in the order of ``ids``."""
    found = np.empty(len(ids), dtype=np.float32)
    order = np.argsort([len(each) for each in ids], kind="stable")
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
    with evaluation_mode(model):
        for start in range(0, len(order), VALIDATION_BATCH):
            chosen = order[start : start + VALIDATION_BATCH]
            ids_BT, _ = padded(ids, np.zeros(len(ids), dtype=int), chosen, pad_id=pad_id)
            with autocast(torch.device("cpu"), dtype):
                logits_BK = model(ids_BT).float()
            found[chosen] = (logits_BK[:, 1] - logits_BK[:, 0]).numpy()
    return found


@dataclass(kw_only=True)
class Tuned:
    """A finished run: the model, and what is to be written down of it."""

    model: nn.Module
    figures: dict[str, object]
    margins: dict[str, np.ndarray] = field(default_factory=dict)  # by part


def tune(
    build: Callable[[], nn.Module],
    data: Encoded,
    method: Method,
    *,
    texts: Sequence[int] | None = None,
    count: int,
    steps: int,
    seed: int,
    training: TrainerConfig = TRAINING,
    extra: tuple[Sequence[list[int]], Sequence[int]] = ((), ()),
    evaluations: int = 4,
    validation: int | None = None,
    parts: tuple[str, ...] = ("validation", "test"),
) -> Tuned:
    """Tune a model on ``count`` drawn training texts, and score it.

    ``build`` returns the classifier with its pretrained weights and a head that the seed draws. ``extra``
    are further encoded texts and labels (augmentation). ``validation``: only the first so many validation
    texts for the curve. The model is scored as it is at the last step.
    """
    started = time.perf_counter()
    seed_everything(seed)
    model = build()
    groups = None
    if method.lora is not None:
        add_lora(model, method.lora)
    else:
        depths = len(model.encoder.blocks) + 1 if hasattr(model, "encoder") else len(model.decoder.blocks) + 1
        every = round(method.unfreeze * steps / depths)
        groups = layerwise_groups(
            model, weight_decay=training.weight_decay, decay=method.decay, unfreeze_every=every
        )
    counted = count_trained(model)
    texts = data.draw(count, seed) if texts is None else texts
    ids = [data.ids["train"][i] for i in texts] + list(extra[0])
    labels = [int(data.labels["train"][i]) for i in texts] + [int(k) for k in extra[1]]
    config = replace(
        training,
        steps=steps,
        batch_size=min(training.batch_size, len(ids)),
        learning_rate=method.learning_rate,
        eval_every=max(1, steps // evaluations),
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            config,
            batches=LabelledBatches(
                ids, labels, batch_size=config.batch_size, pad_id=model.pad_id, seed=seed
            ),
            validation=labelled_validation(
                data.ids["validation"][:validation],
                data.labels["validation"][:validation],
                batch_size=VALIDATION_BATCH,
                pad_id=model.pad_id,
                by_length=True,
            ),
            folder=Path(folder),
            groups=groups,
            trained_only=method.lora is not None,
        )
        if not trainer.fit():
            raise KeyboardInterrupt
        log = trainer.log.read()
    found = {
        part: margins(model, data.ids[part], pad_id=model.pad_id, precision=config.precision)
        for part in parts
    }
    figures = {
        "data": data.name,
        "method": method.name,
        "labels": len(texts),
        "added": len(extra[0]),
        "seed": seed,
        "steps": steps,
        "trained": counted.trained,
        "parameters": counted.total,
        "validation_loss": {r["step"]: round(r["val_loss"], 4) for r in log if "val_loss" in r},
        **{f"{part}_{k}": v for part, m in found.items() for k, v in scores(m, data.labels[part]).items()},
        "seconds": round(time.perf_counter() - started, 1),
    }
    return Tuned(model=model, figures=figures, margins=found)


def scores(margins_N: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean negative log-probability of the label (nats a text).

    >>> scores(np.array([2.0, -1.0, 0.5]), np.array([1, 0, 0]))
    {'accuracy': 0.6667, 'nll': 0.4714}
    """
    margins_N = np.asarray(margins_N, dtype=np.float64)
    signs_N = 2 * np.asarray(labels_N) - 1
    return {
        "accuracy": round(float(np.mean((margins_N > 0) == (labels_N == 1))), 4),
        "nll": round(float(np.mean(np.logaddexp(0.0, -signs_N * margins_N))), 4),
    }


class Ledger:
    """The finished runs of a recipe that takes long: what is written there is not computed again.

    A run is known by its key and by its settings; with other settings it is another run. ``margins`` are
    kept beside the figures, in thousandths.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder))
    ...     for _ in range(2):
    ...         entry = ledger.run("a", {"seed": 1}, lambda: print("computed") or ({"x": 1}, {}))
    computed
    """

    def __init__(self, folder: Path, *, say: Callable = lambda line: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.say = folder / "runs.jsonl", say
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.entries = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # the run was killed while it wrote this line
                continue
            self.entries[entry["id"]] = entry

    def run(self, key: str, settings: dict, compute: Callable[[], tuple[dict, dict]]) -> dict:
        """Return the entry of a run, computed now unless it is there: ``figures`` and ``margins``."""
        text = json.dumps([key, settings], sort_keys=True, default=_plain)
        identity = f"{key} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if identity not in self.entries:
            figures, found = compute()
            kept = {part: np.round(1000 * each).astype(int).tolist() for part, each in found.items()}
            entry = {"id": identity, "key": key, "figures": figures, "margins": kept}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" * (file.tell() > 0) + json.dumps(entry))
            self.entries[identity] = json.loads(json.dumps(entry))
            self.say(f"{key}: {json.dumps({k: v for k, v in figures.items() if k != 'validation_loss'})}")
        return self.entries[identity]


def tuned_run(ledger: Ledger, key: str, build: Callable, data: Encoded, method: Method, **settings) -> dict:
    """`tune` through the ledger; ``keep``, a function of the model, is called when the run is done."""
    keep = settings.pop("keep", None)

    def compute() -> tuple[dict, dict]:
        done = tune(build, data, method, **settings)
        if keep is not None:
            keep(done.model)
        return done.figures, done.margins

    known = {**settings, "method": asdict(method), "data": data.digest, "training": asdict(TRAINING)}
    if "extra" in known:
        known["extra"] = hashlib.sha256(repr(known["extra"]).encode()).hexdigest()
    return ledger.run(key, known, compute)


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
