"""Write a tokenizer of ours as the files that `transformers` opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_from_scratch.interop.hugging_face.tokenizer import ROLES
from llm_from_scratch.tokenizers import BytePairTokenizer, Tokenizer
from llm_from_scratch.tokenizers.gpt2 import spelt
from llm_from_scratch.tokenizers.pieces import PATTERNS
from llm_from_scratch.tokenizers.wordpiece import WordPieceTokenizer

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def write_tokenizer(
    tokenizer: Tokenizer, chat_template: str | None = None, special_tokens: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the tokenizer's files, name and content.

    ``special_tokens`` gives roles, as in ``{"eos_token": "<|im_end|>"}``.
    Raises: ValueError for a kind of tokenizer that has no such files, and for a role that is unknown or
    given to what is no token.
    """
    if isinstance(tokenizer, BytePairTokenizer):
        content = _byte_pair(tokenizer)
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if "<|endoftext|>" in tokenizer.special_ids:
            settings["eos_token"] = "<|endoftext|>"
    elif isinstance(tokenizer, WordPieceTokenizer):
        content = _wordpiece(tokenizer)
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": tokenizer.lower_case}
        roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        roles |= {"pad_token": "[PAD]", "mask_token": "[MASK]"}
        settings |= {role: token for role, token in roles.items() if token in tokenizer.special_ids}
    else:
        raise ValueError(
            f"a {type(tokenizer).__name__} has no files in Hugging Face's layout; save_folder(model, path) "
            "writes the model alone, and tokenizer.save(another_path) keeps the tokenizer"
        )
    for role, token in (special_tokens or {}).items():
        if role not in ROLES:
            raise ValueError(f"{role!r:.40} is no role of a token; there are {', '.join(ROLES)}")
        if token not in tokenizer.special_ids:
            raise ValueError(
                f"{role}={token!r:.60} is none of this tokenizer's special tokens, "
                f"{list(tokenizer.special_ids)[:9]}"
            )
        settings[role] = token
    if chat_template is not None:
        settings["chat_template"] = chat_template
    files = {"tokenizer.json": content, "tokenizer_config.json": settings}
    return {name: json.dumps(value, ensure_ascii=False, indent=1) + "\n" for name, value in files.items()}


def _byte_pair(tokenizer: BytePairTokenizer) -> dict[str, Any]:
    special = {i: token for token, i in tokenizer.special_ids.items()}
    tokens = [special.get(i) or spelt(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise ValueError(
            f"two tokens are spelt {twice!r:.60}, and Hugging Face's files tell tokens by spelling"
        )
    pieces = getattr(tokenizer, "pieces", "gpt2")
    by_regex = {**_BYTE_LEVEL, "use_regex": True}
    if pieces == "gpt2":
        cutting: dict[str, Any] = by_regex
    elif pieces == "smollm":
        cutting = _sequence({"type": "Digits", "individual_digits": True}, by_regex)
    else:
        split = {"type": "Split", "pattern": {"Regex": PATTERNS[pieces].pattern}}
        split |= {"behavior": "Isolated", "invert": False}
        cutting = _sequence(split, {**_BYTE_LEVEL, "use_regex": False})
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": getattr(tokenizer, "whole_pieces", False),
        "vocab": vocabulary, "merges": [[tokens[left], tokens[right]] for left, right in tokenizer.merges],
    }  # fmt: skip
    composed = {"type": "NFC"} if getattr(tokenizer, "nfc", False) else None
    return _file(special, normalizer=composed, pre_tokenizer=cutting, decoder=by_regex, model=model)


def _wordpiece(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    special = {i: token for token, i in tokenizer.special_ids.items()}
    tokens = tokenizer.tokens_as_text(range(tokenizer.vocab_size))
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": tokenizer.lower_case,
    }  # fmt: skip
    model = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {token: i for i, token in enumerate(tokens)},
    }  # fmt: skip
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    cutting = {"type": "BertPreTokenizer"}
    return _file(special, normalizer=normalizer, pre_tokenizer=cutting, decoder=decoder, model=model)


def _file(special: dict[int, str], **steps: Any) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": token, **plain} for i, token in sorted(special.items())]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None,
        **steps,
    }  # fmt: skip


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}
