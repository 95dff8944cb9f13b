"""Changed copies of texts: what changes, how often, and that labels stay."""

from collections import Counter

import numpy as np
import pytest

from llm_from_scratch.data.augmentation import augmented, drop_words, join_halves, swap_neighbours

WORDS = [f"w{n}" for n in range(2_000)]
TEXT = " ".join(WORDS)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_words_are_dropped_at_the_rate_and_keep_their_order(rate):
    kept = drop_words(TEXT, np.random.default_rng(0), rate=rate).split()
    assert [int(word[1:]) for word in kept] == sorted(int(word[1:]) for word in kept)
    assert abs(1 - len(kept) / len(WORDS) - rate) < 0.03
    assert drop_words(TEXT, np.random.default_rng(0), rate=0.0) == TEXT


def test_one_word_is_always_kept():
    left = Counter(drop_words("a b c", np.random.default_rng(seed), rate=1.0) for seed in range(60))
    assert left.keys() == {"a", "b", "c"}


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbours_are_swapped_at_the_rate_and_move_one_place(rate):
    swapped = swap_neighbours(TEXT, np.random.default_rng(0), rate=rate).split()
    assert sorted(swapped) == sorted(WORDS)
    moved = [abs(int(word[1:]) - place) for place, word in enumerate(swapped)]
    assert set(moved) == {0, 1}
    expected = rate / (1 + rate)  # swaps a word: each uses up two words, each refusal one
    assert sum(moved) / 2 / len(WORDS) == pytest.approx(expected, abs=0.03)
    assert swap_neighbours("alone", np.random.default_rng(0), rate=1.0) == "alone"


def test_halves():
    assert join_halves("a b c d", "e f g h") == "a b g h"
    assert join_halves("a b c", "d e f") == "a f"
    assert join_halves("a", "b") == "a"  # no half of either: the first text stays


def test_copies_keep_the_label_and_depend_on_the_seed():
    texts = [f"{'good' if n % 2 else 'bad'} film {n} and all of its {n} series {n}" for n in range(40)]
    labels = [n % 2 for n in range(40)]
    found, found_labels = augmented(texts, labels, copies=6, seed=1)
    assert (list(found[:40]), list(found_labels[:40])) == (texts, labels)
    assert len(found) == len(found_labels)
    assert 120 < len(found) <= 280
    for text, label in zip(found, found_labels, strict=True):
        assert ("good" not in text) if label == 0 else ("bad" not in text)
    assert not set(found[40:]) & set(texts)
    assert augmented(texts, labels, copies=6, seed=1) == (found, found_labels)
    assert augmented(texts, labels, copies=6, seed=2) != (found, found_labels)


def test_mixed_texts_are_of_one_label():
    texts = [f"{name}{n} {name}x{n} {name}y{n} {name}z{n}" for name in "ab" for n in range(20)]
    labels = [0] * 20 + [1] * 20
    found, _ = augmented(texts, labels, copies=1, seed=0, changes=["join"])
    assert found[40:]
    for text in found[40:]:
        assert len({word[0] for word in text.split()}) == 1


def test_what_cannot_be_changed_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="the text ' ' has no word"):
        drop_words(" ", rng)
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, got 1\.5"):
        swap_neighbours("a b", rng, rate=1.5)
    with pytest.raises(ValueError, match="2 texts have 1 labels"):
        augmented(["a", "b"], [0], copies=1, seed=0)
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        augmented(["a"], [0], copies=0, seed=0)
    for changes in ([], ["translate"]):
        with pytest.raises(ValueError, match="changes must be among drop, swap, join"):
            augmented(["a"], [0], copies=1, seed=0, changes=changes)
