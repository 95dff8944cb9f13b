"""From the words after `llm-scratch train` or `finetune` to a recipe."""

from pathlib import Path

from llm_from_scratch.recipes import Recipe, get, with_changes
from llm_from_scratch.training.checkpoint import read_config


def parse_fields(arguments: list[str], command: str = "train") -> tuple[str, dict[str, str]]:
    """Part what follows the ``command`` into the recipe's name and the fields to change.

    >>> parse_fields(["laptop", "--depth", "6", "--clip-norm=2"])
    ('laptop', {'depth': '6', 'clip_norm': '2'})
    """
    names: list[str] = []
    changes: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            names.append(argument)
            continue
        field, equals, value = argument[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"--{field} needs a value: --{field} VALUE")
        changes[field.replace("-", "_")] = value
    if len(names) != 1:
        found = f"got {', '.join(names)}" if names else "got none"
        raise ValueError(f"{command} takes the name of one recipe, {found}; `llm-scratch recipes` lists them")
    return names[0], changes


def stored_recipe(config: dict, run: Path | str) -> dict:
    """Return the recipe's section of a run's configuration. Raises: ValueError if it is damaged."""
    if "finetune" in config:
        raise ValueError(
            f"{run} holds a run of `llm-scratch finetune {config['finetune'].get('name', 'RECIPE')}`; its "
            "record.json says how the model scored, and finetune --resume continues it"
        )
    section = config.get("recipe")
    if not isinstance(section, dict) or not {"name", "corpus"} <= section.keys():
        raise ValueError(f"{Path(run) / 'config.json'} is damaged: it names no recipe and corpus")
    return section


def chosen_recipe(name: str, changes: dict[str, str], resumed: Path | None) -> Recipe:
    """Return the recipe with its changes; a resumed run brings the fields that it was begun with."""
    recipe = get(name)
    if resumed is not None and (resumed / "config.json").is_file():
        stored = dict(stored_recipe(read_config(resumed), resumed))
        begun_with = stored.pop("name", None)
        if begun_with != name:
            raise ValueError(
                f"{resumed} holds a run of recipe {begun_with}, not {name}; choose another --out"
            )
        recipe = with_changes(recipe, stored)
    return with_changes(recipe, changes)


def chosen_form(checkpoint: str | None) -> bool | None:
    """Say whether checkpoints are to be sharded; None leaves it to the strategy.

    Gathered: one process writes everything. Sharded: each process writes what it holds.

    >>> chosen_form("sharded"), chosen_form(None)
    (True, None)
    """
    if checkpoint not in (None, "gathered", "sharded"):
        raise ValueError(f'--checkpoint must be gathered or sharded, got "{checkpoint}"')
    return None if checkpoint is None else checkpoint == "sharded"
