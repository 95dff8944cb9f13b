"""The commands `llm-scratch finetune` and `llm-scratch classify`.

They lie here because the command line itself must not load torch before it is asked to.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer

from llm_from_scratch.finetuning.heads import TextClassifier
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.recipes.choosing import chosen_form, parse_fields
from llm_from_scratch.recipes.finetuning.base import Base
from llm_from_scratch.recipes.finetuning.lessons import encode_text
from llm_from_scratch.recipes.finetuning.opening import open_classifier, recipe_of
from llm_from_scratch.recipes.finetuning.recipe import CLASSIFY, CONTINUE, INSTRUCT, FinetuneRecipe
from llm_from_scratch.recipes.finetuning.recipes import FINETUNING, chosen
from llm_from_scratch.recipes.finetuning.run import ADAPTER
from llm_from_scratch.recipes.finetuning.run import finetune as run_recipe
from llm_from_scratch.recipes.launching import launch
from llm_from_scratch.recipes.record import command_for, command_line
from llm_from_scratch.serving.terminal import CONTROL_SIGNS
from llm_from_scratch.training.distributed import open_strategy
from llm_from_scratch.training.precision import choose_device

PLAIN = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
TOGETHER = 32  # lines of a file that are classified at a time

finetune = typer.Typer(**PLAIN)
classify = typer.Typer(**PLAIN)


@finetune.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Recipes: " + ", ".join(FINETUNING),
)
def finetune_command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE [--FIELD VALUE]...", help="`llm-scratch recipes` lists both."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/RECIPE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in that folder.")] = False,
    strategy: Annotated[str, typer.Option(help="As in train: single, ddp or fsdp.")] = "single",
    checkpoint: Annotated[
        str | None, typer.Option(help="gathered or sharded.", show_default="by strategy")
    ] = None,
) -> None:
    """Adapt a trained model to data: all of it, or adapters beside it (LoRA).

    For example: llm-scratch finetune sms_spam --data messages.csv --method lora --out runs/mine

    --base takes minilm, smollm2, a run's folder, a committed result, a Hugging Face folder or a GGUF file;
    --data a file: CSV or JSONL with text and label (film_sentiment, sms_spam), text (sotu_century), JSONL
    with messages, or with prompt and answer (smollm2_tasks), JSONL with prompt, chosen and rejected
    (smollm2_preferences).

    Ctrl-C saves the run and prints the command that continues it.
    """
    name, changes = parse_fields(arguments or [], "finetune")
    out = Path("runs") / name if out is None else out
    recipe = chosen(name, changes, out if resume else None)
    if strategy == "tensor":
        raise ValueError("strategy tensor divides the layers of a decoder that is whole: use ddp or fsdp")
    sharing = open_strategy(strategy, choose_device(recipe.training.device))
    settings = {"say": typer.echo, "strategy": sharing, "sharded": chosen_form(checkpoint)}
    record = launch(
        lambda: run_recipe(recipe, out=out, resume=resume, **settings),
        sharing,
        again=lambda: again(recipe, out),
    )
    typer.echo(in_words(recipe, record, out))


def again(recipe: FinetuneRecipe, out: Path) -> str:
    """Return the command that goes on; a run that has no folder yet is begun with all its fields."""
    if (out / "config.json").is_file():
        return command_line("finetune", recipe.name, "--out", str(out), "--resume")
    return command_for(recipe, "--out", str(out))


def in_words(recipe: FinetuneRecipe, record: dict, out: Path) -> str:
    """Say what a finished run changed and what comes next."""
    losses = record["losses"]
    unit = {CLASSIFY: "text", CONTINUE: "token", INSTRUCT: "token of an answer"}.get(recipe.task, "pair")
    lines = [
        f"{record['trained_parameters']:,} of {record['parameters']:,} parameters trained "
        f"({record['trained_share']:.2%}). Validation loss {losses['validation_before_training']:.4f} "
        f"before, {losses['validation_best']:.4f} at step {losses['best_step']:,}, nats a {unit}."
    ]
    shares = {
        "test_accuracy": "Test accuracy",
        "answers_exactly_right": "Answers exactly right",
        "pairs_told_apart": "Pairs told apart",
    }
    lines += [f"{words}: {losses[name]:.2%}." for name, words in shares.items() if name in losses]
    following = {
        CLASSIFY: ("classify", str(out), "a text"),
        CONTINUE: ("sample", str(out)),
    }.get(recipe.task, ("chat", str(out)))
    what = (
        f"The adapter lies in {out / ADAPTER}, the run in {out}."
        if recipe.method == "lora"
        else f"The model lies in {out}."
    )
    return "\n".join([*lines, f"{what} Next:\n  {command_line(*following)}"])


@classify.command()
def classify_command(
    run: Annotated[str, typer.Argument(metavar="FOLDER", help="A run of finetune that made a classifier.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="None: each line of the input is one.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="The checkpoint of the run: best or last.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
) -> None:
    """Name the class of texts, with its probability.

    For example: llm-scratch classify runs/sms_spam "You have won a prize, call now"
    """
    model, base, labels = open_classifier(run, checkpoint, device=choose_device(device))
    length = recipe_of(Path(run)).context_length
    lines: Iterable[str] = texts or (line.rstrip("\r\n") for line in sys.stdin)
    together = 1 if not texts and sys.stdin.isatty() else TOGETHER
    for part in _groups(lines, together):
        for text, (number, share) in zip(part, predicted(model, base, part, length), strict=True):
            typer.echo(f"{labels[number]}\t{share:.3f}\t{text.translate(CONTROL_SIGNS)}")


@torch.no_grad()
def predicted(
    model: TextClassifier, base: Base, texts: list[str], context_length: int
) -> list[tuple[int, float]]:
    """Return the most likely class of each text, and its probability.

    Raises: ValueError for a text without tokens.
    """
    ids = [torch.tensor(encode_text(base, text, context_length)) for text in texts]
    ids_BT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=base.pad_id)
    with evaluation_mode(model):
        shares_BK = model(ids_BT.to(next(model.parameters()).device)).float().softmax(dim=-1)
    most_B = shares_BK.max(dim=-1)
    return list(zip(most_B.indices.tolist(), most_B.values.tolist(), strict=True))


def _groups(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    source = iter(lines)
    while part := list(islice(source, size)):
        yield part
