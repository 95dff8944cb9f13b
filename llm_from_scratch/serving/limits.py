"""What a server grants: how many requests at once, how long, how large."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server; past each, the request gets an error that says so.

    Raises: ValueError naming the limit that is out of range.

    >>> Limits(max_concurrent=0)
    Traceback (most recent call last):
    ValueError: max_concurrent must be at least 1, got 0
    """

    max_concurrent: int = 8  # answers that are written at once
    max_queue: int = 32  # answers that may wait for their turn
    context_length: int | None = None  # tokens of prompt and answer together; None: what the model reads
    max_tokens: int = 4096  # tokens of one answer
    max_body_bytes: int = 1 << 18  # bytes of a request's body
    timeout: float = 300.0  # seconds from a request's arrival to the end of its answer
    read_timeout: float = 10.0  # seconds for a client to send its headers, and again for its body
    stall_timeout: float = 30.0  # seconds that a client may leave its answer unread
    grace: float = 20.0  # seconds for running answers to end once the server is told to stop
    api_key: str | None = None  # what clients must send; None: nothing

    def __post_init__(self):
        """Check each."""
        for name, least in (
            ("max_concurrent", 1), ("max_queue", 0), ("max_tokens", 1), ("max_body_bytes", 1), ("grace", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("timeout", "read_timeout", "stall_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        key = self.api_key
        if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
            raise ValueError(
                "the API key must be printable ASCII text without spaces at its ends, and not empty"
            )
