"""Open a folder with an adapter as the model that it makes of its base."""

from dataclasses import replace
from pathlib import Path

from llm_from_scratch.finetuning.adapter_files import CONFIG, load_adapter, read_adapter_config
from llm_from_scratch.finetuning.lora import merge_lora
from llm_from_scratch.interop import Loaded


def is_adapter(folder: Path) -> bool:
    """Whether `finetuning.adapter_files.save_adapter`, or peft, has written the folder."""
    return (folder / CONFIG).is_file()


def open_adapter(folder: Path, which: str) -> tuple[Loaded, list[int]]:
    """Open the base that the folder names, and merge the adapter into it.

    The base is what `recipes.opening.open_any` understands; a path is looked for from where the command
    runs, then from the folder. ``which`` is the checkpoint of a base that is a run.
    Raises: FileNotFoundError if the base is not there; ValueError if none is named, the base is an adapter
    itself, or the two do not belong together.
    """
    from llm_from_scratch.recipes.opening import open_any  # late: it opens folders by this file

    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{folder} holds an adapter that names no base: write it by save_adapter(model, folder, "
            f"base=...), or set base_model_name_or_path in its {CONFIG}"
        )
    beside = folder / base
    source = str(beside) if beside.exists() and not Path(base).exists() else base
    if is_adapter(Path(source)):
        raise ValueError(f"{folder} names {base!r} as its base, which is an adapter itself: merge that one")
    try:
        loaded, start_ids = open_any(source, which=which)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the base of the adapter {folder} is not here: {error}") from None
    load_adapter(loaded.model, folder)
    merge_lora(loaded.model)
    return replace(loaded, model=loaded.model.eval()), start_ids
