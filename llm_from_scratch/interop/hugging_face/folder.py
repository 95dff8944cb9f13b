"""Read and write a model as a local folder in Hugging Face's layout.

The folder holds config.json (what the model is), model.safetensors or several files with an index (its
weights), and the tokenizer's files. It may come from anywhere: names, sizes and shapes are checked before
a tensor is read, nothing in it is executed, and no pickle is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from llm_from_scratch.interop.empty import build_empty
from llm_from_scratch.interop.hugging_face import bert, gpt2, llama, t5
from llm_from_scratch.interop.hugging_face.family import Family
from llm_from_scratch.interop.hugging_face.folder_writing import write_folder
from llm_from_scratch.interop.hugging_face.json_files import IGNORED, Fields, read_json
from llm_from_scratch.interop.hugging_face.tensor_files import (
    TensorEntry,
    check_dtype,
    read_entries,
)
from llm_from_scratch.interop.hugging_face.tokenizer import (
    WAY_OUT,
    TokenizerConfig,
    read_tokenizer,
    read_tokenizer_config,
)
from llm_from_scratch.interop.hugging_face.tokenizer_writing import write_tokenizer
from llm_from_scratch.interop.hugging_face.weights import check_entries, check_names, export, fill
from llm_from_scratch.interop.loaded import Loaded
from llm_from_scratch.models.decoder import Decoder
from llm_from_scratch.models.encoder import Encoder
from llm_from_scratch.models.encoder_decoder import EncoderDecoder
from llm_from_scratch.nn.adapters import check_no_adapters
from llm_from_scratch.tokenizers import Tokenizer

FAMILIES = (gpt2.FAMILY, llama.FAMILY, bert.FAMILY, t5.FAMILY)
_FAMILY_OF = {name: family for family in FAMILIES for name in family.model_types}


def load_folder(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    context_length: int | None = None,
    tokenizer: bool = True,
    ignore: Collection[str] = (),
) -> Loaded:
    """Load the model, the tokenizer and the chat template of a folder.

    Arguments: ``dtype`` is the number format of the weights in memory. ``context_length`` makes the
    tables of positions for fewer tokens than config.json allows. ``tokenizer=False`` leaves the
    tokenizer's files unread. ``ignore`` names fields of config.json, and tensors, to pass over.
    The model is in evaluation mode, and its dropout is 0.

    Raises: FileNotFoundError; ValueError that names the file, the field or tensor, and the way out.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; from_hub(name) downloads one where there is a network"
        )
    check_dtype(dtype)
    fields = Fields(read_json(folder / "config.json"), str(folder / "config.json"))
    family = family_of(fields)
    entries = _present_names(read_entries(folder))
    settings = read_tokenizer_config(folder) if tokenizer else TokenizerConfig()
    ours = read_tokenizer(folder, fields.text("model_type")) if tokenizer else None
    model = _read_model(folder, fields, family, entries, dtype, context_length, ignore)
    if ours is not None and ours.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {ours.vocab_size} tokens, and the model reads "
            f"{model.config.vocab_size}: they do not belong together. {WAY_OUT}"
        )
    return Loaded(
        model=model,
        tokenizer=ours,
        config=model.config,
        chat_template=settings.chat_template,
        special_tokens=settings.special_tokens,
    )


def family_of(fields: Fields) -> Family:
    """The family that config.json names. Raises: ValueError that lists those that are read here."""
    name = fields.text("model_type")
    if name not in _FAMILY_OF:
        raise fields.wrong("model_type", f"is {name!r:.60}; read here are {', '.join(_FAMILY_OF)}")
    return _FAMILY_OF[name]


def _read_model(
    folder: Path,
    fields: Fields,
    family: Family,
    entries: dict[str, TensorEntry],
    dtype: torch.dtype,
    context_length: int | None,
    ignore: Collection[str],
) -> nn.Module:
    for name in ("quantization_config", "tie_encoder_decoder"):
        if name not in ignore:
            fields.only(name, False)
    try:
        config = family.read_config(fields, entries, context_length)
    except ValueError as error:
        raise ValueError(error if fields.origin in str(error) else f"{fields.origin}: {error}") from None
    if context_length not in (None, config.context_length):
        raise ValueError(
            f"context_length={context_length} differs from the {config.context_length} positions that this "
            "model has learned; leave it out"
        )
    fields.check_all_read({*IGNORED, *ignore})
    layers = config.num_layers + getattr(config, "num_decoder_layers", 0)
    if layers > len(entries):
        raise ValueError(f"{fields.origin} speaks of {layers} layers; there are {len(entries)} tensors")
    mapping = family.mapping(config, entries)
    check_names(entries, mapping, origin=str(folder), ignore=ignore)
    with torch.device("meta"):  # shapes without memory
        model = build_empty(lambda: family.build(config)).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_entries(entries, mapping, shapes, origin=str(folder), ignore=ignore)
    _take_memory(model, dtype)
    if hasattr(model, "register_tables"):
        model.register_tables()  # in float32, whatever the weights are
    fill(model, entries, mapping)
    return model


def _take_memory(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters of a model on the meta device memory, which holds nothing yet.

    As `Module.to_empty`, which for want of a kernel loads torch's compiler first, for seconds.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))


def _present_names(entries: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    renamed: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        present = bert.rename_old(name)
        if present in renamed:
            raise ValueError(f"{entry.file} holds {present!r:.120} twice, once under its old name")
        renamed[present] = entry
    return renamed


def save_folder(
    model: nn.Module,
    path: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    *,
    chat_template: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a model of ours as a folder that `transformers` and `load_folder` read.

    Weights keep their number format. ``chat_template`` and ``special_tokens`` (roles of tokens, as
    `Loaded` has them) are stored with the tokenizer. Files that would take more than
    ``max_shard_bytes`` are split, and an index says which tensor lies where.

    In a folder that holds a model already, that model stays until all new files are on the disk. Its
    tokenizer's files stay unless a ``tokenizer`` is given, which then replaces them all.

    Raises: ValueError naming the field of the model's config, or the kind of tokenizer, that Hugging
    Face's families have nothing for, and for a model with adapters; nothing is written then.
    """
    check_no_adapters(
        model, who="a folder of a whole model", way_out="merge_lora(model), or save_adapter(model, folder)"
    )
    family = family_for(model)
    fields = family.write_config(model.config)
    tensors = export(model, family.mapping(model.config, ()))
    fields["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    if tokenizer is None and (chat_template is not None or special_tokens):
        raise ValueError("chat_template and special_tokens are stored with a tokenizer: pass it as well")
    files = {} if tokenizer is None else write_tokenizer(tokenizer, chat_template, special_tokens)
    ids = getattr(tokenizer, "special_ids", {})
    for role in ("bos_token", "eos_token", "pad_token"):  # where `generate` of transformers looks for them
        if (special_tokens or {}).get(role) in ids and f"{role}_id" in fields:
            fields[f"{role}_id"] = ids[special_tokens[role]]
    write_folder(Path(path), json.dumps(fields, indent=2) + "\n", tensors, max_shard_bytes, files)


def family_for(model: nn.Module) -> Family:
    """The family that a model of ours is written as. Raises: ValueError if there is none."""
    if isinstance(model, Encoder):
        return bert.FAMILY
    if isinstance(model, EncoderDecoder):
        return t5.FAMILY
    if not isinstance(model, Decoder):
        raise ValueError(f"a {type(model).__name__} has no family of Hugging Face's that is written here")
    return gpt2.FAMILY if _is_gpt2(model) else llama.FAMILY


def _is_gpt2(model: Decoder) -> bool:
    """Tell GPT-2's choices from Llama's. Raises: ValueError naming the first that is neither's."""
    config = model.config
    choices = {
        "positions": {"learned": True, "rope": False},
        "norm": {"layer": True, "rms": False},
        "feedforward": {"gelu": True, "gelu_exact": True, "swiglu": False},
    }
    if config.ngram_rows:
        raise ValueError(
            f"ngram_rows={config.ngram_rows}: no config of Hugging Face's that is written here has tables of "
            "n-grams; such a model stays in its run folder"
        )
    is_gpt2 = config.positions == "learned"
    family = "GPT-2" if is_gpt2 else "Llama"
    for name, owner in choices.items():
        if owner.get(getattr(config, name)) != is_gpt2:
            raise ValueError(
                f"{name}={getattr(config, name)!r} is not {family}'s, whose config would be written"
            )
    needed = {"bias": True, "qkv_bias": True, "qk_norm": False, "sliding_window": None}
    needed |= {"num_kv_heads": config.num_heads, "d_head": config.d_model // config.num_heads}
    for name, value in needed.items() if is_gpt2 else ():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name}={getattr(config, name)!r} has no field in GPT-2's config, which has {value!r}"
            )
    return is_gpt2
