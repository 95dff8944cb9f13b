"""Generation with a cache draws the tokens of generation without one, and those of transformers."""

import pytest
import torch

from llm_from_scratch.decoding import greedy_search, sample
from llm_from_scratch.inference import CachedModel, generate, stream
from llm_from_scratch.interop.hugging_face import save_folder
from llm_from_scratch.models.decoder import DecoderConfig
from llm_from_scratch.models.ngram import NGramModel
from tests.small_decoders import build

SIZES = {"vocab_size": 31, "context_length": 23, "d_model": 36, "num_layers": 2, "num_heads": 6}
CONFIGS = {
    "gpt2": DecoderConfig.gpt2(**SIZES, dropout=0.4),
    "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "window": DecoderConfig.llama(**SIZES, sliding_window=5),
    "alibi": DecoderConfig.gpt2(**SIZES, positions="alibi"),
}


@pytest.fixture(params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param])


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"seed": 3},
        {"seed": 4, "temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
        {"seed": 5, "stop_ids": [2, 3, 5]},
        {"seed": 6, "context_length": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 5, 22, 23, 24])
def test_the_tokens_of_generation_without_a_cache(model, settings, length):
    """Also past the context, 23 tokens, where the window moves on."""
    prompt = torch.randint(31, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    expected = sample(model, prompt, max_new_tokens=31, **settings)
    assert generate(model, prompt, max_new_tokens=31, **settings) == expected
    assert len(expected) == 31 or "stop_ids" in settings


def test_the_prompt_is_read_once_then_each_token(model, monkeypatch):
    """One pass over the prompt, then one token a pass: counted where the embeddings are looked up."""
    read = []
    whole = model.token_embedding.forward
    monkeypatch.setattr(
        model.token_embedding, "forward", lambda ids_BT: read.append(ids_BT.shape[1]) or whole(ids_BT)
    )
    generate(model, [1, 2, 3, 4, 5], max_new_tokens=7, temperature=0)
    assert read == [5, 1, 1, 1, 1, 1, 1]


def test_tokens_come_one_by_one(model):
    tokens = stream(model, [1, 2], max_new_tokens=10**6, temperature=0)
    assert [next(tokens) for _ in range(5)] == sample(model, [1, 2], max_new_tokens=5, temperature=0)
    with torch.no_grad():
        assert not torch.is_inference_mode_enabled()  # between tokens nothing is left switched
    tokens.close()


def test_modes_are_put_back():
    model = build(CONFIGS["gpt2"])
    expected = generate(model, [1, 2], max_new_tokens=9, seed=1)
    model.train()
    model.blocks[0].eval()
    assert generate(model, [1, 2], max_new_tokens=9, seed=1) == expected
    assert model.training
    assert model.blocks[1].dropout.training
    assert not model.blocks[0].dropout.training


def test_only_what_differs_is_read_again(model):
    cached, counts = CachedModel(model), []
    texts = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 9], [1, 2, 3, 9, 9], [1, 2], [8, 2, 3]]
    for text in texts:
        before = cached.tokens_read
        ids_BT = torch.tensor([text])
        with torch.no_grad():
            torch.testing.assert_close(cached(ids_BT), model(ids_BT)[:, -1:], rtol=1e-5, atol=1e-5)
        counts.append(cached.tokens_read - before)
    assert counts == [5, 1, 2, 1, 1, 3]


def test_a_window_that_cannot_go_back_begins_anew():
    model = build(DecoderConfig.llama(**{**SIZES, "context_length": 97}, sliding_window=3))
    cached = CachedModel(model)
    ids_BT = torch.randint(31, (1, 97), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for T in (97, 20, 21):
            torch.testing.assert_close(
                cached(ids_BT[:, :T]), model(ids_BT[:, :T])[:, -1:], rtol=1e-5, atol=1e-5
            )
    assert cached.tokens_read == 97 + 20 + 1


def test_more_sequences_and_longer_texts_get_a_new_cache():
    model = build(CONFIGS["llama"])
    cached, before = CachedModel(model, room=2), None
    for ids_BT in (torch.ones(1, 5).long(), torch.ones(3, 5).long(), torch.ones(3, 8).long()):
        with torch.no_grad():
            torch.testing.assert_close(cached(ids_BT), model(ids_BT)[:, -1:], rtol=1e-5, atol=1e-5)
        assert cached.cache is not before
        assert cached.cache.max_length == ids_BT.shape[1] + 2
        before = cached.cache


def test_a_search_takes_it_in_place_of_the_model(model):
    expected = greedy_search(model, [1, 2, 3], max_new_tokens=17)
    cached = CachedModel(model)
    assert greedy_search(cached, [1, 2, 3], max_new_tokens=17) == expected
    assert cached.tokens_read == 3 + 16


def test_an_interrupted_call_spoils_nothing(model, monkeypatch):
    cached, ids_BT = CachedModel(model), torch.tensor([[1, 2, 3, 4, 5]])
    cached(ids_BT[:, :3])
    with monkeypatch.context() as patch:
        patch.setattr(model.norm, "forward", lambda x: 1 / 0)  # after the tokens have been stored
        with pytest.raises(ZeroDivisionError):
            cached(torch.tensor([[1, 2, 9, 9]]))
    with torch.no_grad():
        torch.testing.assert_close(cached(ids_BT), model(ids_BT)[:, -1:], rtol=1e-5, atol=1e-5)


def test_a_call_that_failed_halfway_has_read_nothing(model, monkeypatch):
    cached, ids_BT = CachedModel(model), torch.tensor([[1, 2, 9, 9, 5]])
    cached(torch.tensor([[1, 2, 3]]))
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[1].feedforward, "forward", lambda x: 1 / 0)  # before they are counted
        with pytest.raises(ZeroDivisionError):
            cached(ids_BT[:, :4])
    with torch.no_grad():
        torch.testing.assert_close(cached(ids_BT), model(ids_BT)[:, -1:], rtol=1e-5, atol=1e-5)
    assert cached.tokens_read == 3 + 3  # the two tokens in common are not read again


def test_scores_may_be_written_to(model):
    logits = CachedModel(model)(torch.tensor([[1, 2]]))
    logits[0, 0, 3] = -torch.inf
    assert not logits.is_inference()


def test_wrong_input():
    model = build(CONFIGS["llama"])
    with pytest.raises(ValueError, match="the cache serves a Decoder, got NGramModel"):
        generate(NGramModel(order=1), [1], max_new_tokens=1)
    with pytest.raises(ValueError, match=r"room must be None or a whole number .* got -1"):
        CachedModel(model, room=-1)
    for ids, settings, message in (
        ([], {}, "prompt is empty"),
        ([31], {}, "ids hold 31, outside the vocabulary of 31"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens must .* got -1"),
        ([1], {"temperature": -1.0}, "temperature must .* got -1.0"),
        ([1] * 30, {"context_length": 24}, "longer than context_length=23"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(model, ids, **{"max_new_tokens": 3, **settings})
    with pytest.raises(ValueError, match="temperature"):
        stream(model, [1], max_new_tokens=3, temperature=-1.0)  # at the call, not at the first token


FOLDERS = {
    "gpt2": DecoderConfig.gpt2(**SIZES),
    "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "mistral": DecoderConfig.llama(**SIZES, num_kv_heads=3, sliding_window=5),
}


@pytest.mark.parametrize("family", FOLDERS)
def test_the_tokens_of_transformers(family, tmp_path):
    """Their generate with their cache, on the folder we write: the same greedy tokens."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = build(FOLDERS[family], seed=3)
    save_folder(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.config.model_type == family
    for prompt in ([1, 2, 3], [30, 7, 7, 29, 11, 0, 4]):
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=23 - len(prompt),
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        ours = generate(model, prompt, max_new_tokens=23 - len(prompt), temperature=0)
        assert ours == expected
        assert len(set(ours)) > 3
