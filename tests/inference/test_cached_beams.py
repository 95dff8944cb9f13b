"""Beam search with a cache: the texts and the tree of the search without one, for far less reading."""

import pytest
import torch

from llm_from_scratch.decoding.search import beam_search
from llm_from_scratch.inference.cached_beams import CachedBeams
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

SHAPE = {"vocab_size": 23, "context_length": 19, "d_model": 12, "num_layers": 2, "num_heads": 3}


def random_model(family, seed, **changes):
    torch.manual_seed(seed)
    model = Decoder(getattr(DecoderConfig, family)(**SHAPE, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("num_beams", [1, 2, 5])
def test_the_same_search_with_and_without(family, num_beams):
    model = random_model(family, seed=num_beams)
    settings = {"num_beams": num_beams, "max_new_tokens": 11, "stop_ids": (5, 17), "num_return": num_beams}
    cached = CachedBeams(model)
    found, expected = (
        beam_search(cached, [1, 2, 3, 4], **settings),
        beam_search(model, [1, 2, 3, 4], **settings),
    )
    assert [text.ids for text in found.hypotheses] == [text.ids for text in expected.hypotheses]
    assert [node["token"] for node in found.tree] == [node["token"] for node in expected.tree]
    for ours, theirs in zip(found.tree, expected.tree, strict=True):
        assert ours["total"] == pytest.approx(theirs["total"], abs=1e-4)
    steps = max(node["step"] for node in found.tree)
    assert cached.tokens_read <= 4 + num_beams * (steps - 1)


def test_texts_that_do_not_follow_are_read_anew():
    model = random_model("llama", seed=7)
    cached = CachedBeams(model)
    for rows in (
        [[1, 2, 3]],
        [[1, 2, 3, 9], [1, 2, 3, 4]],
        [[1, 2, 3, 4, 0], [1, 2, 3, 4, 8]],
        [[7, 7], [2, 1]],
        [[7]],
    ):
        ids_BT = torch.tensor(rows)
        torch.testing.assert_close(cached(ids_BT)[:, -1], model(ids_BT)[:, -1].detach(), rtol=1e-4, atol=1e-4)


def test_after_a_failed_pass_nothing_is_taken_for_known(monkeypatch):
    model = random_model("llama", seed=7)
    cached = CachedBeams(model)
    cached(torch.tensor([[1, 2, 3]]))
    with monkeypatch.context() as patch:
        patch.setattr("llm_from_scratch.inference.cached_beams.cached_forward", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cached(torch.tensor([[1, 2, 3, 4]]))
    ids_BT = torch.tensor([[1, 2, 3, 4, 5]])
    torch.testing.assert_close(cached(ids_BT)[:, -1], model(ids_BT)[:, -1].detach(), rtol=1e-4, atol=1e-4)


def test_models_it_does_not_serve():
    with pytest.raises(ValueError, match="sliding window"):
        CachedBeams(random_model("llama", seed=1, sliding_window=5))
    with pytest.raises(ValueError, match="function"):
        CachedBeams(lambda ids_BT: ids_BT)
