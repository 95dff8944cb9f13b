"""Masking: the rates are what they say, words stay whole, and transformers' rule gives the same words."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.data.masking import (
    NO_TARGET,
    choose_spans,
    choose_tokens,
    choose_words,
    corrupt,
    word_numbers,
)

V, MASK, SPECIAL = 97, 4, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows=400, length=53, seed=0):
    ids_BT = torch.randint(SPECIAL, V, (rows, length), generator=generator(seed))
    ids_BT[:, 0], ids_BT[:, -1] = 2, 3
    return ids_BT


def near(count, trials, share):
    """Within five standard deviations of a binomial count: a right draw fails once in a million runs."""
    return abs(count - trials * share) <= 5 * math.sqrt(trials * share * (1 - share)) + 1e-9


@given(rate=st.sampled_from([0.0, 0.05, 0.15, 0.4, 1.0]), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_rates_of_choice_and_of_corruption(rate, seed):
    ids_BT = batch(seed=seed)
    maskable_BT = ids_BT >= SPECIAL
    draws = generator(seed)
    chosen_BT = choose_tokens(maskable_BT, rate=rate, generator=draws)
    assert not (chosen_BT & ~maskable_BT).any()
    chosen = int(chosen_BT.sum())
    assert near(chosen, int(maskable_BT.sum()), rate)
    inputs_BT, targets_BT = corrupt(
        ids_BT, chosen_BT, mask_id=MASK, vocab_size=V, first_random_id=SPECIAL, generator=draws
    )
    assert torch.equal(inputs_BT[~chosen_BT], ids_BT[~chosen_BT])
    assert (targets_BT[~chosen_BT] == NO_TARGET).all()
    assert torch.equal(targets_BT[chosen_BT], ids_BT[chosen_BT])
    after, before = inputs_BT[chosen_BT], ids_BT[chosen_BT]
    same = 0.1 + 0.1 / (V - SPECIAL)  # a random token can be the one that stood there
    assert near(int((after == MASK).sum()), chosen, 0.8)
    assert near(int((after == before).sum()), chosen, same)
    assert ((after == MASK) | (after >= SPECIAL)).all()


def test_random_tokens_are_uniform():
    ids_BT = batch(rows=4000)
    everything_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    inputs_BT, _ = corrupt(
        ids_BT, everything_BT, mask_id=MASK, vocab_size=V, first_random_id=SPECIAL, mask_share=0.0,
        random_share=1.0, generator=generator(),
    )  # fmt: skip
    counts = torch.bincount(inputs_BT.flatten(), minlength=V)
    assert counts[:SPECIAL].sum() == 0
    assert all(near(int(count), ids_BT.numel(), 1 / (V - SPECIAL)) for count in counts[SPECIAL:])


def test_the_given_ids_stay_and_a_seed_repeats():
    ids_BT = batch()
    copy_BT, draws = ids_BT.clone(), []
    for seed in (3, 3, 4):
        g = generator(seed)
        chosen_BT = choose_tokens(ids_BT >= SPECIAL, generator=g)
        draws.append(corrupt(ids_BT, chosen_BT, mask_id=MASK, vocab_size=V, generator=g)[0])
    assert torch.equal(ids_BT, copy_BT)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def random_words(rows, length, seed):
    """Numbers of words of 1 to 5 tokens, -1 at both ends and here and there inside."""
    rng = np.random.default_rng(seed)
    begins_BT = rng.random((rows, length)) < 0.5
    words_BT = begins_BT.cumsum(axis=1)
    words_BT[rng.random((rows, length)) < 0.05] = -1
    words_BT[:, 0] = words_BT[:, -1] = -1
    return torch.from_numpy(words_BT)


@given(seed=st.integers(0, 10_000), rate=st.sampled_from([0.0, 0.15, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_words_are_chosen_whole_and_at_the_rate(seed, rate):
    word_BT = random_words(300, 41, seed)
    chosen_BT = choose_words(word_BT, rate=rate, generator=generator(seed))
    assert not chosen_BT[word_BT < 0].any()
    same_BT = (word_BT[:, 1:] == word_BT[:, :-1]) & (word_BT[:, 1:] >= 0)
    assert torch.equal(chosen_BT[:, 1:][same_BT], chosen_BT[:, :-1][same_BT])
    first_BT = word_BT >= 0
    first_BT[:, 1:] &= word_BT[:, 1:] != word_BT[:, :-1]
    assert near(int((chosen_BT & first_BT).sum()), int(first_BT.sum()), rate)


def test_words_are_those_of_transformers():
    collator = pytest.importorskip("transformers").DataCollatorForLanguageModeling
    rule = getattr(collator, "_whole_word_mask", None)
    if rule is None:
        pytest.skip("this version of transformers masks words by another rule")
    rng = np.random.default_rng(5)
    begins_BT = rng.random((50, 41)) < 0.5
    begins_BT[:, 1] = True
    word_BT = begins_BT.cumsum(axis=1)
    word_BT[:, 0] = word_BT[:, -1] = -1  # no interruption: a number stands for one run only
    words_BT = torch.from_numpy(word_BT)
    ours_BT = choose_words(words_BT, rate=0.3, generator=generator(7))
    first_BT = words_BT >= 0
    first_BT[:, 1:] &= words_BT[:, 1:] != words_BT[:, :-1]
    drawn_BT = (torch.rand(words_BT.shape, generator=generator(7)) < 0.3) & first_BT
    theirs_BT = rule(word_BT, drawn_BT.numpy())
    assert np.array_equal(ours_BT.numpy(), theirs_BT)
    assert ours_BT.any()


def test_word_numbers():
    tokens = ["[CLS]", "##x", "un", "##able", "##", "!", "[SEP]", "##y", "##z", "[PAD]"]
    special = ("[CLS]", "[SEP]", "[PAD]")
    assert word_numbers(tokens, special) == [-1, 0, 1, 1, 2, 3, -1, 4, 4, -1]
    assert word_numbers([]) == []


@given(seed=st.integers(0, 10_000), rate=st.sampled_from([0.0, 0.15, 0.5, 1.0]), length=st.integers(3, 40))
@settings(max_examples=30, deadline=None)
def test_spans_meet_the_budget_exactly(seed, rate, length):
    ids_BT = batch(rows=7, length=length, seed=seed)
    maskable_BT = ids_BT >= SPECIAL
    chosen_BT = choose_spans(maskable_BT, rate=rate, generator=generator(seed))
    assert not (chosen_BT & ~maskable_BT).any()
    budget = max(1, round(rate * (length - 2))) if rate else 0
    assert chosen_BT.sum(dim=1).tolist() == [budget] * 7


def test_spans_are_longer_than_tokens_drawn_alone():
    maskable_BT = torch.ones(200, 101, dtype=torch.bool)

    def runs(chosen_BT):
        begins = chosen_BT[:, 0].sum() + (chosen_BT[:, 1:] & ~chosen_BT[:, :-1]).sum()
        return float(chosen_BT.sum() / begins)

    spans_BT = choose_spans(maskable_BT, rate=0.15, generator=generator())
    ones_BT = choose_spans(maskable_BT, rate=0.15, longest=1, generator=generator())
    assert 2.8 < runs(spans_BT) < 4.8
    assert runs(ones_BT) < 1.4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: choose_tokens(batch() > 4, rate=15), "rate must lie in .0, 1., got 15; 15 percent is 0.15"),
        (lambda: choose_words(batch(), rate=-0.1), "rate must lie"),
        (lambda: choose_spans(batch() > 4, stop=0.0), "stop must lie"),
        (lambda: corrupt(batch(), batch()[:, 1:] > 4, mask_id=4, vocab_size=V), "shape of ids"),
        (lambda: corrupt(batch(), batch() > 4, mask_id=4, vocab_size=V, random_share=0.3), "exceed 1"),
        (
            lambda: corrupt(batch(), batch() > 4, mask_id=4, vocab_size=V, first_random_id=V),
            "first_random_id",
        ),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
