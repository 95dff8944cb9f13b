"""Put the files of a model into a folder: all of them, or none.

A model is several files, and its config.json says how the others are read. Half of the old model's files
beside half of the new one's would load, and be neither. So everything is first written to a folder of its
own inside the target, where a full disk or Ctrl-C harms nothing. Then config.json is taken away, the files
change places, and the new config.json comes last. Whoever stops that finds a folder that does not load.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from llm_from_scratch.files import write_atomically
from llm_from_scratch.interop.hugging_face.tensor_files import INDEX, SINGLE

CONFIG = "config.json"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|" + re.escape(INDEX))
# What describes tokens or their ids, and would be read beside a new tokenizer.json.
_TOKENIZER = frozenset(
    [
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja", "spiece.model", "tokenizer.model",
        "generation_config.json",
    ]
)  # fmt: skip


def write_folder(
    folder: Path, config: str, tensors: Mapping[str, Tensor], max_shard_bytes: int, others: Mapping[str, str]
) -> None:
    """Write weights, the files ``others`` (name and content) and config.json, in the place of what was there.

    An earlier model's weights are removed, and, if ``others`` holds a tokenizer, what belonged to an
    earlier tokenizer. All other files stay.

    Raises: OSError if the disk is full (the folder is as it was); ValueError if a folder stands where a
    file should.
    """
    shards = _shards(tensors, max_shard_bytes)
    names = [*shards, *([INDEX] if len(shards) > 1 else []), *others]
    for name in (*names, CONFIG):
        if (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a folder, and a file has to be written there; move it away")
    staged = folder / f".saving.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        for name, content in _contents(shards, others):
            write_atomically(staged / name, content)
        write_atomically(staged / CONFIG, config)
        earlier = {path.name for path in folder.iterdir() if _WEIGHTS.fullmatch(path.name)}
        if "tokenizer.json" in others:
            earlier |= {name for name in _TOKENIZER if (folder / name).is_file()}
        (folder / CONFIG).unlink(missing_ok=True)
        for name in sorted(earlier.difference(names)):
            (folder / name).unlink(missing_ok=True)
        for name in (*names, CONFIG):
            os.replace(staged / name, folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _shards(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> dict[str, dict[str, Tensor]]:
    """The tensors by the file that they go to."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.nbytes > max_shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, start=1)}


def _contents(
    shards: Mapping[str, dict[str, Tensor]], others: Mapping[str, str]
) -> Iterator[tuple[str, bytes | str]]:
    """Name and content of each file but config.json, one after the other."""
    for name, shard in shards.items():
        yield name, safetensors.torch.save(shard, {"format": "pt"})
    if len(shards) > 1:
        places = {tensor: name for name, shard in shards.items() for tensor in shard}
        total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        yield INDEX, json.dumps(index, indent=2) + "\n"
    yield from others.items()
