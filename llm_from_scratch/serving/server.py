"""Run the application: an address, a time limit for slow clients, and an end that lets answers finish."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

from llm_from_scratch.inference import Scheduler, Worker, fastest_pass
from llm_from_scratch.serving.app import build_app
from llm_from_scratch.serving.limits import Limits
from llm_from_scratch.serving.served_model import ServedModel


def open_socket(host: str, port: int) -> socket.socket:
    """Take the address, before anything is loaded. Raises: ValueError that says why it cannot be had."""
    if not 0 <= port < 2**16:
        raise ValueError(f"the port must lie between 0 (any that is free) and 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ValueError(f"{host!r} is no address of this machine: {error}") from None
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(2048)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use by another program; choose one with --port"
            ) from None
        raise ValueError(f"cannot listen on port {port} of {host}: {error.strerror}") from None
    return opened


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Service:
    """A model at an address: `run` answers requests until SIGINT (Ctrl-C), SIGTERM or `stop`.

    Then no new requests are taken; answers that run have ``limits.grace`` seconds to end, the rest ends with
    an error that says so. ``opened`` comes from `open_socket`.
    """

    def __init__(self, served: ServedModel, limits: Limits, opened: socket.socket):
        import uvicorn

        scheduler = Scheduler(
            served.loaded.model,
            num_slots=limits.max_concurrent,
            slot_length=limits.context_length,
            max_waiting=limits.max_queue,
            forward=fastest_pass(served.loaded.model),
        )
        self.worker, self.opened = Worker(scheduler), opened
        config = uvicorn.Config(
            build_app(served, self.worker, limits),
            http=_patient_protocol(limits),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.max_concurrent + limits.max_queue + 64,  # connections; more get 503
            timeout_graceful_shutdown=int(limits.grace) + 5,  # should the worker not have ended all
        )
        self.server = _graceful_server(config, self.worker, limits.grace)
        host, port = opened.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until told to stop; call it once. ``when_ready`` is called as soon as requests are taken."""
        self.server.when_ready = when_ready
        self.worker.start()
        try:
            self.server.run(sockets=[self.opened])
        finally:
            self.worker.close(0)
            self.opened.close()

    def stop(self) -> None:
        """End `run`, from any thread."""
        self.server.should_exit = True


def _graceful_server(config, worker: Worker, grace: float):
    """Uvicorn's server, which on a signal first tells the worker, and exits with 0."""
    import uvicorn

    class Graceful(uvicorn.Server):
        when_ready: Callable[[], None]

        async def startup(self, sockets=None) -> None:
            await super().startup(sockets=sockets)
            self.when_ready()

        async def shutdown(self, sockets=None) -> None:
            worker.refuse(grace)
            await super().shutdown(sockets=sockets)
            worker.refuse(0)

        def handle_exit(self, sig, frame) -> None:
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # uvicorn would raise them again at the end
            if self.force_exit:  # a second Ctrl-C
                worker.refuse(0)

    return Graceful(config)


def _patient_protocol(limits: Limits):
    """Uvicorn's HTTP protocol, with an end to patience: for slow headers, and for answers left unread."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        _headers_due: asyncio.TimerHandle | None = None
        _reading_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._headers_due = self.loop.call_later(limits.read_timeout, transport.abort)

        def data_received(self, data: bytes) -> None:
            if self._headers_due is None:  # the first bytes of a next request
                self._headers_due = self.loop.call_later(limits.read_timeout, self.transport.abort)
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:  # the headers are complete
                self._stop("_headers_due")

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading_due = self.loop.call_later(limits.stall_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop("_reading_due")
            super().resume_writing()

        def connection_lost(self, exc) -> None:
            self._stop("_headers_due")
            self._stop("_reading_due")
            super().connection_lost(exc)

        def _stop(self, name: str) -> None:
            if (timer := getattr(self, name)) is not None:
                timer.cancel()
                setattr(self, name, None)

    return Patient
