"""What a recipe is: every choice of a run in one frozen dataclass, each of them changeable by name."""

import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import ClassVar, Literal

import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """From a corpus to a trained model. Subclasses give the values and build the model's config."""

    name: ClassVar[str]  # as typed after `llm-scratch train`
    summary: ClassVar[str]  # one line for `llm-scratch recipes`
    command: ClassVar[str] = "train"  # of `llm-scratch` that runs it

    gpus: ClassVar[int] = 1  # that the recipe is made for
    strategy: ClassVar[str] = "single"  # how they share the work
    recompute: ClassVar[bool] = False  # whether activations must be recomputed to fit

    corpus: Literal["sotu", "tiny_shakespeare"] | None  # a name that data.corpora knows; none: see data
    data: str | None = None  # folder of `llm-scratch data prepare`, which takes the place of the corpus
    tokenizer: Literal["byte_pair", "character"]
    vocab_size: int | None = None  # entries to train a byte-pair tokenizer to; none for characters
    context_length: int  # tokens
    training: TrainerConfig = field(default_factory=TrainerConfig)

    def model_config(self, vocab_size: int) -> DecoderConfig:
        """Return the model's configuration for a tokenizer of ``vocab_size`` entries."""
        raise NotImplementedError

    def expected_vocab_size(self) -> int:
        """Return the entries of the vocabulary before the corpus has been read."""
        return self.vocab_size or 65  # the characters of Tiny Shakespeare


def flat_fields(recipe: Recipe) -> dict[str, object]:
    """Return every field under one plain name, those of nested configurations included.

    Raises: TypeError if two fields share a name: then the command line could not tell them apart.

    >>> from llm_from_scratch.recipes import get
    >>> flat_fields(get("shakespeare_char"))["steps"]
    2000
    """
    flat: dict[str, object] = {}
    for part, _ in _parts(recipe):
        for item in fields(part):
            value = getattr(part, item.name)
            if is_dataclass(value):
                continue
            if item.name in flat:
                raise TypeError(f"{type(recipe).__name__} has two fields named {item.name}")
            flat[item.name] = value
    return flat


def with_changes(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """Return the recipe with some fields changed. Text is converted to each field's type.

    Raises: ValueError for an unknown field (with the nearest names) and for a value of the wrong
    type (with both).

    >>> from llm_from_scratch.recipes import get
    >>> with_changes(get("shakespeare_char"), {"steps": "50", "clip-norm": 2}).training.steps
    50
    >>> with_changes(get("shakespeare_char"), {"batchsize": "50"})
    Traceback (most recent call last):
    ValueError: recipe shakespeare_char has no field batchsize; did you mean batch_size or ...
    """
    changes = {name.replace("-", "_"): value for name, value in changes.items()}
    known = flat_fields(recipe)
    for name in changes:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(
                f"recipe {recipe.name} has no field {name}; {hint}"
                f"`llm-scratch recipes {recipe.name}` lists them all"
            )
    for part, path in _parts(recipe):
        hints = typing.get_type_hints(type(part))
        own = {
            item.name: convert(item.name, changes[item.name], hints[item.name])
            for item in fields(part)
            if item.name in changes
        }
        if own and path is None:
            recipe = replace(recipe, **own)
        elif own:
            recipe = replace(recipe, **{path: replace(part, **own)})
    return recipe


def convert(name: str, value: object, wanted: object) -> object:
    """Read ``value``, text or not, as the type that a field is annotated with.

    >>> convert("steps", "2000", int), convert("learning_rate", "3e-4", float)
    (2000, 0.0003)
    >>> convert("num_heads", "none", int | None) is None
    True
    >>> convert("steps", "many", int)
    Traceback (most recent call last):
    ValueError: steps takes a whole number, got 'many'
    """
    options = typing.get_args(wanted) if _is_union(wanted) else (wanted,)
    for option in sorted(options, key=lambda option: option is not type(None)):  # text would read none too
        found, result = _read_as(value, option)
        if found:
            return result
    raise ValueError(f"{name} takes {' or '.join(_in_words(option) for option in options)}, got {value!r}")


def _parts(recipe: Recipe) -> list[tuple[object, str | None]]:
    """Return the recipe itself, and each nested configuration with the field that holds it."""
    nested = [(getattr(recipe, item.name), item.name) for item in fields(recipe)]
    return [(recipe, None), *((part, path) for part, path in nested if is_dataclass(part))]


def _is_union(wanted: object) -> bool:
    return isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union


def _read_as(value: object, wanted: object) -> tuple[bool, object]:
    """Return whether ``value`` can be read as the type, and what it then is."""
    text = value.strip() if isinstance(value, str) else None
    if typing.get_origin(wanted) is Literal:
        return value in typing.get_args(wanted), value
    if wanted is type(None):
        return value is None or (text is not None and text.lower() == "none"), None
    if wanted is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text is not None:
            return text.lower() in truth, truth.get(text.lower())
        return isinstance(value, bool), value
    if wanted in (int, float) and not isinstance(value, bool):
        try:
            if text is not None or isinstance(value, wanted) or (wanted is float and isinstance(value, int)):
                return True, wanted(value)
        except ValueError:
            pass
        return False, None
    return wanted is str and text is not None, value


def _in_words(wanted: object) -> str:
    """Name a type as a reader would."""
    if typing.get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(wanted)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return words[wanted]


def num_parameters(recipe: Recipe) -> int:
    """Count the trained numbers of the recipe's model without making them."""
    with torch.device("meta"):
        return Decoder(recipe.model_config(recipe.expected_vocab_size())).num_parameters()
