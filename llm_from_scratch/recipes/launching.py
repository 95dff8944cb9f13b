"""How a command runs a recipe to its end, or to Ctrl-C; and the list of recipes that it may name."""

from collections.abc import Callable, Iterator

import typer

from llm_from_scratch.recipes import RECIPES, flat_fields, get
from llm_from_scratch.recipes.finetuning import FINETUNING, get_finetuning
from llm_from_scratch.recipes.recipe import num_parameters
from llm_from_scratch.training.strategy import Strategy


def launch(run: Callable[[], dict | None], strategy: Strategy, *, again: Callable[[], str]) -> dict:
    """Return the record that ``run`` gives, in the main process; the others end here.

    After Ctrl-C the main process prints the command that ``again`` gives, which continues the run, and ends.
    Raises: typer.Exit.
    """
    try:
        record = run()
        strategy.finish()
    except KeyboardInterrupt:  # before or after the steps, or a second Ctrl-C
        record = None
    if strategy.main and record is None:
        typer.echo(f"Stopped. Continue from what is saved with:\n  {again()}")
    if record is None or not strategy.main:
        raise typer.Exit(130 if record is None else 0)
    return record


def recipe_lines(name: str | None) -> Iterator[str]:
    """Yield a line for each recipe, of training and of fine-tuning, or for each field of the one named.

    Raises: ValueError if there is no such recipe.

    >>> next(line for line in recipe_lines("film_sentiment") if "method" in line).split()
    ['--method', 'full']
    """
    if name is not None:
        recipe = get_finetuning(name) if name in FINETUNING else get(name)
        for field, value in flat_fields(recipe).items():
            yield f"--{field.replace('_', '-'):22} {'none' if value is None else value}"
        return
    for recipe in map(get, RECIPES):
        size = f"{num_parameters(recipe):,} parameters, {recipe.training.steps:,} steps"
        yield f"{recipe.name:20} {size:41} {recipe.summary}"
    for recipe in map(get_finetuning, FINETUNING):
        size = f"finetune: {recipe.base}, {recipe.training.steps:,} steps"
        yield f"{recipe.name:20} {size:41} {recipe.summary}"
