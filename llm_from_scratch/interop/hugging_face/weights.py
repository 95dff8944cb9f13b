"""Move weights between a model of ours and the tensors of a Hugging Face file, in both directions.

A `Move` says where one tensor of ours comes from: from one tensor there, perhaps transposed, or from
several there, stacked (one matrix makes our queries, keys and values; theirs are three). Nothing is
computed, so the way there and back gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llm_from_scratch.interop.hugging_face.tensor_files import TensorEntry, is_weight, read_tensors


@dataclass(frozen=True)
class Move:
    """One tensor of ours, and the tensors there that hold it.

    ``rows``: how many rows of ours each of several tensors there holds. ``transpose``: theirs is
    stored [in, out] where ours is [out, in], as in GPT-2.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    transpose: bool = False

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the tensors there, given the shape of ours."""
        if self.rows:
            return [(rows, *shape[1:]) for rows in self.rows]
        return [shape[::-1] if self.transpose else shape]

    def places(self, tensor: Tensor) -> list[Tensor]:
        """The parts of our tensor that correspond to the tensors there, as views of it."""
        if self.rows:
            return list(tensor.split(self.rows))
        return [tensor.T if self.transpose else tensor]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """All moves of a model, and what else may stand in a file.

    ``copies``: names there of a second copy of another tensor there, as of a tied output layer; if
    they are in the file, they must be equal. ``unread``: names there that no code reads although
    transformers stores them, and of which tensor a copy is written. ``passed_over``: endings of names
    there that hold no weights, such as stored masks.
    """

    moves: tuple[Move, ...]
    copies: tuple[tuple[str, str], ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[str, ...] = ()


def check_names(
    entries: dict[str, TensorEntry], mapping: Mapping, *, origin: str, ignore: Collection[str] = ()
) -> None:
    """Raise ValueError unless the files hold the tensors of the model, and no others.

    ``ignore`` names tensors there that may be left unread. This needs no model, so that a config.json
    that claims a thousand layers is refused before one is built.
    """
    expected = dict.fromkeys(name for move in mapping.moves for name in move.theirs)
    missing = [name for name in expected if name not in entries]
    if missing:
        raise ValueError(
            f"{origin} lacks {len(missing)} of the {len(expected)} tensors that its config.json asks for: "
            f"{_few(missing)}"
        )
    known = {*expected, *ignore, *(name for name, _ in (*mapping.copies, *mapping.unread))}
    endings = mapping.passed_over or ("\0",)
    extra = [name for name in entries if name not in known and not name.endswith(endings)]
    if extra:
        raise ValueError(
            f"{origin} has {len(extra)} tensors more than its config.json asks for: {_few(extra)}; "
            f"load_folder(..., ignore=[{extra[0]!r:.80}]) leaves a tensor out"
        )


def check_entries(
    entries: dict[str, TensorEntry],
    mapping: Mapping,
    shapes: dict[str, tuple[int, ...]],
    *,
    origin: str,
    ignore: Collection[str] = (),
) -> None:
    """Raise ValueError unless the files hold the tensors of the model, in their shapes, and no others.

    ``shapes`` are those of our tensors. ``ignore`` names tensors there that may be left unread.
    """
    check_names(entries, mapping, origin=origin, ignore=ignore)
    expected = _expected(mapping, shapes)
    expected |= {copy: expected[of] for copy, of in mapping.copies if copy in entries}
    for name, shape in expected.items():
        entry = entries[name]
        if entry.shape != shape:
            raise ValueError(
                f"{entry.file}: the tensor {name!r:.120} has the shape {list(entry.shape)}, and config.json "
                f"makes it {list(shape)}"
            )
        if not is_weight(entry):
            raise ValueError(
                f"{entry.file}: the tensor {name!r:.120} holds {entry.format} numbers; weights are read from "
                "F64, F32, F16 and BF16. Quantised models have to be turned into one of them first"
            )


@torch.no_grad()
def fill(model: nn.Module, entries: dict[str, TensorEntry], mapping: Mapping) -> None:
    """Copy the tensors of the files into the model, one by one, in the model's number format.

    Raises: ValueError if a copy differs from the tensor that it is a copy of.
    """
    state = model.state_dict()
    places = {
        name: place
        for move in mapping.moves
        for name, place in zip(move.theirs, move.places(state[move.ours]), strict=True)
    }
    copies = {copy: of for copy, of in mapping.copies if copy in entries}
    wanted = {name: entry for name, entry in entries.items() if name in places}
    for name, tensor in read_tensors(wanted):
        places[name].copy_(tensor)
    for name, tensor in read_tensors({name: entries[name] for name in copies}):
        if not torch.equal(tensor.to(places[copies[name]].dtype), places[copies[name]]):
            raise ValueError(
                f"{entries[name].file}: config.json ties {name!r:.80} to {copies[name]!r:.80}, and the two "
                "differ: set tie_word_embeddings to false in config.json to keep both"
            )


def export(model: nn.Module, mapping: Mapping) -> dict[str, Tensor]:
    """Return the model's tensors under their names there, in memory of their own, ready to be stored."""
    state = model.state_dict()
    unknown = set(state) - {move.ours for move in mapping.moves}
    assert not unknown, f"no move for {unknown}"
    tensors = {
        name: place.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for move in mapping.moves
        for name, place in zip(move.theirs, move.places(state[move.ours]), strict=True)
    }
    return tensors | {copy: tensors[of].clone() for copy, of in mapping.unread}


def qkv_move(ours: str, theirs: Iterable[str], *, num_heads: int, num_kv_heads: int, d_head: int) -> Move:
    """The move of a matrix (or of the biases) of queries, keys and values."""
    return Move(ours, tuple(theirs), rows=(num_heads * d_head, num_kv_heads * d_head, num_kv_heads * d_head))


def with_prefix(mapping: Mapping, old: str, new: str) -> Mapping:
    """The mapping with ``new`` in the place of ``old`` at the start of the names there."""

    def renamed(name: str) -> str:
        return new + name.removeprefix(old) if name.startswith(old) else name

    moves = tuple(
        Move(move.ours, tuple(map(renamed, move.theirs)), move.rows, move.transpose) for move in mapping.moves
    )
    copies = tuple((renamed(copy), renamed(of)) for copy, of in mapping.copies)
    return Mapping(moves=moves, copies=copies, unread=mapping.unread, passed_over=mapping.passed_over)


def _expected(mapping: Mapping, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    expected: dict[str, tuple[int, ...]] = {}
    for move in mapping.moves:
        parts = move.shapes(shapes[move.ours])
        assert sum(map(math.prod, parts)) == math.prod(shapes[move.ours]), move
        expected |= dict(zip(move.theirs, parts, strict=True))
    return expected


def _few(names: list[str]) -> str:
    """Name the first few, so that an error stays one line that can be printed."""
    shown = [f"{name:.100}" if name.isprintable() else f"{name!a:.100}" for name in names[:3]]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")
