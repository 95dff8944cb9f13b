"""What an adversary or a bad network does to the server, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import httpx
import openai
import pytest

from llm_from_scratch.inference import generate
from llm_from_scratch.interop import save_folder
from llm_from_scratch.serving import Limits, ServedModel, is_loopback, open_socket
from tests.serving.conftest import SPECIAL, TEMPLATE, running, tiny_loaded

ASK = {"model": "tiny", "prompt": "The state", "max_tokens": 3, "seed": 1}

ENDLESS = {"299": -100}  # the token that ends a text, never drawn


def wait_for(condition, seconds=20.0):
    """Look until it holds, at most so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


def is_idle(service):
    scheduler = service.worker.scheduler
    return not scheduler.running and not scheduler.waiting and not any(scheduler.cache.lengths)


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service.address, timeout=30) as opened:
        yield opened


def connect(service):
    host, port = service.opened.getsockname()
    return socket.create_connection((host, port), timeout=20)


def read_all(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def is_fine(service, served):
    """An ordinary request still gets its ordinary answer."""
    answer = httpx.post(f"{service.address}/v1/completions", json=ASK, timeout=30)
    ids = generate(served.loaded.model, served.encode_prompt(ASK["prompt"]), max_new_tokens=3, seed=1)
    return answer.json()["choices"][0]["text"] == served.loaded.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[1, 2]", "must be a JSON object"),
        (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', "NaN is no number"),
        (b'{"model": "tiny", "prompt": "x", "temperature": 1e999}', "temperature must be"),
        (b'{"model": "tiny", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "half of a UTF-16 pair"),
        (b'{"model": "tiny", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON"),
        (b'{"prompt": "x"}', "you must provide a model"),
        (b'{"model": 7}', "model must be a string"),
        (b'{"model": "tiny", "stream": "yes"}', "stream must be true or false"),
    ],
    ids=str,
)
def test_malformed_bodies(http, body, message):
    answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_wrong_addresses_methods_and_types(http):
    assert http.get("/v2/models").status_code == 404
    assert http.get("/v1/completions").status_code == 405
    assert http.get("/docs").status_code == 404
    assert http.get("/v2/models").json()["error"]["type"] == "invalid_request_error"
    answer = http.post("/v1/completions", content=json.dumps(ASK), headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_the_key(served):
    with running(served, api_key="geheim-1") as service, httpx.Client(base_url=service.address) as http:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "geheim-1"}):
            for answer in (
                http.get("/v1/models", headers=headers),
                http.post("/v1/completions", json=ASK, headers=headers),
                http.post("/v1/completions", content=b"{", headers=headers),  # before the body is looked at
            ):
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/health").status_code == 200
        right = {"authorization": "Bearer geheim-1"}
        assert http.get("/v1/models", headers=right).status_code == 200
        assert http.post("/v1/completions", json=ASK, headers=right).status_code == 200
        client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            client.models.list()
        client.close()


def test_a_body_that_is_too_large(served):
    with running(served, max_body_bytes=1000) as service:
        answer = httpx.post(f"{service.address}/v1/completions", json={**ASK, "prompt": "a" * 2000})
        assert answer.status_code == 413
        assert "larger than 1000 bytes" in answer.json()["error"]["message"]
        with connect(service) as connection:  # announced, and never sent
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 9999999999\r\n\r\n"
            )
            assert b" 413 " in connection.recv(65536)
        with connect(service) as connection:  # in chunks, whose sum nobody announced
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(20):
                connection.sendall(b"64\r\n" + b"a" * 100 + b"\r\n")
            assert b" 413 " in connection.recv(65536)
        assert is_fine(service, served)


def test_huge_headers_and_no_http(service, served):
    for data in (b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000, b"\x16\x03\x01\x00\xa5nonsense\r\n\r\n"):
        with connect(service) as connection:
            try:
                connection.sendall(data)
                answer = connection.recv(65536)
            except ConnectionError:  # closed while we were still sending
                continue
            assert b" 400 " in answer
    assert is_fine(service, served)


def test_clients_that_dawdle(served):
    """Slow headers, a slow body, and silence: each connection is closed, and nothing else is harmed."""
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 50\r\n"
    )
    with running(served, read_timeout=0.5) as service:
        dawdlers = [connect(service) for _ in range(30)]
        dawdlers[0].sendall(head + b"\r\n{")  # the body does not come
        for connection in dawdlers[1:20]:
            connection.sendall(head[:30])
        for step in range(3):  # a byte now and then does not help
            time.sleep(0.1)
            dawdlers[1].sendall(head[30 + step : 31 + step])
        assert is_fine(service, served)
        assert b" 408 " in read_all(dawdlers[0])
        for connection in dawdlers[1:]:
            with suppress(ConnectionError):
                assert read_all(connection) == b""
            connection.close()
        dawdlers[0].close()
        wait_for(lambda: not service.server.server_state.connections)
        with httpx.Client(base_url=service.address) as http:  # a kept connection is given time to come back
            assert http.get("/health").status_code == 200
            time.sleep(0.7)
            assert http.get("/health").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(served, stream):
    """Long before its 150 tokens are written, also if the answer has not begun."""
    slow = SlowModel(served, seconds=0.02)
    with slow.running(max_concurrent=1) as service:
        with connect(service) as connection, connect(service) as second:
            for each in (connection, second):  # the second waits for the slot
                body = json.dumps({**ASK, "max_tokens": 150, "stream": stream}).encode()
                each.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(body) + body
                )
            scheduler = service.worker.scheduler
            wait_for(lambda: scheduler.running and scheduler.waiting)
            if stream:
                assert b" 200 " in connection.recv(100)
            wait_for(lambda: scheduler.steps > 3)
        wait_for(lambda: is_idle(service))
        assert scheduler.steps < 100
        assert is_fine(service, served)


class SlowModel:
    """A server whose every pass of the model takes a while longer, or fails."""

    def __init__(self, served, seconds=0.0):
        self.served, self.seconds, self.fails = served, seconds, False

    @contextmanager
    def running(self, **limits):
        with running(self.served, **limits) as service:
            whole = service.worker.scheduler.forward

            def forward(*arguments):
                time.sleep(self.seconds)
                if self.fails:
                    raise RuntimeError("the model broke")
                return whole(*arguments)

            service.worker.scheduler.forward = forward
            yield service


def test_a_full_queue(served):
    slow = SlowModel(served, seconds=0.02)
    with slow.running(max_concurrent=1, max_queue=1) as service:
        with httpx.Client(base_url=service.address, timeout=30) as http:
            streams = []
            for _ in range(2):
                thread = threading.Thread(
                    target=lambda: streams.append(
                        http.post("/v1/completions", json={**ASK, "max_tokens": 40})
                    )
                )
                thread.start()
                streams.append(thread)
            scheduler = service.worker.scheduler
            wait_for(lambda: scheduler.running and scheduler.waiting)
            answer = http.post("/v1/completions", json=ASK)
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            for thread in [each for each in streams if isinstance(each, threading.Thread)]:
                thread.join()
            assert [each.status_code for each in streams if isinstance(each, httpx.Response)] == [200, 200]
        assert is_fine(service, served)
        # four answers at once: two fit, and none of them is left behind when the rest does not
        answer = httpx.post(f"{service.address}/v1/completions", json={**ASK, "n": 2, "prompt": ["a", "b"]})
        assert answer.status_code == 400
        wait_for(lambda: is_idle(service))


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_breaks_is_a_500_and_the_server_lives(served, stream, caplog):
    slow = SlowModel(served)
    with slow.running() as service:
        slow.fails = True
        answer = httpx.post(f"{service.address}/v1/completions", json={**ASK, "stream": stream})
        assert answer.status_code == 500
        assert answer.json()["error"] == {
            "message": "the server failed: RuntimeError", "type": "server_error", "param": None,
            "code": "internal_error",
        }  # fmt: skip
        slow.fails = False
        assert is_fine(service, served)
    assert "the model broke" in caplog.text  # for whoever runs the server


def test_a_model_that_breaks_in_the_middle_of_a_stream(served):
    slow = SlowModel(served, seconds=0.01)
    with slow.running() as service:
        client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="x", max_retries=0)
        chunks = client.completions.create(
            model="tiny", prompt="The", max_tokens=150, stream=True, logit_bias=ENDLESS
        )
        next(iter(chunks))
        slow.fails = True
        with pytest.raises(openai.APIError, match="the server failed"):
            list(chunks)
        client.close()
        slow.fails = False
        assert is_fine(service, served)


@pytest.mark.parametrize("stream", [False, True])
def test_the_time_of_a_request_is_limited(served, stream):
    slow = SlowModel(served, seconds=0.05)
    with slow.running(timeout=0.5) as service:
        answer = httpx.post(
            f"{service.address}/v1/completions", json={**ASK, "max_tokens": 150, "stream": stream}, timeout=30
        )
        assert answer.status_code == (200 if stream else 503)
        assert '"code": "timeout"' in answer.text or '"code":"timeout"' in answer.text
        wait_for(lambda: is_idle(service))


def test_an_answer_that_nobody_reads(served):
    """The client sends and never receives: its connection is cut, its slot is free."""
    with running(served, stall_timeout=0.3, max_concurrent=2) as service:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.connect(service.opened.getsockname())
        body = json.dumps({**ASK, "max_tokens": 0, "echo": True, "prompt": "a" * 100, "n": 40}).encode()
        for _ in range(200):  # pipelined, so that the answers fill every buffer on the way
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
        wait_for(lambda: not service.server.server_state.connections, 60)
        connection.close()
        wait_for(lambda: is_idle(service))
        assert is_fine(service, served)


def test_stopping_lets_answers_end_and_takes_no_new_ones(served):
    slow = SlowModel(served, seconds=0.02)
    with slow.running(grace=20.0) as service:
        client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="x", max_retries=0)
        chunks = client.completions.create(model="tiny", prompt="The", max_tokens=60, seed=1, stream=True)
        next(iter(chunks))
        service.stop()
        wait_for(lambda: not service.worker.is_open)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.address}/health")
        assert sum(1 for chunk in chunks if chunk.choices[0].finish_reason) == 1
        client.close()


def test_the_time_to_end_is_limited(served):
    slow = SlowModel(served, seconds=0.1)
    with slow.running(grace=0.5) as service:
        client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="x", max_retries=0)
        chunks = client.completions.create(
            model="tiny", prompt="The", max_tokens=150, stream=True, logit_bias=ENDLESS
        )
        next(iter(chunks))
        service.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(chunks)
        client.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, loaded = tmp_path_factory.mktemp("served") / "tiny", tiny_loaded()
    save_folder(loaded.model, path, loaded.tokenizer, chat_template=TEMPLATE,
                special_tokens={"eos_token": SPECIAL[1]})  # fmt: skip
    return path


def start(folder, *options):
    """The command, as a process; returns it and the address it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_from_scratch.cli", "serve", str(folder), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("Serving tiny at http://127.0.0.1:"), process.communicate(timeout=60)
    return process, line.split()[3]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_stream(folder, sign):
    """The stream ends whole, the process with code 0, and nothing on stderr."""
    process, address = start(folder)
    with process:
        client = openai.OpenAI(base_url=address, api_key="x", max_retries=0)
        chunks = client.completions.create(
            model="tiny", prompt="The", max_tokens=140, temperature=0, stream=True
        )
        next(iter(chunks))
        process.send_signal(sign)
        last = [chunk.choices[0].finish_reason for chunk in chunks][-1]
        assert last in ("length", "stop")
        client.close()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
@pytest.mark.alone
def test_the_command_says_what_is_wrong(folder):
    process, address = start(folder)
    with process:
        port = address.split(":")[2].split("/")[0]
        for arguments, message in (
            ([str(folder), "--port", port], f"port {port} of 127.0.0.1 is in use"),
            ([str(folder), "--host", "no.such.host.invalid"], "is no address of this machine"),
            ([str(folder), "--port", "99999"], "the port must lie between"),
            ([str(folder), "--max-concurrent", "0", "--port", "0"], "max_concurrent must be at least 1"),
            (["nothing-here", "--port", "0"], "there is no run folder 'nothing-here'"),
        ):
            run = subprocess.run(
                [sys.executable, "-m", "llm_from_scratch.cli", "serve", *arguments],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert run.returncode == 2
            assert message in run.stderr
            assert len(run.stderr.splitlines()) == 1
        process.terminate()
        process.communicate(timeout=60)


def test_addresses():
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
    with open_socket("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is in use.*--port"):
            open_socket("127.0.0.1", port)


def test_limits_are_checked():
    for fields in ({"max_queue": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"api_key": ""}):
        with pytest.raises(ValueError, match=next(iter(fields)).replace("api_key", "API key")):
            Limits(**fields)


def test_a_model_without_a_template_continues_texts_only():
    loaded = tiny_loaded()
    object.__setattr__(loaded, "chat_template", None)
    plain = ServedModel.from_loaded("tiny", loaded, start_ids=[298])
    assert plain.encode_prompt("a")[0] == 298
    with running(plain) as service:
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        answer = httpx.post(f"{service.address}/v1/chat/completions", json=ask)
        assert answer.status_code == 400
        assert "use /v1/completions" in answer.json()["error"]["message"]


def test_what_is_no_decoder_is_refused():
    loaded = tiny_loaded()
    object.__setattr__(loaded, "tokenizer", None)
    with pytest.raises(ValueError, match="without a tokenizer"):
        ServedModel.from_loaded("x", loaded)
    object.__setattr__(loaded, "model", loaded.model.norm)
    with pytest.raises(ValueError, match="only a decoder"):
        ServedModel.from_loaded("x", loaded)


def test_a_text_of_any_length_is_refused_before_it_is_encoded(served, monkeypatch):
    """A quarter of a megabyte of one letter would keep the tokenizer busy for seconds."""
    encoded = []
    whole = type(served.loaded.tokenizer).encode
    monkeypatch.setattr(
        type(served.loaded.tokenizer),
        "encode",
        lambda self, text, **k: encoded.append(text) or whole(self, text, **k),
    )
    with running(served) as service, httpx.Client(base_url=service.address) as http:
        for address, field in (
            ("/v1/completions", {"prompt": "a" * 200_000}),
            ("/v1/completions", {"prompt": ["a"] * 1000}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 200_000}]}),
        ):
            answer = http.post(address, json={"model": "tiny", **field})
            assert answer.status_code == 400
        assert encoded == []
    assert served.fewest_tokens("語" * 160) <= len(served.encode_prompt("語" * 160))
