"""The compiled pass over texts of different lengths: the scores and tokens of the plain one."""

import pytest
import torch

from llm_from_scratch.inference import Request, Scheduler, SlotCache, generate, ragged_forward
from llm_from_scratch.inference.fast_ragged_pass import FastRaggedPass, fastest_pass
from llm_from_scratch.inference.native_library import NoCompilerError, native_library
from llm_from_scratch.inference.quantise import quantise_weights
from tests.inference.test_kv_cache import FAMILIES, MODELS, build
from tests.inference.test_ragged_pass import text


@pytest.fixture(autouse=True, scope="module")
def _compiler():
    try:
        native_library()
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_scores_of_the_plain_pass(name, bits):
    """Single tokens beside longer pieces, slots in any order, lengths apart."""
    model = MODELS[name] if bits is None else quantise_weights(MODELS[name], bits=bits)
    plain, fast = (SlotCache.for_model(model, num_slots=4) for _ in range(2))
    forward = FastRaggedPass(model)
    for pieces in (
        [(2, text(0, 9)), (0, text(1, 2))],
        [(0, [5]), (3, text(2, 4)), (2, [7])],
        [(3, [1]), (2, [2]), (1, [3]), (0, [4])],
        [(1, text(3, 5))],
    ):
        got, expected = forward(model, pieces, fast), ragged_forward(model, pieces, plain)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        assert fast.lengths == plain.lengths
    torch.testing.assert_close(fast.keys_LBKSD, plain.keys_LBKSD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [None, 8])
def test_continuous_batching_with_it(bits):
    model = build(FAMILIES["llama"])
    model = model if bits is None else quantise_weights(model, bits=bits)
    scheduler = Scheduler(model, num_slots=3, forward=FastRaggedPass(model), prefill_chunk=5)
    requests = [Request(ids=text(n, 1 + n % 9), max_new_tokens=3 + n, seed=n) for n in range(12)]
    tickets = [scheduler.submit(request) for request in requests]
    scheduler.run()
    for ticket, request in zip(tickets, requests, strict=True):
        assert ticket.result() == generate(
            model, request.ids, max_new_tokens=request.max_new_tokens, seed=request.seed
        )


def test_what_it_cannot_read():
    model = build(FAMILIES["llama"])
    forward, cache = FastRaggedPass(model), SlotCache.for_model(model, num_slots=2)
    with pytest.raises(ValueError, match="ids hold 31"):
        forward(model, [(0, [31])], cache)
    with pytest.raises(ValueError, match="built for another model"):
        forward(MODELS["llama"], [(0, [1])], cache)
    assert cache.lengths == [0, 0]
    assert fastest_pass(build(FAMILIES["llama"]).bfloat16()) is ragged_forward
    assert isinstance(fastest_pass(model), FastRaggedPass)
