"""The decoder against GPT-2 and Llama as `transformers` computes them: logits, loss, gradients."""

import pytest
import torch
from hugging_face_weights import from_gpt2, from_llama, gpt2_like, llama_like

from llm_from_scratch.models.attention_maps import attention_maps
from llm_from_scratch.models.decoder import Decoder, DecoderConfig

# Sizes are prime or odd, and differ, wherever the architecture leaves them free.
GPT2 = {"vocab_size": 101, "context_length": 23, "d_model": 35, "num_layers": 3, "num_heads": 5, "d_ff": 53}
LLAMA = {"vocab_size": 103, "context_length": 29, "d_model": 84, "num_layers": 2, "num_heads": 6, "d_ff": 59}

CASES = {
    "gpt2": DecoderConfig.gpt2(**GPT2),
    "gpt2-untied": DecoderConfig.gpt2(**GPT2, tie_embeddings=False),
    "gpt2-exact-gelu": DecoderConfig.gpt2(**GPT2, feedforward="gelu_exact"),
    "gpt2-one-head": DecoderConfig.gpt2(**{**GPT2, "num_heads": 1}),
    "llama": DecoderConfig.llama(**LLAMA),
    "llama-grouped": DecoderConfig.llama(**LLAMA, num_kv_heads=3),
    "llama-multi-query-tied": DecoderConfig.llama(**LLAMA, num_kv_heads=1, tie_embeddings=True),
    "llama-other-base": DecoderConfig.llama(**LLAMA, num_kv_heads=2, rope_base=500000.0, norm_eps=1e-6),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request):
    """The same weights in both implementations, larger than at the start so that errors show."""
    config = CASES[request.param]
    torch.manual_seed(7)
    like, convert = (gpt2_like, from_gpt2) if config.positions == "learned" else (llama_like, from_llama)
    theirs = like(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = Decoder(config).eval()
    ours.load_state_dict(convert(theirs.state_dict(), config), strict=True)
    return ours, theirs, convert


@pytest.mark.parametrize(("B", "T"), [(2, 19), (3, 1), (1, 23)])
def test_logits(pair, B, T):
    ours, theirs, _ = pair
    ids_BT = torch.randint(ours.config.vocab_size, (B, T), generator=torch.Generator().manual_seed(T))
    expected = theirs(ids_BT).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(ids_BT), expected, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients(pair):
    """Each weight's gradient, relative to the largest gradient of that weight, to 1e-4."""
    ours, theirs, convert = pair
    ids = torch.randint(ours.config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    labels[0, :7] = -100
    for model in (ours, theirs):
        model.zero_grad(set_to_none=True)
    expected = theirs(ids, labels=labels).loss  # shifts by itself: the logits at t meet the label at t + 1
    expected.backward()
    _, loss = ours(ids[:, :-1], labels[:, 1:])
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected_gradients = convert(gradients, ours.config)
    ours_gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert ours_gradients.keys() == expected_gradients.keys()
    for name, gradient in ours_gradients.items():
        reference = expected_gradients[name]
        assert (gradient - reference).abs().max() <= 1e-4 * reference.abs().max() + 1e-8, name


def test_attention_weights(pair):
    ours, theirs, _ = pair
    ids_T = torch.randint(ours.config.vocab_size, (17,), generator=torch.Generator().manual_seed(5))
    expected = torch.stack(theirs(ids_T[None], output_attentions=True).attentions)[:, 0]
    weights, scores = attention_maps(ours, ids_T)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.stack(ours(ids_T[None], return_attention=True)[1])[:, 0], expected)
    future = torch.ones(17, 17, dtype=torch.bool).triu(1)
    torch.testing.assert_close(scores.masked_fill(future, -torch.inf).softmax(-1), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_mask(pair, side):
    """Padded sequences: the logits of the real tokens are those of `transformers`."""
    ours, theirs, _ = pair
    ids_BT = torch.randint(ours.config.vocab_size, (2, 13), generator=torch.Generator().manual_seed(9))
    keep_BT = torch.arange(13) < torch.tensor([[13], [8]])
    keep_BT = keep_BT.flip(1) if side == "left" else keep_BT
    places_BT = torch.arange(13).expand(2, 13)  # a place counts from the start, padding included
    expected = theirs(ids_BT, attention_mask=keep_BT.long(), position_ids=places_BT).logits
    torch.testing.assert_close(
        ours(ids_BT, mask=keep_BT[:, None, None])[keep_BT], expected[keep_BT], rtol=1e-5, atol=1e-5
    )


def test_number_of_parameters(pair):
    ours, theirs, _ = pair
    assert ours.num_parameters() == theirs.num_parameters()
