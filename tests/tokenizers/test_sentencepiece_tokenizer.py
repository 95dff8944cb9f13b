"""SentencePiece behind our face: the library's ids, and text that comes back."""

import base64
import json
import subprocess
import sys

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_from_scratch.data.corpora import load
from llm_from_scratch.tokenizers import SentencePieceTokenizer, load_tokenizer

KEPT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\u2581\0"), max_size=80)


@pytest.fixture(scope="module")
def documents():
    return [document.text for document in load("sotu").between(1990, 1993).documents]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request, documents):
    return SentencePieceTokenizer.train(
        documents, vocab_size=503, special_tokens=["<|end|>"], model_type=request.param
    )


@settings(max_examples=200, deadline=None)
@given(text=KEPT)
@example(text="")
@example(text="  two  spaces \n\n\t tabs \r\n")
@example(text="<unk> <0x41> <|end|>")
@example(text="e\u0301 語 👩‍👩‍👧 \ufeffＡ ﬁ")
def test_round_trip(tokenizer, text):
    for allowed in ((), "all"):
        assert tokenizer.decode(tokenizer.encode(text, allowed_special=allowed)) == text


def test_ids_are_the_library_s(tokenizer, documents, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    stored = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer.model == base64.b64decode(stored["model"])
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    line = documents[0].split("\n")[0]
    assert tokenizer.encode(line) == library.encode(line)
    assert tokenizer.vocab_size == library.get_piece_size() == 503
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(line) == tokenizer.encode(line)
    assert loaded.special_ids == tokenizer.special_ids


def test_training_twice_gives_the_same(tokenizer, documents):
    assert len(tokenizer.encode(documents[0])) < len(documents[0]) / 1.5
    first, second = (SentencePieceTokenizer.train(documents[:1], vocab_size=400) for _ in range(2))
    assert first.encode(documents[1]) == second.encode(documents[1])


def test_special_tokens_must_be_allowed(tokenizer):
    end = tokenizer.special_ids["<|end|>"]
    assert end not in tokenizer.encode("a<|end|>b")
    assert tokenizer.encode("a<|end|>b", allowed_special="all").count(end) == 1
    assert tokenizer.tokens_as_text([end]) == ["<|end|>"]
    with pytest.raises(ValueError, match="not a special token"):
        tokenizer.encode("a", allowed_special=["<|pad|>"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("ab\u2581", r"U\+2581 at position 2"), ("\0", r"U\+0000 at position 0"), ("\ud800", "lone surrogate")],
)
def test_what_would_be_lost_is_refused(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(text)


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    for bad in (-1, 503):
        with pytest.raises(ValueError, match=f"token id {bad} .*0 to 502"):
            tokenizer.decode([bad])


@pytest.mark.parametrize(("vocab_size", "limit"), [(10, "261"), (100_000, "<= 261")])
def test_a_vocabulary_that_does_not_fit_the_text_is_refused(vocab_size, limit):
    with pytest.raises(ValueError, match=f"cannot train {vocab_size} tokens .*{limit}"):
        SentencePieceTokenizer.train("a b c", vocab_size=vocab_size)


@pytest.mark.parametrize("empty", ["", [], "\n\n", "<s>"])
def test_an_empty_text_is_refused(empty):
    with pytest.raises(ValueError, match="empty"):
        SentencePieceTokenizer.train(empty, vocab_size=300, special_tokens=["<s>"])


def test_a_long_line_is_learnt_from(documents):
    line = documents[0].replace("\n", " ") * 4
    assert len(line) > 65_536
    trained = SentencePieceTokenizer.train(line, vocab_size=400)
    assert len(trained.encode("the American people")) < 12


@pytest.mark.parametrize("model", ["", "AAAA", "not base64!", base64.b64encode(b"\x0a\xff" * 9).decode()])
def test_a_damaged_model_is_refused(tmp_path, model):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"kind": "sentencepiece", "format": 1, "model": model}), encoding="utf-8")
    with pytest.raises(ValueError, match="the field 'model' is damaged"):
        load_tokenizer(path)


def test_the_library_is_imported_late():
    code = "import sys; import llm_from_scratch.tokenizers; print('sentencepiece' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    code = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from llm_from_scratch.tokenizers import SentencePieceTokenizer as S\n"
        "S.train('a b', vocab_size=300)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install sentencepiece" in done.stderr
