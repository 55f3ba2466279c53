"""Who may ask, how much, and how much may wait: everything that says no before any work is done."""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from ov_minilm.runtime.scheduler import SHORT_CALL_TEXTS
from ov_minilm.serve.errors import ApiError

MAX_REQUEST_TOKENS = 2048 * 256  # OpenAI's number of texts, each at the model's length
LONG_QUEUE_FACTOR = 8  # how much longer the queue of requests of many texts may be
INITIAL_TOKENS_PER_S = 65_536  # of a fast machine with two cores, until the speed of this one is known
MIN_QUEUE_TOKENS = 2048  # that must wait for a machine to show how fast it is: four batches
DECAY_S = 2.0  # of work, after which what was measured before counts e times less
DRAIN_FACTOR = (
    4  # times the limit: how much of a body that is too large is read, so that the client hears why
)
MAX_WHOLE_BODIES = 8  # bodies at the limit that may be in work; of smaller ones, as many more


class Keys:
    """The API keys of a server, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None, api_key: str | None = None) -> None:
        """Refuse a request without one of the keys, if there are any. ApiError 401.

        Args:
            authorization: the header of that name, `Bearer KEY`.
            api_key: the header `api-key`, which clients of Azure send instead.
        """
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            key = api_key or ""
        given = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]  # all, even after one fits
        if not any(matches):
            said = "the API key is wrong" if authorization or api_key else "no API key was sent"
            raise ApiError(
                "bad_key",
                f"{said}; send the header Authorization: Bearer KEY (or api-key: KEY)",
                headers={"www-authenticate": "Bearer"},
            )


class ThroughputEstimate:
    """Tokens a second that this machine embeds when it has enough to do: an exponential moving average."""

    def __init__(self) -> None:
        self.tokens_per_s: float = INITIAL_TOKENS_PER_S
        self._since: float | None = None  # when enough began to wait, or the last of it was done

    def measure(self, waiting: int, done: int = 0) -> None:
        """Take note of the tokens that wait from now on, and of those that were done just now."""
        now = time.perf_counter()
        if self._since is not None:
            seconds = max(now - self._since, 1e-9)  # two may end at the same moment
            weight = -math.expm1(-seconds / DECAY_S)
            self.tokens_per_s += weight * (done / seconds - self.tokens_per_s)
        self._since = now if waiting >= MIN_QUEUE_TOKENS else None


class QueueBudget:
    """Bounds the tokens that wait in one of the embedder's queues by the time that they need.

    A bound in tokens would be an instant on one machine and many seconds on another. At least
    MIN_QUEUE_TOKENS are always accepted; otherwise one stall would lower the estimate and never let it
    recover.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._throughput = ThroughputEstimate()
        self._lock = threading.Lock()  # large requests are tokenized in threads
        self._queued = 0
        self._being_tokenized = 0  # by an estimate

    @property
    def tokens(self) -> int:
        """Tokens accepted and not embedded."""
        return self._queued + self._being_tokenized

    def check(self) -> None:
        """Refuse the next request if the queue is full. ApiError 429."""
        most = max(MIN_QUEUE_TOKENS, self._seconds * self._throughput.tokens_per_s)
        if self.tokens >= most:
            raise ApiError(
                "overloaded",
                f"{self.tokens} tokens wait, {most:.0f} may; try again later",
                headers={"retry-after": str(math.ceil(self._seconds))},
            )

    @contextmanager
    def tokenizing(self, estimate: int) -> Iterator[None]:
        """Admit a request by what it will cost, before its tokens are known. ApiError 429."""
        with self._lock:
            self.check()
            self._being_tokenized += estimate
        try:
            yield
        finally:
            with self._lock:
                self._being_tokenized -= estimate

    @contextmanager
    def queued(self, tokens: int) -> Iterator[None]:
        """Hold room for tokens until they are embedded."""
        check_tokens(tokens)
        with self._lock:
            self.check()
            self._queued += tokens
            self._throughput.measure(self._queued)
        done = 0
        try:
            yield
            done = tokens
        finally:
            with self._lock:
                self._queued -= tokens
                self._throughput.measure(self._queued, done)


def check_tokens(tokens: int) -> None:
    """Refuse more tokens than one request may have. ApiError 400."""
    if tokens > MAX_REQUEST_TOKENS:
        raise ApiError(
            "too_many_tokens",
            f"the input has {tokens} tokens or more, a request may have {MAX_REQUEST_TOKENS}; "
            "send several requests",
            param="input",
        )


class Admission:
    """Bounds what is accepted and not answered yet: requests, bytes of bodies, and tokens.

    The embedder runs small calls before long ones, so each kind has a budget of its own: a second of work may
    wait before a small request, while indexers may fill a longer queue that holds up nobody else. Only what
    waits already is counted: a large request is not starved by many small ones.
    """

    def __init__(self, max_requests: int, max_seconds: float, payload_limit: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = MAX_WHOLE_BODIES * payload_limit
        self._small = QueueBudget(max_seconds)
        self._long = QueueBudget(LONG_QUEUE_FACTOR * max_seconds)
        self.requests = 0
        self.body_bytes = 0

    @property
    def tokens(self) -> int:
        """Tokens accepted and not embedded."""
        return self._small.tokens + self._long.tokens

    def budget(self, texts: int) -> QueueBudget:
        """Return where a request of this many texts waits."""
        return self._small if texts <= SHORT_CALL_TEXTS else self._long

    @contextmanager
    def request(self) -> Iterator[BodyBudget]:
        """Hold a place for one request and the bytes of its body. ApiError 429 if there is none."""
        if self.requests >= self._max_requests:
            raise ApiError(
                "overloaded",
                f"{self.requests} requests are waiting, the most this server accepts; try again later",
            )
        self.requests += 1
        body = BodyBudget(self, self._max_bytes)
        try:
            yield body
        finally:
            self.requests -= 1
            self.body_bytes -= body.size


class BodyBudget:
    """The bytes that the body of one request takes."""

    def __init__(self, admission: Admission, max_bytes: int) -> None:
        self._admission = admission
        self._max_bytes = max_bytes
        self.size = 0

    def take(self, size: int) -> None:
        """Count bytes. ApiError 429 if the bodies of all requests are too many."""
        if self._admission.body_bytes + size > self._max_bytes:
            raise ApiError(
                "overloaded",
                f"{self._admission.body_bytes} bytes of other requests are in work, "
                f"{self._max_bytes} may be; try again later",
                headers={"connection": "close"},
            )
        self._admission.body_bytes += size
        self.size += size


async def read_body(request: Request, limit: int, budget: BodyBudget, *, any_type: bool = False) -> bytearray:
    """Return the body of a JSON request, decompressed; refuse other types (415) and long ones (413).

    Args:
        request: the request, whose body was not read yet.
        limit: bytes, of the body as it is sent and when it is decompressed.
        budget: where the bytes are counted.
        any_type: take a body whatever its content type, if no web page can have sent it.

    Raises:
        ClientDisconnect: the client left before its body was whole.
    """
    if not any_type or "origin" in request.headers:
        _check_type(request.headers.get("content-type", ""))
    encodings = _encodings(request.headers.get("content-encoding", ""))
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit and "expect" in request.headers:
        raise _too_large(limit)  # before the client sends it
    body = bytearray()
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        more = message.get("more_body", False)
        if size <= limit:
            budget.take(len(part))
            body += part
            if not more:
                break
        else:
            body.clear()
            if not more or size > DRAIN_FACTOR * limit:
                raise _too_large(limit)
    for encoding in reversed(encodings):
        body = _decompress(body, encoding, limit, budget)
    return body


def _check_type(header: str) -> None:
    kind = header.partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"content type {kind!r}" if kind else "no content type"
        raise ApiError(
            "bad_media_type", f"the body has {said}; send the header Content-Type: application/json"
        )


def _encodings(header: str) -> list[str]:
    """Return the codings of a body in the order in which they were applied. ApiError 415."""
    found = [name for one in header.lower().split(",") if (name := one.strip()) not in ("", "identity")]
    for name in found:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise ApiError(
                "bad_media_type",
                f"the body has the content coding {name!r}; send it as it is, or with gzip or deflate",
                headers={"accept-encoding": "gzip, deflate"},
            )
    return found


def _decompress(body: bytearray, encoding: str, limit: int, budget: BodyBudget) -> bytearray:
    """Return the bytes that were compressed, never more than `limit`. ApiError 400, 413."""
    raw_deflate = encoding == "deflate" and not (len(body) > 1 and int.from_bytes(body[:2], "big") % 31 == 0)
    stream = zlib.decompressobj(-zlib.MAX_WBITS if raw_deflate else zlib.MAX_WBITS | 32)  # 32: gzip or zlib
    try:
        found = bytearray(stream.decompress(body, limit + 1))
    except zlib.error as error:
        raise ApiError("bad_json", f"the body is not {encoding}: {error}") from error
    if len(found) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise ApiError("bad_json", f"the body ends in the middle of its {encoding}")
    budget.take(len(found))
    return found


def _too_large(limit: int) -> ApiError:
    return ApiError(
        "body_too_large",
        f"the body is over the {limit} bytes that this server reads; send fewer texts a request, "
        "or start the server with a larger --payload-limit",
        headers={"connection": "close"},
    )
