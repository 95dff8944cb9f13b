"""MiniLM: the vectors of sentences that the reference gives."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizer

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.interop import load_minilm, sentence_embeddings
from llm_from_scratch.nn.pooling import mean_pool, unit_length

SENTENCES = [
    "The cat sits on the mat.",
    "A kitten rests on a rug.",
    "Stocks fell sharply on Monday.",
    "",
    "Ünïcödé, 法国 und 😀!",
    "long words " * 300,
]


@pytest.fixture(scope="module")
def loaded():
    return load_minilm()


@pytest.fixture(scope="module")
def theirs():
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = BertModel(config).eval()
    missing, unexpected = model.load_state_dict(load_file(fetch("minilm")), strict=False)
    assert (missing, unexpected) == ([], ["embeddings.position_ids"])
    lines = fetch("minilm_vocab").read_text(encoding="utf-8").split("\n")[:-1]
    return model, BertTokenizer(vocab={token: i for i, token in enumerate(lines)})


@torch.no_grad()
def embed(theirs, sentences):
    model, tokenizer = theirs
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=256, return_tensors="pt")
    x_BTC, mask_BT1 = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((x_BTC * mask_BT1).sum(1) / mask_BT1.sum(1))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_vectors_are_those_of_the_reference(loaded, theirs, batch_size):
    ours = sentence_embeddings(loaded, SENTENCES, batch_size=batch_size)
    assert ours.shape == (6, 384)
    torch.testing.assert_close(ours, embed(theirs, SENTENCES), rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_position_and_the_pooler_are_those_of_the_reference(loaded, theirs):
    ids, segments = loaded.tokenizer.encode_for_bert(SENTENCES[0], SENTENCES[2])
    batch = theirs[1](SENTENCES[0], SENTENCES[2], return_tensors="pt")
    assert (batch["input_ids"][0].tolist(), batch["token_type_ids"][0].tolist()) == (ids, segments)
    expected = theirs[0](**batch)
    x_BTC = loaded.model(torch.tensor([ids]), torch.tensor([segments]))
    torch.testing.assert_close(x_BTC, expected.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(loaded.model.pool(x_BTC), expected.pooler_output, rtol=0, atol=1e-5)


def test_sentences_that_mean_alike_lie_near(loaded):
    E = sentence_embeddings(loaded, SENTENCES[:3])
    cosines = E @ E.T
    assert cosines[0, 1] > 0.5 > cosines[0, 2]


def test_what_is_no_list_of_sentences(loaded):
    with pytest.raises(ValueError, match="must be a list"):
        sentence_embeddings(loaded, "one")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        sentence_embeddings(loaded, ["one"], batch_size=0)
    assert sentence_embeddings(loaded, []).shape == (0, 384)


def test_the_mean_leaves_padding_out():
    x_BTC = torch.tensor([[[1.0, 2.0], [5.0, 4.0], [torch.nan, 9.0]]])
    mask_BT = torch.tensor([[True, True, False]])
    assert mean_pool(x_BTC, mask_BT).tolist() == [[3.0, 3.0]]
    with pytest.raises(ValueError, match="text 0 has no token"):
        mean_pool(x_BTC, ~torch.ones(1, 3, dtype=torch.bool))
    for wrong in (mask_BT.int(), mask_BT[0]):
        with pytest.raises(ValueError, match="boolean mask of shape"):
            mean_pool(x_BTC, wrong)


def test_vectors_of_length_one():
    x_BC = torch.randn(7, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(unit_length(x_BC), torch.nn.functional.normalize(x_BC))
    assert unit_length(torch.zeros(5)).tolist() == [0.0] * 5
