"""Send answers over ASGI: read a body within limits, and stop writing when nobody reads any more.

ASGI is the interface between a Python web server and an application: ``receive()`` gives the client's
messages, ``send()`` takes ours. Written on it directly, so that the client's leaving is noticed at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any

from llm_from_scratch.serving.errors import ApiError, as_api_error

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClientGone(Exception):  # noqa: N818 (not our fault)
    """The client has closed the connection."""


async def read_body(headers: Any, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Read a body. Raises: ApiError 413 before more than ``limit`` bytes are kept, 408; `ClientGone`."""
    too_large = ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {seconds:g} seconds") from None


async def unless_gone(work: Coroutine[Any, Any, Any], receive: Receive) -> Any:
    """Do the work, and give it up as soon as the client has left. Raises: what it raises; ClientGone."""

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(until_gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientGone
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def send_json(send: Send, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
    """Send one JSON object."""
    body = json.dumps(content).encode("ascii")
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await _start(send, status, fields)
    await send({"type": "http.response.body", "body": body})


async def send_events(send: Send, events: AsyncIterable[Any]) -> None:
    """Send JSON objects as server-sent events, each when it is there, and ``[DONE]``.

    Nothing is sent before the first one is there, so that what fails until then can still be answered
    with its own status; what fails later is sent as an event with an error.
    Source: WHATWG, HTML, section "Server-sent events"; ``[DONE]`` is OpenAI's.
    """
    iterator = aiter(events)
    first = await anext(iterator, None)
    await _start(send, 200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
    try:
        if first is not None:
            await _event(send, json.dumps(first))
        async for event in iterator:
            await _event(send, json.dumps(event))
    except Exception as error:
        await _event(send, json.dumps(as_api_error(error).body()))
    await _event(send, "[DONE]")
    await send({"type": "http.response.body", "body": b""})


async def _event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
