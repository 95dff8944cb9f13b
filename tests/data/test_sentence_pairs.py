"""Sentence pairs and masked batches: labels are true, nothing leaks, a state goes on where it stood."""

import numpy as np
import pytest
import torch

from llm_from_scratch.data.masked_batches import MaskedPairBatches
from llm_from_scratch.data.sentence_pairs import (
    FOLLOWS,
    RANDOM,
    SentencePairs,
    encode_documents,
    split_sentences,
)

PAD, CLS, SEP, MASK = 0, 2, 3, 4


def documents(seed=0, num=7):
    """Each token says which document, sentence and place it stands at."""
    rng = np.random.default_rng(seed)
    number, made = 5, []
    for _ in range(num):
        sentences = []
        for _ in range(int(rng.integers(2, 9))):
            size = int(rng.integers(1, 12))
            sentences.append(list(range(number, number + size)))
            number += size
        made.append(sentences)
    return made, number


def pairs(share=0.5, max_tokens=23, made=None):
    made = documents()[0] if made is None else made
    return SentencePairs(documents=made, cls_id=CLS, sep_id=SEP, max_tokens=max_tokens, random_share=share)


def test_sentences():
    text = 'Mr. Adams spoke. Did he? Yes! It cost $3.50, Mr. B. Then\n\nNew line\nhere. "Quoted." End'
    assert split_sentences(text) == [
        "Mr. Adams spoke.", "Did he?", "Yes!", "It cost $3.50, Mr. B.", "Then", "New line\nhere.",
        '"Quoted." End',  # the rule wants the capital right behind the space
    ]  # fmt: skip
    assert split_sentences(" \n\n ") == []
    assert encode_documents(["One. Two."], lambda s: [len(s)] if s != "Two." else []) == [[[4]]]


@pytest.mark.parametrize("max_tokens", [5, 8, 23])
def test_labels_tell_the_truth(max_tokens):
    made, _ = documents()
    home = {token: d for d, document in enumerate(made) for sentence in document for token in sentence}
    begins = {sentence[0] for document in made for sentence in document}
    draw, rng = pairs(max_tokens=max_tokens), np.random.default_rng(1)
    labels = []
    for _ in range(2000):
        pair = draw.draw(rng)
        middle = pair.ids.index(SEP)
        first, second = pair.ids[1:middle], pair.ids[middle + 1 : -1]
        assert pair.ids[0] == CLS
        assert pair.ids[-1] == SEP
        assert pair.ids.count(SEP) == 2
        assert len(pair.ids) <= max_tokens
        assert first
        assert second
        assert first[0] in begins
        assert second[0] in begins
        same = home[first[0]] == home[second[0]]
        assert same == (pair.label == FOLLOWS)
        if pair.label == FOLLOWS:
            sentences = made[home[first[0]]]
            last = next(n for n, s in enumerate(sentences) if first[-1] in s)
            assert sentences[last + 1][0] == second[0]
        else:
            assert pair.label == RANDOM
        labels.append(pair.label)
    assert abs(np.mean(labels) - 0.5) < 0.06


def test_every_sentence_with_a_successor_begins_equally_often():
    made, _ = documents()
    draw, rng = pairs(share=0.0), np.random.default_rng(2)
    starts = [draw.draw(rng).first for _ in range(6000)]
    possible = {(d, s) for d, document in enumerate(made) for s in range(len(document) - 1)}
    assert set(starts) == possible
    counts = [starts.count(one) for one in possible]
    assert max(counts) < 1.6 * 6000 / len(possible)


@pytest.mark.parametrize("masking", ["token", "word", "span"])
def test_batches(masking):
    made, vocab = documents()
    settings = dict(
        batch_size=9, seed=3, vocab_size=vocab, mask_id=MASK, pad_id=PAD, special_ids=set(range(5)),
        masking=masking, goes_on_V=torch.arange(vocab) % 3 == 0,
    )  # fmt: skip
    batches = MaskedPairBatches(pairs(made=made), **settings)
    ids_BT, targets_BT = next(batches)
    assert ids_BT.shape == targets_BT.shape == (9, 23)
    assert set(targets_BT[:, 0].tolist()) <= {FOLLOWS, RANDOM}
    assert (ids_BT[:, 0] == CLS).all()
    assert (ids_BT == SEP).sum(dim=1).tolist() == [2] * 9
    masked_BT = targets_BT[:, 1:] != -100
    assert masked_BT.any()
    assert (targets_BT[:, 1:][masked_BT] >= 5).all()
    plain = MaskedPairBatches(pairs(made=made), **{**settings, "labels": False})
    same_BT, no_label_BT = next(plain)
    assert torch.equal(same_BT, ids_BT)
    assert (no_label_BT[:, 0] == -100).all()
    state, expected = batches.state_dict(), next(batches)
    again = MaskedPairBatches(pairs(made=made), **settings)
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(next(again), expected, strict=True))
    assert not torch.equal(expected[0], ids_BT)


def test_whole_words_in_batches():
    made, vocab = documents()
    goes_on_V = torch.arange(vocab) % 2 == 0
    batches = MaskedPairBatches(
        pairs(made=made, share=0.0), batch_size=200, seed=1, vocab_size=vocab, mask_id=MASK, pad_id=PAD,
        special_ids=set(range(5)), masking="word", rate=0.4, goes_on_V=goes_on_V,
    )  # fmt: skip
    ids_BT, targets_BT = next(batches)
    original_BT = torch.where(targets_BT >= 5, targets_BT, ids_BT)
    inside_BT = (original_BT[:, 1:] >= 5) & (original_BT[:, :-1] >= 5) & goes_on_V[original_BT[:, 1:]]
    inside_BT[:, 0] = False  # position 0 holds the label
    chosen_BT = targets_BT >= 5
    assert torch.equal(chosen_BT[:, 1:][inside_BT], chosen_BT[:, :-1][inside_BT])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pairs(max_tokens=4), "max_tokens must be 5 or more"),
        (lambda: pairs(share=1.5), "random_share must lie"),
        (lambda: pairs(made=[[[5]]]), "no document has two sentences"),
        (lambda: pairs(made=[[[5], [6]]]), "need a second document"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_mistakes_of_batches_are_named():
    made, vocab = documents()
    settings = dict(
        batch_size=2, seed=0, vocab_size=vocab, mask_id=MASK, pad_id=PAD, special_ids=set(range(5))
    )
    for changes, words in (
        ({"masking": "letter"}, "masking must be one of token, word, span"),
        ({"masking": "word"}, "needs goes_on_V"),
        ({"special_ids": {0, 7}}, "special_ids must be 0 to 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            MaskedPairBatches(pairs(made=made), **{**settings, **changes})
    with pytest.raises(ValueError, match="is not of batches with seed"):
        MaskedPairBatches(pairs(made=made), **settings).load_state_dict({"seed": 1, "batch_size": 2})
