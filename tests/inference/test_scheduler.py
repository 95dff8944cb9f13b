"""Continuous batching: each request gets the tokens it gets alone, whatever comes and goes beside it."""

import threading
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_from_scratch.decoding.repetition import penalise_presence_and_frequency
from llm_from_scratch.inference import QueueFull, Request, Scheduler, generate, generate_batch
from llm_from_scratch.models.decoder import DecoderConfig
from llm_from_scratch.models.ngram import NGramModel
from tests.inference.test_generate import CONFIGS, build

MODELS = {name: build(config) for name, config in CONFIGS.items()}
CONTEXT = 23  # tokens


def prompt(seed, length):
    return torch.randint(31, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def alone(model, request):
    """The tokens of `generate` with the same settings."""
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop_ids", "pipeline")
    return generate(model, request.ids, **{name: getattr(request, name) for name in names})


@st.composite
def requests(draw):
    length = draw(st.integers(1, CONTEXT - 1))
    steps = ()
    if draw(st.booleans()):
        steps = (partial(penalise_presence_and_frequency, presence=1.0, frequency=0.5),)
    return Request(
        ids=prompt(draw(st.integers(0, 99)), length),
        max_new_tokens=draw(st.integers(0, CONTEXT - length)),
        temperature=draw(st.sampled_from([0, 0.7, 1.0, 1.5])),
        top_k=draw(st.sampled_from([None, 1, 9])),
        top_p=draw(st.sampled_from([None, 0.9])),
        min_p=draw(st.sampled_from([None, 0.05])),
        seed=draw(st.integers(0, 2**63)),
        stop_ids=draw(st.sampled_from([(), (2, 3, 5, 7)])),
        pipeline=steps,
    )


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_random_arrivals_and_cancels(name, data):
    """Every survivor has the tokens of `generate`; what was cancelled has a beginning of them."""
    model = MODELS[name]
    scheduler = Scheduler(
        model, num_slots=data.draw(st.integers(1, 4)), prefill_chunk=data.draw(st.sampled_from([1, 3, 128]))
    )
    tickets, cancelled = [], set()
    for _ in range(data.draw(st.integers(1, 12))):
        for request in data.draw(st.lists(requests(), max_size=3)):
            tickets.append(scheduler.submit(request))
        for _ in range(data.draw(st.integers(0, 6))):
            scheduler.step()
        if tickets and data.draw(st.integers(0, 2)) == 0:
            number = data.draw(st.integers(0, len(tickets) - 1))
            if tickets[number].reason is None:
                tickets[number].cancel()
                cancelled.add(number)
    scheduler.run()
    for number, ticket in enumerate(tickets):
        expected = alone(model, ticket.request)
        if number in cancelled:
            assert ticket.reason == "cancelled"
            assert ticket.result() == expected[: len(ticket.tokens)]
        else:
            assert ticket.result() == expected
            stopped = len(expected) < ticket.request.max_new_tokens
            assert ticket.reason == ("stop" if stopped else "length")
    assert not scheduler.running
    assert not scheduler.waiting
    assert scheduler.cache.lengths == [0] * scheduler.cache.num_slots
    assert scheduler.cache.keys_LBKSD.abs().sum() == scheduler.cache.values_LBKSD.abs().sum() == 0


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_any_lengths(name):
    model = MODELS[name]
    prompts = [prompt(seed, length) for seed, length in enumerate([1, 13, 5, 2, 7])]
    counts, seeds = [9, 3, 18, 0, 11], [1, 2, 3, 4, 5]
    got = generate_batch(model, prompts, max_new_tokens=counts, seed=seeds, top_k=20, num_slots=3)
    expected = [
        generate(model, ids, max_new_tokens=count, seed=seed, top_k=20)
        for ids, count, seed in zip(prompts, counts, seeds, strict=True)
    ]
    assert got == expected
    assert [len(each) for each in got] == counts
    assert generate_batch(model, [], max_new_tokens=3) == []


def test_modes_are_put_back():
    model = build(CONFIGS["gpt2"]).train()
    expected = generate(model, [1, 2], max_new_tokens=9, seed=1)
    assert generate_batch(model, [[1, 2], [3]], max_new_tokens=9, seed=1)[0] == expected
    assert model.training


def test_a_place_is_taken_as_soon_as_it_is_free():
    """Two slots, one long text: the short ones pass beside it, and no step is idle."""
    scheduler = Scheduler(MODELS["llama"], num_slots=2)
    long = scheduler.submit(Request(ids=[1], max_new_tokens=20, temperature=0))
    short = [scheduler.submit(Request(ids=[2], max_new_tokens=5, temperature=0)) for _ in range(4)]
    scheduler.run()
    assert scheduler.steps == 20  # a batch that waits for its longest would need 20 + 5 + 5
    assert [len(ticket.result()) for ticket in (long, *short)] == [20, 5, 5, 5, 5]


def test_a_long_prompt_does_not_stop_the_others():
    scheduler = Scheduler(MODELS["llama"], num_slots=2, prefill_chunk=4)
    first = scheduler.submit(Request(ids=[1], max_new_tokens=20, temperature=0))
    scheduler.step()
    second = scheduler.submit(Request(ids=prompt(0, 18), max_new_tokens=2, temperature=0))
    counts = []
    for _ in range(5):
        scheduler.step()
        counts.append((len(first.drawn), len(second.drawn)))
    assert counts == [(2, 0), (3, 0), (4, 0), (5, 0), (6, 1)]  # 18 tokens in chunks of 4 and a rest of 2


def test_a_cancelled_request_frees_its_slot_before_the_next_pass():
    scheduler = Scheduler(MODELS["llama"], num_slots=1)
    first = scheduler.submit(Request(ids=[1], max_new_tokens=20))
    second = scheduler.submit(Request(ids=[2], max_new_tokens=3, seed=1))
    third = scheduler.submit(Request(ids=[2], max_new_tokens=3, seed=1))
    scheduler.step()
    first.cancel()
    second.cancel()  # still waiting
    scheduler.step()
    assert (first.reason, len(first.drawn)) == ("cancelled", 1)
    assert (second.reason, second.drawn) == ("cancelled", [])
    assert len(third.drawn) == 1
    scheduler.run()
    assert third.result() == alone(MODELS["llama"], third.request)
    third.cancel()
    assert third.reason == "length"  # too late


def test_a_listener_that_cancels_ends_at_that_token():
    scheduler = Scheduler(MODELS["llama"])
    seen = []

    def listen(ticket, drawn):
        seen.append(drawn)
        if len(seen) == 3:
            ticket.cancel()

    ticket = scheduler.submit(Request(ids=[1], max_new_tokens=20, temperature=0), listen)
    scheduler.run()
    assert [each.token for each in seen[:-1]] == ticket.tokens == alone(MODELS["llama"], ticket.request)[:3]
    assert seen[-1] is None
    assert scheduler.steps == 3


def test_a_fault_ends_only_those_it_touches(monkeypatch):
    model = build(CONFIGS["llama"])
    scheduler = Scheduler(model, num_slots=3)
    good = [scheduler.submit(Request(ids=[i], max_new_tokens=7, seed=i)) for i in range(2)]
    bad = scheduler.submit(Request(ids=[3], max_new_tokens=7, pipeline=[lambda ids, logits: 1 / 0]))
    worse = scheduler.submit(Request(ids=[3], max_new_tokens=7), lambda ticket, drawn: 1 / 0)
    scheduler.run()
    for ticket in (bad, worse):
        assert ticket.reason == "error"
        with pytest.raises(ZeroDivisionError):
            ticket.result()
        with pytest.raises(ZeroDivisionError):
            list(ticket)
    assert [ticket.result() for ticket in good] == [alone(model, ticket.request) for ticket in good]

    waiting = [scheduler.submit(Request(ids=[i], max_new_tokens=7, seed=i)) for i in range(5)]
    scheduler.step()
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[1].feedforward, "forward", lambda x: 1 / 0)
        scheduler.step()
    assert [ticket.reason for ticket in waiting] == ["error"] * 3 + [None] * 2
    scheduler.run()
    assert [ticket.result() for ticket in waiting[3:]] == [alone(model, t.request) for t in waiting[3:]]


def test_scores_that_are_not_numbers_end_one_text():
    model = build(CONFIGS["gpt2"])
    with torch.no_grad():
        model.position_embedding.weight[9] = torch.nan  # a text that comes so far has no next token
    scheduler = Scheduler(model, num_slots=2)
    tickets = [scheduler.submit(Request(ids=[i], max_new_tokens=n, seed=i)) for i, n in ((1, 9), (2, 15))]
    tickets.append(scheduler.submit(Request(ids=[1], max_new_tokens=9, seed=1)))
    scheduler.run()
    assert [ticket.reason for ticket in tickets] == ["length", "error", "length"]
    with pytest.raises(ValueError, match="the highest score is nan"):
        tickets[1].result()
    assert tickets[0].result() == tickets[2].result()


def test_all_can_be_failed_at_once():
    scheduler = Scheduler(MODELS["llama"], num_slots=1)
    tickets = [scheduler.submit(Request(ids=[i], max_new_tokens=7)) for i in range(3)]
    scheduler.step()
    scheduler.fail_all(RuntimeError("closing"))
    assert [ticket.reason for ticket in tickets] == ["error"] * 3
    assert not scheduler.step()


def test_the_queue_has_a_limit():
    scheduler = Scheduler(MODELS["llama"], num_slots=2, max_waiting=1)
    for _ in range(3):
        scheduler.submit(Request(ids=[1], max_new_tokens=2))
    with pytest.raises(QueueFull, match="3 requests wait already"):
        scheduler.submit(Request(ids=[1], max_new_tokens=2))
    scheduler.step()
    with pytest.raises(QueueFull):
        scheduler.submit(Request(ids=[1], max_new_tokens=2))
    scheduler.run()
    scheduler.submit(Request(ids=[1], max_new_tokens=2))


def test_submissions_from_many_threads():
    model = MODELS["llama"]
    scheduler, tickets, lock = Scheduler(model, num_slots=3), [], threading.Lock()

    def submit(seed):
        for number in range(5):
            request = Request(ids=prompt(seed, 3 + number), max_new_tokens=6, seed=seed)
            ticket = scheduler.submit(request)
            with lock:
                tickets.append(ticket)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or scheduler.step():
        scheduler.step()
    assert len(tickets) == 30
    for ticket in tickets:
        assert ticket.result(timeout=0) == alone(model, ticket.request)
        assert list(ticket) == ticket.tokens


def test_logprobs_are_those_of_the_model():
    model = MODELS["gpt2"]
    scheduler = Scheduler(model)
    ids = prompt(1, 5)
    ticket = scheduler.submit(
        Request(ids=ids, max_new_tokens=4, seed=1, temperature=0.5, top_k=3, top_logprobs=2)
    )
    scheduler.run()
    with torch.no_grad():
        logprobs_TV = model(torch.tensor([ids + ticket.result()]))[0].log_softmax(-1)
    for place, drawn in enumerate(ticket.drawn, start=4):
        assert drawn.logprob == pytest.approx(float(logprobs_TV[place, drawn.token]), abs=1e-4)
        values, tokens = logprobs_TV[place].topk(2)
        assert [token for token, _ in drawn.top] == tokens.tolist()
        assert [value for _, value in drawn.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_wrong_input():
    scheduler = Scheduler(MODELS["llama"], slot_length=20)
    for fields, message in (
        ({"ids": [1] * 15, "max_new_tokens": 6}, "15 tokens and 6 new ones need room for 21.*room for 20"),
        ({"ids": [31], "max_new_tokens": 6}, "token id 31 is outside"),
        ({"ids": [-1], "max_new_tokens": 6}, "token id -1 is outside"),
        ({"ids": [], "max_new_tokens": 6}, "prompt is empty"),
        ({"ids": [1], "max_new_tokens": -1}, "max_new_tokens"),
        ({"ids": [1], "max_new_tokens": 1, "top_p": 0.0}, "top_p"),
        ({"ids": [1], "max_new_tokens": 1, "seed": 2**64}, "seed must fit"),
        ({"ids": [1], "max_new_tokens": 1, "top_logprobs": -1}, "top_logprobs"),
        ({"ids": [1], "max_new_tokens": 1, "stop_ids": ["a"]}, "stop_ids"),
    ):
        with pytest.raises(ValueError, match=message):
            scheduler.submit(Request(**fields))
    with pytest.raises(ValueError, match="serves a Decoder, got NGramModel"):
        Scheduler(NGramModel(order=1))
    with pytest.raises(ValueError, match="prefill_chunk"):
        Scheduler(MODELS["llama"], prefill_chunk=0)
    with pytest.raises(ValueError, match="seed has 1 entries for 2 prompts"):
        generate_batch(MODELS["llama"], [[1], [2]], max_new_tokens=1, seed=[1])
    with pytest.raises(ValueError, match="need room for 24"):
        generate_batch(MODELS["llama"], [[1], [2]], max_new_tokens=23)
    ticket = scheduler.submit(Request(ids=[1], max_new_tokens=1))
    with pytest.raises(TimeoutError):
        ticket.result(timeout=0)


def test_a_sliding_window_and_grouped_heads():
    model = build(DecoderConfig.llama(vocab_size=31, context_length=23, d_model=36, num_layers=2, num_heads=6,
                                      num_kv_heads=2, sliding_window=3, qk_norm=True))  # fmt: skip
    prompts = [prompt(seed, length) for seed, length in enumerate([11, 2, 6])]
    got = generate_batch(model, prompts, max_new_tokens=12, seed=3)
    assert got == [generate(model, ids, max_new_tokens=12, seed=3) for ids in prompts]
