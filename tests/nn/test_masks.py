import pytest
import torch

from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.nn.masks import causal_mask, document_mask, padding_mask


@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 7), (1, 4), (0, 3), (0, 0)])
def test_causal_mask_by_its_definition(T, S):
    mask = causal_mask(T, S)
    assert mask.shape == (T, S)
    assert mask.tolist() == [[j <= i + S - T for j in range(S)] for i in range(T)]


def test_causal_mask_rows_are_queries():
    """The first query sees one key; the last sees all. A transposed mask says the opposite."""
    assert causal_mask(5).sum(dim=1).tolist() == [1, 2, 3, 4, 5]


def test_last_rows_of_the_square_are_the_cached_case():
    assert torch.equal(causal_mask(3, 7), causal_mask(7)[-3:])


@pytest.mark.parametrize(("T", "S"), [(5, 3), (-1, 3)])
def test_causal_mask_needs_enough_keys(T, S):
    with pytest.raises(ValueError, match=f"T={T} queries and S={S} keys"):
        causal_mask(T, S)


def test_padding_mask_by_its_definition():
    lengths = [0, 1, 5, 7]
    mask = padding_mask(torch.tensor(lengths), 7)
    assert mask.shape == (4, 1, 1, 7)
    assert mask[:, 0, 0].tolist() == [[j < n for j in range(7)] for n in lengths]


@pytest.mark.parametrize("lengths", [[8], [3, -1]])
def test_padding_mask_lengths(lengths):
    with pytest.raises(ValueError, match=r"must lie in \[0, 7\]"):
        padding_mask(torch.tensor(lengths), 7)


@pytest.mark.parametrize(("T", "S"), [(7, 7), (3, 7), (1, 5)])
@pytest.mark.parametrize("window", [1, 2, 5, 11])
def test_window_by_loops(T, S, window):
    mask = causal_mask(T, S, window=window)
    for i in range(T):
        place = i + S - T
        assert [j for j in range(S) if mask[i, j]] == list(range(max(0, place - window + 1), place + 1))


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        causal_mask(3, window=0)


def test_document_mask_by_its_definition():
    ids = torch.tensor([[5, 9, 3, 3, 9, 9, 1], [9, 1, 1, 1, 1, 1, 9]])
    mask = document_mask(ids, 9)
    assert mask.shape == (2, 1, 7, 7)
    for b, row in enumerate(ids.tolist()):
        for i in range(7):
            for j in range(7):
                same = not any(token == 9 for token in row[min(i, j) + 1 : max(i, j) + 1])
                assert bool(mask[b, 0, i, j]) == same, (b, i, j)
    with pytest.raises(ValueError, match=r"shape \[B, T\]"):
        document_mask(ids[0], 9)


def test_document_mask_reads_each_document_as_if_alone():
    """Rotary positions count distances, so a packed document is read as the document by itself."""
    torch.manual_seed(0)
    config = DecoderConfig.llama(vocab_size=11, context_length=13, d_model=12, num_layers=2, num_heads=3)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    first, second = [10, 1, 2, 3, 4], [10, 5, 6, 7]
    packed = torch.tensor([first + second])
    with torch.no_grad():
        masked = model(packed, mask=document_mask(packed, 10))[0]
        alone = torch.cat([model(torch.tensor([first]))[0], model(torch.tensor([second]))[0]])
        crossing = model(packed)[0]
    torch.testing.assert_close(masked, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(crossing[:5], alone[:5], rtol=0, atol=1e-5)
    assert (crossing[5:] - alone[5:]).abs().max() > 1e-2
