"""What needs no training of its own: linear models on frozen vectors, and averages of tuned weights."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from llm_from_scratch.data.labelled_batches import padded
from llm_from_scratch.evaluation.bag_of_words import BagOfWordsBaseline
from llm_from_scratch.finetuning.averaging import average_files, average_weights
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.recipes.classification import (
    TRAINING,
    VALIDATION_BATCH,
    Encoded,
    Ledger,
    margins,
    scores,
)
from llm_from_scratch.training.precision import DTYPES, autocast

STRENGTHS = (0.03, 0.3, 3.0, 30.0)  # C of the logistic regression: the larger, the less it is held back
COEFFICIENTS = (0.5,)  # of WiSE-FT: share of the tuned weights


@torch.no_grad()
def frozen_vectors(
    model: nn.Module, ids: Sequence[Sequence[int]], *, precision: str = "float32"
) -> np.ndarray:
    """The vector of each text that a classifier's head would read, in the order of ``ids``."""
    found = np.empty((len(ids), model.head.in_features), dtype=np.float32)
    order = np.argsort([len(each) for each in ids], kind="stable")
    with evaluation_mode(model):
        for start in range(0, len(order), VALIDATION_BATCH):
            chosen = order[start : start + VALIDATION_BATCH]
            ids_BT, _ = padded(ids, np.zeros(len(ids), dtype=int), chosen, pad_id=model.pad_id)
            with autocast(torch.device("cpu"), DTYPES[precision]):
                found[chosen] = model.features(ids_BT).float().numpy()
    return found


def ledger_vectors(
    ledger: Ledger,
    build: Callable[[], nn.Module],
    data: Encoded,
    *,
    only: np.ndarray | None = None,
    precision: str = "float32",
) -> dict[str, np.ndarray]:
    """`frozen_vectors` of all parts, kept beside the ledger; ``only``: of these training texts (others 0)."""
    model, found = build(), {}
    for part, ids in data.ids.items():
        chosen = np.arange(len(ids)) if part != "train" or only is None else only
        name = f"{data.digest} {type(model).__name__} {part} {len(chosen)} {precision}.npy"
        path = ledger.path.parent / name
        if not path.is_file():
            vectors = frozen_vectors(model, [ids[i] for i in chosen], precision=precision)
            with path.open("wb") as file:
                np.save(file, vectors)
        stored = np.load(path)
        found[part] = np.zeros((len(ids), stored.shape[1]), dtype=np.float32)
        found[part][chosen] = stored
    return found


def fit_linear(vectors_NC: np.ndarray, labels_N: np.ndarray, *, strength: float):
    """A logistic regression on standardised columns; its ``decision_function`` gives the margins."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=strength / vectors_NC.shape[1], max_iter=2000)
    return make_pipeline(StandardScaler(), model).fit(vectors_NC, labels_N)


def linear_runs(
    vectors: dict[str, np.ndarray],
    data: Encoded,
    *,
    name: str,
    sizes: Sequence[int],
    seeds: Sequence[int],
    trial_size: int,
    trial_seed: int,
) -> tuple[list[dict], dict[str, dict[str, np.ndarray]], float]:
    """Fit on every size and seed; the strength is chosen once, by the validation loss of a trial.

    Returns the figures, the margins by key and part, and the strength.
    """
    texts = data.draw(trial_size, trial_seed)
    losses = {}
    for strength in STRENGTHS:
        model = fit_linear(vectors["train"][texts], data.labels["train"][texts], strength=strength)
        found = model.decision_function(vectors["validation"])
        losses[strength] = scores(found, data.labels["validation"])["nll"]
    strength = min(losses, key=losses.get)
    figures, kept = [], {}
    for size in sizes:
        for seed in seeds if size < len(data.labels["train"]) else seeds[:1]:  # nothing is drawn of all
            texts = data.draw(size, seed)
            model = fit_linear(vectors["train"][texts], data.labels["train"][texts], strength=strength)
            found = {part: model.decision_function(vectors[part]) for part in ("validation", "test")}
            kept[f"{data.name}/{name}/{len(texts)}/{seed}"] = found
            figures.append(linear_figures(data, name, len(texts), seed, vectors["train"].shape[1] + 1, found))
    return figures, kept, strength


def bag_of_words_runs(
    ledger: Ledger, data: Encoded, *, sizes: Sequence[int], seeds: Sequence[int]
) -> tuple[list[dict], dict[str, dict[str, np.ndarray]], None]:
    """Fit `BagOfWordsBaseline` on every size and seed; it chooses its strength on the validation texts."""
    figures, kept = [], {}
    for size in sizes:
        for seed in seeds if size < len(data.labels["train"]) else seeds[:1]:  # nothing is drawn of all
            texts = data.draw(size, seed)
            key = f"{data.name}/bag of words/{len(texts)}/{seed}"
            entry = ledger.run(key, {"data": data.digest}, partial(fit_bag_of_words, data, texts, seed))
            figures.append(entry["figures"])
            kept[key] = {part: np.array(each) / 1000 for part, each in entry["margins"].items()}
    return figures, kept, None


def fit_bag_of_words(data: Encoded, texts: np.ndarray, seed: int) -> tuple[dict, dict[str, np.ndarray]]:
    """Figures and margins of one bag of words."""
    model = BagOfWordsBaseline().fit(
        [data.texts["train"][i] for i in texts],
        data.labels["train"][texts].tolist(),
        data.texts["validation"],
        data.labels["validation"].tolist(),
    )
    found = {}
    for part in ("validation", "test"):
        probs_N2 = model.probabilities(data.texts[part])
        found[part] = np.log(probs_N2[:, 1]) - np.log(probs_N2[:, 0])
    trained = len(model.strongest(10**9)) + 1  # all weights, and the constant
    figures = linear_figures(data, "bag of words", len(texts), seed, trained, found)
    return figures | {"strength": model.strength}, found


def linear_figures(
    data: Encoded, name: str, labels: int, seed: int, trained: int, found: dict[str, np.ndarray]
) -> dict[str, object]:
    """What the record says of a linear model."""
    told = {f"{part}_{k}": v for part, m in found.items() for k, v in scores(m, data.labels[part]).items()}
    return {"data": data.name, "method": name, "labels": labels, "seed": seed, "trained": trained, **told}


def average_runs(
    ledger: Ledger, build: Callable[[], nn.Module], data: Encoded, files: dict[int, Path]
) -> list[dict]:
    """Score averages of the fully tuned models of several seeds, and of each with the pretrained weights.

    ``files``: the tuned weights by seed. A soup is the mean of two or more seeds. ``wise`` mixes a seed's
    encoder with the pretrained one and keeps the seed's head, which has no pretrained counterpart.
    """
    contents = {seed: path.read_bytes() for seed, path in files.items()}
    mixtures: dict[str, Callable[[], dict[str, Tensor]]] = {}
    for number in range(2, len(files) + 1):
        for seeds in combinations(files, number):
            mixtures[f"soup {' '.join(map(str, seeds))}"] = lambda seeds=seeds: average_files(
                [contents[seed] for seed in seeds]
            )
    pretrained = build().state_dict()
    for seed in files:
        for share in COEFFICIENTS:
            mixtures[f"wise {share} {seed}"] = lambda seed=seed, share=share: mixed(
                pretrained, average_files([contents[seed]]), share
            )
    found = []
    for name, mix in mixtures.items():

        def compute(name: str = name, mix: Callable = mix) -> tuple[dict, dict]:
            model = build()
            model.load_state_dict(mix())
            parts = {
                part: margins(model, data.ids[part], pad_id=model.pad_id, precision=TRAINING.precision)
                for part in ("validation", "test")
            }
            told = {
                f"{part}_{k}": v for part, m in parts.items() for k, v in scores(m, data.labels[part]).items()
            }
            return {"name": name, **told}, parts

        found.append(
            ledger.run(
                f"{data.name}/{name}",
                {
                    "data": data.digest,
                    "files": [hashlib.sha256(each).hexdigest() for each in contents.values()],
                },
                compute,
            )
        )
    return found


def mixed(pretrained: dict[str, Tensor], tuned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """``share`` of the tuned weights and the rest of the pretrained ones; the head as it was tuned."""
    tuned = {name: value.to(pretrained[name].dtype) for name, value in tuned.items()}
    base = {name: tuned[name] if name.startswith("head.") else pretrained[name] for name in tuned}
    return average_weights([base, tuned], shares=(1 - share, share))
