"""Run a fine-tuning recipe: base, data, steps, and the report on what they changed."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from llm_from_scratch.data.loader import share_of
from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_files import save_adapter
from llm_from_scratch.finetuning.lora import TrainedCount, count_trained, lora_layers
from llm_from_scratch.recipes.finetuning.base import Base, open_base
from llm_from_scratch.recipes.finetuning.building import adapted, groups_of, in_training
from llm_from_scratch.recipes.finetuning.lesson import Lesson, spread
from llm_from_scratch.recipes.finetuning.lessons import lesson
from llm_from_scratch.recipes.finetuning.opening import rebuild
from llm_from_scratch.recipes.finetuning.recipe import PREFER, FinetuneRecipe
from llm_from_scratch.recipes.finetuning.scoring import measured
from llm_from_scratch.recipes.recipe import flat_fields
from llm_from_scratch.recipes.record import command_for, surroundings
from llm_from_scratch.recipes.run_parts import Stopwatch, shared_folder
from llm_from_scratch.training.checkpoint import has_checkpoint
from llm_from_scratch.training.precision import choose_device, choose_dtype
from llm_from_scratch.training.seeding import seed_everything
from llm_from_scratch.training.strategy import Strategy, check_optimizer
from llm_from_scratch.training.trainer import Trainer

ADAPTER = "adapter"  # the folder in a run's folder


def finetune(
    recipe: FinetuneRecipe,
    *,
    out: Path,
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    strategy: Strategy | None = None,
    sharded: bool | None = None,
) -> dict[str, object] | None:
    """Fine-tune in the folder ``out`` and return the record, or None if Ctrl-C ended the run early.

    The arguments are those of `recipes.run.train`.
    Raises: ValueError if the folder is in use or holds another run, for data or a base that cannot be used,
    and for choices that do not go together; FileNotFoundError for a base or data that are not there; OSError
    if the disk is full. A new run's folder is made only once its base and data have been read.
    """
    strategy = Strategy() if strategy is None else strategy
    say = say if strategy.main else None
    say_or_not = say or (lambda line: None)
    out, config = Path(out), {"finetune": {"name": recipe.name, **flat_fields(recipe)}}
    check_possible(recipe, strategy)
    begun = strategy.from_main((out / "config.json").is_file)
    start = None if begun else begin(recipe, strategy, say_or_not)
    with shared_folder(out, config=config, resume=resume, strategy=strategy) as folder:
        if strategy.from_main((folder / "record.json").is_file):
            say_or_not(f"{folder} is finished already: nothing to do")
            return json.loads((folder / "record.json").read_bytes())
        where = surroundings(choose_device(recipe.training.device))
        clock, resumed = Stopwatch(folder / "seconds.json", kept=strategy.main), has_checkpoint(folder)
        with clock("preparation"):
            start = begin(recipe, strategy, say_or_not) if start is None else start
            settings = {"strategy": strategy, "show_progress": say is not None, "sharded": sharded}
            trainer, counted = prepare(recipe, folder, config, start, say_or_not, **settings)
        with clock("training"):
            finished = trainer.fit()
        if not finished:
            return None
        say_or_not("Measuring the best checkpoint ...")
        about = {**where, "parameters": counted.total, "trained_parameters": counted.trained}
        about |= {"trained_share": round(counted.share, 6), "resumed": resumed}
        return strategy.from_main(lambda: finish_run(recipe, folder, trainer, start.lesson, clock, about))


def check_possible(recipe: FinetuneRecipe, strategy: Strategy) -> None:
    """Raise ValueError for what cannot run here, before anything is read or written."""
    recipe.check()
    share_of(recipe.training.batch_size, 0, strategy.shares)
    check_optimizer(recipe.training, strategy)
    choose_dtype(recipe.training.precision, choose_device(recipe.training.device))


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run begins with, before it has a folder."""

    base: Base
    lesson: Lesson
    model: nn.Module  # the base with what the recipe adds


def begin(recipe: FinetuneRecipe, strategy: Strategy, say: Callable[[str], None]) -> Start:
    """Open the base, read the data, build the model: the main process first, which fetches what is missing.

    Raises: in every process, what is wrong with them.
    """
    say(f"Opening {recipe.base} and reading {recipe.data} ...")
    made: list[Start] = []

    def make() -> None:
        base = open_base(recipe)
        data = lesson(recipe, base)
        seed_everything(recipe.training.seed)
        made.append(Start(base=base, lesson=data, model=adapted(recipe, base, num_classes=len(data.labels))))

    strategy.from_main(make)
    strategy.from_all(lambda: None if made else make())
    return made[0]


def prepare(
    recipe: FinetuneRecipe,
    folder: Path,
    config: dict[str, object],
    start: Start,
    say: Callable[[str], None],
    *,
    strategy: Strategy,
    show_progress: bool,
    sharded: bool | None,
) -> tuple[Trainer, TrainedCount]:
    """Do what is left before the first step, or before the next one of a resumed run."""
    training, base = recipe.training, start.base
    if strategy.main:
        start.base.tokenizer.save(folder / "tokenizer.json")
        about = {"base": base.to_dict(), "labels": list(start.lesson.labels)}
        about |= {"model": base.loaded.config.to_dict(), "training": asdict(training)}
        write_atomically(folder / "config.json", json.dumps({**config, **about}, indent=1) + "\n")
    counted = count_trained(start.model)
    model = in_training(recipe, start.model)
    trainer = Trainer(
        model,
        training,
        batches=start.lesson.batches,
        validation=spread(start.lesson.validation, training.eval_batches),
        folder=folder,
        show_progress=show_progress,
        strategy=strategy,
        sharded=sharded,
        groups=groups_of(recipe, model),
        patience=recipe.patience,
        trained_only=recipe.method != "full",
    )
    processes = "" if strategy.processes == 1 else f"in {strategy.processes} processes ({strategy.name}) "
    say(
        f"{counted.trained:,} of {counted.total:,} parameters are trained ({counted.share:.2%}); "
        f"{start.lesson}; {training.steps:,} steps on {trainer.device.type} {processes}"
        f"in {str(trainer.dtype).removeprefix('torch.')}"
    )
    if has_checkpoint(folder):
        trainer.resume()
        say(f"Resuming after step {trainer.step:,}")
    return trainer, counted


def finish_run(
    recipe: FinetuneRecipe,
    folder: Path,
    trainer: Trainer,
    data: Lesson,
    clock: Stopwatch,
    about: dict[str, object],
) -> dict[str, object]:
    """Measure the best checkpoint of a finished run; write its adapters, if it has any, and the record."""
    with clock("final evaluation"):
        model, base, _ = rebuild(folder, "best")
        model = model.to(trainer.device)
        alone = recipe.task != PREFER or recipe.method == "lora"
        reference = None if alone else open_base(recipe).loaded.model.to(trainer.device)
        module = in_training(recipe, model, reference=reference)
        losses = measured(recipe, module, data, trainer.log.read())
        if lora_layers(model):
            save_adapter(model, folder / ADAPTER, base=base.source)
    record = {
        "recipe": recipe.name,
        "command": command_for(recipe),
        **about,
        "strategy": trainer.strategy.name,
        "processes": trainer.strategy.processes,
        "base": recipe.base,
        "method": recipe.method,
        "data": data.counts,
        "steps": trainer.step,
        "targets_trained_on": trainer.tokens,
        "targets_per_second": round(trainer.tokens / max(trainer.seconds, 1e-9)),
        "seconds": {**clock.seconds, "total": round(sum(clock.seconds.values()), 1)},
        "losses": losses,
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1) + "\n")
    return record
