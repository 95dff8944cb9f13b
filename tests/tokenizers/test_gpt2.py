"""GPT-2's tokenizer: its spelling and its ids, equal to Hugging Face's tokenizers from the same two files.

`gpt2_format/` holds a small vocabulary in GPT-2's format: 700 merges learnt here from two messages, one
chapter of the Three Kingdoms and contractions. With it the parity runs everywhere; the slow tests repeat
it with GPT-2's own files, which come out of a published package.
"""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.corpora import load
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.tokenizers.gpt2 import read_gpt2_merges, spelt
from tests.rotation import seed_of_the_day

SMALL = Path(__file__).parent / "gpt2_format"
# Blocks that cut differently: letters with and without case, marks, digits, signs, spaces, four planes.
BLOCKS = (
    (0x20, 0x7F), (0x20, 0x7F), (0x09, 0x0E), (0x80, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700),
    (0x900, 0x980), (0xE00, 0xE80), (0x1100, 0x1200), (0x2000, 0x2070), (0x2150, 0x2190), (0x2600, 0x2700),
    (0x3000, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xFE00, 0xFE10), (0x10000, 0x10100),
    (0x1D7CE, 0x1D800), (0x1F300, 0x1F650), (0x20000, 0x20100), (0xE0100, 0xE0110), (0x0, 0x110000),
)  # fmt: skip


def library_of(encoder: Path, merges: Path) -> Tokenizer:
    """Return the independent implementation for the two published files."""
    library = Tokenizer(models.BPE.from_file(str(encoder), str(merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return library


def is_assigned(code_point: int) -> bool:
    """Say whether the character is in the Unicode tables of both libraries; the newest may not be."""
    return unicodedata.category(chr(code_point)) not in ("Cn", "Co", "Cs")


def random_texts(count: int, seed: int) -> list[str]:
    """Return strings of 1 to 47 characters that jump between blocks, with words and spaces between."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(1, 8)):
            low, high = BLOCKS[rng.integers(len(BLOCKS))]
            drawn = rng.integers(low, high, size=rng.integers(1, 7)).tolist()
            parts.append("".join(chr(i) for i in drawn if is_assigned(i)))
            parts.append(
                str(
                    rng.choice(
                        ["", "", " ", "  ", "\n", "'s", "'re", " we've", " the", "'LLAMA", "12", "\u3000"]
                    )
                )
            )
        texts.append("".join(parts)[:47] or "\u00e9")
    return texts


@pytest.fixture(scope="module")
def small():
    ours = read_gpt2_merges(SMALL / "vocab.bpe")
    return ours, library_of(SMALL / "encoder.json", SMALL / "vocab.bpe")


@pytest.fixture(scope="module")
def gpt2():
    ours = read_gpt2_merges(fetch("gpt2_merges"))
    return ours, library_of(fetch("gpt2_encoder"), fetch("gpt2_merges"))


def assert_same_ids(ours: BytePairTokenizer, library: Tokenizer, texts: list[str]) -> None:
    theirs = library.encode_batch(texts)
    for text, their in zip(texts, theirs, strict=True):
        ids = ours.encode(text)
        assert ids == their.ids, f"{text!a}: {ids} here, {their.ids} there"
        assert ours.decode(ids) == text


def test_the_small_vocabulary_is_the_published_one_of_its_files(small):
    ours, _ = small
    vocabulary = json.loads((SMALL / "encoder.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == ours.vocab_size == 957
    assert {spelt(ours.decode_bytes([i])): i for i in range(ours.vocab_size)} == vocabulary


def test_ids_on_thousands_of_random_unicode_strings(small):
    ours, library = small
    texts = random_texts(4_000, seed=2)
    assert len(set(texts)) > 3_900
    assert len({character for text in texts for character in text}) > 8_000
    assert_same_ids(ours, library, texts)
    used = {i for text in texts for i in ours.encode(text) if i >= 256}
    assert len(used) > 100, "the strings hardly touch the merges"


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn", "Co")), max_size=60))
@example("")
@example("I'll we've I'LL I\u2019ll 's's")
@example("  two  spaces \n\n\ttabs \r\n ")
@example("三国演义 人民 the people's 12,345.678 \u0663\u0664 Ⅷ")
@example("e\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467 \ufeff\x00\x1f\x85\xa0")
def test_ids_on_any_string(small, text):
    ours, library = small
    assert_same_ids(ours, library, [text])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 955), max_size=12))
@example([0xE3])
def test_ids_that_end_inside_a_character_decode_alike(small, ids):
    """The Rust and the Python decoder replace the same broken bytes by U+FFFD."""
    ours, library = small
    assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


def test_a_merges_file_gives_the_same_tokenizer(tmp_path):
    text = "the cat sat on the mat; 語語 the\n\ncat"
    trained = BytePairTokenizer.train(text, vocab_size=280, special_tokens=["<|endoftext|>"])
    names = [spelt(trained.decode_bytes([i])) for i in range(trained.vocab_size)]
    lines = [f"{names[left]} {names[right]}\n" for left, right in trained.merges]
    merges, encoder = tmp_path / "vocab.bpe", tmp_path / "encoder.json"
    merges.write_text("#version: 0.2\n" + "".join(lines), encoding="utf-8")
    encoder.write_text(json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8")
    read = read_gpt2_merges(merges)
    assert read.merges == trained.merges
    assert read.special_ids == trained.special_ids
    assert_same_ids(read, library_of(encoder, merges), [text])


@pytest.mark.parametrize("line", ["a", "a b c", "bc a", "a 語", "a  b"])
def test_what_is_no_merge_is_named_by_its_line(tmp_path, line):
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\na b\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.bpe, line 3: .* is not a merge"):
        read_gpt2_merges(tmp_path / "vocab.bpe")
    with pytest.raises(FileNotFoundError):
        read_gpt2_merges(tmp_path / "none")


@pytest.mark.slow
def test_gpt2_itself(gpt2):
    ours, library = gpt2
    vocabulary = json.loads(fetch("gpt2_encoder").read_text(encoding="utf-8"))
    assert (ours.vocab_size, ours.special_ids) == (50_257, {"<|endoftext|>": 50_256})
    for token, i in vocabulary.items():
        assert spelt(ours.decode_bytes([i])) == token
    assert ours.encode("The cat sat on the mat") == [464, 3797, 3332, 319, 262, 2603]
    assert_same_ids(ours, library, [document.text for document in load("sotu").documents[::25]])


@pytest.mark.slow
def test_gpt2_on_random_unicode_strings(gpt2):
    """Other strings each day (`tests.rotation`); a failure shows the string."""
    ours, library = gpt2
    texts = random_texts(7000, seed=seed_of_the_day())
    assert_same_ids(ours, library, texts)
    rng = np.random.default_rng(seed_of_the_day())
    for ids in rng.integers(0, 50_256, size=(2_000, 7)).tolist():
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


@pytest.mark.slow
def test_gpt2_on_every_character_and_every_chapter(gpt2):
    ours, library = gpt2
    characters = [chr(i) for i in range(0x110000) if is_assigned(i)]
    assert_same_ids(ours, library, [f"a{c}1{c} {c}!{c}" for c in characters])
    assert_same_ids(ours, library, json.loads(fetch("sanguo").read_text(encoding="utf-8"))[::9])
