"""The constraint as a step of the pipeline: sampling, streaming, beams, batches, caches, budgets."""

import json
import re

import pytest
import torch

from llm_from_scratch.decoding import beam_search, constrain, generate_json, run_pipeline, sample
from llm_from_scratch.decoding.constrained_bias import text_probabilities
from llm_from_scratch.inference.generate import generate
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes.constrained_json import EqualScores
from llm_from_scratch.tokenizers.byte_pair import BytePairTokenizer

TEXT = '{"name": "Ada", "age": 36, "tags": ["the", "engine"]} 2024-05-17 ' * 3
SCHEMA = {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}


@pytest.fixture(scope="module")
def tokenizer():
    return BytePairTokenizer.train(TEXT, vocab_size=300, special_tokens=["<|pad|>", "<|endoftext|>"])


def test_every_way_of_generating_keeps_to_it(tokenizer):
    torch.manual_seed(0)
    config = DecoderConfig.gpt2(
        vocab_size=tokenizer.vocab_size, context_length=64, d_model=12, num_layers=2, num_heads=3
    )
    model, prompt = Decoder(config).eval(), tokenizer.encode("the ")
    for settings in ({"regex": r"\d{2,4}-(ab|é)+"}, {"json_schema": SCHEMA}):
        step = constrain(tokenizer, prompt_length=len(prompt), max_new_tokens=25, **settings)
        common = {"max_new_tokens": 25, "stop_ids": step.stop_ids, "pipeline": [step]}
        drawn = [sample(model, prompt, seed=3, **common), generate(model, prompt, seed=3, **common)]
        assert drawn[0] == drawn[1]
        beams = beam_search(model, prompt, num_beams=3, num_return=3, **common).hypotheses
        for ids in [*drawn, *(list(beam.ids) for beam in beams)]:
            assert step.finished(ids)
            text = tokenizer.decode_bytes(ids).decode()
            if "regex" in settings:
                assert re.fullmatch(settings["regex"], text)
            else:
                assert isinstance(json.loads(text)["name"], str)


def test_a_step_depends_on_the_ids_alone_and_rows_do_not_disturb_each_other(tokenizer):
    one, other = (
        constrain(tokenizer, json_schema=SCHEMA, prompt_length=1, max_new_tokens=40) for _ in range(2)
    )
    rows = [[0, *tokenizer.encode(start)[:4]] for start in ('{"name":"x', '{"name": "y"', '{"name":"zzzz')]
    ids_BT = torch.tensor(rows)
    logits_BV = torch.randn(3, tokenizer.vocab_size)
    together = run_pipeline([one], ids_BT, logits_BV)
    for row in (2, 0, 1):
        alone = run_pipeline([other], ids_BT[row : row + 1], logits_BV[row : row + 1])
        assert torch.equal(alone[0], together[row])
    assert torch.equal(run_pipeline([one], ids_BT, logits_BV), together)


def test_end_of_text_exactly_at_whole_texts_and_special_tokens_never(tokenizer):
    pad, end = (tokenizer.special_ids[name] for name in ("<|pad|>", "<|endoftext|>"))
    step = constrain(tokenizer, regex="ab?", prompt_length=0, max_new_tokens=9)
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    for new_ids, may_end in (
        ([], False),
        ([a], True),
        ([a, b], True),
        ([a, end], True),
        ([a, end, pad], True),
    ):
        allowed = step.allowed(new_ids, tokenizer.vocab_size)
        assert allowed[end] == may_end
        assert not allowed[pad]
    assert step.allowed([a, end], tokenizer.vocab_size).sum() == 1


def test_the_budget_is_named_and_kept(tokenizer):
    with pytest.raises(ValueError, match="allow at least 7"):
        constrain(tokenizer, regex="z{7}", prompt_length=0, max_new_tokens=6)
    step = constrain(tokenizer, regex="z{7}", prompt_length=1, max_new_tokens=7)
    ids = sample(
        EqualScores(tokenizer.vocab_size), [0], max_new_tokens=7, pipeline=[step], stop_ids=step.stop_ids
    )
    assert tokenizer.decode(ids) == "z" * 7


def test_mistakes_are_named(tokenizer):
    settings = {"prompt_length": 1, "max_new_tokens": 9}
    with pytest.raises(ValueError, match="exactly one"):
        constrain(tokenizer, **settings)
    with pytest.raises(ValueError, match="give stop_ids"):
        constrain(BytePairTokenizer([]), regex="a", **settings)
    with pytest.raises(ValueError, match="special tokens"):
        constrain(tokenizer, regex="a", stop_ids=[65], **settings)
    with pytest.raises(ValueError, match="byte-level tokenizer"):
        constrain(object(), regex="a", **settings)
    step = constrain(tokenizer, regex="a+", **settings)
    with pytest.raises(ValueError, match="breaks the constraint"):
        step(torch.tensor([[0, tokenizer.encode("b")[0]]]), torch.zeros(1, tokenizer.vocab_size))
    with pytest.raises(ValueError, match="own tokenizer"):
        step(torch.tensor([[0]]), torch.zeros(1, 100))
    with pytest.raises(ValueError, match="prompt_length"):
        step(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, tokenizer.vocab_size))


def test_generate_json_returns_the_value(tokenizer):
    value = generate_json(
        EqualScores(tokenizer.vocab_size), tokenizer, "the", SCHEMA, max_new_tokens=40, seed=1
    )
    assert isinstance(value["name"], str)


def test_masked_probabilities_are_those_that_sampling_has(tokenizer):
    step = constrain(tokenizer, regex="a|ab|bb", prompt_length=1, max_new_tokens=3)
    found = text_probabilities(EqualScores(tokenizer.vocab_size), step, [0])
    assert sum(masked for masked, _ in found.values()) == pytest.approx(1)
    assert sum(own for _, own in found.values()) == pytest.approx(1)
    assert any(abs(masked - own) > 0.01 for masked, own in found.values())
