"""Reading a text in pieces with a cache gives the scores of reading it at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.inference import KVCache, cached_forward
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from tests.small_decoders import build, ids_like, in_pieces

SIZES = {"vocab_size": 31, "context_length": 29, "d_model": 36, "num_layers": 3, "num_heads": 6}
FAMILIES = {
    "gpt2": DecoderConfig.gpt2(**SIZES),
    "llama": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "sinusoidal": DecoderConfig.gpt2(**SIZES, positions="sinusoidal"),
    "relative": DecoderConfig.gpt2(
        **SIZES, positions="relative", relative_buckets=8, relative_max_distance=17
    ),
    "alibi": DecoderConfig.gpt2(**SIZES, positions="alibi", num_kv_heads=3),
    "none": DecoderConfig.llama(**SIZES, positions="none", num_kv_heads=1),
    "window": DecoderConfig.llama(**SIZES, sliding_window=5),
    "window of one": DecoderConfig.llama(**SIZES, sliding_window=1),
    "window and alibi": DecoderConfig.gpt2(**SIZES, positions="alibi", sliding_window=4),
    "window, relative": DecoderConfig.gpt2(**SIZES, positions="relative", sliding_window=7),
    "everything": DecoderConfig.llama(
        **SIZES, d_head=10, rotary_fraction=0.4, num_kv_heads=2, qk_norm=True, sliding_window=3, qkv_bias=True
    ),
}


MODELS = {name: build(config) for name, config in FAMILIES.items()}


def close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_pieces_of_any_size_give_the_scores_of_the_whole(name, data):
    model = MODELS[name]
    sizes = data.draw(st.lists(st.integers(1, 13), min_size=1, max_size=29).filter(lambda s: sum(s) <= 29))
    B, T = data.draw(st.sampled_from([1, 2, 3])), sum(sizes)
    ids_BT = ids_like(B, T, seed=data.draw(st.integers(0, 99)))
    room = data.draw(st.integers(T, 29))
    cache = KVCache.for_model(
        model, batch_size=B, max_length=room, rollback=data.draw(st.sampled_from([0, 1, 2, 16]))
    )
    with torch.no_grad():
        expected = model(ids_BT)
    assert expected.std() > 0.5
    close(in_pieces(model, ids_BT, sizes, cache), expected)
    assert cache.length == T


@pytest.mark.parametrize("name", FAMILIES)
def test_each_token_by_itself(name):
    """With every shift of a window's buffer on the way; the model's context is used to its end."""
    model, ids_BT = MODELS[name], ids_like(2, 29)
    cache = KVCache.for_model(model, batch_size=2, rollback=0)
    with torch.no_grad():
        close(in_pieces(model, ids_BT, [1] * 29, cache), model(ids_BT))


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_what_is_taken_back_has_never_been_read(name, data):
    """Speculation: read some wrong tokens, take them back, read the right ones."""
    model, ids_BT, wrong_BT = MODELS[name], ids_like(1, 29), ids_like(1, 29, seed=7)
    rollback = data.draw(st.sampled_from([1, 3, 16]))
    cache, scores = KVCache.for_model(model, rollback=rollback), []
    while cache.length < 29:
        start = cache.length
        step = data.draw(st.integers(1, 29 - start))
        scores.append(cached_forward(model, ids_BT[:, start : start + step], cache))
        guess = data.draw(st.integers(0, min(rollback, 29 - start - step)))
        if guess:
            cached_forward(model, wrong_BT[:, :guess], cache)
            cache.truncate(start + step)
        assert cache.length == start + step
    with torch.no_grad():
        close(torch.cat(scores, dim=1), model(ids_BT))


def test_the_window_bounds_the_memory():
    model = MODELS["window"]
    cache = KVCache.for_model(model, rollback=2)
    assert cache.capacity == 12  # twice the 4 tokens before the newest and the 2 that can be taken back
    in_pieces(model, ids_like(1, 29), [17] + [1] * 12, cache)
    assert cache.keys_LBKSD.shape == (3, 1, 6, 12, 6)
    assert cache.stored <= 12
    assert cache.length == 29
    assert cache.num_bytes == 2 * 3 * 6 * 12 * 6 * 4
    with pytest.raises(ValueError, match="larger rollback"):
        cache.truncate(9)
    cache.truncate(0)
    with torch.no_grad():
        close(in_pieces(model, ids_like(1, 5), [2, 3], cache), model(ids_like(1, 5)))


def test_stored_keys_are_those_of_the_layer():
    """Keys as attention takes them, of the key heads alone; nothing is computed twice."""
    model, ids_BT = MODELS["llama"], ids_like(2, 11)
    cache = KVCache.for_model(model, batch_size=2)
    in_pieces(model, ids_BT, [7, 4], cache)
    assert cache.keys_LBKSD.shape == (3, 2, 2, 29, 6)
    with torch.no_grad():
        x_BTC, rope = model.embed(ids_BT)
        _, k_BKTD, v_BKTD = model.blocks[0].attention.project(model.blocks[0].norm_1(x_BTC), rope)
    close(cache.keys_LBKSD[0, :, :, :11], k_BKTD)
    close(cache.values_LBKSD[0, :, :, :11], v_BKTD)


def test_the_last_position_alone():
    model, ids_BT = MODELS["gpt2"], ids_like(2, 11)
    cache = KVCache.for_model(model, batch_size=2)
    logits = cached_forward(model, ids_BT, cache, last_only=True)
    assert logits.shape == (2, 1, 31)
    assert not logits.requires_grad
    with torch.no_grad():
        close(logits, model(ids_BT)[:, -1:])


def test_inference_mode_may_begin_and_end_anywhere():
    model, ids_BT = MODELS["window"], ids_like(1, 13)
    with torch.inference_mode():
        cache = KVCache.for_model(model, rollback=0)
        first = cached_forward(model, ids_BT[:, :7], cache)
    rest = cached_forward(model, ids_BT[:, 7:], cache)
    with torch.no_grad():
        close(torch.cat((first, rest), dim=1), model(ids_BT))


@pytest.mark.parametrize("name", ["llama", "window"])
def test_a_pass_that_fails_leaves_the_cache_as_it_was(name, monkeypatch):
    model, ids_BT = MODELS[name], ids_like(1, 23)
    cache = KVCache.for_model(model, rollback=0)
    scores = [cached_forward(model, ids_BT[:, :5], cache)]
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[2].feedforward, "forward", lambda x: 1 / 0)
        for piece in (ids_BT[:, 9:11], ids_BT[:, 9:22]):
            with pytest.raises(ZeroDivisionError):
                cached_forward(model, piece, cache)
    assert cache.length == 5
    scores += [cached_forward(model, piece, cache) for piece in (ids_BT[:, 5:7], ids_BT[:, 7:])]
    with torch.no_grad():
        close(torch.cat(scores, dim=1), model(ids_BT))


def test_a_bfloat16_model_has_a_bfloat16_cache():
    model = build(FAMILIES["llama"]).to(torch.bfloat16)
    cache, ids_BT = KVCache.for_model(model), ids_like(1, 11)
    assert cache.keys_LBKSD.dtype == torch.bfloat16
    logits = in_pieces(model, ids_BT, [6, 4, 1], cache)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(ids_BT), rtol=0.1, atol=0.2)  # 8 bits of precision


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_length": 30}, "max_length=30 .* context_length=29"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, got 0"),
        ({"max_length": 2.5}, "max_length must be a whole number of at least 1, got 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": True}, "batch_size must .* got True"),
        ({"rollback": -1}, "rollback must be a whole number of at least 0, got -1"),
    ],
)
def test_sizes_out_of_range(sizes, message):
    with pytest.raises(ValueError, match=message):
        KVCache(FAMILIES["window"], **sizes)


def test_too_many_tokens():
    model = MODELS["llama"]
    cache = KVCache.for_model(model, max_length=11)
    in_pieces(model, ids_like(1, 7), [7], cache)
    with pytest.raises(
        ValueError, match=r"7 tokens stored and 5 new ones exceed max_length=11; truncate\(\)"
    ):
        cached_forward(model, ids_like(1, 5), cache)
    assert cache.length == 7
    with pytest.raises(ValueError, match="exceed max_length=11"):
        cache.append(0, torch.zeros(1, 2, 5, 6), torch.zeros(1, 2, 5, 6))
    with pytest.raises(ValueError, match="longer than context_length=29"):
        cached_forward(model, ids_like(1, 30), cache)


def test_a_cache_of_another_model_or_batch():
    model = MODELS["llama"]
    with pytest.raises(ValueError, match=r"sequences 3 and not 2\); build it with .*batch_size=2"):
        cached_forward(model, ids_like(2, 5), KVCache.for_model(model, batch_size=3))
    with pytest.raises(ValueError, match="key/value heads 6 and not 2, tokens a window 5 and not None"):
        cached_forward(model, ids_like(1, 5), KVCache.for_model(MODELS["window"]))


def test_wrong_calls_of_the_cache():
    cache = KVCache.for_model(MODELS["llama"])
    k_BKTD = torch.zeros(1, 2, 3, 6)
    with pytest.raises(ValueError, match="layer 3 is none of the 3 layers"):
        cache.append(3, k_BKTD, k_BKTD)
    with pytest.raises(ValueError, match=r"values \(1, 2, 2, 6\) must both be of the shape"):
        cache.append(0, k_BKTD, k_BKTD[:, :, 1:])
    with pytest.raises(ValueError, match="holds 0 tokens and cannot be cut to 1"):
        cache.truncate(1)
    with pytest.raises(ValueError, match="length must be a whole number of at least 0, got -1"):
        cache.truncate(-1)
    with pytest.raises(ValueError, match="new tokens must be a whole number of at least 1, got 0"):
        cache.begin(0)


def test_dropout_is_not_stored():
    model = Decoder(DecoderConfig.gpt2(**SIZES, dropout=0.3))
    with pytest.raises(ValueError, match=r"dropout=0.3.*model.eval\(\)"):
        cached_forward(model, ids_like(1, 3), KVCache.for_model(model))
    assert cached_forward(model.eval(), ids_like(1, 3), KVCache.for_model(model)).shape == (1, 3, 31)


class NaiveCache:
    """The simplest cache: each pass glues the new keys and values behind the old ones. No room, no window."""

    def __init__(self, num_layers):
        self.kept = [None] * num_layers

    def read(self, model, ids_BT):
        """`Decoder.forward` by hand, over the new tokens alone."""
        past = 0 if self.kept[0] is None else self.kept[0][0].shape[2]
        T = ids_BT.shape[1]
        x_BTC, rope = model.embed(ids_BT, start=past)
        mask = torch.ones(T, past + T, dtype=torch.bool).tril(past)
        for layer, block in enumerate(model.blocks):
            q, k, v = block.attention.project(block.norm_1(x_BTC), rope)
            if past:
                k, v = torch.cat((self.kept[layer][0], k), 2), torch.cat((self.kept[layer][1], v), 2)
            self.kept[layer] = k, v
            group = q.shape[1] // k.shape[1]
            scores = q @ k.repeat_interleave(group, 1).transpose(2, 3) / q.shape[-1] ** 0.5
            weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
            heads = weights @ v.repeat_interleave(group, 1)
            x_BTC = x_BTC + block.attention.output(heads.transpose(1, 2).flatten(2))
            x_BTC = x_BTC + block.feedforward(block.norm_2(x_BTC))
        return model.norm(x_BTC) @ model.output_weight.T


STEPS = {
    "all heads": DecoderConfig.llama(**SIZES),
    "grouped queries": DecoderConfig.llama(**SIZES, num_kv_heads=2),
    "one key head": DecoderConfig.llama(**SIZES, num_kv_heads=1),
}


@pytest.mark.parametrize("name", STEPS)
def test_from_naive_to_preallocated(name):
    """Glued, preallocated, and no cache at all: the same scores; the memory falls with the key heads."""
    model, ids_BT, naive = build(STEPS[name]), ids_like(2, 29), NaiveCache(3)
    cache, found = KVCache.for_model(model, batch_size=2), {"naive": [], "preallocated": []}
    with torch.no_grad():
        for piece in ids_BT.split([7, 1, 1, 5, 1, 14], dim=1):
            found["naive"].append(naive.read(model, piece))
            found["preallocated"].append(cached_forward(model, piece, cache))
        expected = model(ids_BT)
    for scores in found.values():
        close(torch.cat(scores, dim=1), expected)
    glued = sum(part.numel() * part.element_size() for pair in naive.kept for part in pair)
    assert cache.num_bytes == glued  # all 29 positions are in use
    assert cache.num_bytes == 2 * 3 * 2 * STEPS[name].num_kv_heads * 29 * 6 * 4


@pytest.mark.parametrize("name", ["gpt2", "llama", "window", "window of one", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_by_formula_equals_that_measured(name, dtype):
    """Measured where torch hands it out: every byte that is asked for while the cache is built."""
    config, sizes = FAMILIES[name], {"batch_size": 3, "max_length": 23, "rollback": 2}
    with torch.profiler.profile(profile_memory=True) as profile:
        cache = KVCache(config, dtype=dtype, **sizes)
    measured = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    kept = 23 if config.sliding_window is None else config.sliding_window - 1 + 2
    S = min(23, max(2 * kept, kept + 1))
    formula = 2 * 3 * 3 * config.num_kv_heads * S * config.d_head * dtype.itemsize
    assert cache.num_bytes == formula == measured


def test_a_pass_takes_no_memory_of_the_size_of_the_cache():
    """The preallocated cache hands out views: a new token does not copy what is stored, as gluing does."""
    config = DecoderConfig.llama(**{**SIZES, "context_length": 4096}, num_kv_heads=2)
    cache = KVCache(config)
    new = torch.zeros(1, 2, 1, 6)
    cache.begin(4000)
    for layer in range(3):
        cache.append(layer, new.expand(1, 2, 4000, 6), new.expand(1, 2, 4000, 6))
    cache.commit(4000)
    cache.begin(1)
    with torch.profiler.profile(profile_memory=True) as profile:
        keys, _ = cache.append(0, new, new)
    measured = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert keys.shape == (1, 2, 4001, 6)
    assert keys.data_ptr() == cache.keys_LBKSD.data_ptr()
    assert measured < keys.numel() * 4 / 10
