"""Steps that read the text so far, against transformers' processors and against loops over lists."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from llm_from_scratch.decoding.bad_words import forbid_sequences
from llm_from_scratch.decoding.logits import keep_top_k
from llm_from_scratch.decoding.pipeline import run_pipeline, scores_only
from llm_from_scratch.decoding.repetition import (
    count_tokens,
    forbid_repeated_ngrams,
    penalise_presence_and_frequency,
    penalise_repetition,
)

B, T, V = 5, 23, 101
DTYPES = [torch.float16, torch.float32, torch.float64]


def text_and_scores(seed, dtype=torch.float32, V=V, words=V):
    """Random ids among the first ``words``; scores with ties, zeros and minus infinities among them."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(words, (B, T), generator=generator)
    logits_BV = 5 * torch.randn(B, V, generator=generator)
    logits_BV[:, ::7] = logits_BV[:, ::7].round()
    logits_BV[torch.rand(B, V, generator=generator) < 0.1] = -math.inf
    return ids_BT, logits_BV.to(dtype)


def same(ours, theirs):
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("penalty", [1e-30, 0.5, 1.0, 1.3, 1e30])
def test_repetition_penalty_equals_transformers(penalty, dtype):
    for seed in range(3):
        ids, x = text_and_scores(seed, dtype)
        before = x.clone()
        theirs = RepetitionPenaltyLogitsProcessor(penalty)
        same(penalise_repetition(ids, x, penalty=penalty), theirs(ids, x.clone()))
        theirs = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=17)
        same(penalise_repetition(ids, x, penalty=penalty, prompt_length=17), theirs(ids, x.clone()))
        assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, T - 1, T, T + 1, 99])
def test_no_repeated_ngrams_equal_transformers(size, dtype):
    some = 0
    for seed in range(3):
        ids, x = text_and_scores(seed, dtype, words=3)
        ids[0] = torch.arange(T) % 2  # its n-grams repeat at every size
        ours = forbid_repeated_ngrams(ids, x, size=size)
        same(ours, NoRepeatNGramLogitsProcessor(size)(ids, x.clone()))
        some += (ours != x).sum()
    assert (some > 0) == (size < T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_words_equal_transformers(dtype):
    some = 0
    for seed in range(5):
        ids, x = text_and_scores(seed, dtype, words=3)
        words = [[7], [100], [0, 5], [1, 6], [2, 8], [0, 1, 9], [2, 2, 2, 2], [*ids[1].tolist(), 11]]
        words += [[*([1] * (T + 1)), 3], ids[3, -4:].tolist()]
        ours = forbid_sequences(ids, x, sequences=words)
        same(ours, NoBadWordsLogitsProcessor(words)(ids, x.clone()))
        assert ours[1, 11] == -math.inf
        some += (ours != x).sum()
    assert some > 60  # of the 50 single tokens some were impossible already


@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.integers(0, 6), max_size=12),
    row=st.lists(st.floats(-99, 99, width=32) | st.just(-math.inf), min_size=7, max_size=7),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    skip=st.integers(0, 14),
)
def test_presence_and_frequency_by_hand(text, row, presence, frequency, skip):
    x = torch.tensor([row], dtype=torch.float64)
    ids = torch.tensor([text], dtype=torch.long)
    expected = list(row)
    for i in range(7):
        count = sum(token == i for token in text[skip:])
        expected[i] -= count * frequency
        if count > 0:
            expected[i] -= presence
    ours = penalise_presence_and_frequency(ids, x, presence=presence, frequency=frequency, prompt_length=skip)
    same(ours, torch.tensor([expected], dtype=torch.float64))
    assert count_tokens(ids, x).tolist() == [[text.count(i) for i in range(7)]]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_penalties_keep_the_number_format(dtype):
    ids, x = text_and_scores(1, dtype)
    for ids_BT in (ids, ids.int()):
        y = penalise_presence_and_frequency(ids_BT, x, presence=0.3, frequency=0.7)
        assert y.dtype == dtype
        assert torch.equal(y.isinf(), x.isinf())
        assert penalise_repetition(ids_BT, x, penalty=1.1).dtype == dtype


def test_a_pipeline_runs_in_order_as_in_transformers():
    ids, _ = text_and_scores(4, words=50)
    x = torch.randn(B, V, generator=torch.Generator().manual_seed(4))  # no ties: top-k breaks them otherwise
    penalty, ngrams = RepetitionPenaltyLogitsProcessor(3.0), NoRepeatNGramLogitsProcessor(1)
    ours = partial(penalise_repetition, penalty=3.0), partial(forbid_repeated_ngrams, size=1)
    top, theirs_top = scores_only(keep_top_k, top_k=9), TopKLogitsWarper(9)
    orders = [[0, 1, 2], [2, 1, 0]]
    results = []
    for order in orders:
        mine = [[*ours, top][i] for i in order]
        theirs = LogitsProcessorList([[penalty, ngrams, theirs_top][i] for i in order])
        results.append(run_pipeline(mine, ids, x))
        same(results[-1], theirs(ids, x.clone()))
    assert not torch.equal(*results)
    assert run_pipeline([], ids, x) is x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda i, x: penalise_repetition(i, x, penalty=0.0),
            "penalty must be positive and finite, got 0.0; 1",
        ),
        (lambda i, x: penalise_repetition(i, x, penalty=math.inf), "got inf"),
        (lambda i, x: penalise_repetition(i, x, penalty=math.nan), "got nan"),
        (lambda i, x: penalise_repetition(i, x, penalty=2.0, prompt_length=-1), "prompt_length .* got -1"),
        (
            lambda i, x: penalise_repetition(i + 99, x, penalty=2.0),
            "id 100 lies outside .* 3 tokens; .* 0 to 2",
        ),
        (lambda i, x: penalise_repetition(i - 9, x, penalty=2.0), "token id -8 lies outside"),
        (lambda i, x: penalise_repetition(i[0], x, penalty=2.0), r"\(2,\) and \(1, 3\); .*ids\[None\]"),
        (lambda i, x: penalise_repetition(i.float(), x, penalty=2.0), "whole numbers, got torch.float32"),
        (
            lambda i, x: penalise_presence_and_frequency(i, x, presence=math.nan),
            "presence must be finite, got nan",
        ),
        (lambda i, x: penalise_presence_and_frequency(i, x, frequency=-math.inf), "frequency .* got -inf"),
        (
            lambda i, x: forbid_repeated_ngrams(i, x, size=0),
            "size must be a whole number of at least 1, got 0",
        ),
        (lambda i, x: forbid_repeated_ngrams(i, x, size=2.0), "got 2.0"),
        (lambda i, x: forbid_repeated_ngrams(i + 9, x, size=1), "token id 10 lies outside"),
        (lambda i, x: forbid_sequences(i, x, sequences=[[]]), "sequence is empty; leave it out"),
        (lambda i, x: forbid_sequences(i, x, sequences=[[1, 3]]), r"token 3 .* \[1, 3\] lies outside"),
        (lambda i, x: forbid_sequences(i, x, sequences=[[-1]]), "token -1"),
        (lambda i, x: forbid_sequences(i, x, sequences=["ab"]), "list of token ids, got 'ab'; encode"),
        (lambda i, x: forbid_sequences(i, x, sequences=[1]), "list of token ids, got 1"),
        (lambda i, x: run_pipeline([3], i, x), "step 0 of the pipeline must be a function .* got 3"),
        (lambda i, x: run_pipeline([lambda i, x: x[0]], i, x), r"shape \(1, 3\), got shape \(3,\)"),
        (lambda i, x: run_pipeline([lambda i, x: None], i, x), r"shape \(1, 3\), got None"),
        (lambda i, x: run_pipeline([], i, x[0]), "with the same B"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([[1, 2]]), torch.zeros(1, 3))
