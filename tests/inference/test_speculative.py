"""Speculation without chance: greedy tokens, the cache after a rejection, the ends of a text, bad drafts."""

import math
from functools import partial

import pytest
import torch

from llm_from_scratch.decoding.repetition import forbid_repeated_ngrams, penalise_repetition
from llm_from_scratch.inference import (
    DecoderDraft,
    KVCache,
    NGramDraft,
    PromptLookup,
    Tally,
    cached_forward,
    generate,
    speculative_generate,
    speculative_stream,
)
from llm_from_scratch.inference.rejection import DrawingRule, keep_or_replace
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import DecoderConfig
from llm_from_scratch.models.ngram import AddK, MaximumLikelihood, NGramModel, Vocabulary
from tests.small_decoders import build

SIZES = {"vocab_size": 31, "context_length": 47, "d_model": 36, "num_layers": 2, "num_heads": 6}
CONFIGS = {
    "gpt2": DecoderConfig.gpt2(**SIZES, dropout=0.4),
    "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "window": DecoderConfig.llama(**SIZES, sliding_window=5),
    "alibi": DecoderConfig.gpt2(**SIZES, positions="alibi"),
}
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param])


class Oracle:
    """Knows the continuation of one prompt, and is wrong at one place of each guess, or never."""

    def __init__(self, text, wrong_at=None):
        self.text, self.wrong_at, self.asked = text, wrong_at, []

    def propose(self, history, count, rule):
        self.asked.append((len(history), count))
        guesses = self.text[len(history) : len(history) + count]
        if self.wrong_at is not None and self.wrong_at < len(guesses):
            guesses[self.wrong_at] = (guesses[self.wrong_at] + 1) % 31
        return guesses, None


def drafts(model):
    text = torch.randint(31, (400,), generator=torch.Generator().manual_seed(1)).tolist()
    counted = NGramModel(order=2, smoothing=AddK(k=0.1)).fit([text])
    smaller = build(DecoderConfig.gpt2(**{**SIZES, "num_layers": 1, "context_length": 13}), seed=9)
    yield PromptLookup()
    yield NGramDraft(counted, vocab_size=31)
    yield DecoderDraft(smaller)
    yield DecoderDraft(model)


@pytest.mark.parametrize("num_draft", [1, 4, 20])
@pytest.mark.parametrize("length", [1, 20, 46, 47, 48])
def test_greedy_tokens_are_those_of_plain_generation(model, length, num_draft):
    """Also past the context, 47 tokens, where the window moves on."""
    prompt = torch.randint(31, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    expected = generate(model, prompt, max_new_tokens=33, temperature=0)
    for draft in drafts(model):
        found = speculative_generate(
            model, prompt, draft=draft, max_new_tokens=33, temperature=0, num_draft=num_draft
        )
        assert found == expected


def test_greedy_with_a_pipeline_and_a_shorter_context(model):
    settings = {"max_new_tokens": 50, "temperature": 0, "context_length": 29, "pipeline": [
        partial(penalise_repetition, penalty=1.3), partial(forbid_repeated_ngrams, size=2)
    ]}  # fmt: skip
    expected = generate(model, PROMPT, **settings)
    for draft in drafts(model):
        assert speculative_generate(model, PROMPT, draft=draft, **settings) == expected


def watch(model, lengths):
    """A cache that notes what `truncate` leaves, and then equals a fresh reading of that many tokens."""

    class Watched(KVCache):
        def truncate(self, length):
            super().truncate(length)
            lengths.append((length, self.keys_LBKSD[..., :length, :].clone()))

    return Watched.for_model


@pytest.mark.parametrize("wrong_at", [0, 1, 2, 3, 4, None])
def test_the_cache_after_a_rejection_at_each_place(wrong_at):
    model, lengths = build(CONFIGS["llama"]), []
    text = PROMPT + generate(model, PROMPT, max_new_tokens=42, temperature=0)
    draft, tally = Oracle(text, wrong_at), Tally()
    settings = {"temperature": 0, "num_draft": 5, "new_cache": watch(model, lengths), "tally": tally}
    assert speculative_generate(model, PROMPT, draft=draft, max_new_tokens=30, **settings) == text[5:35]
    kept = 5 if wrong_at is None else wrong_at
    assert tally.proposed[:4] == [0, 5, 5, 5]
    assert tally.kept[:4] == [0, kept, kept, kept]
    assert [length for length, _ in lengths[:4]] == [5 + n * (kept + 1) for n in range(4)]
    for length, keys_LBKSD in lengths:  # the last drawn token is not read yet
        fresh = KVCache.for_model(model)
        cached_forward(model, torch.tensor([text[:length]]), fresh)
        torch.testing.assert_close(keys_LBKSD, fresh.keys_LBKSD[..., :length, :], rtol=1e-5, atol=1e-5)


def test_a_pass_reads_what_is_new_and_the_guesses(model, monkeypatch):
    """Counted where the embeddings are looked up: the prompt, then one known token and the guesses."""
    text = PROMPT + generate(model, PROMPT, max_new_tokens=20, temperature=0)
    read, whole = [], model.token_embedding.forward
    monkeypatch.setattr(
        model.token_embedding, "forward", lambda ids_BT: read.append(ids_BT.shape[1]) or whole(ids_BT)
    )
    speculative_generate(model, PROMPT, draft=Oracle(text), max_new_tokens=12, num_draft=3, temperature=0)
    assert read == [5, 4, 4, 3]  # 1, 4, 4 and the last 3 tokens


def test_the_tokens_asked_for_and_no_more(model):
    text = PROMPT + generate(model, PROMPT, max_new_tokens=42, temperature=0)
    for count in range(9):
        draft, tally = Oracle(text), Tally()
        found = speculative_generate(
            model, PROMPT, draft=draft, max_new_tokens=count, num_draft=4, temperature=0, tally=tally
        )
        assert found == text[5 : 5 + count]
        assert tally.tokens == count
        assert all(asked <= 5 + count - known - 1 for known, asked in draft.asked)


def test_the_end_of_the_context(model):
    """Guesses end where the context does; behind it each token is a pass over the window."""
    prompt = list(range(30)) + [1] * 10
    text = prompt + generate(model, prompt, max_new_tokens=20, temperature=0)
    draft, tally = Oracle(text), Tally()
    found = speculative_generate(
        model, prompt, draft=draft, max_new_tokens=20, num_draft=5, temperature=0, tally=tally
    )
    assert found == text[40:]
    assert draft.asked == [(41, 5)]  # 41 + 5 tokens and one drawn: 47
    assert tally.proposed == [0, 5] + [0] * 13


@pytest.mark.parametrize("place", range(9))
def test_a_stop_id_inside_the_guesses(place):
    model = build(CONFIGS["llama"], seed=7)
    text = PROMPT + generate(model, PROMPT, max_new_tokens=30, temperature=0)
    stop = text[5 + place]
    first = text[5:].index(stop)
    expected = text[5 : 5 + first]
    tally = Tally()
    settings = {"max_new_tokens": 30, "temperature": 0, "stop_ids": [stop]}
    assert generate(model, PROMPT, **settings) == expected
    found = speculative_generate(model, PROMPT, draft=Oracle(text), num_draft=4, tally=tally, **settings)
    assert found == expected
    assert tally.tokens == len(expected) + 1  # the stop id itself; nothing behind it
    assert tally.proposed == tally.kept  # what would come behind it is not even checked
    for draft in drafts(model):
        assert speculative_generate(model, PROMPT, draft=draft, **settings) == expected


def test_tokens_come_one_by_one_and_modes_are_put_back():
    model = build(CONFIGS["gpt2"])
    expected = generate(model, PROMPT, max_new_tokens=9, temperature=0)
    model.train()
    model.blocks[0].eval()
    tokens = speculative_stream(model, PROMPT, draft=PromptLookup(), max_new_tokens=10**6, temperature=0)
    assert [next(tokens) for _ in range(9)] == expected
    assert model.blocks[1].dropout.training
    assert not model.blocks[0].dropout.training
    tokens.close()


def test_a_seed_fixes_the_draws(model):
    for draft in drafts(model):
        settings = {"draft": draft, "max_new_tokens": 20, "seed": 3, "temperature": 1.3}
        first = speculative_generate(model, PROMPT, **settings)
        assert speculative_generate(model, PROMPT, **settings) == first
        assert speculative_generate(model, PROMPT, **{**settings, "seed": 4}) != first


def test_a_draft_serves_one_text_after_another(model):
    for draft in drafts(model):
        for prompt in (PROMPT, PROMPT[:3], [9, 9], PROMPT * 4):
            found = speculative_generate(model, prompt, draft=draft, max_new_tokens=9, temperature=0)
            assert found == generate(model, prompt, max_new_tokens=9, temperature=0)


def test_a_perfect_draft_is_always_kept(model):
    tally = Tally()
    speculative_generate(
        model, PROMPT, draft=DecoderDraft(model), max_new_tokens=40, num_draft=4, temperature=0, tally=tally
    )
    assert tally.acceptance_rate == 1
    assert tally.kept[1:] == [4] * 7 + [3]
    assert tally.tokens_per_pass == 40 / 9
    assert math.isnan(Tally().acceptance_rate)
    assert math.isnan(Tally().tokens_per_pass)


def test_prompt_lookup():
    rule = DrawingRule()
    lookup = PromptLookup(longest=3, shortest=2)
    assert lookup.propose([1, 2, 3, 9, 8, 1, 2, 3], 2, rule) == ([9, 8], None)
    assert lookup.propose([1, 2, 9, 1, 2, 8, 1, 2], 2, rule) == ([8, 1], None)  # the latest place
    assert lookup.propose([5, 1, 2, 9, 7, 1, 2, 8, 5, 1, 2], 1, rule) == ([9], None)  # the longest match
    assert lookup.propose([7, 1, 7], 4, rule) == ([], None)  # one token alone is no match here
    assert lookup.propose([4, 4, 4], 5, rule) == ([4] * 5, None)  # into what it has just copied
    assert lookup.propose([1, 2, 1, 2, 1], 4, rule) == ([2, 1, 2, 1], None)
    assert PromptLookup().propose([7], 4, rule) == ([], None)
    with pytest.raises(ValueError, match="shortest=3 and longest=2"):
        PromptLookup(longest=2, shortest=3)


def test_an_ngram_draft_draws_by_counts():
    counted = NGramModel(order=3, smoothing=MaximumLikelihood())
    counted.fit([[0, 1, 2, 0, 1, 3, 0, 1, 3]], vocabulary=Vocabulary(range(5), unknown=False))
    draft = NGramDraft(counted, vocab_size=5)
    guesses, drawn_from = draft.propose([4, 0, 1], 1, DrawingRule(generator=torch.Generator()))
    assert guesses[0] in (2, 3)
    torch.testing.assert_close(drawn_from[0], torch.tensor([0, 0, 1 / 3, 2 / 3, 0], dtype=torch.float64))
    assert draft.propose([4, 4], 3, DrawingRule()) == ([], [])  # what never occurred is not guessed
    forbid = [lambda ids_BT, logits_BV: logits_BV.index_fill(1, torch.tensor(3), -torch.inf)]
    no_three = DrawingRule(settings={"temperature": 0}, pipeline=forbid)
    assert draft.propose([0, 1], 1, no_three)[0] == [2]


def test_an_ngram_model_of_other_words():
    with pytest.raises(ValueError, match=r"knows the word 'a', which is no token id .* 31 tokens"):
        NGramDraft(NGramModel(order=1).fit([["a", "b"]]), vocab_size=31)
    with pytest.raises(ValueError, match="knows the word 31"):
        NGramDraft(NGramModel(order=1).fit([[31]]), vocab_size=31)
    known = Vocabulary([0, 1], unknown=False)
    with pytest.raises(ValueError, match=r"knows 2 of the target's 31 tokens .*=Vocabulary\(range\(31\)\)"):
        NGramDraft(NGramModel(order=1).fit([[0, 1]], vocabulary=known), vocab_size=31)
    with pytest.raises(ValueError, match="call fit"):
        NGramDraft(NGramModel(order=1), vocab_size=31)


class Proposes:
    def __init__(self, guesses, drawn_from=None):
        self.propose = lambda history, count, rule: (guesses, drawn_from)


UNIFORM = torch.full((31,), 1 / 31)


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (Proposes([1] * 9), "proposed 9 tokens, 4 were asked for"),
        (Proposes([31]), "proposed 31; token ids are whole numbers from 0 to 30"),
        (Proposes([True]), "proposed True"),
        (Proposes([1, 2], [UNIFORM]), r"2 proposed tokens need as many distributions of 31 tokens"),
        (Proposes([1], [UNIFORM[:30]]), r"got shapes \[\(30,\)\]"),
        (Proposes([1], [UNIFORM * 2]), "must sum to 1"),
        (Proposes([1], [torch.nn.functional.one_hot(torch.tensor(2), 31).double()]), "token 1 .* was 0.0"),
    ],
)
def test_drafts_that_break_their_word(draft, message):
    with pytest.raises(ValueError, match=message):
        speculative_generate(build(CONFIGS["llama"]), PROMPT, draft=draft, max_new_tokens=9)


def test_wrong_input():
    model, lookup = build(CONFIGS["llama"]), PromptLookup()
    for ids, settings, message in (
        ([], {}, "prompt is empty"),
        ([31], {}, "ids hold 31, outside the vocabulary of 31"),
        ([[1], [2]], {}, "one sequence at a time"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens must .* got -1"),
        ([1], {"temperature": -1.0}, "temperature must .* got -1.0"),
        ([1], {"num_draft": 0}, "num_draft must be .* got 0"),
        ([1], {"num_draft": 2.0}, "num_draft must be .* got 2.0"),
        ([1], {"seed": 2**70}, "seed must fit"),
        ([1], {"draft": model}, "a draft needs the method propose"),
        ([1], {"draft": DecoderDraft(build(DecoderConfig.gpt2(**{**SIZES, "vocab_size": 30})))}, "30 tokens"),
        ([1] * 50, {"context_length": 48}, "longer than context_length=47"),
    ):
        with pytest.raises(ValueError, match=message):
            speculative_stream(model, ids, **{"draft": lookup, "max_new_tokens": 3, **settings})
    with pytest.raises(ValueError, match="needs a Decoder as its target, got NGramModel"):
        speculative_generate(NGramModel(order=1), [1], draft=lookup, max_new_tokens=1)
    model.norm.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="highest score is nan"):
        speculative_generate(model, [1], draft=lookup, max_new_tokens=3)


def test_equal_distributions_never_reject_and_rounding_does_no_harm():
    probs_V = torch.tensor([0.25, 0.75], dtype=torch.float64)
    for seed in range(200):
        assert keep_or_replace(0, probs_V, probs_V, generator=torch.Generator().manual_seed(seed)) == (
            0,
            True,
        )
    almost = torch.tensor([1.0 - 1e-9, 1e-9], dtype=torch.float64)
    token, _ = keep_or_replace(1, almost * 0 + torch.tensor([1.0, 0.0]), almost)
    assert token == 0


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_tokens_of_transformers(family, tmp_path):
    """Their assisted generation and their prompt lookup, on the folders we write."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = {"gpt2": DecoderConfig.gpt2(**SIZES), "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2)}
    model, small = build(config[family], seed=3), build(config[family], seed=4)
    save_folder(model, tmp_path / "target")
    save_folder(small, tmp_path / "draft")
    theirs, assistant = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("target", "draft")
    )
    assistant.generation_config.num_assistant_tokens = 4  # more would run over the end of the positions
    for prompt in ([1, 2, 3], [30, 7, 7, 29, 7, 7, 4, 30, 7]):
        for ours, options in (
            (DecoderDraft(small), {"assistant_model": assistant}),
            (PromptLookup(), {"prompt_lookup_num_tokens": 4}),
        ):
            expected = theirs.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt)),
                max_new_tokens=36 - len(prompt),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                **options,
            )[0, len(prompt) :].tolist()
            found = speculative_generate(
                model, prompt, draft=ours, max_new_tokens=36 - len(prompt), temperature=0
            )
            assert found == expected
            assert len(set(found)) > 3
