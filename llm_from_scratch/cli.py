"""The command line: train, finetune, sample, classify, evaluate, serve, chat, export, grade.

Each command imports what it needs when it runs, so that `llm-scratch --help` answers at once. A
user's mistake ends in one line on stderr and exit code 2; Ctrl-C in exit code 130.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

TRACEBACK = "LLM_SCRATCH_TRACEBACK"  # set to anything: mistakes show their traceback
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="Train small language models, sample from them, measure them, and grade the book's exercises.",
    epilog="Begin with: llm-scratch train laptop",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[str, typer.Argument(help="A run's folder, or the name of a committed result such as laptop.")]
Which = Annotated[str, typer.Option(help="The checkpoint of the run: best or last.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


@app.command(context_settings=PASS_ON)
def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE [--FIELD VALUE]...", help="`llm-scratch recipes` lists both."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/RECIPE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in that folder.")] = False,
    strategy: Annotated[
        str, typer.Option(help="How processes share the work: single, ddp, fsdp or tensor (see below).")
    ] = "single",
    recompute: Annotated[bool, typer.Option("--recompute", help="Less memory, a third slower.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks, if possible.")] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="gathered or sharded.", show_default="by strategy")
    ] = None,
) -> None:
    """Train a recipe.

    For example: llm-scratch train laptop --steps 500 --out runs/short

    In several processes: torchrun --nproc-per-node 2 -m llm_from_scratch.cli train laptop --strategy fsdp.
    With --resume and torchrun's --max-restarts, a run survives the death of a process.

    Ctrl-C saves the run and prints the command that continues it.
    """
    with plain_errors():
        from llm_from_scratch.recipes.choosing import chosen_form, chosen_recipe, parse_fields
        from llm_from_scratch.recipes.fitting import check_fits
        from llm_from_scratch.recipes.launching import launch
        from llm_from_scratch.recipes.record import command_line, in_words
        from llm_from_scratch.recipes.run import train as run_recipe
        from llm_from_scratch.training.block_options import with_options
        from llm_from_scratch.training.distributed import open_strategy
        from llm_from_scratch.training.precision import choose_device

        name, changes = parse_fields(arguments or [])
        out = Path("runs") / name if out is None else out
        recipe = chosen_recipe(name, changes, out if resume else None)
        sharing = open_strategy(strategy, choose_device(recipe.training.device))
        check_fits(recipe, sharing, recompute=recompute)
        settings = {
            "say": typer.echo,
            "strategy": sharing,
            "prepare_model": with_options(compiled=compiled, recompute=recompute),
            "sharded": chosen_form(checkpoint),
        }
        record = launch(
            lambda: run_recipe(recipe, out=out, resume=resume, **settings),
            sharing,
            again=lambda: command_line("train", name, "--out", str(out), "--resume"),
        )
        typer.echo(in_words(record, out))


@app.command(context_settings=PASS_ON, add_help_option=False)
def finetune(context: typer.Context) -> None:
    """Adapt a published or own model to data: all of it, or adapters beside it."""
    _hand_over("finetune", context, "finetuning.commands")


@app.command(context_settings=PASS_ON, add_help_option=False)
def classify(context: typer.Context) -> None:
    """Name the class of texts with a fine-tuned classifier."""
    _hand_over("classify", context, "finetuning.commands")


@app.command(context_settings=PASS_ON, add_help_option=False)
def plan(context: typer.Context) -> None:
    """Predict a recipe's memory, speed and cost before it is run."""
    _hand_over("plan", context)


@app.command(context_settings=PASS_ON, add_help_option=False)
def data(context: typer.Context) -> None:
    """Turn texts into tokens to train on: data prepare."""
    _hand_over("data", context)


@app.command()
def sample(
    run: Run,
    prompt: Annotated[str, typer.Option(help="The text to continue; nothing begins a new one.")] = "",
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Keep the k most likely tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the most likely tokens up to this mass.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Keep tokens above this share of the best's.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to add at most.")] = 200,
    checkpoint: Which = "best",
    device: Device = "cpu",
) -> None:
    """Continue a prompt with a trained model.

    For example: llm-scratch sample laptop --prompt "Fellow citizens" --seed 1
    """
    with plain_errors():
        from rich.console import Console

        from llm_from_scratch.decoding import stream
        from llm_from_scratch.recipes.opening import open_trained
        from llm_from_scratch.recipes.text import as_text, first_ids
        from llm_from_scratch.serving.terminal import CONTROL_SIGNS
        from llm_from_scratch.training.precision import choose_device

        trained = open_trained(run, which=checkpoint, device=choose_device(device))
        ids, stop_ids = first_ids(trained.tokenizer, prompt)
        drawn = stream(
            trained.model,
            ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop_ids=stop_ids,
        )
        console = Console(highlight=False)
        console.out(prompt, end="", style="bold", highlight=False)
        for piece in as_text(trained.tokenizer, ids, drawn):
            console.out(piece.translate(CONTROL_SIGNS), end="", highlight=False)
        console.out("")


@app.command()
def evaluate(
    run: Run,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens from one window to the next.", show_default="the context length"),
    ] = None,
    checkpoint: Which = "best",
    device: Device = "cpu",
) -> None:
    """Score a model on its whole validation split, every token once."""
    with plain_errors():
        from llm_from_scratch.recipes.choosing import stored_recipe
        from llm_from_scratch.recipes.opening import open_trained
        from llm_from_scratch.recipes.run import score_split
        from llm_from_scratch.training.precision import choose_device

        trained = open_trained(run, which=checkpoint, device=choose_device(device))
        text = {name: stored_recipe(trained.config, run).get(name) for name in ("corpus", "data")}
        score = score_split(trained.model, trained.tokenizer, **text, stride=stride)
        typer.echo(f"{trained.origin}, on the validation split of {text['data'] or text['corpus']}")
        typer.echo(f"loss           {score.nats_per_token:.4f} nats a token")
        typer.echo(f"perplexity     {score.perplexity:.3f}")
        typer.echo(f"bits per byte  {score.bits_per_byte:.4f}")
        typer.echo(f"scored         {score.num_tokens:,} tokens, {score.num_bytes:,} bytes")


Weights = Annotated[str, typer.Option(help="fp32, or int8 or int4: smaller, faster, a little worse.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's folder, a committed result, a Hugging Face folder, a GGUF file, or smollm2.",
    ),
]


@app.command()
def serve(
    model: Source,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="LLM_SCRATCH_API_KEY", help="What clients must send.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients.", show_default="MODEL's last part")
    ] = None,
    context_length: Annotated[
        int, typer.Option(help="Tokens of prompt and answer, if the model reads so many.")
    ] = 2048,
    max_concurrent: Annotated[int, typer.Option(help="Answers written at once.")] = 8,
    max_queue: Annotated[int, typer.Option(help="Answers that may wait; more get status 429.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Tokens of one answer.")] = 2048,
    max_body_bytes: Annotated[int, typer.Option(help="Bytes of a request; more get status 413.")] = 2**18,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 300.0,
    grace: Annotated[float, typer.Option(help="Seconds for answers to end when stopped.")] = 20.0,
    weights: Weights = "fp32",
    checkpoint: Which = "best",
    device: Device = "cpu",
) -> None:
    """Answer requests in the shapes of the OpenAI API.

    For example: llm-scratch serve smollm2

    It gives /v1/chat/completions, /v1/completions, /v1/models and /health. Ctrl-C lets running answers end.
    """
    with plain_errors():
        from llm_from_scratch.recipes.opening import open_any
        from llm_from_scratch.serving import Limits, ServedModel, Service, is_loopback, open_socket
        from llm_from_scratch.training.precision import choose_device

        import_extra("serve", "fastapi", "uvicorn")
        opened = open_socket(host, port)
        if api_key is None and not is_loopback(host):
            typer.echo(f"warning: whoever reaches {host} can use this server; set --api-key", err=True)
        loaded, start_ids = open_any(model, which=checkpoint, device=choose_device(device), weights=weights)
        limits = Limits(
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            context_length=min(context_length, loaded.model.config.context_length),
            max_tokens=max_tokens,
            max_body_bytes=max_body_bytes,
            timeout=timeout,
            grace=grace,
            api_key=api_key,
        )
        served = ServedModel.from_loaded(name or Path(model).stem, loaded, start_ids)
        service = Service(served, limits, opened)
        service.run(lambda: typer.echo(f"Serving {served.name} at {service.address}/v1 (Ctrl-C stops)"))


@app.command()
def chat(
    model: Source = "smollm2",
    system: Annotated[str, typer.Option(help="An instruction that comes before the conversation.")] = "",
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token.")] = 0.7,
    top_p: Annotated[float | None, typer.Option(help="Keep the most likely tokens up to this mass.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answers.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of one answer.")] = 512,
    context_length: Annotated[
        int, typer.Option(help="Tokens of the conversation, if the model reads so many.")
    ] = 2048,
    weights: Weights = "fp32",
) -> None:
    """Talk to a model in the terminal, or through a pipe.

    For example: llm-scratch chat smollm2 --system "Answer in one sentence."

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.
    """
    with plain_errors():
        from llm_from_scratch.inference.fast_decoder import FastDecoder
        from llm_from_scratch.recipes.opening import open_any
        from llm_from_scratch.serving import Conversation, ServedModel, Terminal

        loaded, start_ids = open_any(model, weights=weights)
        served = ServedModel.from_loaded(Path(model).stem, loaded, start_ids)
        if loaded.chat_template is None:
            raise ValueError(
                f"{model} has no chat template: it continues texts. Use llm-scratch sample, or serve"
            )
        settings = {
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "top_p": top_p,
            "seed": seed,
        }
        length = min(context_length, loaded.model.config.context_length)
        terminal = Terminal(
            served,
            FastDecoder(loaded.model, compile="auto", room=length),
            length,
            talk=Conversation(system=system),
            settings={name: value for name, value in settings.items() if value is not None},
        )
        if sys.stdin.isatty():
            typer.echo(f"{served.name}: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
        terminal.run()


@app.command()
def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    checkpoint: Which = "best",
) -> None:
    """Write a trained model as a Hugging Face folder, which transformers, vLLM and SGLang read.

    For example: llm-scratch export laptop exported && vllm serve exported
    """
    with plain_errors():
        from llm_from_scratch.interop import save_folder
        from llm_from_scratch.recipes.opening import open_any
        from llm_from_scratch.recipes.record import command_line

        loaded, _ = open_any(run, which=checkpoint)
        save_folder(
            loaded.model,
            folder,
            loaded.tokenizer,
            chat_template=loaded.chat_template,
            special_tokens=loaded.special_tokens,
        )
        typer.echo(f"Written to {folder}. Next:\n  {command_line('serve', str(folder))}")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe's fields and their defaults.")] = None,
) -> None:
    """List the recipes with their sizes, or the fields of one."""
    with plain_errors():
        from llm_from_scratch.recipes.launching import recipe_lines

        for line in recipe_lines(name):
            typer.echo(line)


@app.command(context_settings=PASS_ON, add_help_option=False)
def grade(context: typer.Context) -> None:
    """Grade exercise notebooks, offline."""
    with plain_errors():
        from llm_from_scratch.grading.command import grade as grade_notebooks

        command = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        command.command()(grade_notebooks)
        command(args=context.args, prog_name="llm-scratch grade")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows would not take every character
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nStopped.", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader of a pipe has left
        raise
    except Exception as error:
        message = _as_message(error)
        if message is None or os.environ.get(TRACEBACK):
            raise
        typer.echo("error: " + " ".join(message.split()), err=True)
        raise typer.Exit(2) from None


def _hand_over(name: str, context: typer.Context, module: str = "commands") -> None:
    with plain_errors():
        commands = importlib.import_module(f"llm_from_scratch.recipes.{module}")
        getattr(commands, name)(args=context.args, prog_name=f"llm-scratch {name}")


def import_extra(extra: str, *names: str) -> None:
    """Import packages of an extra, or say how to install it. Raises: ValueError that says so."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f'{error}: this command needs an extra, pip install "llm-from-scratch[{extra}]"'
            ) from None


def _as_message(error: Exception) -> str | None:
    """Put an expected error into words; None for what is a fault of this program."""
    if isinstance(error, ModuleNotFoundError):
        return f'{error}: this command needs an extra, pip install "llm-from-scratch[book]"'
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: halve --batch-size and double --accumulate, which keeps each step the same"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) if isinstance(error, (ValueError, OSError, ArithmeticError)) else None


if __name__ == "__main__":
    app()
