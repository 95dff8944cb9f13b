"""What a family of models has to say so that its folders can be read and written."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from llm_from_scratch.interop.hugging_face.json_files import Fields
from llm_from_scratch.interop.hugging_face.weights import Mapping

# The largest sizes that are believed, so that shapes can be computed before anything is allocated. The
# tensors in the files must then have them.
MAX_VOCABULARY = 1 << 24  # entries
MAX_WIDTH = 1 << 20  # columns, also of a hidden layer
MAX_HEADS = 1 << 13
MAX_TOKENS = 1 << 40  # window or context without a table
MAX_LAYERS = 1 << 13
MAX_TABLE_BYTES = 1 << 27  # of cosines and sines: 262,144 tokens at a head width of 128


@dataclass(frozen=True, kw_only=True)
class Family:
    """One file of this package each: GPT-2, Llama and its relatives, BERT, T5.

    ``read_config(fields, names, context_length)`` gets the fields of config.json, the names of the
    tensors and the caller's limit of tokens, and returns our config. ``write_config(config)`` gives the
    fields back. ``mapping(config, names)`` says where the weights stand; without names, as
    transformers writes them.
    """

    model_types: tuple[str, ...]  # what config.json may call it
    read_config: Callable[[Fields, Collection[str], int | None], Any]
    write_config: Callable[[Any], dict[str, Any]]
    mapping: Callable[[Any, Collection[str]], Mapping]
    build: Callable[[Any], nn.Module]


def context(
    fields: Fields,
    name: str,
    context_length: int | None,
    d_head: int,
    reach: Callable[[int], int] = lambda longest: longest,
) -> int:
    """The number of positions to make a table of cosines and sines for.

    ``context_length`` is the caller's own limit; ``reach`` gives the most that it may be, from the length
    that config.json names, which is taken if the caller names none. Nothing in the files bears out that
    length, hence the bound on the table.
    """
    longest = fields.size(name, MAX_TOKENS)
    if context_length is not None:
        if not 1 <= context_length <= reach(longest):
            raise ValueError(
                f"context_length={context_length} must lie between 1 and the model's {reach(longest)} tokens"
            )
        longest = context_length
    limit = MAX_TABLE_BYTES // (4 * max(1, d_head))
    if longest > limit:
        raise fields.wrong(
            name,
            f"is {longest}; a table of positions for heads {d_head} wide is made for {limit} tokens at most. "
            f"load_folder(..., context_length={limit}) loads the model for shorter texts",
        )
    return longest
