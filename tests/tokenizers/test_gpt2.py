"""GPT-2's tokenizer: its spelling, and its ids."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.corpora import load
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.tokenizers.gpt2 import read_gpt2_merges, spelt


def test_a_merges_file_gives_the_same_tokenizer(tmp_path):
    text = "the cat sat on the mat; 語語 the\n\ncat"
    trained = BytePairTokenizer.train(text, vocab_size=280, special_tokens=["<|endoftext|>"])
    names = [spelt(trained.decode_bytes([i])) for i in range(trained.vocab_size)]
    lines = [f"{names[left]} {names[right]}\n" for left, right in trained.merges]
    path = tmp_path / "vocab.bpe"
    path.write_text("#version: 0.2\n" + "".join(lines), encoding="utf-8")
    read = read_gpt2_merges(path)
    assert read.merges == trained.merges
    assert read.special_ids == trained.special_ids
    library = Tokenizer(models.BPE.from_file(*_library_files(tmp_path, names, lines)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert read.encode(text) == library.encode(text).ids


def _library_files(folder, names, lines):
    (folder / "vocab.json").write_text(
        json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(lines), encoding="utf-8")
    return str(folder / "vocab.json"), str(folder / "merges.txt")


@pytest.mark.parametrize("line", ["a", "a b c", "bc a", "a 語", "a  b"])
def test_what_is_no_merge_is_named_by_its_line(tmp_path, line):
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\na b\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.bpe, line 3: .* is not a merge"):
        read_gpt2_merges(tmp_path / "vocab.bpe")
    with pytest.raises(FileNotFoundError):
        read_gpt2_merges(tmp_path / "none")


@pytest.mark.slow
def test_gpt2_itself():
    ours = read_gpt2_merges(fetch("gpt2_merges"))
    vocabulary = json.loads(fetch("gpt2_encoder").read_text(encoding="utf-8"))
    assert (ours.vocab_size, ours.special_ids) == (50_257, {"<|endoftext|>": 50_256})
    for token, i in vocabulary.items():
        assert spelt(ours.decode_bytes([i])) == token
    assert ours.encode("The cat sat on the mat") == [464, 3797, 3332, 319, 262, 2603]
    library = Tokenizer(models.BPE.from_file(str(fetch("gpt2_encoder")), str(fetch("gpt2_merges"))))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for document in load("sotu").documents[::25]:
        assert ours.encode(document.text) == library.encode(document.text).ids
