"""Near duplicates against definitions, and MinHash against the similarity that it estimates."""

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.data.deduplication import (
    candidate_pairs,
    deduplicate,
    jaccard,
    minhash,
    near_duplicates,
    seen_words,
    shingles,
    words,
)


def text_of(rng, length):
    return " ".join(rng.choice("abcdefghijklmnopqrstuvwxyz") * rng.randint(1, 3) for _ in range(length))


def by_definition(a, b, n):
    a, b = ({tuple(words(t)[i : i + n]) for i in range(len(words(t)) - n + 1)} for t in (a, b))
    return len(a & b) / len(a | b)


def test_shingles_and_jaccard_by_definition():
    rng = random.Random(1)
    for n in (1, 2, 3):
        a, b = text_of(rng, 40), text_of(rng, 31)
        assert jaccard(shingles(a, n), shingles(b, n)) == pytest.approx(by_definition(a, b, n))
    assert jaccard(shingles("", 3), shingles("", 3)) == 0
    assert words("Über-Maß, 中国!") == ["über", "maß", "中国"]


def test_numbers_are_the_same_in_another_process():
    imported = "from llm_from_scratch.data.deduplication import shingles"
    code = f"{imported}; print(shingles('we the people', 2).tolist())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(shingles("We, the people.", 2).tolist())


@given(st.lists(st.text(max_size=30), max_size=6))
def test_any_text(texts):
    kept = deduplicate(texts, n=2)
    assert kept == sorted(set(kept))
    assert len(kept) <= len(texts)
    assert not texts or kept[0] == 0


@pytest.mark.parametrize("common", [10, 50, 90])
def test_minhash_estimates_jaccard(common):
    rng = np.random.default_rng(common)
    numbers = rng.integers(0, 2**63, size=200 - common, dtype=np.uint64)
    a, b = np.sort(numbers[:100]), np.sort(numbers[100 - common :])
    true = common / (200 - common)
    assert jaccard(a, b) == pytest.approx(true)
    signatures = minhash([a, b], num_hashes=4096)
    error = (true * (1 - true) / 4096) ** 0.5
    assert abs((signatures[0] == signatures[1]).mean() - true) < 4 * error


def test_consecutive_numbers_do_not_break_the_hash():
    signatures = minhash(
        [np.arange(0, 100, dtype=np.uint64), np.arange(50, 150, dtype=np.uint64)], num_hashes=4096
    )
    assert abs((signatures[0] == signatures[1]).mean() - 1 / 3) < 0.06


def test_bands_propose_pairs_with_the_named_probability():
    rng = np.random.default_rng(3)
    J, rows, bands, trials = 0.6, 4, 8, 2000
    agree = rng.random((trials, rows * bands)) < J
    first = rng.integers(0, 2**40, size=agree.shape, dtype=np.uint64)
    second = np.where(agree, first, first + np.uint64(2**41))
    found = sum(
        bool(candidate_pairs(np.stack(pair), bands=bands)) for pair in zip(first, second, strict=True)
    )
    expected = 1 - (1 - J**rows) ** bands
    assert abs(found / trials - expected) < 4 * (expected * (1 - expected) / trials) ** 0.5


def test_near_duplicates_are_those_of_all_pairs():
    rng = random.Random(5)
    texts = [text_of(rng, 60) for _ in range(12)]
    for i in range(6):  # one word of sixty changed: similarity about 55 / 65
        changed = texts[i].split()
        changed[30] = "other"
        texts.append(" ".join(changed))
    found = {(i, j) for i, j, _ in near_duplicates(texts, n=5, threshold=0.7)}
    pairs = itertools.combinations(range(len(texts)), 2)
    assert found == {(i, j) for i, j in pairs if by_definition(texts[i], texts[j], 5) >= 0.7}
    assert len(found) == 6
    assert deduplicate(texts, n=5, threshold=0.7) == list(range(12))


def test_a_chain_keeps_what_resembles_only_what_was_dropped():
    a, b, c = "1 2 3 4 5 6 7 8", "2 3 4 5 6 7 8 9", "3 4 5 6 7 8 9 10"
    settings = {"n": 1, "threshold": 0.7, "num_hashes": 256, "bands": 128}
    assert [(i, j) for i, j, _ in near_duplicates([a, b, c], **settings)] == [(0, 1), (1, 2)]
    assert deduplicate([a, b, c], **settings) == [0, 2]


def test_seen_words_need_a_whole_run():
    others = ["the state of the union is strong", "and good"]
    marks = seen_words("Today the State of the Union is weak", others, n=4)
    assert marks.tolist() == [False, True, True, True, True, True, True, False]
    assert not seen_words("the state of", others, n=4).any()
    assert seen_words("", others, n=4).shape == (0,)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: shingles("a", 0), "n must be at least 1"),
        (lambda: minhash([], num_hashes=0), "num_hashes must be at least 1"),
        (
            lambda: candidate_pairs(minhash([], num_hashes=8), bands=3),
            "8 entries does not divide into 3 bands",
        ),
        (lambda: near_duplicates([], threshold=0.0), r"threshold must lie in \(0, 1\], got 0.0"),
    ],
)
def test_mistakes_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
