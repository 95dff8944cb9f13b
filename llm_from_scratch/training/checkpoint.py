"""Checkpoints that a killed process cannot spoil.

A checkpoint is a few files that belong to one step. No file system renames several files at once, so
each checkpoint gets a folder of its own, written under a temporary name, and one small pointer file
says which folder counts:

    checkpoints.json                  {"last": "step-000500", "best": "step-000450"}
    checkpoints/step-000500/          model.safetensors  optimizer.pt  state.json
    checkpoints/step-000450/          model.safetensors  state.json

Replacing the pointer is the one moment at which the new checkpoint begins to exist. A process that
dies before it leaves the old checkpoint, one that dies after it leaves the new one.

A checkpoint is gathered, as above, or sharded: then each process has written what it holds, and no process
ever holds the whole model (`shard_files`). In place of model.safetensors, of two processes:

    model-00001-of-00002.safetensors      model-00002-of-00002.safetensors
    optimizer-00001-of-00002.safetensors  optimizer-00002-of-00002.safetensors

optimizer.pt then has only what is small. Either kind can be continued with any strategy and any number of
processes, and opened by one process alone. Safetensors run no code when opened, `torch.load` opens
optimizer.pt with ``weights_only=True``, and the sha256 of each file stands in state.json.
"""

import io
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.boxes import TensorSource
from llm_from_scratch.training.checkpoint_files import (
    FOLDER,
    FORMAT,
    POINTER,
    SMALL,
    WHOLE,
    flush_folder,
    read_json,
    read_pointer,
    remove_unused,
    shard_name,
    shard_paths,
    verified,
    verify,
    write_hashed,
)
from llm_from_scratch.training.shard_files import ShardFiles, write_shard
from llm_from_scratch.training.strategy import Strategy
from llm_from_scratch.training.weights import load_weights, read_weights

TEMPORARY = ".tmp"  # at the end of a folder's name until it is complete
KINDS = ("model", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one step left on disk, verified."""

    step: int  # optimizer steps taken
    weights: TensorSource
    state: dict[str, object]  # plain values: loss so far, loader, seconds
    tensors: dict[str, object]  # optimizer, scaler, random generators; empty for an old best
    averages: TensorSource | None  # the optimizer's large tensors, where they are not in ``tensors``


def save_checkpoint(
    run: Path,
    *,
    weights: bytes,
    step: int,
    state: dict[str, object],
    tensors: dict[str, object],
    best: bool,
) -> Path:
    """Write the checkpoint of ``step``, make it the last one (and the best), drop what nothing points to.

    ``weights`` is what `weights_as_bytes` gave, ``state`` holds values that JSON can write, ``tensors``
    what `torch.save` writes and `torch.load(weights_only=True)` reads. Saving a step that is already the
    last one changes nothing but, possibly, which one is the best.
    Raises: OSError if the disk is full or refuses; the checkpoints that were there stay.
    """
    temporary = _begin(run, step)
    if temporary is not None:
        try:
            digests = {WHOLE: write_hashed(temporary / WHOLE, weights)}
            _complete(temporary, digests, step, state, tensors)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return _point(run, step, best)


def save_sharded_checkpoint(
    run: Path,
    *,
    weights: dict[str, Tensor],
    averages: dict[str, Tensor],
    step: int,
    state: dict[str, object],
    tensors: dict[str, object],
    best: bool,
    strategy: Strategy,
) -> Path:
    """Write a checkpoint of which each process writes its own part, all at the same time.

    All processes call this, each with its boxes (`weight_boxes`, `optimizer_boxes`), and see the same folder.
    The main process makes the temporary folder and, when the files of all are on the disk, writes
    state.json with the sha256 of each, renames the folder and replaces the pointer. Whichever process
    dies on the way, the checkpoints that were there stay.
    Raises: OSError in every process if the disk refuses one of them.
    """
    temporary = strategy.from_main(lambda: _begin(run, step))
    if temporary is not None:

        def write() -> dict[str, str]:
            names = {kind: shard_name(kind, strategy.rank, strategy.processes) for kind in KINDS}
            boxes = dict(zip(KINDS, (weights, averages), strict=True))
            return {names[kind]: write_shard(temporary / names[kind], boxes[kind]) for kind in KINDS}

        try:
            digests = {name: digest for part in strategy.from_all(write) for name, digest in part.items()}
            strategy.from_main(lambda: _complete(temporary, digests, step, state, tensors))
        except BaseException:
            if strategy.main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
    return strategy.from_main(lambda: _point(run, step, best))


def load_checkpoint(run: Path, which: str = "last", strategy: Strategy | None = None) -> Checkpoint:
    """Open the "last" or the "best" checkpoint of a run and verify every byte of it.

    Where several processes call this, ``strategy`` shares the verification of a sharded one among them.
    Raises: FileNotFoundError if there is none yet; ValueError if ``which`` is neither, or a file
    differs from what was written (its sha256 is in state.json).
    """
    run = Path(run)
    if which not in ("last", "best"):
        raise ValueError(f'which must be "last" or "best", got "{which}"')
    pointer = read_pointer(run)
    if pointer is None:
        raise FileNotFoundError(f"{run} has no checkpoint yet: train it first, or name another folder")
    strategy = Strategy() if strategy is None else strategy
    try:
        return _read_folder(run / FOLDER / pointer[which], which, strategy)
    except FileNotFoundError:
        # A run that is still training may have replaced the checkpoint between the two reads.
        newer = read_pointer(run)
        if newer == pointer or newer is None:
            raise
        return _read_folder(run / FOLDER / newer[which], which, strategy)


def has_checkpoint(run: Path) -> bool:
    """Tell whether a run has got as far as its first checkpoint, that of step 0."""
    return read_pointer(Path(run)) is not None


def load_run(
    run: str | Path, which: str = "best", *, device: str | torch.device = "cpu"
) -> tuple[Decoder, object, dict]:
    """Open a trained run: the model in evaluation mode, its tokenizer, its configuration.

    Raises: FileNotFoundError if the folder or a file of it is missing; ValueError if one is damaged.
    """
    from llm_from_scratch.tokenizers import load_tokenizer  # late: a bare training loop needs none

    run = Path(run)
    config = read_config(run)
    if not (run / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{run} has no tokenizer.json: the run ended before it was trained")
    tokenizer = load_tokenizer(run / "tokenizer.json")
    checkpoint = load_checkpoint(run, which)
    try:
        model = Decoder(DecoderConfig.from_dict(config["model"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run / 'config.json'} does not describe a model: {error}") from error
    load_weights(model, checkpoint.weights, origin=f"the {which} checkpoint of {run}")
    return model.to(device).eval(), tokenizer, config


def read_config(run: Path) -> dict:
    """Read a run's config.json.

    Raises: FileNotFoundError if ``run`` is no run folder; ValueError if the file is damaged.
    """
    path = Path(run) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: it has no config.json")
    return read_json(path)


def _begin(run: Path, step: int) -> Path | None:
    """Return a new temporary folder for a checkpoint, None if the pointer names this step already."""
    pointer = read_pointer(run) or {}
    remove_unused(run, pointer)
    target = _folder_of(run, step)
    if target.name in pointer.values():
        return None
    temporary = target.with_name(target.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def _complete(temporary: Path, digests: dict[str, str], step: int, state: dict, tensors: dict) -> None:
    """Add the small files to the large ones and give the folder its name. state.json comes last."""
    buffer = io.BytesIO()  # torch.save to a file would hide a full disk behind an error of its own
    torch.save(tensors, buffer)
    digests = {**digests, SMALL: write_hashed(temporary / SMALL, buffer.getvalue())}
    record = {"format": FORMAT, "step": step, "sha256": digests, **state}
    write_atomically(temporary / "state.json", json.dumps(record, indent=1) + "\n")
    flush_folder(temporary)
    os.replace(temporary, temporary.with_name(temporary.name.removesuffix(TEMPORARY)))
    flush_folder(temporary.parent)


def _point(run: Path, step: int, best: bool) -> Path:
    """Let the pointer name the checkpoint: from here on it exists."""
    target, pointer = _folder_of(run, step), read_pointer(run) or {}
    name = target.name
    pointer = {"format": FORMAT, "last": name, "best": name if best else pointer.get("best", name)}
    write_atomically(Path(run) / POINTER, json.dumps(pointer, indent=1) + "\n")
    remove_unused(run, pointer)
    return target


def _folder_of(run: Path, step: int) -> Path:
    return Path(run) / FOLDER / f"step-{step:06d}"


def _read_folder(folder: Path, which: str, strategy: Strategy) -> Checkpoint:
    """Open and verify one checkpoint folder; only the last one still has its optimizer."""
    state = read_json(folder / "state.json")
    if type(state.get("step")) is not int or not isinstance(state.get("sha256"), dict):
        raise ValueError(f"{folder / 'state.json'} is damaged: it does not name its step and its files")
    sources: dict[str, TensorSource] = {}
    if WHOLE in state["sha256"]:
        sources["model"] = read_weights(verified(folder / WHOLE, state), origin=str(folder / WHOLE))
    else:
        kinds = KINDS if which == "last" else KINDS[:1]
        paths = {kind: shard_paths(folder, state, kind) for kind in kinds}
        mine = [path for of_kind in paths.values() for path in of_kind][strategy.rank :: strategy.processes]
        strategy.from_all(lambda: verify(mine, state))
        sources = {kind: ShardFiles(of_kind) for kind, of_kind in paths.items()}
    tensors: dict[str, object] = {}
    if which == "last":
        try:
            content = io.BytesIO(verified(folder / SMALL, state))
            tensors = torch.load(content, weights_only=True, map_location="cpu")
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"{folder / SMALL} is damaged ({error})") from error
    return Checkpoint(
        step=state["step"],
        weights=sources["model"],
        state=state,
        tensors=tensors,
        averages=sources.get("optimizer"),
    )
