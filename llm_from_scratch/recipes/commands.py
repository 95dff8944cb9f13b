"""The commands of pretraining at scale, `llm-scratch plan` and `llm-scratch data`.

They lie here because the command line itself must not load torch before it is asked to.
"""

from pathlib import Path
from typing import Annotated

import typer

from llm_from_scratch.data.prepare import Preparation, prepare
from llm_from_scratch.data.sources import Reading
from llm_from_scratch.recipes.choosing import chosen_recipe, parse_fields
from llm_from_scratch.recipes.planning import plan_recipe, plan_script
from llm_from_scratch.recipes.prepared import tokenizer_named
from llm_from_scratch.recipes.record import command_line
from llm_from_scratch.training.planning import report

PLAIN = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}

plan = typer.Typer(**PLAIN)
data = typer.Typer(**PLAIN, no_args_is_help=True, help="Turn texts into tokens to train on.")


@data.callback()
def _name_the_step() -> None:
    """Keep `prepare` a command of its own."""


@plan.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan_recipe_command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE [--FIELD VALUE]...", help="`llm-scratch recipes` lists both."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Devices, one process each.", show_default="the recipe's")
    ] = None,
    hardware: Annotated[
        str, typer.Option("--device", help="a100-40gb, a100, h100, h200, b200, l4, rtx4090 or cpu.")
    ] = "h100",
    strategy: Annotated[
        str | None, typer.Option(help="single, ddp, fsdp or tensor.", show_default="the recipe's")
    ] = None,
    recompute: Annotated[
        bool | None,
        typer.Option("--recompute/--no-recompute", help="As in train.", show_default="the recipe's"),
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(help="Assumed share of the peak, above 0 and at most 1.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="US dollars for a device and hour.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a Slurm script of the run instead.")] = False,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs of a machine, for --slurm.")] = 8,
) -> None:
    """Predict a recipe's memory, speed and cost. Nothing is run.

    For example: llm-scratch plan llama_8b_multinode --gpus 64 --device h100

    With --slurm: llm-scratch plan llama_8b_multinode --slurm > run.slurm
    """
    name, changes = parse_fields(arguments or [])
    recipe = chosen_recipe(name, changes, None)
    settings = {"strategy": strategy, "recompute": recompute, "mfu": mfu, "price": price}
    planned = plan_recipe(recipe, hardware, gpus=gpus, **settings)
    if slurm:
        typer.echo(plan_script(recipe, planned, per_node=gpus_per_node), nl=False)
    else:
        typer.echo(report(planned))


@data.command("prepare")
def prepare_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help=".jsonl, .parquet, .txt (.gz), folders, or hf:NAME."),
    ],
    tokenizer: Annotated[str, typer.Option(help="A tokenizer.json or its folder, gpt2, or a result's name.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    field: Annotated[str, typer.Option(help="The field or column that holds the text.")] = "text",
    subset: Annotated[str | None, typer.Option(help="Of a dataset of the hub: its configuration.")] = None,
    split: Annotated[str, typer.Option(help="Of a dataset of the hub.")] = "train",
    validation: Annotated[float, typer.Option(help="Share of the documents that validate.")] = 0.005,
    shard_tokens: Annotated[int, typer.Option(help="Tokens of a shard.")] = 100_000_000,
    end_of_text: Annotated[str, typer.Option(help="The token after each document.")] = "<|endoftext|>",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that encode.", show_default="one a core")
    ] = None,
) -> None:
    """Encode texts into shards of tokens, for `llm-scratch train RECIPE --data FOLDER`.

    For example: llm-scratch data prepare texts.jsonl --tokenizer laptop --out tokens

    The same command again continues one that was stopped; the result is the same.
    """
    settings = Preparation(
        shard_tokens=shard_tokens,
        validation=validation,
        end_of_text=end_of_text,
        reading=Reading(field=field, split=split, subset=subset),
    )
    index = prepare(
        sources,
        tokenizer=tokenizer_named(tokenizer),
        out=out,
        settings=settings,
        workers=workers,
        say=typer.echo,
    )
    for name, part in index["splits"].items():
        typer.echo(
            f"{name:10} {part['tokens']:,} tokens of {part['documents']:,} documents in "
            f"{len(part['shards'])} shards"
        )
    next_command = command_line("train", "gpt2_124m", "--data", str(out))
    typer.echo(f"Written to {out}. Next, for example:\n  {next_command}")
