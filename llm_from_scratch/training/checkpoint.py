"""Checkpoints that a killed process cannot spoil.

A checkpoint is three files that belong to one step. No file system renames three files at once, so
each checkpoint gets a folder of its own, written under a temporary name, and one small pointer file
says which folder counts:

    checkpoints.json                  {"last": "step-000500", "best": "step-000450"}
    checkpoints/step-000500/          model.safetensors  optimizer.pt  state.json
    checkpoints/step-000450/          model.safetensors  state.json

Replacing the pointer is the one moment at which the new checkpoint begins to exist. A process that
dies before it leaves the old checkpoint, one that dies after it leaves the new one.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.weights import load_weights

POINTER = "checkpoints.json"
FOLDER = "checkpoints"
FORMAT = 1  # raised when an older reader would misread a newer folder


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one step left on disk, read and verified."""

    step: int  # optimizer steps taken
    weights: bytes  # safetensors
    state: dict[str, object]  # plain values: loss so far, loader, seconds
    tensors: dict[str, object]  # optimizer, scaler, random generators; empty for an old best


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
    run = Path(run)
    name = f"step-{step:06d}"
    pointer = _read_pointer(run) or {}
    _remove_unused(run, pointer)
    target = run / FOLDER / name
    if name not in pointer.values():
        temporary = target.with_name(name + ".tmp")
        try:
            _write_folder(temporary, weights, step, state, tensors)
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush_folder(target.parent)
    pointer = {"format": FORMAT, "last": name, "best": name if best else pointer.get("best", name)}
    write_atomically(run / POINTER, json.dumps(pointer, indent=1) + "\n")
    _remove_unused(run, pointer)
    return target


def load_checkpoint(run: Path, which: str = "last") -> Checkpoint:
    """Read the "last" or the "best" checkpoint of a run and verify every byte of it.

    Raises: FileNotFoundError if there is none yet; ValueError if ``which`` is neither, or a file
    differs from what was written (its sha256 is in state.json).
    """
    run = Path(run)
    if which not in ("last", "best"):
        raise ValueError(f'which must be "last" or "best", got "{which}"')
    pointer = _read_pointer(run)
    if pointer is None:
        raise FileNotFoundError(f"{run} has no checkpoint yet: train it first, or name another folder")
    try:
        return _read_folder(run / FOLDER / pointer[which], which)
    except FileNotFoundError:
        # A run that is still training may have replaced the checkpoint between the two reads.
        newer = _read_pointer(run)
        if newer == pointer or newer is None:
            raise
        return _read_folder(run / FOLDER / newer[which], which)


def has_checkpoint(run: Path) -> bool:
    """Tell whether a run has got as far as its first checkpoint, that of step 0."""
    return _read_pointer(Path(run)) is not None


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
    return _read_json(path)


def _write_folder(folder: Path, weights: bytes, step: int, state: dict, tensors: dict) -> None:
    """Write the three files; state.json comes last and holds the sha256 of the other two."""
    shutil.rmtree(folder, ignore_errors=True)
    buffer = io.BytesIO()  # torch.save to a file would hide a full disk behind an error of its own
    torch.save(tensors, buffer)
    contents = {"model.safetensors": weights, "optimizer.pt": buffer.getvalue()}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = {"format": FORMAT, "step": step, "sha256": digests, **state}
    write_atomically(folder / "state.json", json.dumps(record, indent=1) + "\n")
    _flush_folder(folder)


def _read_folder(folder: Path, which: str) -> Checkpoint:
    """Read and verify one checkpoint folder; only the last one still has its optimizer."""
    state = _read_json(folder / "state.json")
    if type(state.get("step")) is not int or not isinstance(state.get("sha256"), dict):
        raise ValueError(f"{folder / 'state.json'} is damaged: it does not name its step and its files")
    weights = _verified(folder / "model.safetensors", state)
    tensors: dict[str, object] = {}
    if which == "last":
        try:
            content = io.BytesIO(_verified(folder / "optimizer.pt", state))
            tensors = torch.load(content, weights_only=True, map_location="cpu")
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"{folder / 'optimizer.pt'} is damaged ({error})") from error
    return Checkpoint(step=state["step"], weights=weights, state=state, tensors=tensors)


def _verified(path: Path, state: dict) -> bytes:
    """Return a file's bytes if they are those that were written."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != state.get("sha256", {}).get(path.name):
        raise ValueError(f"{path} is damaged: its sha256 is not the one that state.json beside it records")
    return content


def _read_pointer(run: Path) -> dict[str, str] | None:
    """Return which folders count, or None before the first checkpoint."""
    if not (run / POINTER).is_file():
        return None
    pointer = _read_json(run / POINTER)
    if not isinstance(pointer.get("last"), str) or not isinstance(pointer.get("best"), str):
        raise ValueError(f"{run / POINTER} is damaged: it does not name the last and the best checkpoint")
    if not isinstance(pointer.get("format", FORMAT), int):
        raise ValueError(f"{run / POINTER} is damaged: its format is no number")
    if pointer.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{run} was written by a newer version of this package: update the package")
    return pointer


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def _remove_unused(run: Path, pointer: dict[str, str]) -> None:
    """Delete checkpoints that the pointer no longer names, and the best one's optimizer once it is old."""
    named = {pointer.get("last"), pointer.get("best")}
    for folder in (run / FOLDER).glob("step-*"):
        if folder.name not in named:
            shutil.rmtree(folder, ignore_errors=True)  # what is in use elsewhere goes the next time
    if pointer and pointer["best"] != pointer["last"]:
        optimizer = run / FOLDER / pointer["best"] / "optimizer.pt"
        with contextlib.suppress(OSError):
            optimizer.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Put a folder's entries on the disk; Windows neither needs nor offers it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
