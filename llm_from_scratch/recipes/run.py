"""Run a recipe from its corpus to a trained, measured and recorded model."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from llm_from_scratch.data.corpora import load
from llm_from_scratch.data.loader import BatchLoader, share_of
from llm_from_scratch.data.shard_loader import ShardLoader
from llm_from_scratch.data.shards import open_folder
from llm_from_scratch.evaluation import TextScore, evaluate
from llm_from_scratch.files import write_atomically
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.recipes.prepared import first_validation_tokens, open_prepared, scored_folder
from llm_from_scratch.recipes.recipe import Recipe, flat_fields
from llm_from_scratch.recipes.record import command_for, surroundings
from llm_from_scratch.recipes.run_parts import Stopwatch, shared_folder
from llm_from_scratch.recipes.text import encode, open_tokenizer, scored_split
from llm_from_scratch.training.checkpoint import has_checkpoint, load_run
from llm_from_scratch.training.precision import choose_device, choose_dtype
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.strategy import Strategy, check_optimizer
from llm_from_scratch.training.trainer import Batches, Trainer
from llm_from_scratch.training.validation import validation_batches

SMALLEST_BYTE_PAIR = 257  # entries: the bytes and one special token


def train(
    recipe: Recipe,
    *,
    out: Path,
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    strategy: Strategy | None = None,
    prepare_model: Callable[[Decoder], object] = lambda model: None,
    sharded: bool | None = None,
) -> dict[str, object] | None:
    """Train ``recipe`` in the folder ``out`` and return its record, or None if Ctrl-C ended it early.

    ``say`` takes lines that tell how far the run is (None: nothing is shown). ``strategy`` shares the
    work among processes, each of which calls this with the same arguments. ``prepare_model`` changes how
    the new model computes (`training.block_options`). ``sharded`` says how checkpoints are written (see
    `Trainer`). None of them is part of the run's configuration: the steps are the same, so a run may be
    resumed with another.
    Raises: ValueError if the folder is in use, or holds another run; OSError if the disk is full.
    """
    strategy = Strategy() if strategy is None else strategy
    say = say if strategy.main else None
    say_or_not = say or (lambda line: None)
    fields = {name: value for name, value in flat_fields(recipe).items() if (name, value) != ("data", None)}
    config = {"recipe": {"name": recipe.name, **fields}}
    if not (Path(out) / "record.json").is_file():
        check_possible(recipe, strategy)
    with shared_folder(out, config=config, resume=resume, strategy=strategy) as folder:
        finished = strategy.from_main((folder / "record.json").is_file)
        if finished:
            say_or_not(f"{folder} is finished already: nothing to do")
            return json.loads((folder / "record.json").read_bytes())
        where = surroundings(choose_device(recipe.training.device))  # now: the code may change meanwhile
        clock = Stopwatch(folder / "seconds.json", kept=strategy.main)
        resumed = has_checkpoint(folder)
        trainer = prepare(
            recipe,
            folder,
            config,
            clock,
            say_or_not,
            show_progress=say is not None,
            strategy=strategy,
            prepare_model=prepare_model,
            sharded=sharded,
        )
        with clock("training"):
            finished = trainer.fit()
        if not finished:
            return None
        say_or_not("Scoring the whole validation split with the best checkpoint ...")
        return strategy.from_main(lambda: finish_run(recipe, folder, trainer, clock, where, resumed))


def finish_run(
    recipe: Recipe,
    folder: Path,
    trainer: Trainer,
    clock: Stopwatch,
    where: dict[str, object],
    resumed: bool,
) -> dict[str, object]:
    """Score the best checkpoint of a finished run on the whole validation split; store the record."""
    with clock("final evaluation"):
        model, tokenizer, _ = load_run(folder, "best")
        score = score_split(model.to(trainer.device), tokenizer, recipe.corpus, data=recipe.data)
    record = {
        "recipe": recipe.name,
        "command": command_for(recipe),
        **where,
        "strategy": trainer.strategy.name,
        "processes": trainer.strategy.processes,
        "parameters": model.num_parameters(),
        "steps": trainer.step,
        "resumed": resumed,  # then the seconds may lack those of a process that was killed
        "tokens_trained_on": trainer.tokens,
        "tokens_per_second": round(trainer.tokens / trainer.seconds),
        "seconds": {**clock.seconds, "total": round(sum(clock.seconds.values()), 1)},
        "losses": losses(trainer.log.read(), score),
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record


def check_possible(recipe: Recipe, strategy: Strategy) -> None:
    """Raise ValueError for what cannot run here, before anything is written to the run's folder."""
    if recipe.data is not None:
        open_folder(recipe.data)
    elif recipe.corpus is None:
        raise ValueError(
            f"recipe {recipe.name} trains on prepared tokens: `llm-scratch data prepare SOURCE --tokenizer "
            f"gpt2 --out FOLDER`, then `llm-scratch train {recipe.name} --data FOLDER`"
        )
    if recipe.tokenizer == "byte_pair" and (recipe.vocab_size or 0) < SMALLEST_BYTE_PAIR:
        raise ValueError(
            f"vocab_size must be at least {SMALLEST_BYTE_PAIR} for byte_pair (256 bytes and the end of a "
            f"text), got {recipe.vocab_size}"
        )
    share_of(recipe.training.batch_size, 0, strategy.shares)
    check_optimizer(recipe.training, strategy)
    choose_dtype(recipe.training.precision, choose_device(recipe.training.device))
    recipe.model_config(recipe.expected_vocab_size())


def prepare(
    recipe: Recipe,
    folder: Path,
    config: dict,
    clock: Stopwatch,
    say: Callable[[str], None],
    *,
    show_progress: bool,
    strategy: Strategy,
    prepare_model: Callable[[Decoder], object],
    sharded: bool | None,
) -> Trainer:
    """Do everything that comes before the first step, or before the next one of a resumed run."""
    training = recipe.training
    sizes = {"context_length": recipe.context_length, "batch_size": training.batch_size}
    read = prepared_tokens if recipe.data is not None else corpus_tokens
    tokenizer, batches, validation_tokens = read(recipe, folder, clock, say, strategy, sizes)
    model_config = recipe.model_config(tokenizer.vocab_size)
    stored = {**config, "model": model_config.to_dict(), "training": asdict(recipe.training)}
    if strategy.main:
        write_atomically(folder / "config.json", json.dumps(stored, indent=1) + "\n")
    seed_everything(training.seed)
    model = Decoder(model_config)
    prepare_model(model)
    trainer = Trainer(
        model,
        training,
        batches=batches,
        validation=validation_batches(validation_tokens, **sizes, count=training.eval_batches),
        folder=folder,
        show_progress=show_progress,
        strategy=strategy,
        sharded=sharded,
    )
    say(
        f"{model.num_parameters():,} parameters, {tokenizer.vocab_size:,} tokens in the vocabulary, "
        f"{len(batches.tokens):,} to train on; {training.steps:,} steps on {trainer.device.type} "
        f"{'' if strategy.processes == 1 else f'in {strategy.processes} processes ({strategy.name}) '}"
        f"in {str(trainer.dtype).removeprefix('torch.')}"
    )
    if has_checkpoint(folder):
        trainer.resume()
        say(f"Resuming after step {trainer.step:,}")
    return trainer


def corpus_tokens(
    recipe: Recipe,
    folder: Path,
    clock: Stopwatch,
    say: Callable[[str], None],
    strategy: Strategy,
    sizes: dict[str, int],
) -> tuple[object, Batches, np.ndarray]:
    """Encode the recipe's corpus: its tokenizer, the batches to train on, the validation tokens."""
    with strategy.main_first():  # the others find the corpus and the tokenizer on the disk
        with clock("corpus"):
            corpus = load(recipe.corpus)
            train_split, validation_split = corpus.split()
        say(f"{recipe.corpus}: {len(train_split.text):,} characters to train on. Tokenizer ...")
        with clock("tokenizer"):
            tokenizer = open_tokenizer(recipe, corpus, folder / "tokenizer.json")
    with clock("encoding"):
        train_tokens, validation_tokens = encode(tokenizer, train_split), encode(tokenizer, validation_split)
    return tokenizer, BatchLoader(train_tokens, **sizes, seed=recipe.training.seed), validation_tokens


def prepared_tokens(
    recipe: Recipe,
    folder: Path,
    clock: Stopwatch,
    say: Callable[[str], None],
    strategy: Strategy,
    sizes: dict[str, int],
) -> tuple[object, Batches, np.ndarray]:
    """Open the recipe's folder of tokens, which the main process checks: as `corpus_tokens`.

    Of the validation split, as many tokens are taken as the evaluations during the run read.
    """
    say(f"{recipe.data}: comparing every shard with its sha256 ...")
    with strategy.main_first(), clock("data"):
        tokenizer, data = open_prepared(recipe.data, folder / "tokenizer.json", verify=strategy.main)
    batches = ShardLoader(
        data.tokens("train"), **sizes, seed=recipe.training.seed, fingerprint=data.fingerprint
    )
    read = sizes["context_length"] * sizes["batch_size"] * recipe.training.eval_batches + 1
    return tokenizer, batches, first_validation_tokens(data, read)


def score_split(
    model: Decoder,
    tokenizer: object,
    corpus: str | None,
    *,
    stride: int | None = None,
    data: str | None = None,
) -> TextScore:
    """Score the whole validation split of a corpus or of a folder of ``data``, every token once.

    ``stride`` is the distance of one window to the next in tokens; by default the context length, so
    that windows do not overlap: the way the loss is measured during training.
    """
    split = scored_split(tokenizer, corpus) if data is None else scored_folder(data)
    return evaluate(
        model,
        split.tokens,
        num_bytes=split.num_bytes,
        start_id=split.start_id,
        stride=model.config.context_length if stride is None else stride,
    )


def losses(records: list[dict], score: TextScore) -> dict[str, float | int]:
    """Return the losses that a record names, in nats a token unless the name says otherwise."""
    measured = [record for record in records if "val_loss" in record]
    best = min(measured, key=lambda record: record["val_loss"])
    return {
        "validation_before_training": round(measured[0]["val_loss"], 4),
        "validation_best_windows": round(best["val_loss"], 4),
        "best_step": best["step"],
        "validation_whole_split": round(score.nats_per_token, 4),
        "perplexity": round(score.perplexity, 3),
        "bits_per_byte": round(score.bits_per_byte, 4),
        "tokens_scored": score.num_tokens,
    }
