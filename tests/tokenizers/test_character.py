"""Characters as tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.tokenizers import CharacterTokenizer, load_tokenizer

ANY = st.text(st.characters(), min_size=1)  # lone surrogates too: they are code points like others


@given(ANY)
def test_round_trip_of_any_text_that_was_seen(text):
    tokenizer = CharacterTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert set(ids) == set(range(tokenizer.vocab_size))


def test_ids_follow_the_code_points():
    tokenizer = CharacterTokenizer.train(["ba", "語c"])
    assert tokenizer.characters == ("a", "b", "c", "語")
    assert tokenizer.encode("語a") == [3, 0]
    assert tokenizer.decode(torch.tensor([3, 0])) == "語a"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_an_unseen_character_is_named_with_its_place():
    with pytest.raises(ValueError, match=r"'z' \(U\+007A\) at position 2 .*3 .*BytePairTokenizer"):
        CharacterTokenizer.train("abc").encode("abz")


@pytest.mark.parametrize("ids", [[3], [-1], [0, 99]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="not in the vocabulary, whose ids are 0 to 2"):
        CharacterTokenizer.train("abc").decode(ids)


@pytest.mark.parametrize("empty", ["", [], ["", ""]])
def test_an_empty_text_is_refused(empty):
    with pytest.raises(ValueError, match="empty"):
        CharacterTokenizer.train(empty)


@pytest.mark.parametrize("characters", [[], ["ab"], ["a", "a"], [""], [3]])
def test_a_bad_vocabulary_is_refused(characters):
    with pytest.raises(ValueError, match="vocabulary"):
        CharacterTokenizer(characters)


def test_saved_and_loaded(tmp_path):
    tokenizer = CharacterTokenizer.train("a\n\x00\ud83d\ude00 語\U0001f600")
    tokenizer.save(tmp_path / "tokenizer.json")
    for loaded in (load_tokenizer(tmp_path), CharacterTokenizer.load(tmp_path / "tokenizer.json")):
        assert loaded.characters == tokenizer.characters
    assert repr(loaded) == "CharacterTokenizer(8 characters)"


def test_tokens_as_text_are_for_people():
    tokenizer = CharacterTokenizer.train("a \n語")
    assert tokenizer.tokens_as_text(tokenizer.encode("a \n語")) == ["a", "␣", "↵", "語"]
