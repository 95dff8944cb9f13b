"""The table of what beam search asks: a search on it equals the search on the model."""

import pytest
import torch

from llm_from_scratch.decoding import beam_search
from llm_from_scratch.decoding.beam_table import beam_table
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.widgets.beam_replay import replay
from tests.beam_tables import random_model, random_table

SETTINGS = [
    {"num_beams": beams, "length_penalty": penalty, "early_stopping": early}
    for beams in (1, 2, 4)
    for penalty in (-1.0, 0.0, 1.0, 2.0)
    for early in (True, False, "never")
]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stop_ids", [(), (0,), (0, 4, 7)])
def test_a_search_on_the_table_equals_one_on_the_model(seed, stop_ids):
    model, _, table, _ = random_table(seed, stop_ids=stop_ids)
    for settings in SETTINGS:
        found = beam_search(
            model, [3, 1], max_new_tokens=5, stop_ids=stop_ids, num_return=settings["num_beams"], **settings
        )
        nodes, finished = replay(table, max_new_tokens=5, stop_ids=frozenset(stop_ids), **settings)
        assert [(n.parent, n.token, n.step, n.state) for n in nodes] == [
            (n["parent"], n["token"], n["step"], n["state"]) for n in found.tree
        ]
        assert [n.total for n in nodes] == pytest.approx([n["total"] for n in found.tree], abs=1e-5)
        whole = [(*h.ids, *([] if h.stop_id is None else [h.stop_id])) for h in found.hypotheses]
        assert [one.ids for one in finished] == whole
        assert [one.score for one in finished] == pytest.approx([h.score for h in found.hypotheses], abs=1e-5)


def test_the_table_holds_only_what_some_search_continues():
    *_, table, _ = random_table(3, stop_ids=(0,))
    assert () in table
    assert all(len(text) < 5 and 0 not in text for text in table)
    assert all(len(ids) == 8 for ids, _ in table.values())  # 4 beams, twice as many candidates
    assert all(log_probs == sorted(log_probs, reverse=True) for _, log_probs in table.values())


def test_impossible_tokens_are_left_out():
    def only_two(ids_BT):
        scores = torch.full((*ids_BT.shape, 5), -torch.inf)
        scores[..., 1:3] = torch.tensor([0.0, -1.0])
        return scores

    assert beam_table(only_two, [1], max_new_tokens=2, max_beams=3)[()][0] == [1, 2]


def test_a_decoder_in_training_mode_is_read_without_dropout():
    config = DecoderConfig.gpt2(
        vocab_size=11, context_length=7, d_model=6, num_layers=2, num_heads=3, dropout=0.5
    )
    torch.manual_seed(0)
    model = Decoder(config).train()
    tables = [beam_table(model, [3], max_new_tokens=3, max_beams=2) for _ in range(2)]
    assert tables[0] == tables[1]
    assert model.training
    with pytest.raises(ValueError, match="3 tokens and 5 new ones outgrow context_length=7"):
        beam_table(model, [1, 2, 3], max_new_tokens=5, max_beams=2)


def test_mistakes_are_those_of_beam_search():
    with pytest.raises(ValueError, match="prompt is empty"):
        beam_table(random_model(0), [], max_new_tokens=2, max_beams=2)
    with pytest.raises(ValueError, match="stop_ids must be token ids"):
        beam_table(random_model(0), [1], max_new_tokens=2, max_beams=2, stop_ids=["a"])
