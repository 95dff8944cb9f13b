"""The application: which address gives what, in the shapes of the OpenAI API.

What a client may not see or wait for is decided here, the rest in the other files: `fields` reads a request,
`planning` asks the scheduler, `choices` brings the tokens back as text, `answers` gives them their shape,
`responding` sends them.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_from_scratch.inference import Worker
from llm_from_scratch.serving.answers import Answers, usage
from llm_from_scratch.serving.choices import Feed
from llm_from_scratch.serving.errors import ApiError, as_api_error
from llm_from_scratch.serving.fields import CHAT, COMPLETION, Rule, read_fields, wrong
from llm_from_scratch.serving.limits import Limits
from llm_from_scratch.serving.planning import longest_text, plan, too_long
from llm_from_scratch.serving.responding import (
    ClientGone,
    read_body,
    send_events,
    send_json,
    unless_gone,
)
from llm_from_scratch.serving.served_model import ServedModel, plain_message

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

COMPLETION_TOKENS = 16  # of an answer to /v1/completions whose length nobody said, as in the API


def build_app(served: ServedModel, worker: Worker, limits: Limits) -> "FastAPI":
    """Return the FastAPI application; the worker has been started by the caller, who closes it too."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response
    from starlette.exceptions import HTTPException

    class Live(Response):
        """A response that is made while it is sent."""

        def __init__(self, run: Callable):
            super().__init__()
            self.run = run

        async def __call__(self, scope, receive, send) -> None:
            await self.run(receive, send)

    app = FastAPI(title="llm-scratch", openapi_url=None, docs_url=None, redoc_url=None)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=400)  # which nobody reads

    @app.exception_handler(HTTPException)
    async def no_such_address(request: Request, error: HTTPException) -> JSONResponse:
        said = ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
        return JSONResponse(said.body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        said = as_api_error(error)
        return JSONResponse(said.body(), said.status, said.headers)

    @app.get("/health")
    async def health() -> JSONResponse:
        scheduler = worker.scheduler
        counts = {"running": len(scheduler.running), "waiting": len(scheduler.waiting)}
        status = "ok" if worker.is_open else "closing"
        return JSONResponse({"status": status, **counts}, 200 if worker.is_open else 503)

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        check_key(request.headers, limits.api_key)
        return JSONResponse({"object": "list", "data": [_card(served)]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> JSONResponse:
        check_key(request.headers, limits.api_key)
        _check_model(served, name)
        return JSONResponse(_card(served))

    async def create(request: Request, rules: dict[str, Rule]) -> Response:
        deadline = time.monotonic() + limits.timeout
        check_key(request.headers, limits.api_key)
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":  # also keeps other sites' pages from asking in a reader's name
            raise ApiError(415, f"the content type must be application/json, got {kind[:80]!r}")
        body = await read_body(
            request.headers, request.receive, limit=limits.max_body_bytes, seconds=limits.read_timeout
        )
        fields = read_fields(rules, body)
        _check_model(served, fields["model"])
        return Live(partial(respond, served, worker, limits, fields, rules is CHAT, deadline))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await create(request, COMPLETION)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await create(request, CHAT)

    return app


async def respond(served, worker, limits, fields, is_chat, deadline, receive, send) -> None:
    """Write the answer to a request whose fields have been read, unless its client leaves before."""
    try:
        await unless_gone(_answer(served, worker, limits, fields, is_chat, deadline, send), receive)
    except ClientGone:
        log.info("a client left before its answer was written")


async def _answer(served, worker, limits, fields, is_chat, deadline, send) -> None:
    prepared = partial(_prepare, served, limits, fields, is_chat)
    prompts, requests, echoes = await asyncio.to_thread(prepared)  # long texts take a while
    feed = Feed(served, requests, fields.get("stop", ()), deadline)
    answers = Answers(
        served,
        is_chat,
        with_logprobs=requests[0].top_logprobs is not None,
        with_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        prompt_texts=echoes,
    )
    count = sum(map(len, prompts))
    try:
        feed.submit(worker)
        if fields.get("stream"):
            await send_events(send, _chunks(feed, answers, count))
        else:
            pieces = [piece async for piece in feed]
            await send_json(send, 200, answers.whole(pieces, usage(count, feed.num_tokens)))
    except (ApiError, asyncio.CancelledError):
        raise
    except Exception as error:
        said = as_api_error(error)
        if said.status == 500:
            log.error("a request failed", exc_info=error)
        raise said from None
    finally:
        feed.cancel()


async def _chunks(feed: Feed, answers: Answers, prompt_tokens: int) -> AsyncIterator[dict[str, Any]]:
    async for piece in feed:
        yield answers.chunk(piece)
    if answers.with_usage:
        yield answers.usage_chunk(usage(prompt_tokens, feed.num_tokens))


def _prepare(served: ServedModel, limits: Limits, fields: dict[str, Any], is_chat: bool):
    """The prompts as tokens, a request for each answer, and the texts that each answer repeats first."""
    name = "messages" if is_chat else "prompt"
    if is_chat and name not in fields:
        raise wrong(name, "is missing")
    asked = [fields[name]] if is_chat else fields.get(name, [""])
    answers, most = len(asked) * fields.get("n", 1), limits.max_concurrent + limits.max_queue
    if answers > most:
        raise ApiError(400, f"{answers} answers at once are more than this server takes ({most})")
    try:
        context = longest_text(served, limits)
        for prompt in asked:
            texts = [plain_message(message)["content"] for message in prompt] if is_chat else [prompt]
            fewest = sum(served.fewest_tokens(text) for text in texts if isinstance(text, str))
            if fewest >= context:  # said before hundreds of kilobytes are encoded
                raise too_long(fields, context, fewest, 1)
        encode = served.encode_messages if is_chat else served.encode_prompt
        prompts = [encode(prompt) for prompt in asked]
    except ValueError as error:
        raise ApiError(400, str(error), param=name) from None
    default = None if is_chat else COMPLETION_TOKENS
    planned = [plan(served, limits, fields, ids, default) for ids in prompts]
    echoes = []
    if fields.get("echo"):
        if "logprobs" in fields:
            raise wrong("echo", "cannot be had with logprobs here; leave one of them out")
        texts = [
            prompt if isinstance(prompt, str) else served.loaded.tokenizer.decode(prompt) for prompt in asked
        ]
        echoes = [text for text, group in zip(texts, planned, strict=True) for _ in group]
    return prompts, [request for group in planned for request in group], echoes


def check_key(headers: Any, key: str | None) -> None:
    """Raise ApiError 401 unless the request has the key, compared in a time that tells nothing."""
    if key is None:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        said = "Incorrect API key provided." if given else "You didn't provide an API key."
        headers = {"WWW-Authenticate": "Bearer"}
        raise ApiError(
            401, f"{said} Send it as: Authorization: Bearer KEY", code="invalid_api_key", headers=headers
        )


def _check_model(served: ServedModel, name: str) -> None:
    if name != served.name:
        message = f"The model {name[:100]!r} does not exist; this server has {served.name!r}."
        raise ApiError(404, message, param="model", code="model_not_found")


def _card(served: ServedModel) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "llm-scratch"}
