"""The replay of the batching timeline: step by step the same as the scheduler, and what must always hold."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_from_scratch.inference import Request, Scheduler
from llm_from_scratch.inference.ragged_pass import ragged_forward
from llm_from_scratch.models.decoder import DecoderConfig
from llm_from_scratch.widgets.batching_replay import DRAWING, Lengths, replay
from tests.small_decoders import build

MODEL = build(DecoderConfig.gpt2(vocab_size=13, context_length=31, d_model=6, num_layers=1, num_heads=2))
LENGTHS = st.builds(Lengths, st.integers(0, 20), st.integers(1, 17), st.integers(1, 11))
REQUESTS = st.lists(LENGTHS, min_size=1, max_size=12)
SLOTS, CHUNKS = st.integers(1, 8), st.sampled_from([1, 2, 3, 5, 8, 128])


def scheduled(requests, slots, prefill_chunk):
    """What the scheduler does: of each step the texts in their order with what they read, and the ends."""
    numbers, steps, waiting, ends = {}, [], [], []

    def forward(model, pieces, cache):
        read = {slot: len(ids) for slot, ids in pieces}
        steps.append([(numbers[r.ticket], read.get(slot, 0)) for slot, r in enumerate(scheduler.running)])
        waiting.append([numbers[ticket] for ticket in scheduler.waiting])
        return ragged_forward(model, pieces, cache)

    scheduler = Scheduler(MODEL, num_slots=slots, prefill_chunk=prefill_chunk, forward=forward)
    clock, left = 0, len(requests)
    while left:
        for number, lengths in enumerate(requests):
            if lengths.arrival == clock:
                request = Request(ids=[3] * lengths.prompt, max_new_tokens=lengths.answer, seed=number)

                def listen(ticket, drawn):
                    if drawn is None:
                        ends.append((numbers[ticket], clock + 1))  # noqa: B023

                numbers[scheduler.submit(request, listen)] = number
        if not scheduler.step():
            steps.append([])
            waiting.append([])
        clock += 1
        left = len(requests) - len(ends)
    return steps, waiting, ends


@given(REQUESTS, SLOTS, CHUNKS)
@settings(max_examples=60, deadline=None, derandomize=True)
@example([Lengths(0, 5, 3), Lengths(0, 1, 2), Lengths(0, 9, 1), Lengths(7, 4, 1)], 2, 3)
def test_continuous_equals_the_scheduler(requests, slots, chunk):
    steps, waiting, ends = scheduled(requests, slots, chunk)
    made, _ = replay(requests, slots=slots, prefill_chunk=chunk)
    assert [[(cell.request, cell.read) for cell in step] for step in made.steps] == steps
    assert made.waiting == waiting
    assert [(number, made.spans[number].end) for number in made.ends] == ends


@given(REQUESTS, SLOTS, CHUNKS, st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_request_is_served(requests, slots, chunk, static):
    made, counts = replay(requests, slots=slots, prefill_chunk=chunk, static=static)
    read, drawn = Counter(), Counter()
    for number, step in enumerate(made.steps, start=1):
        taken = [cell.slot for cell in step]
        assert len(set(taken)) == len(taken)
        assert all(slot in range(slots) for slot in taken)
        for cell in step:
            span = made.spans[cell.request]
            assert cell.slot == span.slot
            assert span.start <= number
            assert (cell.kind == "padding") == (number > span.end)
            assert (cell.kind == "first") == (number == span.first)
            read[cell.request] += cell.read
            drawn[cell.request] += cell.kind in DRAWING
    for number, lengths in enumerate(requests):
        assert drawn[number] == lengths.answer
        assert read[number] == lengths.prompt + lengths.answer - 1  # nobody reads the last token
        assert made.spans[number].waited == sum(number in step for step in made.waiting)
    assert counts.tokens == sum(drawn.values())
    assert counts.used == pytest.approx(counts.tokens / counts.steps / slots)
    assert sorted(made.ends) == list(range(len(requests)))


@given(st.lists(LENGTHS, min_size=1, max_size=9), SLOTS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_static_batches_last_as_long_as_their_longest(requests, slots):
    """All there at the start, prompts read at once: the formula of static batching."""
    there = [lengths._replace(arrival=0) for lengths in requests]
    made, counts = replay(there, slots=slots, prefill_chunk=9 * 17, static=True)
    batches = [there[first : first + slots] for first in range(0, len(there), slots)]
    assert counts.steps == sum(max(one.answer for one in batch) for batch in batches)
    assert {span.start for span in made.spans} == {
        1 + sum(max(one.answer for one in batch) for batch in batches[:n]) for n in range(len(batches))
    }


@given(REQUESTS, SLOTS, CHUNKS)
@settings(max_examples=60, deadline=None, derandomize=True)
@example([Lengths(0, 1, 3), Lengths(1, 1, 1)], 2, 8)  # a slot is free, and yet the second one waits
def test_a_static_batch_starts_when_the_former_has_ended(requests, slots, chunk):
    made, _ = replay(requests, slots=slots, prefill_chunk=chunk, static=True)
    for span in made.spans:
        assert all(other.end < span.start for other in made.spans if other.start < span.start)
        assert sum(other.start == span.start for other in made.spans) <= slots


def test_a_small_case_by_hand():
    requests = [Lengths(0, 5, 2), Lengths(0, 3, 1), Lengths(1, 1, 1)]
    made, counts = replay(requests, slots=2, prefill_chunk=4)
    kinds = [[("ABC"[cell.request], cell.kind, cell.read) for cell in step] for step in made.steps]
    assert kinds == [
        [("A", "prefill", 4), ("B", "held", 0)],
        [("A", "first", 1), ("B", "first", 3)],
        [("A", "decode", 1), ("C", "first", 1)],
    ]
    assert made.waiting == [[], [2], []]
    assert (counts.steps, counts.tokens, counts.worst_wait, counts.mean_wait) == (3, 4, 1, 1 / 3)
    made, counts = replay(requests, slots=2, prefill_chunk=4, static=True)
    assert [cell.kind for cell in made.steps[2]] == ["decode", "padding"]
    assert (counts.steps, counts.worst_wait, counts.used) == (4, 2, 0.5)
