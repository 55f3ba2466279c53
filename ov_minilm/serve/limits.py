"""Who may ask, how much, and how much may wait: everything that says no before any work is done."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from ov_minilm.runtime.scheduler import SHORT_CALL_TEXTS
from ov_minilm.serve.wire import ApiError

MOST_TOKENS = 2048 * 256  # of a request: OpenAI's number of texts, each at the model's length
LONGER = 8  # times: how much longer the queue of requests of many texts may be
GUESS = 65_536  # tokens a second, of a fast machine with two cores, until it is known how fast this one is
FULL = 2048  # tokens that must wait for a machine to show how fast it is: four batches
MEMORY = 2.0  # seconds of work after which what was measured before counts e times less
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


class Pace:
    """How many tokens a second a machine embeds when it has enough to do: a mean that forgets."""

    def __init__(self) -> None:
        self.tokens_per_s: float = GUESS
        self._since: float | None = None  # when enough began to wait, or the last of it was done

    def measure(self, waiting: int, done: int = 0) -> None:
        """Take note of how much waits from now on, and how much of what had waited is done."""
        now = time.perf_counter()
        if self._since is not None:
            seconds = max(now - self._since, 1e-9)  # two may end at the same moment
            new = -math.expm1(-seconds / MEMORY)
            self.tokens_per_s += new * (done / seconds - self.tokens_per_s)
        self._since = now if waiting >= FULL else None


class Lane:
    """Tokens that wait for their turn in one of the embedder's queues, bounded by the time they need.

    A bound in tokens would be an instant on one machine and many seconds on another. As much as shows the
    speed may always wait, or a machine that stood still once would be taken for slow ever after.
    """

    def __init__(self, seconds: float) -> None:
        self._most = seconds
        self._pace = Pace()
        self.tokens = 0

    def check(self) -> None:
        """Refuse the next request while so much waits. ApiError 429."""
        most = max(FULL, self._most * self._pace.tokens_per_s)
        if self.tokens >= most:
            raise ApiError(
                429,
                f"{self.tokens} tokens wait, {most:.0f} may; try again later",
                code="rate_limit_exceeded",
                headers={"retry-after": str(math.ceil(self._most))},
            )

    @contextmanager
    def queued(self, tokens: int) -> Iterator[None]:
        """Hold room for tokens until they are embedded."""
        if tokens > MOST_TOKENS:
            raise ApiError(
                400,
                f"the input has {tokens} tokens, a request may have {MOST_TOKENS}; send several requests",
                param="input",
                code="max_tokens_per_request",
            )
        self.check()
        self.tokens += tokens
        self._pace.measure(self.tokens)
        done = 0
        try:
            yield
            done = tokens
        finally:
            self.tokens -= tokens
            self._pace.measure(self.tokens, done)


class Admission:
    """Bounds what is accepted and not answered yet.

    The embedder runs small calls before long ones, so each kind has a bound of its own: what waits before a
    small request is a second of work, while indexers may fill a longer queue that holds up nobody else. What
    counts is what waits already: a large request is not starved by many small ones.
    """

    def __init__(self, most_requests: int, most_seconds: float) -> None:
        self._most_requests = most_requests
        self._small = Lane(most_seconds)
        self._long = Lane(LONGER * most_seconds)
        self.requests = 0

    @property
    def tokens(self) -> int:
        """Tokens accepted and not embedded."""
        return self._small.tokens + self._long.tokens

    def lane(self, texts: int) -> Lane:
        """Return where a request of so many texts waits."""
        return self._small if texts <= SHORT_CALL_TEXTS else self._long

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


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a JSON request; refuse other types (415) and long ones (413).

    Raises:
        ClientDisconnect: the client left before its body was whole.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"content type {kind!r}" if kind else "no content type"
        raise ApiError(415, f"the body has {said}; send the header Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body is compressed; send it as it is")
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
