"""Diversity against quality: what is drawn, what is measured, a run that goes on, and the stored record."""

import json
import math

import pytest
import torch

from llm_from_scratch.decoding.sampling import sample
from llm_from_scratch.inference.generate import CachedModel
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.recipes import diversity, publish
from llm_from_scratch.recipes.diversity import (
    FIGURES,
    WAYS,
    Measurement,
    diversity_table,
    draw,
    own_nats,
    search,
)

TINY = Measurement(num_prompts=2, num_texts=3, prompt_length=4, new_tokens=5)
PROMPTS = torch.tensor([[1, 2, 3, 4], [7, 5, 1, 6]])
ENDS = [0, 9]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = DecoderConfig.llama(vocab_size=23, context_length=19, d_model=12, num_layers=2, num_heads=3)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
    return model


def test_drawing_side_by_side_follows_the_rules_of_one_text(model):
    """Temperature 0 gives what `sample` gives; the surprise noted while drawing is that of reading again."""
    ids_PRT, nats_PR = draw(CachedModel(model), PROMPTS, ENDS, TINY, temperature=0)
    assert ids_PRT.shape == (2, 1, 5)
    barred = lambda ids_BT: model(ids_BT).index_fill(-1, torch.tensor(ENDS), -math.inf)  # noqa: E731
    for prompt, found in zip(PROMPTS, ids_PRT, strict=True):
        assert found[0].tolist() == sample(barred, prompt, max_new_tokens=5, temperature=0, context_length=19)
    torch.testing.assert_close(nats_PR, own_nats(model, PROMPTS, ids_PRT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"typical_p": 0.5}, {"temperature": 1.5, "min_p": 0.1}])
def test_drawn_texts(model, settings):
    ids_PRT, nats_PR = draw(CachedModel(model), PROMPTS, ENDS, TINY, **settings)
    again_PRT, _ = draw(CachedModel(model), PROMPTS, ENDS, TINY, **settings)
    assert torch.equal(ids_PRT, again_PRT)
    assert ids_PRT.shape == (2, 3, 5)
    assert not torch.isin(ids_PRT, torch.tensor(ENDS)).any()
    assert len({tuple(row) for row in ids_PRT[0].tolist()}) > 1
    torch.testing.assert_close(nats_PR, own_nats(model, PROMPTS, ids_PRT), rtol=1e-4, atol=1e-4)


def test_a_search_is_likelier_than_greedy_and_ends_no_text(model):
    found = search(model, PROMPTS, ENDS, TINY, num_beams=8)
    greedy, nats_PR = draw(CachedModel(model), PROMPTS, ENDS, TINY, temperature=0)
    assert found.shape == greedy.shape
    assert not torch.isin(found, torch.tensor(ENDS)).any()
    assert own_nats(model, PROMPTS, found).mean() <= nats_PR.mean() + 1e-4


class Bench:
    """In the place of the models: each way costs one call."""

    def __init__(self, measurement):
        self.prompts_PT, self.calls = PROMPTS, []
        self.tokenizer = type("Tokenizer", (), {"decode": staticmethod(str)})

    def run(self, options):
        if options == {"fails": True}:
            raise KeyboardInterrupt
        self.calls.append(options)
        return {"figures": {name: [1.0, 2.0] for name in FIGURES}, "example": "so"}


def test_an_interrupted_run_goes_on(monkeypatch, tmp_path):
    benches = []
    monkeypatch.setattr(diversity, "_Bench", lambda m: benches.append(Bench(m)) or benches[-1])
    ways = [("greedy", "", {"temperature": 0}), ("bad", "", {"fails": True})]
    with pytest.raises(KeyboardInterrupt):
        diversity.make(tmp_path, say=lambda line: None, measurement=TINY, ways=ways)
    assert not (tmp_path / "record.json").exists()
    ways[1] = ("top-p", "0.9", {"top_p": 0.9})
    record = diversity.make(tmp_path, say=lambda line: None, measurement=TINY, ways=ways)
    assert benches[1].calls == [{"top_p": 0.9}]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert diversity.load_record(tmp_path) == json.loads(json.dumps(record))
    other = Measurement(num_prompts=2, num_texts=3, prompt_length=4, new_tokens=6)
    diversity.make(tmp_path, say=lambda line: None, measurement=other, ways=ways)
    assert len(benches[2].calls) == 3  # another measurement begins anew


def test_the_stored_record_holds_every_way_and_its_figures():
    record = diversity.load_record()
    assert record["command"] == "python -m llm_from_scratch.recipes.publish diversity"
    assert "diversity" in publish.COMPARISONS
    assert [(way["family"], way["setting"]) for way in record["ways"]] == [
        ("human", ""),
        *((family, setting) for family, setting, _ in WAYS),
    ]
    prompts = record["settings"]["num_prompts"]
    for way in record["ways"]:
        assert len(way["figures"]["own_nats"]) == prompts
        assert 0 <= diversity.mean(way["figures"]["repeated_4"]) < 1
    assert len(diversity_table(record).splitlines()) == len(WAYS) + 2


def test_a_damaged_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="publish diversity"):
        diversity.load_record(tmp_path)
    (tmp_path / "record.json").write_text('{"ways": [{"family": "greedy"}]}')
    with pytest.raises(ValueError, match="damaged"):
        diversity.load_record(tmp_path)
