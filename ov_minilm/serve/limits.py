"""API keys and limits: all checks that refuse a request before it is tokenized and embedded."""

from __future__ import annotations

import codecs
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

MAX_REQUEST_TOKENS = 2048 * 256  # 2,048 texts (OpenAI's limit) of 256 tokens (the model's limit)
LONG_QUEUE_FACTOR = 8  # the queue of requests with many texts may hold this many times the work
INITIAL_TOKENS_PER_S = 65_536  # estimate before the first measurement: speed of a fast machine with two cores
MIN_QUEUE_TOKENS = 2048  # tokens that are always accepted: four batches, enough to measure the speed
DECAY_S = 2.0  # time constant of the exponential moving average, in seconds
# A body over the limit is read to its end, and discarded, up to this many times the limit: many clients read
# the response only after they have sent everything.
DRAIN_FACTOR = 4
TOTAL_BODY_FACTOR = 8  # all bodies in memory together may have this many times the limit of a single body


class Keys:
    """The API keys of a server, compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None, api_key: str | None = None) -> None:
        """Raise ApiError 401 if keys are set and the request has no valid one.

        Args:
            authorization: the header of that name, `Bearer KEY`.
            api_key: the header `api-key`, which Azure's clients send instead of `authorization`.
        """
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            key = api_key or ""
        given = hashlib.sha256(key.strip().encode()).digest()
        # every key is compared, so that the time does not depend on the result
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(matches):
            problem = "the API key is wrong" if authorization or api_key else "no API key was sent"
            raise ApiError(
                "bad_key",
                f"{problem}; send the header Authorization: Bearer KEY (or api-key: KEY)",
                headers={"www-authenticate": "Bearer"},
            )


class ThroughputEstimate:
    """Tokens a second that this machine embeds under load: an exponential moving average."""

    def __init__(self) -> None:
        self.tokens_per_s: float = INITIAL_TOKENS_PER_S
        # time of the latest measurement under load, in seconds of perf_counter
        self._since: float | None = None

    def measure(self, waiting: int, done: int = 0) -> None:
        """Update the estimate: `done` tokens were just finished, `waiting` tokens are queued now."""
        now = time.perf_counter()
        if self._since is not None:
            seconds = max(now - self._since, 1e-9)  # two requests may end at the same time
            weight = -math.expm1(-seconds / DECAY_S)
            self.tokens_per_s += weight * (done / seconds - self.tokens_per_s)
        self._since = now if waiting >= MIN_QUEUE_TOKENS else None


class QueueBudget:
    """Bounds one of the embedder's queues in seconds of work.

    The same number of tokens would be a fraction of a second on one machine and many seconds on another.
    MIN_QUEUE_TOKENS are always accepted; otherwise one stall would lower the estimate and never let it
    recover.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._throughput = ThroughputEstimate()
        # several threads change the counts, because large requests are tokenized in threads
        self._lock = threading.Lock()
        self._queued = 0
        self._being_tokenized = 0  # estimated tokens

    @property
    def tokens(self) -> int:
        """Tokens accepted and not embedded."""
        return self._queued + self._being_tokenized

    def check(self) -> None:
        """Raise ApiError 429 if the queue is full."""
        limit = max(MIN_QUEUE_TOKENS, self._seconds * self._throughput.tokens_per_s)
        if self.tokens >= limit:
            raise ApiError(
                "overloaded",
                f"the queue is full: it has {self.tokens} tokens, the limit is {limit:.0f}; try again later",
                headers={"retry-after": str(math.ceil(self._seconds))},
            )

    @contextmanager
    def tokenizing(self, estimate: int) -> Iterator[None]:
        """Count estimated tokens while a request is tokenized. ApiError 429 if the queue is full."""
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
        """Count a request's tokens until they are embedded. ApiError 429 if the queue is full."""
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
    """Raise ApiError 400 for more than MAX_REQUEST_TOKENS."""
    if tokens > MAX_REQUEST_TOKENS:
        raise ApiError(
            "too_many_tokens",
            f"the input has at least {tokens} tokens; send at most {MAX_REQUEST_TOKENS} in a request",
            param="input",
        )


class Admission:
    """Bounds the requests in progress: their number, the bytes of their bodies, and their tokens.

    The embedder runs small calls before long ones, so each kind has its own budget: a second of work for
    small requests, eight for large ones, which delay no small one. Only tokens already queued count, so a
    large request is not starved by many small ones.
    """

    def __init__(self, max_requests: int, max_seconds: float, payload_limit: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = TOTAL_BODY_FACTOR * payload_limit
        self._small = QueueBudget(max_seconds)
        self._long = QueueBudget(LONG_QUEUE_FACTOR * max_seconds)
        self.requests = 0
        self.body_bytes = 0

    @property
    def tokens(self) -> int:
        """Tokens accepted and not embedded."""
        return self._small.tokens + self._long.tokens

    def budget(self, texts: int) -> QueueBudget:
        """Return the budget of the queue for a request with this many texts."""
        return self._small if texts <= SHORT_CALL_TEXTS else self._long

    @contextmanager
    def request(self) -> Iterator[BodyBudget]:
        """Count a request until it is answered; yield the budget of its body. ApiError 429 if too many."""
        if self.requests >= self._max_requests:
            raise ApiError(
                "overloaded",
                f"{self.requests} requests are in progress, the maximum of this server; try again later",
            )
        self.requests += 1
        body = BodyBudget(self, self._max_bytes)
        try:
            yield body
        finally:
            self.requests -= 1
            self.body_bytes -= body.size


class BodyBudget:
    """The bytes of one request's body, counted in the total of all requests."""

    def __init__(self, admission: Admission, max_bytes: int) -> None:
        self._admission = admission
        self._max_bytes = max_bytes
        self.size = 0

    def take(self, size: int) -> None:
        """Count bytes. ApiError 429 if the bodies of all requests together are too large."""
        if self._admission.body_bytes + size > self._max_bytes:
            raise ApiError(
                "overloaded",
                f"the bodies of other requests have {self._admission.body_bytes} bytes, the limit is "
                f"{self._max_bytes}; try again later",
                headers={"connection": "close"},
            )
        self._admission.body_bytes += size
        self.size += size


async def read_body(request: Request, limit: int, budget: BodyBudget, *, any_type: bool = False) -> bytearray:
    """Return the body of a JSON request, decompressed.

    Args:
        request: a request whose body has not been read.
        limit: bytes of the body, both as sent and decompressed.
        budget: counts the bytes that are held.
        any_type: accept any content type, unless a web page sent it (it has the header Origin).

    Raises:
        ApiError: 415 for another content type or encoding, 413 over the limit, 400 for a broken encoding, 429
            if the bodies of all requests together are too large.
        ClientDisconnect: the client disconnected before its body was complete.
    """
    if not any_type or "origin" in request.headers:
        _check_type(request.headers.get("content-type", ""))
    encodings = _encodings(", ".join(request.headers.getlist("content-encoding")))
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit and "expect" in request.headers:
        raise _too_large(limit)  # refused before the client sends the body
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
    if body.startswith(codecs.BOM_UTF8):  # a byte order mark, which RFC 8259 allows a reader to ignore
        del body[: len(codecs.BOM_UTF8)]
    return body


def _check_type(header: str) -> None:
    kind = header.partition(";")[0].strip().lower()
    if kind != "application/json":
        found_type = f"content type {kind!r}" if kind else "no content type"
        raise ApiError(
            "bad_media_type", f"the body has {found_type}; send the header Content-Type: application/json"
        )


def _encodings(header: str) -> list[str]:
    """Return the content encodings of a body in the order in which they were applied. ApiError 415."""
    codings = [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    for name in codings:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise ApiError(
                "bad_media_type",
                f"the body has the content encoding {name!r}; send it plain, or as gzip or deflate",
                headers={"accept-encoding": "gzip, deflate"},
            )
    return codings


def _decompress(body: bytearray, encoding: str, limit: int, budget: BodyBudget) -> bytearray:
    """Return the decompressed bytes, at most `limit`. ApiError 400, 413."""
    raw_deflate = encoding == "deflate" and not (len(body) > 1 and int.from_bytes(body[:2], "big") % 31 == 0)
    # 32: accept gzip and zlib headers
    stream = zlib.decompressobj(-zlib.MAX_WBITS if raw_deflate else zlib.MAX_WBITS | 32)
    try:
        content = bytearray(stream.decompress(body, limit + 1))
    except zlib.error as error:
        raise ApiError("bad_json", f"the body is not valid {encoding}: {error}") from error
    if len(content) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise ApiError("bad_json", f"the {encoding} data of the body is incomplete")
    if rest := stream.unused_data.lstrip(b"\0"):  # zeros may follow gzip, as RFC 1952's readers accept
        raise ApiError("bad_json", f"the body has {len(rest)} bytes after the end of its {encoding} data")
    budget.take(len(content))
    return content


def _too_large(limit: int) -> ApiError:
    return ApiError(
        "body_too_large",
        f"the body is larger than {limit} bytes, the limit of this server; send fewer texts in a request, "
        "or start the server with a larger --payload-limit",
        headers={"connection": "close"},
    )
