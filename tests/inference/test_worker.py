"""The scheduler's thread: it works while there is work, survives faults, and ends when told."""

import threading
import time

import pytest

from llm_from_scratch.inference import Closed, Request, Scheduler, Worker
from tests.inference.test_scheduler import MODELS, alone, prompt


def worker(**sizes):
    return Worker(Scheduler(MODELS["llama"], **sizes))


def test_requests_from_several_threads_and_the_thread_ends():
    before = threading.active_count()
    results = []

    def ask(seed):
        for number in range(4):
            request = Request(ids=prompt(seed, 3 + number), max_new_tokens=9, seed=seed)
            results.append((running.submit(request).result(timeout=60), request))

    with worker(num_slots=2) as running:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 20
    assert all(tokens == alone(MODELS["llama"], request) for tokens, request in results)
    assert threading.active_count() == before


def test_a_fault_in_a_step_is_not_the_end(monkeypatch, caplog):
    with worker() as running:
        with monkeypatch.context() as patch:
            patch.setattr(running.scheduler, "_admit", lambda: 1 / 0)
            ticket = running.submit(Request(ids=[1], max_new_tokens=9))
            with pytest.raises(ZeroDivisionError):
                ticket.result(timeout=60)
        assert len(running.submit(Request(ids=[1], max_new_tokens=9)).result(timeout=60)) == 9
    assert "a step of the scheduler failed" in caplog.text


def test_closing_lets_the_running_ones_end():
    running = worker(num_slots=1)
    running.start()
    tickets = [running.submit(Request(ids=[1], max_new_tokens=20, temperature=0)) for _ in range(3)]
    running.close()
    assert [len(ticket.result(timeout=0)) for ticket in tickets] == [20, 20, 20]
    with pytest.raises(Closed, match="no new requests"):
        running.submit(Request(ids=[1], max_new_tokens=2))


def test_when_the_time_is_over_the_rest_ends_with_an_error():
    running, reached = worker(num_slots=1), threading.Event()

    def slowly(ids_BT, logits_BV):
        reached.set()
        time.sleep(0.05)
        return logits_BV

    running.start()
    tickets = [running.submit(Request(ids=[1], max_new_tokens=20, pipeline=[slowly])) for _ in range(2)]
    assert reached.wait(60)
    running.refuse()  # no hurry
    assert not running.is_open
    running.close(0)  # but now
    for ticket in tickets:
        with pytest.raises(Closed, match="the time to finish is over"):
            ticket.result(timeout=0)
    assert 0 < len(tickets[0].drawn) < 20


def test_an_idle_worker_closes_at_once_and_one_never_started_takes_nothing():
    running = worker()
    with pytest.raises(Closed):
        running.submit(Request(ids=[1], max_new_tokens=2))
    running.close()
    running = worker()
    running.start()
    running.close()
    running.close()
