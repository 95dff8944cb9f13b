"""Speculation draws the target's distribution: joint chi-square tests over several tokens.

All texts of TOKENS tokens of a tiny target are enumerated, with the probability that plain generation
gives each. Texts drawn with a draft are counted, and compared by the chi-square statistic, which exceeds
its limit once in ten thousand runs; the seeds are fixed. The last tests break the rule and see red.
"""

import itertools
import math
from functools import partial

import pytest
import torch

from llm_from_scratch.decoding import apply_temperature, next_token_probabilities, run_pipeline, scores_only
from llm_from_scratch.decoding.repetition import penalise_presence_and_frequency, penalise_repetition
from llm_from_scratch.inference import speculative
from llm_from_scratch.inference.drafts import DecoderDraft, NGramDraft, PromptLookup
from llm_from_scratch.inference.rejection import DrawingRule, keep_or_replace
from llm_from_scratch.inference.speculative import Tally, speculative_generate
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.ngram import MaximumLikelihood, NGramModel, Vocabulary

V, TOKENS, RUNS, PROMPT = 3, 4, 500, [1, 0, 1]


def build(seed, **fields):
    torch.manual_seed(seed)
    sizes = {"vocab_size": V, "context_length": 11, "d_model": 4, "num_layers": 1, "num_heads": 2}
    model = Decoder(DecoderConfig.llama(**{**sizes, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


TARGET = build(0)


class Always:
    """A bad draft without a choice: the same token again and again."""

    def __init__(self, token):
        self.token = token

    def propose(self, history, count, rule):
        return [self.token] * count, None


class Stubborn:
    """A bad draft with a choice: nearly sure of token 2, which it draws by no setting of the target."""

    def propose(self, history, count, rule):
        probs_V = torch.tensor([0.04, 0.06, 0.9], dtype=torch.float64)
        return [rule.draw(probs_V) for _ in range(count)], [probs_V] * count


def counted(smoothing=None):
    text = [[0, 1, 1, 2, 0, 1, 2, 2, 1, 0, 1, 0, 0]]
    vocabulary = Vocabulary(range(V), unknown=False)
    return NGramModel(order=3, smoothing=smoothing).fit(text, vocabulary=vocabulary)


DRAFTS = {
    "itself": lambda: DecoderDraft(TARGET),
    "another decoder": lambda: DecoderDraft(build(5, num_layers=2)),
    "short-sighted decoder": lambda: DecoderDraft(build(6, context_length=4)),
    "n-gram": lambda: NGramDraft(counted(), vocab_size=V),
    "n-gram with zeros": lambda: NGramDraft(counted(MaximumLikelihood()), vocab_size=V),
    "prompt lookup": PromptLookup,
    "always the same": lambda: Always(0),
    "stubborn": Stubborn,
}
SETTINGS = {
    "plain": {},
    "sharp": {"temperature": 0.6},
    "cut": {"temperature": 1.4, "top_p": 0.8, "min_p": 0.05},
    "top-k": {"top_k": 2},
    "pipeline": {
        "temperature": 0.9,
        "pipeline": [
            partial(penalise_repetition, penalty=1.7),
            partial(penalise_presence_and_frequency, presence=0.3, frequency=0.4),
            scores_only(apply_temperature, temperature=1.2),
        ],
    },
}


def exact(settings):
    """The probability of each text of TOKENS tokens after the prompt, one factor a token."""
    settings = dict(settings)
    pipeline, found = settings.pop("pipeline", ()), {}
    for text in itertools.product(range(V), repeat=TOKENS):
        probability = 1.0
        for place, token in enumerate(text):
            ids_BT = torch.tensor([[*PROMPT, *text[:place]]])
            with torch.no_grad():
                logits_BV = run_pipeline(pipeline, ids_BT, TARGET(ids_BT)[:, -1])
            probability *= float(next_token_probabilities(logits_BV, **settings)[0, token])
        found[text] = probability
    return found


EXACT = {name: exact(settings) for name, settings in SETTINGS.items()}


def draw(draft, settings, runs=RUNS):
    """Texts drawn with the draft, counted; and what became of its guesses."""
    counts, tally = {}, Tally()
    for seed in range(runs):
        text = speculative_generate(
            TARGET,
            PROMPT,
            draft=draft,
            max_new_tokens=TOKENS,
            num_draft=3,
            seed=seed,
            tally=tally,
            **settings,
        )
        counts[tuple(text)] = counts.get(tuple(text), 0) + 1
    return counts, tally


def chi_square(counts, expected):
    """The statistic over its limit: above 1 is red. Rare texts are counted as one."""
    runs, cells, rare = sum(counts.values()), [], [0.0, 0.0]
    for text, probability in expected.items():
        count, mean = counts.get(text, 0), runs * probability
        if mean < 1e-9 and count:
            return math.inf
        if mean >= 5:
            cells.append((count, mean))
        else:
            rare = [rare[0] + count, rare[1] + mean]
    if rare[1] >= 5:
        cells.append(rare)
    statistic, free = sum((count - mean) ** 2 / mean for count, mean in cells), len(cells) - 1
    # Wilson and Hilferty 1931: the cube root of chi-square over its degrees of freedom is nearly normal.
    limit = free * (1 - 2 / (9 * free) + 3.719 * math.sqrt(2 / (9 * free))) ** 3
    assert free >= 5
    return statistic / limit


@pytest.mark.parametrize(
    ("draft", "settings"),
    [
        ("another decoder", "pipeline"),
        ("n-gram", "cut"),
        ("prompt lookup", "plain"),
        ("stubborn", "plain"),
    ],
)
def test_the_joint_distribution_is_the_targets(draft, settings):
    counts, tally = draw(DRAFTS[draft](), SETTINGS[settings])
    assert chi_square(counts, EXACT[settings]) < 1
    assert 0 < sum(tally.kept) < sum(tally.proposed)  # both branches of the rule were taken


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_each_draft_with_all_settings(draft, settings):
    counts, tally = draw(DRAFTS[draft](), SETTINGS[settings], runs=1_500)
    assert chi_square(counts, EXACT[settings]) < 1
    if draft == "itself":
        assert tally.acceptance_rate > 0.999  # short of 1 by rounding at most


def test_the_parts_of_one_token():
    """Kept tokens have min(p, q), replacements max(0, p - q): each against its own expectation."""
    p_V, q_V, runs = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5]), 20_000
    generator = torch.Generator().manual_seed(0)
    counts = {}
    for guess in torch.multinomial(q_V, runs, replacement=True, generator=generator).tolist():
        result = keep_or_replace(guess, p_V.double(), q_V.double(), generator=generator)
        counts[result] = counts.get(result, 0) + 1
    expected = {(0, True): 0.2, (1, True): 0.3, (2, True): 0.2, (0, False): 0.3}
    assert set(counts) == set(expected)
    for result, share in expected.items():
        assert abs(counts[result] / runs - share) < 4 * math.sqrt(share * (1 - share) / runs)


@pytest.mark.parametrize("draft", ["stubborn", "another decoder"])
def test_keeping_everything_is_seen(draft, monkeypatch):
    monkeypatch.setattr(speculative, "keep_or_replace", lambda token, *_, **__: (token, True))
    assert chi_square(draw(DRAFTS[draft](), {})[0], EXACT["plain"]) > 1


def test_replacing_from_the_targets_own_distribution_is_seen(monkeypatch):
    """The likely slip: after a rejection, p itself instead of what p has beyond q."""

    def slip(token, target_V, draft_V, *, generator):
        token, kept = keep_or_replace(token, target_V, draft_V, generator=generator)
        return (token, True) if kept else (DrawingRule(generator=generator).draw(target_V), False)

    monkeypatch.setattr(speculative, "keep_or_replace", slip)
    for draft in ("stubborn", "prompt lookup"):
        assert chi_square(draw(DRAFTS[draft](), {})[0], EXACT["plain"]) > 1


def test_a_penalty_that_forgets_the_guesses_is_seen(monkeypatch):
    """The pipeline must read, at each guess, the guesses before it."""
    whole = DrawingRule.probabilities
    monkeypatch.setattr(
        DrawingRule, "probabilities", lambda self, logits_V, history: whole(self, logits_V, PROMPT)
    )
    counts, _ = draw(DRAFTS["another decoder"](), SETTINGS["pipeline"])
    assert chi_square(counts, EXACT["pipeline"]) > 1
