"""Greedy and beam search against transformers' generate, and against looking at every text there is."""

import itertools
import json
import math
from functools import partial

import pytest
import torch

from llm_from_scratch.decoding.repetition import forbid_repeated_ngrams, penalise_repetition
from llm_from_scratch.decoding.search import beam_search, greedy_search
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

V, NEW, STOP = 23, 11, (5, 17)
SHAPE = {"vocab_size": V, "context_length": 19, "d_model": 12, "num_layers": 2, "num_heads": 3}
PROMPTS = torch.tensor([[1, 2, 3, 4], [9, 9, 0, 22], [7, 5, 17, 11]])


def random_model(family, seed):
    """A tiny model with weights large enough for clear preferences; its own generator state is left."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = Decoder(getattr(DecoderConfig, family)(**SHAPE))
        for parameter in model.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=[("gpt2", 3), ("gpt2", 4), ("llama", 1), ("llama", 3)], ids=str)
def ours_and_theirs(request, tmp_path_factory):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("model")
    ours = random_model(*request.param)
    save_folder(ours, folder)
    return ours, AutoModelForCausalLM.from_pretrained(folder).eval()


def generate(theirs, **settings):
    return theirs.generate(
        PROMPTS,
        attention_mask=torch.ones_like(PROMPTS),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=list(STOP),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )


def until_stop(row):
    """New tokens up to the first stop token, which is included."""
    row = row[PROMPTS.shape[1] :].tolist()
    ends = [i + 1 for i, token in enumerate(row) if token in STOP]
    return row[: min(ends)] if ends else row


def whole(text):
    return list(text.ids) + ([] if text.stop_id is None else [text.stop_id])


BEAM_CASES = [
    {"num_beams": 2, "early_stopping": early, "length_penalty": penalty}
    for early in (False, True, "never")
    for penalty in (-1.0, 1.0, 2.5)
] + [
    {"num_beams": 5, "early_stopping": False, "num_return": 5, "length_penalty": 0.6},
    {"num_beams": 4, "early_stopping": True, "num_return": 3},
    {"num_beams": 7, "early_stopping": "never", "num_return": 7, "length_penalty": 0.0},
]


def test_greedy_search_equals_generate(ours_and_theirs):
    ours, theirs = ours_and_theirs
    expected = generate(theirs, num_beams=1).sequences
    for prompt, row in zip(PROMPTS, expected, strict=True):
        found = greedy_search(ours, prompt, max_new_tokens=NEW, stop_ids=STOP)
        assert found == [token for token in until_stop(row) if token not in STOP]


def test_beam_search_equals_generate(ours_and_theirs):
    ours, theirs = ours_and_theirs
    lengths, differing = set(), 0
    one_beam = [beam_search(ours, p, max_new_tokens=NEW, stop_ids=STOP, num_beams=1) for p in PROMPTS]
    greedy = [whole(found.hypotheses[0]) for found in one_beam]
    for case in BEAM_CASES:
        case = dict(case)
        num_return = case.pop("num_return", 1)
        expected = generate(theirs, **case, num_return_sequences=num_return)
        rows = expected.sequences.view(len(PROMPTS), num_return, -1)
        scores = expected.sequences_scores.view(len(PROMPTS), num_return)
        for i, prompt in enumerate(PROMPTS):
            found = beam_search(
                ours, prompt, max_new_tokens=NEW, stop_ids=STOP, num_return=num_return, **case
            ).hypotheses
            assert [whole(text) for text in found] == [until_stop(row) for row in rows[i]], case
            mine = torch.tensor([text.score for text in found])
            torch.testing.assert_close(mine, scores[i], rtol=1e-5, atol=1e-5)
            lengths |= {len(whole(text)) for text in found}
            differing += whole(found[0]) != greedy[i]
    assert len(lengths) > 3  # some stop early, some do not
    assert differing > 5  # and it is no greedy search


def test_with_a_pipeline_it_equals_generate_with_processors(ours_and_theirs):
    ours, theirs = ours_and_theirs
    steps = [partial(penalise_repetition, penalty=1.7), partial(forbid_repeated_ngrams, size=2)]
    changed = 0
    for num_beams in (1, 3):
        rows = generate(theirs, num_beams=num_beams, repetition_penalty=1.7, no_repeat_ngram_size=2).sequences
        for prompt, row in zip(PROMPTS, rows, strict=True):
            settings = {"max_new_tokens": NEW, "stop_ids": STOP}
            if num_beams == 1:
                found = greedy_search(ours, prompt, pipeline=steps, **settings)
                plain = greedy_search(ours, prompt, **settings)
            else:
                found = beam_search(ours, prompt, num_beams=3, pipeline=steps, **settings).hypotheses[0].ids
                plain = beam_search(ours, prompt, num_beams=3, **settings).hypotheses[0].ids
            assert list(found) == [token for token in until_stop(row) if token not in STOP]
            changed += found != plain
    assert changed > 0


def test_one_beam_is_greedy_search():
    for seed in range(4):
        model = random_model("llama", seed)
        found = beam_search(model, [1], max_new_tokens=9, num_beams=1, stop_ids=STOP, early_stopping=True)
        assert list(found.hypotheses[0].ids) == greedy_search(model, [1], max_new_tokens=9, stop_ids=STOP)


def markov(seed, V=5):
    """A model whose next token depends on the last one and its place alone, and its probabilities."""
    generator = torch.Generator().manual_seed(seed)
    table_TVV = (2 * torch.randn(3, V, V, generator=generator)).softmax(-1)
    return (lambda ids_BT: table_TVV[torch.arange(ids_BT.shape[1]), ids_BT].log()), table_TVV


@pytest.mark.parametrize("seed", range(4))
def test_enough_beams_find_the_best_of_all_texts(seed):
    model, table_TVV = markov(seed)
    every = {}
    for length in (1, 2, 3):
        for ids in itertools.product(range(5), repeat=length):
            if 4 in ids[:-1] or (length < 3 and ids[-1] != 4):
                continue
            steps = enumerate(itertools.pairwise((0, *ids)))
            every[ids] = sum(math.log(table_TVV[t, a, b]) for t, (a, b) in steps)
    found = beam_search(
        model, [0], max_new_tokens=3, num_beams=200, num_return=200, length_penalty=0.0, stop_ids=[4]
    )
    best = sorted(every, key=every.get, reverse=True)
    assert [whole(text) for text in found.hypotheses] == [list(ids) for ids in best]
    for text, ids in zip(found.hypotheses, best, strict=True):
        assert text.score == text.log_probability == pytest.approx(every[ids], abs=1e-5)


def test_a_negative_penalty_does_not_end_the_search_too_early():
    """Scores are totals times lengths: [1] -2.30, [0, 1] -2.62, and then [0, 0, 1] -1.70 is the best."""
    table_TV = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], *[[0.5, 0.5]] * 9]).log()
    found = beam_search(
        lambda ids_BT: table_TV[: ids_BT.shape[1]].expand(len(ids_BT), -1, -1),
        [0], max_new_tokens=10, num_beams=2, length_penalty=-1.0, early_stopping="never", stop_ids=[1],
    )  # fmt: skip
    assert whole(found.hypotheses[0]) == [0, 0, 1]
    assert found.hypotheses[0].score == pytest.approx(3 * math.log(0.9 * 0.7 * 0.9), abs=1e-5)


def test_the_tree_holds_every_path():
    model = random_model("gpt2", 1)
    found = beam_search(model, [1, 2], max_new_tokens=6, num_beams=3, num_return=3, stop_ids=STOP)
    tree = json.loads(json.dumps(found.tree))
    assert tree == found.tree
    assert [node["id"] for node in tree] == list(range(len(tree)))
    assert tree[0]["parent"] is None
    assert tree[0]["token"] is None
    for node in tree[1:]:
        parent = tree[node["parent"]]
        assert parent["state"] == "kept"
        assert node["step"] == parent["step"] + 1
        assert node["total"] == pytest.approx(parent["total"] + node["log_probability"], abs=1e-5)
    for step in range(1, max(node["step"] for node in tree) + 1):
        states = [node["state"] for node in tree if node["step"] == step]
        assert len(states) == 3 * 3  # beams x (1 + stop ids)
        assert states.count("kept") == (3 if step < 6 else 0)

    def path(node):
        return [] if node["parent"] is None else [*path(tree[node["parent"]]), node["token"]]

    ended = {tuple(path(node)): node for node in tree if node["state"] == "ended"}
    for text in found.hypotheses:
        assert ended[tuple(whole(text))]["total"] == text.log_probability


def test_ties_keep_the_lower_number():
    found = beam_search(lambda ids_BT: torch.zeros(*ids_BT.shape, 7), [0], max_new_tokens=2, num_beams=3,
                        num_return=3)  # fmt: skip
    assert [text.ids for text in found.hypotheses] == [(0, 0), (0, 1), (0, 2)]
    assert greedy_search(lambda ids_BT: torch.zeros(*ids_BT.shape, 7), [3], max_new_tokens=2) == [0, 0]


def test_texts_longer_than_the_context_and_of_no_length():
    model = random_model("llama", 0)
    assert len(greedy_search(model, [1] * 18, max_new_tokens=5)) == 5
    assert len(beam_search(model, [1] * 25, max_new_tokens=5, num_beams=2).hypotheses[0].ids) == 5
    assert greedy_search(model, [1], max_new_tokens=0) == []
    (nothing,) = beam_search(model, [1], max_new_tokens=0, num_beams=2).hypotheses
    assert (nothing.ids, nothing.stop_id, nothing.score) == ((), None, 0.0)


def test_dropout_is_off_and_put_back():
    model = Decoder(DecoderConfig.llama(**SHAPE, dropout=0.9)).train()
    texts = {tuple(greedy_search(model, [1, 2], max_new_tokens=4)) for _ in range(5)}
    assert len(texts) == 1
    assert model.training


def fewer(ids_BT, logits_BV):
    """Only token 2 is possible, and after it nothing."""
    allowed_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    allowed_BV[:, 2] = ids_BT[:, -1] != 2
    return logits_BV.masked_fill(~allowed_BV, -torch.inf)


def flat(ids_BT):
    return torch.zeros(*ids_BT.shape, 7)


def test_fewer_texts_than_asked_for():
    found = beam_search(
        flat, [0], max_new_tokens=5, num_beams=4, num_return=4, pipeline=[fewer], stop_ids=[2]
    )
    assert [whole(text) for text in found.hypotheses] == [[2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams must be a whole number of at least 1, got 0"),
        ({"num_beams": 2.0}, "got 2.0"),
        ({"num_beams": 2, "num_return": 3}, "num_return must be at most num_beams, got 3 of 2; take more"),
        ({"num_beams": 2, "length_penalty": math.nan}, "length_penalty must lie between -50 and 50, got nan"),
        ({"num_beams": 2, "length_penalty": 1e9}, "got 1000000000.0"),
        ({"num_beams": 2, "early_stopping": "always"}, "must be True, False or \"never\", got 'always'"),
        ({"num_beams": 2, "early_stopping": 1}, "got 1"),
        ({"num_beams": 2, "max_new_tokens": -1}, "max_new_tokens .* got -1"),
        ({"num_beams": 2, "ids": []}, "prompt is empty"),
        ({"num_beams": 2, "ids": [1.5]}, "whole numbers"),
        ({"num_beams": 2, "ids": "abc"}, "row of token ids, got 'abc'; encode"),
        ({"num_beams": 2, "ids": [[1], [2]]}, r"one sequence at a time, got ids of shape \(2, 1\)"),
        ({"num_beams": 2, "stop_ids": [1.5]}, "stop_ids must be token ids"),
        ({"num_beams": 2, "context_length": 0}, "context_length must be at least 1 token, got 0"),
        ({"num_beams": 2, "pipeline": [fewer]}, "no token is possible after 1 new tokens"),
        ({"num_beams": 2, "model": lambda ids: torch.full((*ids.shape, 3), math.nan)}, "score is nan"),
    ],
)
def test_bad_input_is_named(settings, message):
    settings = {"ids": [1], "max_new_tokens": 3, "model": flat} | settings
    model, ids = settings.pop("model"), settings.pop("ids")
    with pytest.raises(ValueError, match=message):
        beam_search(model, ids, **settings)
    for name in ("num_beams", "num_return", "length_penalty", "early_stopping"):
        wrong = settings.pop(name, None)
        if name != "num_beams" and wrong is not None:
            return
    if "must be a whole number of at least 1, got" in message or message == "got 2.0":
        return
    with pytest.raises(ValueError, match=message):
        greedy_search(model, ids, **settings)
