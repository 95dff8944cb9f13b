"""Read the JSON files of a folder that may come from anywhere: each field is checked before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 1 << 28  # the largest tokenizer.json in use are a tenth of it
_MISSING = object()


def has_file(path: Path) -> bool:
    """Tell whether there is a file. What stands in its place and is none, is not passed over.

    Raises: ValueError for a folder, a pipe, or a link that leads nowhere.
    """
    if not path.is_file() and os.path.lexists(path):
        raise ValueError(
            f"{path} is no file, or a link to none: it was moved or deleted. Fetch the folder again"
        )
    return path.is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises: FileNotFoundError; ValueError if it is no JSON, no object, names a field twice, or is longer
    than ``MAX_JSON_BYTES``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name} in {path.parent}; is that the model's folder?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is {path.stat().st_size} bytes long; the limit is {MAX_JSON_BYTES}")
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes, origin: str) -> dict[str, Any]:
    """Return the object in ``content``; ``origin`` names its place in errors.

    >>> parse_json(b'{"a": 1, "a": 2}', "x.json")
    Traceback (most recent call last):
    ...
    ValueError: x.json is damaged: the field 'a' stands there twice
    """
    try:
        values = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is damaged: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{origin} is damaged: it holds a {type(values).__name__}, expected an object")
    return values


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field {name!r:.60} stands there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


class Fields:
    """The fields of one config.json. Each method returns one field, or says what is wrong with it.

    A method notes what was asked for, so that `check_all_read` can name what nobody asked for: a field
    that is not known to change nothing may change the model.
    """

    def __init__(self, values: dict[str, Any], origin: str):
        self.values, self.origin = values, origin
        self._read: set[str] = set()

    def wrong(self, name: str, what: str) -> ValueError:
        """Return the error that says that the field ``name`` ``what``."""
        return ValueError(f"{self.origin}: the field {name!r:.60} {what}")

    def take(self, name: str, kinds: type | tuple[type, ...], expected: str, default: Any = _MISSING) -> Any:
        """Return a field of one of the ``kinds``; ``default`` if it is missing or null."""
        self._read.add(name)
        value = self.values.get(name)
        if value is None:
            if default is _MISSING:
                raise self.wrong(name, f"is missing, expected {expected}")
            return default
        is_flag = isinstance(value, bool)
        if not isinstance(value, kinds) or is_flag != (kinds is bool):
            raise self.wrong(name, f"is {value!r:.60}, expected {expected}")
        return value

    def size(self, name: str, limit: int, default: Any = _MISSING) -> Any:
        """Return a field that must be a whole number from 1 to ``limit``."""
        value = self.take(name, int, f"a whole number from 1 to {limit}", default)
        if value is not None and not 1 <= value <= limit:
            raise self.wrong(name, f"is {value!s:.60}; it must lie between 1 and {limit}")
        return value

    def number(self, name: str, default: Any = _MISSING) -> Any:
        """Return a field that must be a positive, finite number."""
        value = self.take(name, (int, float), "a positive number", default)
        if value is not None and not 0 < value < 1e38:
            raise self.wrong(name, f"is {value!s:.60}; it must be positive and finite")
        return None if value is None else float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a field that must be true or false."""
        return self.take(name, bool, "true or false", default)

    def text(self, name: str, default: Any = _MISSING) -> Any:
        """Return a field that must be text."""
        return self.take(name, str, "text", default)

    def only(self, name: str, *allowed: Any) -> None:
        """Raise ValueError unless the field is missing, null, or one of ``allowed``.

        The types must agree too: to Python 1, 1.0 and True are equal.
        """
        self._read.add(name)
        value = self.values.get(name)
        if value is not None and not any(type(value) is type(a) and value == a for a in allowed):
            says = f"only {', '.join(map(repr, allowed))} is" if allowed else "it is not"
            raise self.wrong(name, f"is {value!r:.60}; {says} supported here")

    def table(self, name: str) -> Fields:
        """Return a field that must be an object, as fields of their own; empty if it is missing."""
        values = self.take(name, dict, "an object", {})
        return Fields(values, f"{self.origin}: in {name!r}")

    def check_all_read(self, ignored: Collection[str]) -> None:
        """Raise ValueError for a field that nobody asked for, unless ``ignored`` names it.

        A field that is null says nothing, and one of ``NEUTRAL`` asks for nothing at that value.
        """
        for name, value in self.values.items():
            neutral = name in NEUTRAL and type(value) is type(NEUTRAL[name]) and value == NEUTRAL[name]
            if name not in self._read and name not in ignored and value is not None and not neutral:
                raise self.wrong(
                    name,
                    f"is {value!r:.60}, and is not known to leave the model as it is; if it "
                    f"does, load_folder(..., ignore=[{name!r:.60}]) passes over it",
                )


# What describes training, generation, output format or provenance, and not the model's function.
IGNORED = frozenset(
    [
        "_name_or_path", "architectures", "attn_implementation", "_attn_implementation", "auto_map",
        "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "bos_token_id", "cache_position",
        "chunk_size_feed_forward", "classifier_dropout", "dropout", "dropout_rate", "dtype", "embd_pdrop",
        "eos_token_id", "finetuning_task", "gradient_checkpointing", "hidden_dropout_prob", "id2label",
        "initializer_factor", "initializer_range", "keys_to_ignore_at_inference", "label2id", "model_type",
        "name_or_path", "num_labels", "output_attentions", "output_hidden_states", "output_past",
        "pad_token_id", "prefix", "problem_type", "resid_pdrop", "return_dict", "return_dict_in_generate",
        "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript", "transformers_version",
        "transformers.js_config", "use_bfloat16", "use_cache", "pretraining_tp", "n_ctx",
        "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "temperature", "top_k",
        "top_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "is_llama_config",
        "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
        "pooler_size_per_head", "pooler_type", "_num_labels", "conversational", "bad_words_ids",
        "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
        "forced_eos_token_id", "num_beam_groups", "num_return_sequences", "output_scores",
        "remove_invalid_values", "suppress_tokens", "tf_legacy_loss", "typical_p",
    ]
)  # fmt: skip

# What leaves the model as it is at this value, and might change it at others. Published configs have them.
NEUTRAL = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "rope_interleaved": False,
    "use_mrope": False,
}
