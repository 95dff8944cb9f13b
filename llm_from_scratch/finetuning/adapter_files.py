"""Adapters as files in `peft`'s format: a few hundred kilobytes beside a base of hundreds of megabytes.

    adapter_config.json          rank, alpha, which layers, and the base's name
    adapter_model.safetensors    A and B of each layer, under the names of Hugging Face's models
    trained_modules.safetensors  parameters trained beside them, such as a head, under our names; peft passes
                                 over this file

The base itself is not in them. Its fingerprint is, among the metadata of adapter_model.safetensors.
"""

import json
import math
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from llm_from_scratch.files import write_atomically
from llm_from_scratch.finetuning.adapter_names import (
    Stored,
    bare,
    body_of,
    settings_of,
    short_names,
    stored_updates,
    their_rows,
)
from llm_from_scratch.finetuning.lora import LoraConfig, attach, check_plain, lora_layers, some_layers
from llm_from_scratch.finetuning.lora_targets import Target
from llm_from_scratch.interop.hugging_face.json_files import read_json
from llm_from_scratch.interop.hugging_face.tensor_files import is_weight, read_header, read_tensors
from llm_from_scratch.training.fingerprint import fingerprint
from llm_from_scratch.training.weights import trained_names

CONFIG, TENSORS, OTHERS = "adapter_config.json", "adapter_model.safetensors", "trained_modules.safetensors"
TASKS = {"Decoder": "CAUSAL_LM", "Encoder": "FEATURE_EXTRACTION", "EncoderDecoder": "SEQ_2_SEQ_LM"}
START = "base_model.model."  # of every name in peft's files
# Fields that change nothing about what A and B add, or that are read here. Others must be empty.
HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
CHANGE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")  # beginnings that also change the base


def save_adapter(model: nn.Module, folder: str | os.PathLike[str], *, base: str | None = None) -> None:
    """Write the adapters of ``model``, and what was trained beside them, into ``folder``.

    ``base`` names the model that they belong to, as `recipes.opening.open_any` understands it ("smollm2", a
    folder, a file), or as Hugging Face's hub does; peft reads it too.
    Raises: ValueError if the model has no adapter, or they are merged; OSError if the disk is full, which
    leaves an earlier adapter as it was.
    """
    layers = some_layers(model)
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the adapters are merged into the weights: call unmerge_lora(model) first")
    parts = [part for layer in layers.values() for part in layer.parts.values()]
    updates = stored_updates(model)
    kinds = {part.config.rank_stabilised for part in parts}
    body = body_of(model)
    fields = {
        "peft_type": "LORA",
        "task_type": TASKS.get(type(model).__name__),
        "base_model_name_or_path": base,
        **settings_of(updates, stabilised=kinds == {True}),
        "lora_dropout": max(one.dropout for one in updates.values()),
        "target_modules": short_names(list(updates), list(their_rows(model))),
        "fan_in_fan_out": body is not None and any(name.endswith("c_attn") for name in their_rows(model)),
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    tensors = {}
    for name, one in updates.items():
        tensors[f"{START}{name}.lora_A.weight"], tensors[f"{START}{name}.lora_B.weight"] = one.A, one.B
    others = _others(model)
    metadata = {"format": "pt", "base_fingerprint": base_fingerprint(model, without=others)}
    files = {TENSORS: safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()}, metadata)}
    if others:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in others.items()}
        files[OTHERS] = safetensors.torch.save(state, {"format": "pt"})
    _write(Path(folder), json.dumps(fields, indent=2) + "\n", files)


def load_adapter(model: nn.Module, folder: str | os.PathLike[str], *, any_base: bool = False) -> list[str]:
    """Put the adapters of a folder, ours or one of `peft`'s, beside the layers of ``model``, in place.

    They are trainable then, everything else is frozen but the modules that were trained with them. Returns
    the layers' names in the file. ``any_base`` allows a base with another fingerprint than the one that they
    were trained beside, such as the same model in other numbers; files of peft hold none.
    Raises: FileNotFoundError; ValueError that names the file and what does not fit. The model is unchanged
    then.
    """
    folder = Path(folder)
    check_plain(model)
    fields = read_adapter_config(folder)
    updates, copies, metadata = _read_updates(folder, fields)
    others = _read_others(folder, model)
    stored = metadata.get("base_fingerprint")
    if stored is not None and not any_base and stored != base_fingerprint(model, without=others):
        named = fields.get("base_model_name_or_path")
        raise ValueError(
            f"{folder} was trained beside another base{f', {named!r:.80}' if named else ''}: open that one, "
            "or pass any_base=True if this is the same model in other numbers"
        )
    places = _places(model, updates, folder)
    for name, tensor in copies.items():
        if name not in places or not torch.equal(model.get_submodule(places[name].layer).weight, tensor):
            raise ValueError(
                f"{folder} holds a copy of {name!r:.120}, which differs from this model's: take its own base"
            )
    attach(model, [(places[name], _config(places[name], one, fields)) for name, one in updates.items()])
    layers, state = lora_layers(model), dict(model.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, one in updates.items():
            part = layers[places[name].layer].parts[places[name].part]
            part.A.copy_(one.A)
            part.B.copy_(one.B)
        for name, tensor in others.items():
            state[name].copy_(tensor)
            state[name].requires_grad_(isinstance(state[name], nn.Parameter))
    return list(updates)


def read_adapter_config(folder: Path) -> dict[str, object]:
    """The fields of adapter_config.json. Raises: ValueError for what is no LoRA, or more than LoRA."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {CONFIG} in {folder}; save_adapter, or peft, writes such a folder"
        )
    fields = read_json(path)
    wrong = {name: value for name, value in fields.items() if value and name not in HARMLESS}
    if fields.get("peft_type") != "LORA" or fields.get("bias", "none") != "none":
        wrong = {"peft_type": fields.get("peft_type"), "bias": fields.get("bias")}
    if str(fields.get("init_lora_weights")).lower().startswith(CHANGE_BASE):
        wrong["init_lora_weights"] = fields["init_lora_weights"]
    if wrong:
        name, value = next(iter(wrong.items()))
        raise ValueError(
            f"{path}: {name} is {value!r:.60}; plain LoRA is read here. peft can merge such an adapter "
            "(merge_and_unload) and save the whole model"
        )
    for name, kind in (("r", int), ("lora_alpha", (int, float))):
        if not isinstance(fields.get(name), kind) or not 0 < fields[name] < math.inf:
            raise ValueError(f"{path}: {name} is {fields.get(name)!r:.60}, expected a number above 0")
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(fields.get(name) or {}, dict):
            raise ValueError(f"{path}: {name} is {fields[name]!r:.60}, expected layers and numbers")
    return fields


def base_fingerprint(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """Fingerprint of a model without adapters and without the tensors named.

    It is the same before `add_lora` and after.
    """
    adapters = {f"{name}.parts." for name in lora_layers(model)}
    return fingerprint(
        (name.replace(".base.", "."), tensor)
        for name, tensor in model.state_dict().items()
        if name not in without and not any(name.startswith(start) for start in adapters)
    )


def _others(model: nn.Module) -> dict[str, Tensor]:
    """What is trained and is no adapter."""
    names, state = set(trained_names(model)), model.state_dict(keep_vars=True)
    adapters = tuple(f"{name}.parts." for name in lora_layers(model))
    return {n: t for n, t in state.items() if n in names and not n.startswith(adapters)}


def _write(folder: Path, config: str, files: Mapping[str, bytes]) -> None:
    """Write all files, the config last: a folder without it is refused, so half an adapter never loads."""
    staged = folder / f".saving.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        for name, content in (*files.items(), (CONFIG, config)):
            write_atomically(staged / name, content)
        (folder / CONFIG).unlink(missing_ok=True)
        if OTHERS not in files:
            (folder / OTHERS).unlink(missing_ok=True)
        for name in (*files, CONFIG):
            os.replace(staged / name, folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _read_updates(folder: Path, fields: dict) -> tuple[dict[str, Stored], dict[str, Tensor], dict[str, str]]:
    """The updates by layer, copies of the base's matrices (peft adds that of an output layer), metadata."""
    path = folder / TENSORS
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {TENSORS} in {folder}: the adapter is not complete, copy it again"
        )
    entries = read_header(path)
    pairs: dict[str, dict[str, Tensor]] = {}
    ending = ".base_layer.weight"
    copied = {name: entries.pop(name) for name in list(entries) if name.endswith(ending)}
    for name, entry in entries.items():
        layer, dot, kind = name.removeprefix(START).partition(".lora_")
        if not name.startswith(START) or not dot or kind not in ("A.weight", "B.weight"):
            raise ValueError(
                f"{path}: {name!r:.120} is no part of plain LoRA, which has lora_A and lora_B alone"
            )
        if len(entry.shape) != 2 or not is_weight(entry):
            raise ValueError(
                f"{path}: {name!r:.120} is no matrix of floats, got {entry.format} {entry.shape}"
            )
        pairs.setdefault(layer, {})
    for name, tensor in read_tensors(entries):
        layer, _, kind = name.removeprefix(START).partition(".lora_")
        pairs[layer][kind[0]] = tensor
    updates = {}
    for layer, pair in pairs.items():
        rank = _of(fields, "rank_pattern", layer, fields["r"])
        if set(pair) != {"A", "B"} or not len(pair["A"]) == pair["B"].shape[1] == rank:
            shapes = {kind: list(tensor.shape) for kind, tensor in sorted(pair.items())}
            raise ValueError(
                f"{path}: {layer!r:.120} has {shapes}, and {CONFIG} makes its rank {rank}; the two files do "
                "not belong together"
            )
        alpha = _of(fields, "alpha_pattern", layer, fields["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
        dropout = float(fields.get("lora_dropout") or 0.0)
        updates[layer] = Stored(A=pair["A"], B=pair["B"], scale=scale, dropout=dropout)
    if not updates:
        raise ValueError(f"{path} holds no adapter")
    copies = {n.removeprefix(START).removesuffix(ending): t for n, t in read_tensors(copied)}
    with safetensors.safe_open(path, framework="pt") as file:
        return updates, copies, file.metadata() or {}


def _of(fields: dict, pattern: str, layer: str, default: float) -> float:
    """A layer's own rank or alpha. peft's patterns are regular expressions; plain ends of names are read."""
    for name, value in (fields.get(pattern) or {}).items():
        plain = name.replace("\\.", ".").removeprefix("^")
        if layer == plain or layer.endswith(f".{plain}"):
            return value
    return default


def _read_others(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    path = folder / OTHERS
    if not path.is_file():
        return {}
    entries, state = read_header(path), model.state_dict()
    for name, entry in entries.items():
        if name not in state or tuple(state[name].shape) != entry.shape:
            own = list(state[name].shape) if name in state else "nothing of that name"
            raise ValueError(
                f"{path}: {name!r:.120} has the shape {list(entry.shape)}, the model {own}: build the head "
                "that the adapter was trained with before loading it"
            )
    return dict(read_tensors(entries))


def _places(model: nn.Module, updates: dict[str, Stored], folder: Path) -> dict[str, Target]:
    rows = {bare(name): target for name, target in their_rows(model).items()}
    places = {}
    for name, one in updates.items():
        target = rows.get(bare(name))
        if target is None:
            raise ValueError(
                f"{folder} adapts {name!r:.120}, and a {type(model).__name__} has no such layer; it has "
                f"{', '.join(sorted({known.rpartition('.')[2] for known in rows}))}"
            )
        columns = model.get_submodule(target.layer).in_features
        if (one.B.shape[0], one.A.shape[1]) != (target.rows, columns):
            raise ValueError(
                f"{folder} adapts {name!r:.120} as a matrix of {one.B.shape[0]} x {one.A.shape[1]}, and this "
                f"model's is {target.rows} x {columns}: it belongs to another model"
            )
        places[name] = target
    return places


def _config(target: Target, one: Stored, fields: dict) -> LoraConfig:
    stabilised = bool(fields.get("use_rslora"))
    return LoraConfig(
        rank=one.rank,
        alpha=round(one.scale * (math.sqrt(one.rank) if stabilised else one.rank), 12),
        targets=(target.name,),
        dropout=one.dropout,
        rank_stabilised=stabilised,
    )
