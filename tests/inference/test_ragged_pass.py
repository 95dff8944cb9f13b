"""One pass over texts of different lengths gives each the scores it gets alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.inference import SlotCache, ragged_forward
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from tests.inference.test_kv_cache import FAMILIES, MODELS, build

LENGTH = 29  # tokens: the context of these models


def text(seed, length=LENGTH):
    return torch.randint(31, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_text_gets_the_scores_it_gets_alone(name, data):
    """Random slots in any order, pieces of any size, and at times a text that ends for another."""
    model, cache = MODELS[name], SlotCache.for_model(MODELS[name], num_slots=4)
    texts = {}
    for number in range(data.draw(st.integers(1, 9))):
        pieces = []
        for slot in data.draw(st.permutations(range(4)))[: data.draw(st.integers(1, 4))]:
            size = data.draw(st.integers(1, 7))
            if cache.lengths[slot] + size > LENGTH or data.draw(st.integers(0, 5)) == 0:
                cache.clear(slot)
                texts[slot] = []
            piece = text(100 * number + slot, size)
            texts[slot] = texts.get(slot, []) + piece
            pieces.append((slot, piece))
        logits_PV = ragged_forward(model, pieces, cache)
        for (slot, _), logits_V in zip(pieces, logits_PV, strict=True):
            with torch.no_grad():
                expected_V = model(torch.tensor([texts[slot]]))[0, -1]
            torch.testing.assert_close(logits_V, expected_V, rtol=1e-5, atol=2e-5)
        assert cache.lengths == [len(texts.get(slot, [])) for slot in range(4)]


def test_what_a_broken_text_left_behind_reaches_nobody():
    """Infinite keys and values in a slot, and in the slot beside: the others' scores stay what they were."""
    model = build(
        DecoderConfig.llama(vocab_size=31, context_length=29, d_model=36, num_layers=2, num_heads=6)
    )
    cache = SlotCache.for_model(model, num_slots=3)
    for slot in range(3):
        ragged_forward(model, [(slot, text(slot, 20))], cache)
        cache.keys_LBKSD[:, slot, :, :20] = torch.nan
        cache.values_LBKSD[:, slot, :, :20] = torch.inf
    for slot in (0, 2):
        cache.clear(slot)
    logits_PV = ragged_forward(model, [(0, text(7, 5)), (1, [4]), (2, text(8, 9))], cache)
    assert logits_PV[1].isnan().all()
    for row, ids in ((0, text(7, 5)), (2, text(8, 9))):
        with torch.no_grad():
            torch.testing.assert_close(logits_PV[row], model(torch.tensor([ids]))[0, -1])


def test_a_failed_pass_leaves_nothing_once_cleared(monkeypatch):
    model = MODELS["llama"]
    cache = SlotCache.for_model(model, num_slots=2)
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[1].feedforward, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ragged_forward(model, [(1, text(1, 9))], cache)
    assert cache.lengths == [0, 0]
    assert cache.keys_LBKSD[:, 1].abs().sum() > 0
    cache.clear(1)
    assert cache.keys_LBKSD.abs().sum() == cache.values_LBKSD.abs().sum() == 0


def test_a_moved_text_goes_on_elsewhere():
    model = MODELS["window"]
    cache = SlotCache.for_model(model, num_slots=3)
    ragged_forward(model, [(2, text(3, 11))], cache)
    cache.move(2, 0)
    assert cache.lengths == [11, 0, 0]
    assert cache.keys_LBKSD[:, 2].abs().sum() == 0
    logits_PV = ragged_forward(model, [(0, [5]), (2, [9, 9])], cache)
    with torch.no_grad():
        torch.testing.assert_close(
            logits_PV[0], model(torch.tensor([[*text(3, 11), 5]]))[0, -1], rtol=1e-5, atol=2e-5
        )
    with pytest.raises(ValueError, match="slot 2 holds 2 tokens"):
        cache.move(0, 2)


def test_rows_side_by_side_are_read_without_a_copy():
    cache = SlotCache.for_model(MODELS["llama"], num_slots=4)
    k_GKSD, _ = cache.read(1, [1, 2], 5)
    assert k_GKSD.data_ptr() == cache.keys_LBKSD[1, 1].data_ptr()
    assert k_GKSD.shape == (2, 2, 5, 6)
    k_GKSD, _ = cache.read(1, [3, 1], 5)
    assert k_GKSD.shape == (2, 2, 5, 6)


def test_weights_are_read_once_for_all_texts(monkeypatch):
    """The linear layers see the new tokens of all texts in one row, without padding."""
    model, rows = MODELS["gpt2"], []
    whole = model.blocks[0].feedforward.forward
    monkeypatch.setattr(model.blocks[0].feedforward, "forward", lambda x: rows.append(x.shape) or whole(x))
    cache = SlotCache.for_model(model, num_slots=3)
    ragged_forward(model, [(0, [1, 2, 3]), (2, [4]), (1, [5, 6])], cache)
    assert rows == [(1, 6, 36)]


def test_wrong_input():
    model = MODELS["llama"]
    cache = SlotCache.for_model(model, num_slots=2, max_length=7)
    for pieces, message in (
        ([], "nothing to read"),
        ([(0, [])], "nothing to read"),
        ([(0, [1]), (0, [2])], r"slots \[0, 0\]"),
        ([(2, [1])], "slot 2 is none of the 2 slots"),
        ([(0, [1] * 8)], "8 more exceed max_length=7"),
        ([(0, [31])], "ids hold 31"),
    ):
        with pytest.raises(ValueError, match=message):
            ragged_forward(model, pieces, cache)
    assert cache.lengths == [0, 0]
    with pytest.raises(ValueError, match="the cache was built for"):
        ragged_forward(MODELS["gpt2"], [(0, [1])], cache)
    with pytest.raises(ValueError, match=r"num_slots must be .* got 0"):
        SlotCache.for_model(model, num_slots=0)
    with pytest.raises(ValueError, match="max_length=30 is more than the model reads"):
        SlotCache.for_model(model, num_slots=1, max_length=30)
    drops = Decoder(DecoderConfig.gpt2(vocab_size=5, context_length=7, d_model=6, num_layers=1, num_heads=2,
                                       dropout=0.5))  # fmt: skip
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        ragged_forward(drops, [(0, [1])], SlotCache.for_model(drops, num_slots=1))
