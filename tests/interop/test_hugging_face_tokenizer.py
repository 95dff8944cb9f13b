"""Tokenizer files of a folder: read and written, with the ids of `tokenizers` and `transformers`."""

import json
import random

import pytest
import tokenizers

from llm_from_scratch.interop.hugging_face import hub
from llm_from_scratch.interop.hugging_face.tokenizer import (
    SENTENCEPIECE,
    read_tokenizer,
    read_tokenizer_config,
)
from llm_from_scratch.interop.hugging_face.tokenizer_writing import write_tokenizer
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer
from llm_from_scratch.tokenizers.gpt2 import spelt
from llm_from_scratch.tokenizers.published_byte_pair import PublishedBytePairTokenizer
from llm_from_scratch.tokenizers.wordpiece import WordPieceTokenizer

TEXT = (
    "It's 2026, and we'll read 1,234 lines.\n\n  Zwölf Boxkämpfer jagten; 语言模型 😀\r\n\tdon't I'LL "
    "<|endoftext|> [SEP] naïve café 	end   "
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
GPT2 = {**BYTE_LEVEL, "use_regex": True}


def trained():
    return BytePairTokenizer.train(
        TEXT * 3 + " lines of lines", vocab_size=330, special_tokens=["<|endoftext|>"]
    )


def published(pieces, reorder=True):
    """The same merges with the ids in another order, the special token first."""
    ours = trained()
    order = list(range(ours.vocab_size))
    if reorder:
        random.Random(3).shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    tokens = [ours.decode_bytes([old]) for old in order]
    merges = [(place[left], place[right]) for left, right in ours.merges]
    special = [place[i] for i in ours.special_ids.values()]
    return PublishedBytePairTokenizer(tokens, merges, special, pieces=pieces)


def write(folder, tokenizer, **options):
    for name, content in write_tokenizer(tokenizer, **options).items():
        (folder / name).write_text(content, encoding="utf-8")


def random_texts(count=400, seed=1):
    rng = random.Random(seed)
    alphabet = [
        *TEXT,
        "é",
        "e\u0301",
        "\u00a0",
        "\u200b",
        "ﬁ",
        "İ",
        "ß",
        "٣",
        "Ⅷ",
        "\u3000",
        "'",
        "'s",
        "'LL",
        "\n",
    ]
    return [TEXT, "", " ", *("".join(rng.choices(alphabet, k=rng.randrange(1, 40))) for _ in range(count))]


@pytest.mark.parametrize("pieces", ["gpt2", "smollm", "llama3", "qwen2"])
def test_written_byte_pairs_have_the_ids_of_the_library(tmp_path, pieces):
    ours = published(pieces)
    write(tmp_path, ours)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = read_tokenizer(tmp_path, "llama")
    assert (again.pieces, again.vocab_size) == (pieces, ours.vocab_size)
    for text in random_texts():
        ids = ours.encode(text, allowed_special="all")
        assert theirs.encode(text).ids == ids, text
        assert again.encode(text, allowed_special="all") == ids
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids) == text


def composing_texts(count=600, seed=2):
    """Random letters, marks and Hangul parts: what composes, what must not, marks in any order."""
    rng = random.Random(seed)
    blocks = [
        (0x41, 0x7B), (0xC0, 0x250), (0x300, 0x36F), (0x1E00, 0x1F00), (0x1100, 0x11C3), (0xAC00, 0xAC40),
        (0x930, 0x93D), (0x958, 0x960), (0x2126, 0x212C), (0xF900, 0xF910), (0x3C, 0x3F), (0x20, 0x22),
    ]  # fmt: skip
    for _ in range(count):
        chosen = (rng.randrange(*rng.choice(blocks)) for _ in range(rng.randrange(1, 30)))
        text = "".join(map(chr, chosen))
        yield text if rng.random() < 0.8 else f"{text}<|endoftext|>\u0338{text}"


@pytest.mark.parametrize(
    "rules", [{"nfc": True}, {"whole_pieces": True}, {"nfc": True, "whole_pieces": True}]
)
@pytest.mark.parametrize("pieces", ["llama3", "qwen2"])
def test_composed_text_and_whole_pieces(tmp_path, pieces, rules):
    """Qwen's NFC and Llama 3's ignore_merges: the ids of the library on random Unicode."""
    plain = published(pieces)
    spelt_out = {spelt(plain.decode_bytes([i])) for i in range(plain.vocab_size)}
    extra = [" linéaire", "xyz", "Ġ", "é", " read"]  # tokens that no merge makes
    tokens = [plain.decode_bytes([i]) for i in range(plain.vocab_size)]
    tokens += [word.encode() for word in extra if spelt(word.encode()) not in spelt_out]
    ours = PublishedBytePairTokenizer(
        tokens, plain.merges, plain.special_ids.values(), pieces=pieces, **rules
    )
    write(tmp_path, ours)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = read_tokenizer(tmp_path, "llama")
    assert (again.nfc, again.whole_pieces) == (ours.nfc, ours.whole_pieces)
    ours.save(tmp_path / "ours.json")
    saved = PublishedBytePairTokenizer.load(tmp_path / "ours.json")
    rng = random.Random(5)
    whole = [
        "".join(rng.choices([*extra, " ", "a", "\n", "line\u0301aire", " xyz"], k=9)) for _ in range(100)
    ]
    texts = [*random_texts(100), *composing_texts(300), *whole]
    differs = 0
    for text in texts:
        ids = theirs.encode(text).ids
        for each in (ours, again, saved):
            assert each.encode(text, allowed_special="all") == ids, text
        differs += plain.encode(text, allowed_special="all") != ids
    assert differs > 5  # the rules matter to these texts


def test_added_tokens_that_are_looked_for_after_composing(tmp_path):
    write(tmp_path, published("qwen2"))
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "NFC"}
    content["added_tokens"][0]["normalized"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"looks for '<.endoftext.>' in the composed text"):
        read_tokenizer(tmp_path, "qwen2")


def test_the_tokenizer_that_we_train_can_be_written(tmp_path):
    from transformers import AutoTokenizer

    ours = trained()
    write(tmp_path, ours, chat_template="{{ messages[0].content }}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(TEXT, add_special_tokens=False) == ours.encode(TEXT, allowed_special="all")
    assert theirs.eos_token_id == ours.special_ids["<|endoftext|>"]
    messages = [{"role": "user", "content": "hello"}]
    assert theirs.apply_chat_template(messages, tokenize=False) == "hello"
    config = read_tokenizer_config(tmp_path)
    assert config.chat_template == "{{ messages[0].content }}"
    assert config.special_tokens == {"eos_token": "<|endoftext|>"}


def test_gpt2_files(tmp_path):
    ours = trained()
    special = {i: token for token, i in ours.special_ids.items()}
    spell = lambda i: special.get(i) or spelt(ours.decode_bytes([i]))  # noqa: E731
    (tmp_path / "vocab.json").write_text(
        json.dumps({spell(i): i for i in range(ours.vocab_size)}), encoding="utf-8"
    )
    lines = ["#version: 0.2", *(f"{spell(left)} {spell(right)}" for left, right in ours.merges), ""]
    (tmp_path / "merges.txt").write_bytes("\n".join(lines).encode())
    again = read_tokenizer(tmp_path, "gpt2")
    for text in random_texts(100):
        assert again.encode(text, allowed_special="all") == ours.encode(text, allowed_special="all")
    with pytest.raises(ValueError, match=r"nothing that says how it cuts text.*tokenizer=False"):
        read_tokenizer(tmp_path, "qwen2")
    lines[2] += " x"
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=r"merges.txt, line 3: .* is no pair"):
        read_tokenizer(tmp_path, "gpt2")


@pytest.mark.parametrize("lower_case", [True, False])
def test_wordpiece(tmp_path, lower_case):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefilnrstwzö23,.'语", "##n", "##e", "##t"]
    words += ["lines", "cafe", "Zw", "zw", "##olf", "##ö", "##l", "##f", "it", "It"]
    ours = WordPieceTokenizer(words, lower_case=lower_case)
    write(tmp_path, ours)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = read_tokenizer(tmp_path, "bert")
    for text in random_texts(200):
        ids = ours.encode(text, allowed_special="all")
        assert theirs.encode(text).ids == ids, text
        assert again.encode(text, allowed_special="all") == ids
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    assert read_tokenizer(tmp_path, "bert").encode(TEXT) == ours.encode(TEXT)


def test_a_sentencepiece_model(tmp_path):
    from llm_from_scratch.tokenizers import SentencePieceTokenizer

    ours = SentencePieceTokenizer.train(TEXT * 5 + "words and more words", vocab_size=315)
    (tmp_path / "spiece.model").write_bytes(ours.model)
    assert read_tokenizer(tmp_path, "t5").encode("more lines") == ours.encode("more lines")


@pytest.mark.parametrize(
    "model", [{"type": "Unigram", "vocab": []}, {"type": "BPE", "byte_fallback": True, "vocab": {}}]
)
@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model"])
def test_a_sentencepiece_model_beside_a_tokenizer_json(tmp_path, model, name):
    """As T5 and Llama 2 are published: the json says the same once more, in a way that is not read here."""
    from llm_from_scratch.tokenizers import SentencePieceTokenizer

    ours = SentencePieceTokenizer.train(TEXT * 5 + "words and more words", vocab_size=315)
    added = [{"id": 0, "content": "<unk>"}, {"id": 400, "content": "<extra_id_0>"}]
    content = {"model": model, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / name).write_bytes(ours.model)
    assert read_tokenizer(tmp_path, "t5").encode("more lines") == ours.encode("more lines")
    added.append({"id": 315, "content": "<|im_end|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"'<\|im_end\|>' is a token that was added, and {name} lacks it"):
        read_tokenizer(tmp_path, "t5")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"<a>": 315}', encoding="utf-8")
    with pytest.raises(ValueError, match=f"'<a>' is a token that was added, and {name} lacks it"):
        read_tokenizer(tmp_path, "t5")
    (tmp_path / "added_tokens.json").unlink()
    (tmp_path / name).write_bytes(ours.model[:40])
    with pytest.raises(ValueError, match=rf"{name}: this is not a SentencePiece model"):
        read_tokenizer(tmp_path, "t5")


def test_the_hub_is_asked_for_every_file_that_is_read():
    asked = set(hub.FILES)
    assert {*SENTENCEPIECE, "vocab.txt", "vocab.json", "merges.txt", "tokenizer.json"} <= asked


def test_wordpiece_tokens_that_were_added_are_not_lost(tmp_path):
    ours = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ent"])
    write(tmp_path, ours)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"].append({"id": 6, "content": "[ENT]", "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'added_tokens' gives '\[ENT\]' the id 6.*tokenizer=False"):
        read_tokenizer(tmp_path, "bert")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strip_accents", False),
        ("tokenize_chinese_chars", False),
        ("do_basic_tokenize", False),
        ("do_lower_case", "no"),
    ],
)
def test_settings_beside_vocab_txt(tmp_path, field, value):
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({field: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"'{field}' is {value!r}"):
        read_tokenizer(tmp_path, "bert")


def test_a_folder_without_a_tokenizer(tmp_path):
    assert read_tokenizer(tmp_path, "llama") is None
    assert read_tokenizer_config(tmp_path).chat_template is None


def base(tmp_path):
    write(tmp_path, published("gpt2", reorder=False))
    return json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("model", "type"),
            "Unigram",
            "'Unigram'; BPE over bytes and WordPiece are read here.*tokenizer=False",
        ),
        (("normalizer",), {"type": "NFKC"}, r"'normalizer' is .*NFKC.*composed \(NFC\) or taken as it is"),
        (("normalizer",), "NFC", "'normalizer' is 'NFC', expected an object"),
        (("model", "byte_fallback"), True, "'byte_fallback' is True; only False"),
        (("model", "ignore_merges"), 1, "'ignore_merges' is 1, expected true or false"),
        (("model", "end_of_word_suffix"), "</w>", "'end_of_word_suffix' is '</w>'"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "'pre_tokenizer' cuts text in a way that is not known"),
        (("pre_tokenizer",), {**GPT2, "add_prefix_space": True}, "'pre_tokenizer' cuts"),
        (("pre_tokenizer",), {**GPT2, "use_regex": False}, "'pre_tokenizer' cuts"),
        (("pre_tokenizer",), None, "'pre_tokenizer' is missing"),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": []}, "'pre_tokenizer' cuts"),
        (
            ("pre_tokenizer",),
            {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": "(a+)+b"},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {**BYTE_LEVEL, "use_regex": False},
                ],
            },
            "'pre_tokenizer' cuts",
        ),
        (("model", "merges"), [["a"]], "'merges' holds .* at position 0, no pair"),
        (("model", "merges"), [["a", "zzz"]], "merge 0 names 'zzz', which is no token"),
        (("model", "vocab", "a"), "7", "'vocab' gives 'a' the id '7'"),
        (("model", "vocab", "new"), 10**6, "are not 0 to"),
        (("added_tokens",), [{"id": 1}], "'added_tokens' holds"),
        (("added_tokens", 0, "lstrip"), True, "the property lstrip"),
        (("added_tokens", 0, "id"), 3, r"gives '<\|endoftext\|>' the id"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, place, value, message):
    content = base(tmp_path)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_tokenizer(tmp_path, "llama")
    assert "tokenizer.json" in str(caught.value)


def test_a_tokenizer_saved_by_us_is_recognised(tmp_path):
    trained().save(tmp_path)
    with pytest.raises(ValueError, match="saved here: load_tokenizer opens it"):
        read_tokenizer(tmp_path, "gpt2")


def test_kinds_without_such_files_are_refused():
    with pytest.raises(ValueError, match=r"a CharacterTokenizer has no files.*tokenizer.save"):
        write_tokenizer(CharacterTokenizer.train("abc"))
