"""Tables of n-grams: whose row is looked up, from which tokens, and where it is refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.inference.cached_beams import CachedBeams
from llm_from_scratch.inference.cached_pass import cached_forward
from llm_from_scratch.inference.generate import CachedModel, generate
from llm_from_scratch.inference.kv_cache import KVCache
from llm_from_scratch.inference.native_step import NativeStep
from llm_from_scratch.inference.slot_cache import SlotCache
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.counts import activation_numbers, parameter_counts
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.ngram_embedding import NgramEmbedding
from llm_from_scratch.training.planning.footprint import predict_footprint

V, C = 7, 5
SIZES = {"vocab_size": 31, "context_length": 13, "d_model": 12, "num_layers": 2, "num_heads": 3}


def decoder(rows=(101, 211), **changes):
    torch.manual_seed(0)
    model = Decoder(DecoderConfig.llama(**SIZES, ngram_rows=rows, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def by_hand(table, ids):
    """One position at a time, with Python's whole numbers."""
    base, result = V + 1, []
    for t in range(len(ids)):
        vector = torch.zeros(C)
        for n, (rows, part) in enumerate(zip(table.rows, table.tables, strict=True), start=2):
            gram = [ids[t - back] if t >= back else V for back in range(n)]
            number = sum(i * base**power for power, i in enumerate(gram))
            row = number if base**n <= rows else number * 2_654_435_761 % 2**32 % rows
            vector = vector + part.weight[row]
        result.append(vector)
    return torch.stack(result)


@given(
    st.lists(st.integers(0, V - 1), min_size=1, max_size=9),
    st.sampled_from([(64,), (64, 19), (11, 13, 17)]),
)
def test_equal_to_the_definition(ids, rows):
    table = NgramEmbedding(vocab_size=V, d_model=C, rows=rows)
    torch.testing.assert_close(table(torch.tensor([ids]))[0], by_hand(table, ids))


@given(st.lists(st.integers(0, V - 1), min_size=2, max_size=9), st.data())
def test_a_text_in_pieces_is_the_whole_text(ids, data):
    table = NgramEmbedding(vocab_size=V, d_model=C, rows=(64, 19, 23))
    cut = data.draw(st.integers(1, len(ids) - 1))
    whole, ids_1T = table(torch.tensor([ids])), torch.tensor([ids])
    assert torch.equal(table(ids_1T[:, cut:], ids_1T[:, :cut]), whole[:, cut:])


def test_pairs_with_a_row_each_do_not_meet():
    table = NgramEmbedding(vocab_size=V, d_model=C, rows=((V + 1) ** 2,))
    pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    rows = table.rows_of(pairs, 1)[0].flatten()
    assert len(rows.unique()) == V * V
    assert rows.max() < (V + 1) ** 2


def test_hashed_triples_spread_over_the_rows():
    table = NgramEmbedding(vocab_size=65, d_model=1, rows=(4225, 4096))
    triples = torch.randint(65, (20_000, 3), generator=torch.Generator().manual_seed(0))
    rows = table.rows_of(triples, 1)[1]
    counts = torch.bincount(rows.flatten(), minlength=4096)
    assert counts.max() < 25  # 4.9 expected; as if drawn evenly
    assert (counts == 0).sum() < 80


@pytest.mark.parametrize(
    ("rows", "message"),
    [((), "at least one table"), ((4, 0), "at least one row"), ((9,) * 10, "do not fit into 64 bits")],
)
def test_mistakes_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        NgramEmbedding(vocab_size=200, d_model=C, rows=rows)


def test_a_later_token_never_changes_an_earlier_logit():
    model, ids = decoder(), torch.randint(31, (3, 13), generator=torch.Generator().manual_seed(1))
    before = model(ids)
    for t in range(1, 13):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + 1) % 31
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.allclose(after[:, t], before[:, t])


@pytest.mark.parametrize("pieces", [[1] * 13, [5, 1, 3, 4], [13], [2, 11]])
def test_cached_equals_uncached(pieces):
    model, ids = decoder(), torch.randint(31, (2, 13), generator=torch.Generator().manual_seed(2))
    cache = KVCache.for_model(model, batch_size=2)
    parts = [cached_forward(model, piece, cache) for piece in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=1e-5, atol=1e-5)
    cache.truncate(4)
    other = torch.cat((ids[:, :4], ids[:, :5].flip(1)), dim=1)
    logits = cached_forward(model, other[:, 4:], cache)
    torch.testing.assert_close(logits, model(other)[:, 4:], rtol=1e-5, atol=1e-5)


def test_generation_and_beams_read_the_tokens_before():
    model = decoder()
    cached = CachedModel(model)
    for ids in ([[3, 4, 5]], [[3, 4, 5, 6]], [[3, 4, 9, 9, 1]], [[2]]):
        expected = model(torch.tensor(ids))[:, -1:]
        torch.testing.assert_close(cached(torch.tensor(ids)), expected, rtol=1e-5, atol=1e-5)
    beams = CachedBeams(model)
    for ids in ([[3, 4, 5]], [[3, 4, 5, 6], [3, 4, 5, 7]], [[3, 4, 5, 7, 1], [3, 4, 5, 6, 2]]):
        expected = model(torch.tensor(ids))[:, -1:]
        torch.testing.assert_close(beams(torch.tensor(ids)), expected, rtol=1e-5, atol=1e-5)
    assert len(generate(model, [3], max_new_tokens=20, seed=1)) == 20


def test_where_the_tokens_before_are_missing_the_model_is_refused(tmp_path):
    model = decoder()
    with pytest.raises(ValueError, match="for which the tokens before each new one are needed"):
        model.embed(torch.tensor([[1]]), positions_T=torch.tensor([3]))
    with pytest.raises(ValueError, match="for which the tokens before each new one are needed"):
        model.embed(torch.tensor([[1]]), start=3)
    with pytest.raises(ValueError, match="the slots keep no tokens"):
        SlotCache.for_model(model, num_slots=2)
    with pytest.raises(ValueError, match="no tables of n-grams"):
        NativeStep(model)
    with pytest.raises(ValueError, match="knows the feed-forward layers gelu, gelu_exact, swiglu"):
        NativeStep(decoder(rows=(), feedforward="relu2"))
    with pytest.raises(ValueError, match="tables of n-grams"):
        save_folder(model, tmp_path)
    with pytest.raises(ValueError, match="feedforward='relu2' is not Llama's"):
        save_folder(decoder(rows=(), feedforward="relu2"), tmp_path)
    with pytest.raises(ValueError, match="plan without them"):
        predict_footprint(model.config, batch_size=1)
    with pytest.raises(ValueError, match="no formula for the activations"):
        activation_numbers(model.config, num_tokens=3)
    with pytest.raises(ValueError, match="a table of ngram_rows=0"):
        DecoderConfig.llama(**SIZES, ngram_rows=(0,))


def test_every_table_counts_as_parameters():
    model = decoder(rows=(101, 211))
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert sum(parameter_counts(model.config).values()) == model.num_parameters()
    without = decoder(rows=())
    assert model.num_parameters() - without.num_parameters() == (101 + 211) * 12
    assert model.num_parameters(embeddings=False) == without.num_parameters(embeddings=False)


def test_config_survives_json():
    config = decoder().config
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_zero_outputs_begin_with_even_chances_and_untouched_streams():
    config = DecoderConfig.llama(**SIZES, zero_outputs=True, feedforward="relu2", qk_norm=True)
    model = Decoder(config)
    ids = torch.randint(31, (2, 13))
    assert (model(ids) == 0).all()
    stream, rope = model.embed(ids)
    assert torch.equal(model.blocks[0](stream, rope=rope), stream)
    model(ids, ids)[1].backward()
    assert model.head.weight.grad.abs().max() > 0  # so that it does not stay at 0
    assert Decoder(DecoderConfig.gpt2(**SIZES, zero_outputs=True)).output_weight.abs().max() > 0
