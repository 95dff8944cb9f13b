"""The tokenizer of a Hugging Face folder: byte-level byte pairs, WordPiece, or a SentencePiece model.

A tokenizer.json describes a chain of steps: normalise the text, cut it into pieces, merge, put special
tokens around. Only chains that our tokenizers carry out are read; for any other step the error names it.
The last step is left to the caller: `encode` here never adds tokens that the text does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_from_scratch.interop.hugging_face.json_files import MAX_JSON_BYTES, Fields, has_file, read_json
from llm_from_scratch.tokenizers import SentencePieceTokenizer, Tokenizer
from llm_from_scratch.tokenizers.pieces import PATTERNS
from llm_from_scratch.tokenizers.published_byte_pair import PublishedBytePairTokenizer
from llm_from_scratch.tokenizers.wordpiece import WordPieceTokenizer

WAY_OUT = "load_folder(..., tokenizer=False) loads the model alone"
SENTENCEPIECE = ("spiece.model", "tokenizer.model")
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What tokenizer_config.json and its neighbours say beside the tokens."""

    chat_template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_tokenizer_config(folder: Path) -> TokenizerConfig:
    """Return chat template and special tokens of a folder; empty where there is no such file."""
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if has_file(file) else {}
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0] if named else None
    if has_file(folder / "chat_template.jinja"):
        template = _text(folder / "chat_template.jinja")
    if template is not None and not isinstance(template, str):
        raise Fields(settings, str(file)).wrong("chat_template", f"is {template!r:.60}, expected text")
    tokens = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if has_file(folder / name):
            values = read_json(folder / name)
            tokens |= {role: t for role in ROLES if (t := _content(values.get(role))) is not None}
    return TokenizerConfig(chat_template=template, special_tokens=tokens, settings=settings)


def read_tokenizer(folder: Path, model_type: str) -> Tokenizer | None:
    """Return the folder's tokenizer, or None if it holds none.

    Raises: ValueError that names the file, the kind or step that is not read here, and the way out.
    """
    sentencepiece = [folder / name for name in SENTENCEPIECE if has_file(folder / name)]
    if has_file(folder / "tokenizer.json"):
        fields = Fields(read_json(folder / "tokenizer.json"), str(folder / "tokenizer.json"))
        if sentencepiece and _tells_of_sentencepiece(fields):
            return _from_sentencepiece(sentencepiece[0], fields, _added_tokens(fields))
        return _from_tokenizer_json(folder / "tokenizer.json", fields)
    if has_file(folder / "vocab.json") and has_file(folder / "merges.txt"):
        return _from_gpt2_files(folder, model_type)
    if has_file(folder / "vocab.txt"):
        return _from_vocab_txt(folder)
    if not sentencepiece:
        return None
    path = folder / "added_tokens.json"
    added = Fields(read_json(path) if has_file(path) else {}, str(path))
    return _from_sentencepiece(sentencepiece[0], added, added.values)


def _from_vocab_txt(folder: Path) -> WordPieceTokenizer:
    """BERT's own file, which leaves what is done to a text beforehand to tokenizer_config.json."""
    fields = Fields(read_tokenizer_config(folder).settings, str(folder / "tokenizer_config.json"))
    lower_case = fields.flag("do_lower_case", True)
    fields.only("strip_accents", lower_case)
    for name in ("tokenize_chinese_chars", "do_basic_tokenize"):
        fields.only(name, True)
    _check_length(folder / "vocab.txt")
    return WordPieceTokenizer.from_file(folder / "vocab.txt", lower_case=lower_case)


def _tells_of_sentencepiece(fields: Fields) -> bool:
    """Whether tokenizer.json says once more what the SentencePiece model beside it says: T5's, Llama 2's."""
    model = fields.table("model")
    return model.values.get("type") == "Unigram" or model.values.get("byte_fallback") is True


def _from_sentencepiece(path: Path, fields: Fields, added: Mapping[str, int]) -> SentencePieceTokenizer:
    """The model in ``path``, and tokens that ``fields`` add, which must be in it.

    T5's <extra_id_0> and so on, which only its pre-training uses, are left out.
    """
    _check_length(path)
    try:
        tokenizer = SentencePieceTokenizer(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {WAY_OUT}") from None
    for token, i in added.items():
        inside = type(i) is int and 0 <= i < tokenizer.vocab_size
        if not token.startswith("<extra_id_") and not (inside and tokenizer.tokens_as_text([i]) == [token]):
            raise fields.wrong(token, f"is a token that was added, and {path.name} lacks it. {WAY_OUT}")
    return tokenizer


def _from_tokenizer_json(path: Path, fields: Fields) -> Tokenizer:
    if fields.values.get("kind") is not None and "model" not in fields.values:
        raise ValueError(f"{path} is a tokenizer that was saved here: load_tokenizer opens it. {WAY_OUT}")
    model = fields.table("model")
    kind = model.text("type", "BPE" if "merges" in model.values else "WordPiece")
    added = _added_tokens(fields)
    try:
        if kind == "BPE":
            return _byte_pair(fields, model, added)
        if kind == "WordPiece":
            return _wordpiece(fields, model, added)
    except ValueError as error:
        raise ValueError(error if str(path) in str(error) else f"{path}: {error}") from None
    raise model.wrong("type", f"is {kind!r:.40}; BPE over bytes and WordPiece are read here. {WAY_OUT}")


def _added_tokens(fields: Fields) -> dict[str, int]:
    """The tokens that are found in a text before anything else is done to it."""
    found = {}
    for token in fields.take("added_tokens", list, "a list", []):
        if not isinstance(token, dict):
            raise fields.wrong("added_tokens", f"holds {token!r:.60}, expected an object")
        content, i = token.get("content"), token.get("id")
        if not isinstance(content, str) or not content or type(i) is not int or content in found:
            raise fields.wrong("added_tokens", f"holds {token!r:.80}, expected new content and an id")
        for name in ("lstrip", "rstrip", "single_word"):
            if token.get(name) and content != "[MASK]" and content != "<mask>":
                raise fields.wrong(
                    "added_tokens",
                    f"gives {content!r:.40} the property {name}, which is not done here. {WAY_OUT}",
                )
        found[content] = i
    return found


def _byte_pair(fields: Fields, model: Fields, added: dict[str, int]) -> PublishedBytePairTokenizer:
    normalizer = fields.take("normalizer", dict, "an object", {"type": None})
    nfc = normalizer == {"type": "NFC"}
    if not nfc and normalizer.get("type") is not None:
        raise fields.wrong(
            "normalizer", f"is {normalizer!r:.60}; text is composed (NFC) or taken as it is here. {WAY_OUT}"
        )
    late = [t["content"] for t in fields.values.get("added_tokens") or () if t.get("normalized") and nfc]
    if late:
        raise fields.wrong(
            "added_tokens",
            f"looks for {late[0]!r:.40} in the composed text, which is not done here. {WAY_OUT}",
        )
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        model.only(name, "")
    model.only("dropout", 0.0, 0)
    model.only("byte_fallback", False)
    vocabulary = _vocabulary(model, added)
    merges = []
    for rank, merge in enumerate(model.take("merges", list, "a list")):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise model.wrong("merges", f"holds {merge!r:.60} at position {rank}, no pair of tokens")
        merges.append((pair[0], pair[1]))
    return PublishedBytePairTokenizer.from_spellings(
        vocabulary,
        merges,
        sorted(added.values()),
        pieces=_pieces(fields),
        nfc=nfc,
        whole_pieces=model.flag("ignore_merges", False),
    )


def _vocabulary(model: Fields, added: dict[str, int]) -> dict[str, int]:
    vocabulary = dict(model.take("vocab", dict, "an object"))
    for token, i in vocabulary.items():
        if type(i) is not int or not token:
            raise model.wrong("vocab", f"gives {token!r:.60} the id {i!r:.40}, expected a whole number")
    for token, i in added.items():
        if vocabulary.setdefault(token, i) != i:
            raise model.wrong("vocab", f"gives {token!r:.60} the id {vocabulary[token]}, added_tokens {i}")
    return vocabulary


def _pieces(fields: Fields) -> str:
    """The name of the pattern that a chain of cutting steps amounts to."""
    step = fields.take("pre_tokenizer", dict, "an object")
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else [step]
    if isinstance(steps, list) and all(isinstance(s, dict) for s in steps):
        kinds = [s.get("type") for s in steps]
        *first, last = steps or [{}]
        plain = last.get("type") == "ByteLevel" and last.get("add_prefix_space", True) is False
        by_regex = plain and last.get("use_regex", True) is True
        if by_regex and not first:
            return "gpt2"
        if by_regex and kinds == ["Digits", "ByteLevel"] and first[0].get("individual_digits") is True:
            return "smollm"
        if plain and kinds == ["Split", "ByteLevel"] and last.get("use_regex", True) is False:
            split = first[0]
            pattern = split["pattern"].get("Regex") if isinstance(split.get("pattern"), dict) else None
            whole = (split.get("behavior"), split.get("invert", False)) == ("Isolated", False)
            for name, known in PATTERNS.items():
                if whole and pattern == known.pattern:
                    return name
    raise fields.wrong(
        "pre_tokenizer", f"cuts text in a way that is not known here ({step!r:.120}). {WAY_OUT}"
    )


def _wordpiece(fields: Fields, model: Fields, added: dict[str, int]) -> WordPieceTokenizer:
    normalizer = fields.take("normalizer", dict, "an object", {"type": "BertNormalizer"})
    lower_case = normalizer.get("lowercase", True)
    known = normalizer.get("type") == "BertNormalizer" and isinstance(lower_case, bool)
    if not known or normalizer.get("strip_accents") not in (None, lower_case):
        raise fields.wrong("normalizer", f"is {normalizer!r:.80}; BERT's own is read here. {WAY_OUT}")
    for name in ("clean_text", "handle_chinese_chars"):
        if normalizer.get(name, True) is not True:
            raise fields.wrong("normalizer", f"leaves out {name}, which is always done here. {WAY_OUT}")
    step = fields.take("pre_tokenizer", dict, "an object", {"type": "BertPreTokenizer"})
    if step.get("type") != "BertPreTokenizer":
        raise fields.wrong("pre_tokenizer", f"is {step!r:.80}; BERT's own is read here. {WAY_OUT}")
    model.only("unk_token", "[UNK]")
    model.only("continuing_subword_prefix", "##")
    model.only("max_input_chars_per_word", 100)
    vocabulary = _vocabulary(model, {})
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise model.wrong("vocab", f"gives its {len(tokens)} tokens other ids than 0 to {len(tokens) - 1}")
    tokenizer = WordPieceTokenizer(tokens, lower_case=lower_case)
    for token, i in added.items():
        if tokenizer.special_ids.get(token) != i:
            raise fields.wrong(
                "added_tokens",
                f"gives {token!r:.40} the id {i}; {', '.join(tokenizer.special_tokens)}, with the ids of the "
                f"vocabulary, are found in a text here. {WAY_OUT}",
            )
    return tokenizer


def _from_gpt2_files(folder: Path, model_type: str) -> PublishedBytePairTokenizer:
    """GPT-2's own two files. They do not say how text is cut, so they are believed of GPT-2 alone."""
    config = read_tokenizer_config(folder)
    kind = config.settings.get("tokenizer_class", "GPT2Tokenizer" if model_type == "gpt2" else None)
    if kind not in ("GPT2Tokenizer", "GPT2TokenizerFast"):
        raise ValueError(
            f"{folder} has vocab.json and merges.txt for the tokenizer {kind!r:.60}, and nothing that says "
            f"how it cuts text; a tokenizer.json would. {WAY_OUT}"
        )
    fields = Fields(read_json(folder / "vocab.json"), str(folder / "vocab.json"))
    added = Fields({}, fields.origin)
    if has_file(folder / "added_tokens.json"):
        added = Fields(read_json(folder / "added_tokens.json"), str(folder / "added_tokens.json"))
    for source in (fields, added):
        for token in source.values:
            source.take(token, int, "an id")
    ids = {**fields.values, **added.values}
    special = {token for token in (*config.special_tokens.values(), "<|endoftext|>") if token in ids}
    merges = []
    for number, line in enumerate(_text(folder / "merges.txt").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        if len(pair := line.split(" ")) != 2:
            raise ValueError(f"{folder / 'merges.txt'}, line {number}: {line!r:.60} is no pair of tokens")
        merges.append((pair[0], pair[1]))
    try:
        special_ids = sorted({ids[token] for token in (special | set(added.values))})
        return PublishedBytePairTokenizer.from_spellings(ids, merges, special_ids)
    except ValueError as error:
        raise ValueError(f"{folder}: vocab.json and merges.txt do not fit: {error}") from None


def _content(token: object) -> str | None:
    """The text of a token that is written as text, or as an object that describes it."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _check_length(path: Path) -> None:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is {path.stat().st_size} bytes long; the limit is {MAX_JSON_BYTES}")


def _text(path: Path) -> str:
    _check_length(path)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error}") from None
