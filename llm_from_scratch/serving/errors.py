"""What went wrong, as the OpenAI API says it: an HTTP status and one JSON object."""

from __future__ import annotations

from typing import Any

from llm_from_scratch.inference import Closed, QueueFull

TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(Exception):
    """An answer to a request that cannot be served.

    Source: OpenAI's API reference, "Error codes"; the fields are those that its clients read.

    >>> ApiError(404, "no such model", param="model", code="model_not_found").body()["error"]["type"]
    'invalid_request_error'
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: BaseException) -> ApiError:
    """Put what the scheduler or the model raised into an answer.

    What is nobody's mistake but ours says no more than its kind: a message may hold paths or texts.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        message = "the server has as many requests as it takes; try again in a second"
        return ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
    if isinstance(error, Closed):
        headers = {"Retry-After": "5"}
        return ApiError(503, "the server is shutting down", code="shutting_down", headers=headers)
    if isinstance(error, TimeoutError):
        return ApiError(503, "the request took longer than the server allows", code="timeout")
    return ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error")
