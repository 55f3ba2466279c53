"""Who may ask, how much, and how much may wait: everything that says no before any work is done."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from ov_minilm.serve.wire import ApiError

DRAIN = 4  # times the limit: how much of a body that is too large is read, so that the client hears why


class Keys:
    """The API keys of a server, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None) -> None:
        """Refuse a request without one of the keys, if there are any. ApiError 401."""
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        found = [hmac.compare_digest(given, digest) for digest in self._digests]  # all, whichever fits
        if scheme.lower() != "bearer" or not any(found):
            said = "the API key is wrong" if authorization else "no API key was sent"
            raise ApiError(
                401,
                f"{said}; send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


class Admission:
    """Bounds what is accepted and not answered yet, in requests and in tokens."""

    def __init__(self, most_requests: int, most_tokens: int) -> None:
        self._most_requests = most_requests
        self._most_tokens = most_tokens
        self.requests = 0
        self.tokens = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place for one request. ApiError 429 at once if there is none."""
        if self.requests >= self._most_requests:
            raise ApiError(
                429,
                f"{self.requests} requests are waiting, the most this server accepts; try again later",
                code="rate_limit_exceeded",
            )
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def queued(self, tokens: int) -> Iterator[None]:
        """Hold room for tokens until they are embedded. ApiError 429 if there is none, 400 if never."""
        if tokens > self._most_tokens:
            raise ApiError(
                400,
                f"the input has {tokens} tokens, this server takes {self._most_tokens} a request; split it",
                param="input",
                code="max_tokens_per_request",
            )
        if self.tokens + tokens > self._most_tokens:
            raise ApiError(
                429,
                f"{self.tokens} tokens are waiting, {tokens} more are over the {self._most_tokens} "
                "that this server accepts; try again later",
                code="rate_limit_exceeded",
            )
        self.tokens += tokens
        try:
            yield
        finally:
            self.tokens -= tokens


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the body of a JSON request; refuse other types (415), long ones (413) and slow ones (408)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"content type {kind!r}" if kind else "no content type"
        raise ApiError(415, f"the body has {said}; send the header Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body is compressed; send it as it is")
    try:
        return await asyncio.wait_for(_read(request, limit), seconds)
    except asyncio.TimeoutError:
        message = f"the body did not come within {seconds:g} seconds"
        raise ApiError(408, message, headers={"connection": "close"}) from None


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size <= limit:
            parts.append(message.get("body", b""))
            if not more:
                return b"".join(parts)
        else:
            parts.clear()
            if not more or size > DRAIN * limit:
                break
    raise ApiError(
        413,
        f"the body is over the {limit} bytes that this server reads; send fewer texts a request",
        code="request_too_large",
        headers={"connection": "close"},
    )
