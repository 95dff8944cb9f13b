"""Positional schemes beyond their training length: one small model a scheme, read at 1x, 2x and 4x.

All models are the same but for their positions, read the same batches of characters, and are scored on
the same held-out windows. ``python -m llm_from_scratch.recipes.publish length_extrapolation`` trains
them; ``python -m llm_from_scratch.recipes.length_extrapolation --table`` prints the stored table.

Legend: B windows, T positions, S schemes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llm_from_scratch.data.corpora import Corpus, load
from llm_from_scratch.data.loader import BatchLoader
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.positions import rotary_angles
from llm_from_scratch.recipes.comparison import print_table, publish_command, read_record
from llm_from_scratch.recipes.record import surroundings
from llm_from_scratch.tokenizers import CharacterTokenizer
from llm_from_scratch.training.checkpoint import load_checkpoint
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.precision import choose_device
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.trainer import Trainer
from llm_from_scratch.training.validation import validation_batches
from llm_from_scratch.training.weights import load_weights

NAME = "length_extrapolation"
COMMAND = publish_command(NAME)
CORPUS = "sotu"
SCHEMES = ("none", "learned", "sinusoidal", "relative", "alibi", "rope")
TRAINING = TrainerConfig(
    steps=1500, batch_size=8, learning_rate=3e-3, eval_every=250, eval_batches=16, device="cpu"
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What all schemes share."""

    train_length: int = 128  # characters in a training window
    factor: int = 4  # the longest window that is read, in training lengths
    num_windows: int = 256  # held-out windows, spread evenly over the validation split
    bin_size: int = 16  # positions whose losses are averaged into one number of the record
    d_model: int = 128  # columns
    num_layers: int = 3  # blocks
    num_heads: int = 4  # heads a block
    training: TrainerConfig = TRAINING


def make(
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    schemes: tuple[str, ...] = SCHEMES,
    comparison: Comparison = Comparison(),
) -> dict[str, object]:
    """Train one model a scheme, score each at every position, write record.json into ``folder``.

    A model is trained at ``train_length`` and read at ``factor`` times that length, with the same
    weights. Learned positions end where their table ends, so that model is read at its own length,
    and once more with the last row for all later positions. The rotary model is read in two further
    ways that need no training: positions divided by ``factor`` (interpolation, Chen et al. 2023),
    and a larger base (NTK-aware scaling).
    """
    where = surroundings(choose_device("cpu"))
    corpus = load(CORPUS)
    tokenizer = CharacterTokenizer.train(corpus.text)
    train_tokens, validation_tokens = (_encode(tokenizer, split) for split in corpus.split())
    length = comparison.train_length * comparison.factor
    windows_BT = held_out_windows(validation_tokens, length=length, count=comparison.num_windows)
    entries = []
    for scheme in schemes:
        started = time.perf_counter()
        config = model_config(comparison, scheme, tokenizer.vocab_size)
        model, curve = _train(config, comparison, train_tokens, validation_tokens)
        seconds = round(time.perf_counter() - started, 1)
        for name, reader in readers(model, comparison).items():
            losses_T = loss_by_position(reader, windows_BT[:, : reader.config.context_length + 1])
            entry = {"scheme": name, "parameters": model.num_parameters(), "seconds": seconds}
            entry |= {"validation_loss": curve, **_figures(losses_T, comparison)}
            entries.append(entry)
            say(f"{name}: {entry['nats_by_length']} nats a character, {seconds:.0f} s")
    record = {
        "comparison": NAME,
        "command": COMMAND,
        **where,
        "settings": asdict(comparison),
        "seeds": [comparison.training.seed],
        "vocab_size": tokenizer.vocab_size,
        "characters_trained_on": comparison.training.steps
        * comparison.training.batch_size
        * comparison.train_length,
        "models": entries,
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def model_config(comparison: Comparison, scheme: str, vocab_size: int) -> DecoderConfig:
    """The model of one scheme: Llama's parts, and the scheme's positions."""
    return DecoderConfig.llama(
        vocab_size=vocab_size,
        context_length=comparison.train_length,
        d_model=comparison.d_model,
        num_layers=comparison.num_layers,
        num_heads=comparison.num_heads,
        positions=scheme,
        relative_buckets=min(32, comparison.train_length),
        relative_max_distance=comparison.train_length,
        tie_embeddings=True,
    )


def readers(model: Decoder, comparison: Comparison) -> dict[str, Decoder]:
    """The ways in which a trained model is read beyond its training length, by name.

    >>> model = Decoder(model_config(Comparison(), "rope", 97))
    >>> {name: reader.config.context_length for name, reader in readers(model, Comparison()).items()}
    {'rope': 512, 'rope_interpolated': 512, 'rope_ntk': 512}
    """
    scheme = model.config.positions
    if scheme == "learned":
        return {scheme: model, "learned_clamped": clamped(model, comparison.factor)}
    if scheme != "rope":
        return {scheme: lengthened(model, comparison.factor)}
    d_head = model.config.d_head
    base = model.config.rope_base * comparison.factor ** (d_head / (d_head - 2))
    return {
        "rope": lengthened(model, comparison.factor),
        "rope_interpolated": interpolated(model, comparison.factor),
        "rope_ntk": lengthened(model, comparison.factor, rope_base=base),
    }


def lengthened(model: Decoder, factor: int, **changes: float) -> Decoder:
    """The same weights in a model whose context is ``factor`` times as long.

    Raises: ValueError for learned positions, whose table has a row for each position and no more.
    """
    if model.config.positions == "learned":
        raise ValueError(
            f"learned positions end at {model.config.context_length} tokens: no row of the table was "
            "trained for a later one"
        )
    longer = {"context_length": factor * model.config.context_length, **changes}
    twin = Decoder(replace(model.config, **longer))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def clamped(model: Decoder, factor: int) -> Decoder:
    """A model with learned positions in which every position after the last takes the last one's vector."""
    config = model.config
    twin = Decoder(replace(config, context_length=factor * config.context_length))
    weights = model.state_dict()
    last_1C = weights["position_embedding.weight"][-1:]
    rest_TC = last_1C.repeat(twin.config.context_length - config.context_length, 1)
    weights["position_embedding.weight"] = torch.cat((weights["position_embedding.weight"], rest_TC))
    twin.load_state_dict(weights)
    return twin.eval()


def interpolated(model: Decoder, factor: int) -> Decoder:
    """A rotary model that squeezes a longer text into the positions it knows.

    Formula: position t is turned by the angle of ``t / factor``.
    Source: Chen et al. 2023, section 3.2.
    """
    twin = lengthened(model, factor)
    config = twin.config
    angles_TF = rotary_angles(
        torch.arange(config.context_length) / factor, config.d_head, base=config.rope_base
    )
    twin.rope_cos_TF, twin.rope_sin_TF = angles_TF.cos(), angles_TF.sin()
    return twin


def held_out_windows(tokens: np.ndarray, *, length: int, count: int) -> Tensor:
    """``count`` windows of ``length`` inputs and one further target, spread evenly over the split.

    >>> held_out_windows(np.arange(20), length=3, count=3)[:, 0]
    tensor([ 0,  5, 11])
    """
    if len(tokens) < length + 1:
        raise ValueError(f"the split has {len(tokens)} tokens; a window needs {length + 1}")
    starts_B = [(len(tokens) - length) * i // count for i in range(count)]
    return torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts_B]).astype(np.int64))


@torch.no_grad()
def loss_by_position(model: Decoder, windows_BT: Tensor, *, batch_size: int = 16) -> Float[Tensor, "T"]:
    """The mean over windows of the loss at each position, in nats a character.

    Position t has read t + 1 characters of its window.
    """
    total_T = torch.zeros(windows_BT.shape[1] - 1, dtype=torch.float64)
    for batch_BT in windows_BT.split(batch_size):
        logits_BTV = model(batch_BT[:, :-1])
        losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), batch_BT[:, 1:], reduction="none")
        total_T += losses_BT.double().sum(0)
    return total_T / len(windows_BT)


def load_record(folder: Path | None = None) -> dict[str, object]:
    """Return the stored record: where and when it was made, and the losses of each scheme.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged.

    >>> [model["scheme"] for model in load_record()["models"]][:3]
    ['none', 'learned', 'learned_clamped']
    """
    needed = ("scheme", "parameters", "nats_by_length", "nats_by_bin")
    return read_record(
        NAME,
        folder,
        entries="models",
        needed=needed,
        also=lambda record: (record["settings"]["train_length"], record["settings"]["bin_size"]),
    )


def extrapolation_table(record: dict[str, object] | None = None) -> str:
    """Return the losses by length of a record as lines of text.

    >>> print(extrapolation_table().splitlines()[0].split()[:2])
    ['positions', 'parameters']
    """
    record = load_record() if record is None else record
    spans = list(record["models"][0]["nats_by_length"])
    lines = [f"{'positions':20}{'parameters':>12}" + "".join(f"{span:>12}" for span in spans)]
    for model in record["models"]:
        losses = (model["nats_by_length"].get(span) for span in spans)
        cells = "".join(f"{'refused':>12}" if loss is None else f"{loss:12.2f}" for loss in losses)
        lines.append(f"{model['scheme']:20}{model['parameters']:12,}{cells}")
    return "\n".join(lines)


def _encode(tokenizer: CharacterTokenizer, corpus: Corpus) -> np.ndarray:
    return np.asarray(tokenizer.encode(corpus.text), dtype=np.uint16)


def _train(
    config: DecoderConfig, comparison: Comparison, tokens: np.ndarray, validation_tokens: np.ndarray
) -> tuple[Decoder, dict[int, float]]:
    """Train one model; return it as it was at its best, and its validation loss by step."""
    training = comparison.training
    seed_everything(training.seed)
    model = Decoder(config)
    sizes = {"context_length": comparison.train_length, "batch_size": training.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            training,
            batches=BatchLoader(tokens, **sizes, seed=training.seed),
            validation=validation_batches(validation_tokens, **sizes, count=training.eval_batches),
            folder=Path(folder),
        )
        if not trainer.fit():
            raise KeyboardInterrupt
        load_weights(model, load_checkpoint(Path(folder), "best").weights, origin="the best checkpoint")
        log = trainer.log.read()
    return model.eval(), {line["step"]: round(line["val_loss"], 4) for line in log if "val_loss" in line}


def _figures(losses_T: Tensor, comparison: Comparison) -> dict[str, object]:
    """The losses of the record: over each span of training lengths, and over each bin of positions."""
    spans, start = {}, 0
    for times in (1, 2, 4):
        end = times * comparison.train_length
        if times <= comparison.factor and end <= len(losses_T):
            spans[f"{start + 1}-{end}"] = round(losses_T[start:end].mean().item(), 4)
        start = end
    bins = losses_T.unflatten(0, (-1, comparison.bin_size)).mean(1)
    return {"nats_by_length": spans, "nats_by_bin": [round(loss, 4) for loss in bins.tolist()]}


def main(arguments: list[str] | None = None) -> int:
    """Print the stored table; return the exit code."""
    return print_table(arguments, description=__doc__, record=load_record, table=extrapolation_table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
