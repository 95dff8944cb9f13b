"""Contrastive search against the formula written out with loops over plain numbers."""

import math

import pytest
import torch

from llm_from_scratch.decoding.contrastive import contrastive_search, output_vectors
from llm_from_scratch.decoding.search import greedy_search
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

SHAPE = {"vocab_size": 23, "context_length": 19, "d_model": 12, "num_layers": 2, "num_heads": 3}


def random_model(family, seed, **changes):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = Decoder(getattr(DecoderConfig, family)(**SHAPE, **changes))
        for parameter in model.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
    return model.eval()


def vectors_of(model, ids):
    """The vectors before the output layer, by running the model's parts."""
    x_BTC, rope = model.embed(torch.tensor([ids]))
    for block in model.blocks:
        x_BTC = block(x_BTC, mask=None, rope=rope, bias=None)
    return model.norm(x_BTC)[0].tolist()


@torch.no_grad()
def by_hand(model, prompt, new, k, alpha):
    """One candidate at a time, one pair of vectors at a time, in plain Python."""
    ids = list(prompt)
    for _ in range(new):
        h = vectors_of(model, ids)[-1]
        weights = [math.exp(sum(a * b for a, b in zip(h, row, strict=True)))
                   for row in model.output_weight.tolist()]  # fmt: skip
        probs = [w / sum(weights) for w in weights]
        best = None
        for v in sorted(range(len(probs)), key=lambda i: -probs[i])[:k]:
            *before, mine = vectors_of(model, [*ids, v])
            likeness = max(
                sum(a * b for a, b in zip(mine, other, strict=True))
                / (math.hypot(*mine) * math.hypot(*other))
                for other in before
            )
            score = (1 - alpha) * probs[v] - alpha * likeness
            if best is None or score > best[0]:
                best = score, v
        ids.append(best[1])
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_formula(family, seed):
    model = random_model(family, seed)
    plain, differing = greedy_search(model, [1, 2, 3], max_new_tokens=9), 0
    for k, alpha in [(2, 0.6), (4, 0.6), (7, 0.2), (23, 1.0)]:
        found = contrastive_search(model, [1, 2, 3], max_new_tokens=9, num_candidates=k, alpha=alpha)
        assert found == by_hand(model, [1, 2, 3], 9, k, alpha)
        differing += found != plain
    assert differing > 0


def test_its_limits_are_greedy_search():
    for seed in range(3):
        model = random_model("llama", seed)
        plain = greedy_search(model, [5], max_new_tokens=7)
        assert contrastive_search(model, [5], max_new_tokens=7, alpha=0.0) == plain
        assert contrastive_search(model, [5], max_new_tokens=7, num_candidates=1, alpha=0.9) == plain


def test_stop_tokens_and_texts_longer_than_the_context():
    model = random_model("llama", 1)
    found = contrastive_search(model, [1] * 17, max_new_tokens=6)
    assert len(found) == 6
    stop = found[3]
    assert (
        contrastive_search(model, [1] * 17, max_new_tokens=6, stop_ids=[stop]) == found[: found.index(stop)]
    )
    assert len(contrastive_search(model, [1], max_new_tokens=3, context_length=1)) == 3


def test_the_model_is_left_as_it_was():
    model = random_model("gpt2", 0, dropout=0.8).train()
    texts = {tuple(contrastive_search(model, [1, 2], max_new_tokens=4)) for _ in range(4)}
    assert len(texts) == 1
    assert model.training
    assert not model.norm._forward_hooks
    with pytest.raises(ValueError, match="99"):
        output_vectors(model)(torch.tensor([[99]]))
    assert not model.norm._forward_hooks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.1}, r"alpha must be in \[0, 1\], got 1.1; 0 is greedy"),
        ({"alpha": math.nan}, "got nan"),
        ({"num_candidates": 0}, "num_candidates must be a whole number of at least 1, got 0"),
        ({"num_candidates": True}, "got True"),
        ({"ids": []}, "prompt is empty"),
        (
            {"model": lambda ids: torch.zeros(*ids.shape, 3)},
            "vectors of a function are not known: pass vectors=",
        ),
    ],
)
def test_bad_input_is_named(settings, message):
    settings = {"model": random_model("gpt2", 0), "ids": [1]} | settings
    with pytest.raises(ValueError, match=message):
        contrastive_search(settings.pop("model"), settings.pop("ids"), max_new_tokens=2, **settings)
