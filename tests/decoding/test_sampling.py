import math

import numpy as np
import pytest
import torch
from torch import nn

from llm_from_scratch.decoding.sampling import next_token_probabilities, sample, stream
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

CONFIG = DecoderConfig.llama(
    vocab_size=29, context_length=7, d_model=12, num_layers=2, num_heads=3, dropout=0.4
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Decoder(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


class Fixed(nn.Module):
    """A model that gives the same scores whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits_V", torch.tensor(logits))

    def forward(self, ids_BT):
        return self.logits_V.expand(*ids_BT.shape, -1)


# The value of chi-square that a true model exceeds once in a thousand runs, by degrees of freedom.
CHI_SQUARE_LIMIT = {2: 13.82, 3: 16.27, 4: 18.47, 6: 22.46}


@pytest.mark.parametrize(
    ("settings", "degrees"),
    [
        ({}, 6),
        ({"temperature": 2.0}, 6),
        ({"temperature": 0.5}, 6),
        ({"top_k": 4}, 3),
        ({"top_p": 0.8}, 2),
        ({"min_p": 0.15}, 4),
    ],
)
def test_frequencies_are_the_probabilities(settings, degrees):
    """Chi-square of 5,000 seeded draws against the probabilities worked out by hand."""
    p = [0.4, 0.25, 0.15, 0.08, 0.06, 0.04, 0.02]
    weights = [x ** (1 / settings.get("temperature", 1.0)) for x in p]
    keep = {"top_k": 4, "top_p": 3, "min_p": 5}
    kept = next((keep[name] for name in settings if name in keep), 7)
    weights = [w if i < kept else 0.0 for i, w in enumerate(weights)]
    expected = [w / sum(weights) for w in weights]
    n = 5_000
    draws = sample(
        Fixed([math.log(x) for x in p]), [0], max_new_tokens=n, seed=5, context_length=1, **settings
    )
    counts = [draws.count(i) for i in range(7)]
    assert sum(counts) == n
    chi_square = 0.0
    for count, probability in zip(counts, expected, strict=True):
        if probability == 0.0:
            assert count == 0
        else:
            chi_square += (count - n * probability) ** 2 / (n * probability)
    assert sum(x > 0 for x in expected) - 1 == degrees
    assert chi_square < CHI_SQUARE_LIMIT[degrees]


def test_a_seed_fixes_the_draws_and_only_the_draws(model):
    runs = [sample(model, [1, 2], max_new_tokens=30, seed=seed) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    state = torch.get_rng_state()
    sample(model, [1, 2], max_new_tokens=3, seed=3)
    assert torch.equal(torch.get_rng_state(), state)  # a seeded run leaves the global generator alone
    torch.manual_seed(8)
    first = sample(model, [1, 2], max_new_tokens=30)
    torch.manual_seed(8)
    assert sample(model, [1, 2], max_new_tokens=30) == first


def test_temperature_zero_is_greedy(model):
    ids = [1, 2, 3]
    for token in sample(model, [1, 2, 3], max_new_tokens=4, temperature=0):
        assert token == model(torch.tensor([ids]))[0, -1].argmax()
        ids.append(token)
    assert sample(model, [1, 2, 3], max_new_tokens=4, temperature=0.0, seed=1) == ids[3:]
    assert sample(model, [1, 2, 3], max_new_tokens=4, top_k=1, seed=2) == ids[3:]
    assert sample(model, [1, 2, 3], max_new_tokens=4, top_p=1e-9, seed=2) == ids[3:]
    assert sample(model, [1, 2, 3], max_new_tokens=4, temperature=1e-30, seed=2) == ids[3:]


def test_stream_gives_the_tokens_one_by_one(model):
    seen = []

    class Counting(nn.Module):
        config = CONFIG

        def forward(self, ids_BT):
            seen.append(ids_BT.tolist()[0])
            return model(ids_BT)

    tokens = stream(Counting(), [1, 2], max_new_tokens=9, seed=3)
    assert seen == []
    first = next(tokens)
    assert len(seen) == 1
    rest = list(tokens)
    assert [first, *rest] == sample(model, [1, 2], max_new_tokens=9, seed=3)
    text = [1, 2, first, *rest]
    assert seen == [text[max(0, n - 7) : n] for n in range(2, 11)]  # the last 7 tokens, the context


def test_stop_ids_end_the_text_and_are_left_out(model):
    free = sample(model, [1, 2], max_new_tokens=30, seed=3)
    stop = free[11]
    stopped = sample(model, [1, 2], max_new_tokens=30, seed=3, stop_ids=[stop])
    assert stopped == free[: free.index(stop)]
    assert sample(model, [1, 2], max_new_tokens=30, seed=3, stop_ids={28} - set(free)) == free


def test_stop_ids_may_be_a_tensor_or_an_array(model):
    free = sample(model, [1, 2], max_new_tokens=30, seed=3)
    stop = free[11]
    for stop_ids in (
        torch.tensor([stop]),
        torch.tensor(stop),
        np.array([stop], dtype=np.uint16),
        [torch.tensor(stop)],
    ):
        stopped = sample(model, [1, 2], max_new_tokens=30, seed=3, stop_ids=stop_ids)
        assert stopped == free[: free.index(stop)]
    assert sample(model, [1, 2], max_new_tokens=30, seed=3, stop_ids=torch.tensor([])) == free
    for wrong in (torch.tensor([1.5]), np.array([[1]]), "7", [None]):
        with pytest.raises(ValueError, match="stop_ids must be token ids"):
            stream(model, [1, 2], max_new_tokens=1, stop_ids=wrong)


def test_a_top_k_above_the_vocabulary_keeps_all(model):
    free = sample(model, [1, 2], max_new_tokens=30, seed=3)
    assert sample(model, [1, 2], max_new_tokens=30, seed=3, top_k=10**12) == free


def test_dropout_is_off_while_sampling_and_back_after(model):
    expected = sample(model, [1, 2], max_new_tokens=20, seed=3)
    model.train()
    assert sample(model, [1, 2], max_new_tokens=20, seed=3) == expected
    tokens = stream(model, [1, 2], max_new_tokens=20, seed=3)
    next(tokens)
    assert model.training  # between two tokens the model is as it was
    assert all(part.training for part in model.modules())


def test_no_graph_is_kept(model):
    sample(model, [1, 2], max_new_tokens=2)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_prompts_of_every_kind(model):
    expected = sample(model, [1, 2], max_new_tokens=5, seed=3)
    for prompt in ((1, 2), torch.tensor([1, 2]), torch.tensor([[1, 2]])):
        assert sample(model, prompt, max_new_tokens=5, seed=3) == expected
    prompt = [1, 2]
    sample(model, prompt, max_new_tokens=5)
    assert prompt == [1, 2]
    assert sample(model, prompt, max_new_tokens=0) == []


def test_a_vocabulary_of_one():
    assert sample(Fixed([0.0]), [0], max_new_tokens=3, top_k=5, top_p=0.5, min_p=1.0) == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("logits", "named"),
    [([0.0, math.nan, 1.0], "nan"), ([0.0, math.inf, 1.0], "inf"), ([-math.inf, -math.inf], "-inf")],
)
def test_scores_without_probabilities(logits, named, temperature):
    with pytest.raises(ValueError, match=f"the highest score is {named}; .*earlier checkpoint"):
        sample(Fixed(logits), [0], max_new_tokens=1, temperature=temperature)


def test_minus_infinity_is_a_token_never_drawn():
    draws = sample(Fixed([0.0, -math.inf, 0.0]), [0], max_new_tokens=100, seed=1)
    assert set(draws) == {0, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0 .* got -1.0"),
        ({"temperature": math.nan}, "got nan"),
        ({"top_k": 0}, "top_k .* got 0"),
        ({"top_p": 0.0}, "top_p .* got 0.0"),
        ({"min_p": 2.0}, "min_p .* got 2.0"),
        ({"max_new_tokens": -1}, "max_new_tokens .* got -1"),
        ({"context_length": 0}, "context_length must be at least 1 token, got 0"),
        ({"ids": []}, "the prompt is empty"),
        ({"ids": torch.ones(2, 3, dtype=torch.long)}, r"one sequence at a time, got ids of shape \(2, 3\)"),
        ({"ids": [1.5]}, r"whole numbers, got \[1.5\]"),
    ],
)
def test_mistakes_are_named_at_the_call(model, settings, message):
    arguments = {"ids": [1], "max_new_tokens": 1, **settings}
    with pytest.raises(ValueError, match=message):
        stream(model, **arguments)


def test_a_prompt_outside_the_vocabulary(model):
    with pytest.raises(ValueError, match="ids hold 29, outside the vocabulary"):
        sample(model, [29], max_new_tokens=1)


def test_several_rows_at_once():
    logits_BV = torch.randn(5, 11)
    together = next_token_probabilities(logits_BV, temperature=0.7, top_k=6, top_p=0.9, min_p=0.01)
    for row, probs_V in zip(logits_BV, together, strict=True):
        alone = next_token_probabilities(row, temperature=0.7, top_k=6, top_p=0.9, min_p=0.01)
        torch.testing.assert_close(alone, probs_V)
    torch.testing.assert_close(together.sum(-1), torch.ones(5))
