"""From a recipe to its plan, and to the script with which a cluster runs it."""

import shlex

from llm_from_scratch.recipes.recipe import Recipe
from llm_from_scratch.recipes.record import command_for, command_line
from llm_from_scratch.training.planning import Plan, device_named, make_plan, with_price
from llm_from_scratch.training.planning.plan import in_words
from llm_from_scratch.training.planning.slurm import slurm_script


def plan_recipe(
    recipe: Recipe,
    device: str,
    *,
    gpus: int | None = None,
    strategy: str | None = None,
    recompute: bool | None = None,
    mfu: float | None = None,
    price: float | None = None,
) -> Plan:
    """Predict a run of ``recipe``; what is None is taken from it.

    One process is always "single". Several take the recipe's strategy or, where that is "single", ddp.
    Raises: ValueError as `make_plan`, and for no devices.

    >>> from llm_from_scratch.recipes import get
    >>> plan_recipe(get("gpt2_124m"), "h100", gpus=4).strategy
    'ddp'
    """
    gpus = recipe.gpus if gpus is None else gpus
    if gpus < 1:
        raise ValueError(f"gpus must be 1 or more, got {gpus}")
    if strategy is None:
        usual = "ddp" if recipe.strategy == "single" else recipe.strategy
        strategy = "single" if gpus == 1 else usual
    return make_plan(
        recipe.name,
        recipe.model_config(recipe.expected_vocab_size()),
        recipe.training,
        with_price(device_named(device), price),
        devices=gpus,
        strategy=strategy,
        recompute=recipe.recompute if recompute is None else recompute,
        mfu=mfu,
    )


def plan_script(recipe: Recipe, plan: Plan, *, per_node: int = 8) -> str:
    """Return the Slurm script of a plan. Raises: ValueError if it does not fit, or fills no machine."""
    if not plan.fits:
        raise ValueError(
            f"{plan.footprint.total / 1e9:.1f} GB are predicted for each process, more than the usable part "
            f"of {plan.device.label}: no script for a run that would not begin. See the plan without --slurm"
        )
    arguments = [*shlex.split(command_for(recipe))[1:], "--strategy", plan.strategy]
    if plan.recompute:
        arguments.append("--recompute")
    cost = "" if plan.speed.cost is None else f", ${plan.speed.cost:,.0f}"
    return slurm_script(
        recipe.name,
        arguments,
        devices=plan.devices,
        per_node=per_node,
        hours=plan.speed.seconds / 3600,
        summary=f"Predicted: {in_words(plan.speed.seconds)}{cost} at an MFU of {plan.mfu:.0%}, "
        f"{plan.footprint.total / 1e9:.0f} GB in each process on {plan.device.label}",
        written_by=command_line("plan", recipe.name, "--slurm"),
    )
