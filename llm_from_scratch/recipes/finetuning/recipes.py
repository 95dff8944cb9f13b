"""The fine-tuning recipes by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from llm_from_scratch.recipes import RECIPES, with_changes
from llm_from_scratch.recipes.finetuning.recipe import (
    MINILM,
    Classify,
    Continue,
    FinetuneRecipe,
    Instruct,
    Prefer,
    small_steps,
)
from llm_from_scratch.training.checkpoint import read_config
from llm_from_scratch.training.config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class FilmSentiment(Classify):
    """Three epochs of sentences from film reviews."""

    name: ClassVar[str] = "film_sentiment"
    summary: ClassVar[str] = "is a sentence of a film review positive or negative?"

    base: str = MINILM
    data: str = "film_sentiment"
    method: Literal["full", "lora", "head"] = "full"
    context_length: int = 96  # tokens
    training: TrainerConfig = field(
        default_factory=partial(small_steps, steps=660, batch_size=32, learning_rate=1e-4, eval_every=110)
    )


@dataclass(frozen=True, kw_only=True)
class SmsSpam(Classify):
    """Three epochs of text messages."""

    name: ClassVar[str] = "sms_spam"
    summary: ClassVar[str] = "is a text message wanted or spam?"

    base: str = MINILM
    data: str = "sms_spam"
    method: Literal["full", "lora", "head"] = "full"
    context_length: int = 96  # tokens
    training: TrainerConfig = field(
        default_factory=partial(small_steps, steps=345, batch_size=32, learning_rate=1e-4, eval_every=69)
    )


@dataclass(frozen=True, kw_only=True)
class SotuCentury(Continue):
    """The committed model of two centuries of messages goes on with those since 1946 alone."""

    name: ClassVar[str] = "sotu_century"
    summary: ClassVar[str] = "the messages since 1946 alone, or a text file of your own"

    base: str = "laptop"
    data: str = "sotu"
    method: Literal["full", "lora", "head"] = "full"
    first_year: int | None = 1946
    last_year: int | None = None
    context_length: int = 128  # tokens
    training: TrainerConfig = field(
        default_factory=partial(small_steps, steps=400, batch_size=8, learning_rate=1e-3, eval_every=50)
    )


@dataclass(frozen=True, kw_only=True)
class SmolLM2Tasks(Instruct):
    """Short tasks with one right answer, and dialogue."""

    name: ClassVar[str] = "smollm2_tasks"
    summary: ClassVar[str] = "answer generated tasks, or conversations of your own"

    base: str = "smollm2"
    data: str = "tasks"
    method: Literal["full", "lora", "head"] = "lora"
    context_length: int = 128  # tokens
    training: TrainerConfig = field(
        default_factory=partial(small_steps, steps=200, batch_size=8, learning_rate=5e-4, eval_every=50)
    )


@dataclass(frozen=True, kw_only=True)
class SmolLM2Preferences(Prefer):
    """Pairs of answers of which the preferred one is known."""

    name: ClassVar[str] = "smollm2_preferences"
    summary: ClassVar[str] = "prefer the better of two answers (DPO), generated or your own"

    base: str = "smollm2"
    data: str = "preferences"
    method: Literal["full", "lora", "head"] = "lora"
    context_length: int = 128  # tokens
    training: TrainerConfig = field(
        default_factory=partial(small_steps, steps=100, batch_size=4, learning_rate=1e-4, eval_every=25)
    )


FINETUNING: dict[str, type[FinetuneRecipe]] = {
    recipe.name: recipe for recipe in (FilmSentiment, SmsSpam, SotuCentury, SmolLM2Tasks, SmolLM2Preferences)
}


def get_finetuning(name: str) -> FinetuneRecipe:
    """Return the fine-tuning recipe called ``name``. Raises: ValueError naming those there are.

    >>> get_finetuning("film_sentiment").base
    'minilm'
    """
    if name in RECIPES:
        raise ValueError(f"{name} is a recipe of `llm-scratch train`; finetune has {', '.join(FINETUNING)}")
    if name not in FINETUNING:
        near = get_close_matches(name, FINETUNING, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"there is no fine-tuning recipe {name!r}; {hint}The recipes are {', '.join(FINETUNING)}"
        )
    return FINETUNING[name]()


def chosen(name: str, changes: Mapping[str, str], resumed: Path | None) -> FinetuneRecipe:
    """Return the recipe with its changes; a resumed run brings the fields that it was begun with.

    Another method brings its own learning rate, unless one is given.
    Raises: ValueError for an unknown recipe or field, a value of the wrong type, and another recipe's run.

    >>> chosen("film_sentiment", {"method": "lora"}, None).training.learning_rate
    0.001
    """
    recipe = get_finetuning(name)
    if resumed is not None and (resumed / "config.json").is_file():
        stored = dict(stored_finetuning(read_config(resumed), resumed))
        begun_with = stored.pop("name")
        if begun_with != name:
            raise ValueError(
                f"{resumed} holds a run of recipe {begun_with}, not {name}; choose another --out"
            )
        return with_changes(with_changes(recipe, stored), changes)
    usual = recipe.method
    recipe = with_changes(recipe, changes)
    if recipe.method != usual and "learning_rate" not in changes and recipe.method in recipe.rates:
        recipe = with_changes(recipe, {"learning_rate": recipe.rates[recipe.method]})
    return recipe


def stored_finetuning(config: dict, run: Path | str) -> dict:
    """Return the recipe's section of a fine-tuned run. Raises: ValueError if there is none."""
    section = config.get("finetune")
    if not isinstance(section, dict) or section.get("name") not in FINETUNING:
        raise ValueError(
            f"{Path(run) / 'config.json'} is not that of a run of `llm-scratch finetune`, or damaged"
        )
    return section
