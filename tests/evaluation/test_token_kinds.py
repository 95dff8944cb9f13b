"""Kinds of tokens, on texts cut by hand and by a tokenizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.evaluation.token_kinds import KINDS, loss_by_kind, token_kinds


def kinds_of(*texts):
    return token_kinds(texts, end_of_text="<|end|>")


NUMBERS = 2 * ["number"]
CASES = {
    ("The", " union", " is"): ["function word", "other word", "function word"],
    (" the", "atre"): ["other word", "rest of a word"],  # not the word "the"
    (" of", "\n"): ["function word", "line break"],
    ("In", " C", "ar", "olina", ","): ["function word", "name", *2 * ["rest of a word"], "punctuation"],
    (".", " Congress", " met"): ["punctuation", "other word", "other word"],  # begins a sentence
    (" people", "'s", " money"): ["other word", "rest of a word", "other word"],
    (" $", "1", ",", "000"): ["punctuation", "number", "punctuation", "number"],
    (" in", " 18", "61"): ["function word", *NUMBERS],
    ("a", "<|end|>", "Peace"): ["function word", "end of text", "other word"],
    ("pre", "-", "w", "ar"): ["other word", "punctuation", "other word", "rest of a word"],
    (" ", "", "The"): ["punctuation", "punctuation", "function word"],
    (" \u00e9", "tat"): ["other word", "rest of a word"],
}


@pytest.mark.parametrize("texts", CASES)
def test_by_hand(texts):
    assert kinds_of(*texts) == CASES[texts]


@given(st.lists(st.text(max_size=8), max_size=12))
def test_every_text_has_a_kind(texts):
    kinds = kinds_of(*texts)
    assert len(kinds) == len(texts)
    assert set(kinds) <= set(KINDS)


def test_loss_by_kind_is_a_mean_whose_parts_add_up():
    rng = np.random.default_rng(0)
    losses, kinds = rng.random(100), rng.choice(KINDS[:5], size=100).tolist()
    found = loss_by_kind(losses, kinds)
    assert list(found) == [kind for kind in KINDS if kind in kinds]
    assert sum(found[kind] * kinds.count(kind) for kind in found) == pytest.approx(losses.sum())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: token_kinds("the union"), "one string for each token"),
        (lambda: loss_by_kind([1.0], ["number", "name"]), "one loss for each kind"),
        (lambda: loss_by_kind([1.0], ["verb"]), "unknown kinds"),
    ],
)
def test_mistakes_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
