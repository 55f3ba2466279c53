"""What all APIs share: turning the body of a request into vectors, and the state of the server."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ov_minilm.errors import SelfCheckFailed, TextTooLong
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.serve.access import Outcome
from ov_minilm.serve.errors import ApiError, encode_json
from ov_minilm.serve.limits import Admission, BodyBudget, Keys, check_tokens, read_body
from ov_minilm.serve.metrics import Metrics
from ov_minilm.serve.settings import Settings, Truncate
from ov_minilm.serve.token_ids import TokenIdReader
from ov_minilm.spec import FloatArray, IntArray

T = TypeVar("T")
Handlers = Mapping[str, Callable[[Request], Awaitable[Response]]]  # HTTP method -> handler

# Work up to these sizes runs in the event loop and takes at most a millisecond; larger work runs in
# threads.
INLINE_BODY_BYTES = 4096  # largest body that the event loop parses and tokenizes
INLINE_VECTORS = 32  # maximum of vectors that the event loop writes as JSON
LARGE_BODY_BYTES = 262_144  # larger bodies are parsed by only LARGE_BODY_THREADS threads, to bound memory
LARGE_BODY_THREADS = 2
# limits of the texts that are tokenized at once: the tokenizer needs over 200 bytes for each token
CHUNK_CHARACTERS = 65_536
CHUNK_TEXTS = 512
MAX_ESTIMATED_TOKENS = 1_000_000  # limit of the estimated tokens of a text with truncate="mean"
CHARACTERS_PER_TOKEN = 4  # estimate for English text
# limit of a request to /tokenize, whose response has 100 bytes of JSON for each token
MAX_TOKENIZE_CHARACTERS = 100_000
SLICE_BYTES = 262_144  # bytes of a large response that are written to the socket at once
# seconds after a large request until its memory is returned; by then its response is usually sent
TRIM_AFTER_S = 0.2
WATCH_DISCONNECT_AFTER_S = 0.25  # a request that waits longer is watched for a disconnect of its client

log = logging.getLogger("ov_minilm.serve")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The result of a request for embeddings."""

    vectors: FloatArray  # [N, D], of unit length
    tokens: int
    characters: int
    outcome: Outcome
    seconds: float  # time since the body was complete

    def shortened(self, dimensions: int | None) -> FloatArray:  # -> [N, dimensions]
        """Return the first components, of unit length again; None keeps all."""
        return self.vectors if dimensions is None else shrink(self.vectors, dimensions)


def no_headers(_: Embedded) -> Mapping[str, str]:
    """Return no headers."""
    return {}


@dataclass(slots=True)
class ParsedBody:
    """A parsed body, and how its API writes the response."""

    texts: list[Any]  # str, or lists of token ids
    truncate: Truncate
    write: Callable[[Embedded], bytes | bytearray]
    field: str = "input"  # name of the field of the body that had `texts`
    cut_advice: str = 'send "truncate": true to cut it'  # end of the error message for a text over the limit
    ids_model: str | None = None  # the model named in a request with token ids
    keep_end: bool = False  # keep the last tokens of a text that is cut, instead of the first
    headers: Callable[[Embedded], Mapping[str, str]] = no_headers


class Service:
    """One embedder with its limits, keys, metrics and state."""

    def __init__(
        self, embedder: Embedder, settings: Settings, all_ready: Callable[[], bool] = lambda: True
    ) -> None:
        self.settings = settings
        self.all_ready = all_ready  # whether all workers of this server are ready
        self.embedder = embedder
        self.spec = embedder.spec
        self.admission = Admission(
            settings.max_concurrent_requests, settings.max_queue_seconds, settings.payload_limit
        )
        self.metrics = Metrics(self.admission, embedder)
        self.keys = Keys(settings.api_keys)
        self.ready = False  # the latest check gave the right vector
        self.prepared = False  # the warm-up is done, running, or switched off
        self.draining = False  # the server shuts down: it answers only requests that it has received
        self.started = int(time.time())
        self.info = embedder.info
        self.names = settings.served_model_names or (self.info.model.rpartition("/")[2], self.info.model)
        self._ids = TokenIdReader(
            settings.token_ids, embedder.tokenize(["hello world"]).windows[0][0].tolist()
        )
        self._large = ThreadPoolExecutor(LARGE_BODY_THREADS, "ov_minilm large requests")

    async def embed(
        self,
        request: Request,
        parse: Callable[[bytes | bytearray], ParsedBody],
        *,
        any_type: bool = False,
    ) -> Response:
        """Answer a request for embeddings of any API.

        Args:
            request: its body is read here.
            parse: reads the body; ApiError if it is invalid.
            any_type: accept a body of any content type, unless a web page sent it.
        """
        outcome: Outcome = request.scope["outcome"]
        with self.admission.request() as body_budget, self._returning_memory(body_budget):
            received = [await read_body(request, self.settings.payload_limit, body_budget, any_type=any_type)]
            size = len(received[0])
            received_at = time.perf_counter()
            parsed, tokenized, characters = await self._offload(size, partial(self._prepare, parse, received))
            outcome.texts, outcome.truncated = len(tokenized.windows), len(tokenized.truncated)
            outcome.tokens = tokens = sum(tokenized.tokens)
            queued_at = time.perf_counter()
            await asyncio.sleep(0)  # requests that arrive together are then submitted together
            with self.admission.budget(sum(map(len, tokenized.windows))).queued(tokens):
                start_times: list[float] = []
                vectors = await _or_client_disconnect(
                    self.embedder.asubmit(tokenized, started=lambda: start_times.append(time.perf_counter())),
                    request,
                )
            embedded_at = time.perf_counter()
            outcome.phases = {
                "tokenize": (received_at, queued_at),
                "queue": (queued_at, start_times[0] if start_times else queued_at),
                "inference": (start_times[0] if start_times else queued_at, embedded_at),
            }
            result = Embedded(vectors, tokens, characters, outcome, embedded_at - received_at)
            del tokenized, vectors
            write = partial(parsed.write, result)
            content = await (asyncio.to_thread(write) if outcome.texts > INLINE_VECTORS else _run_here(write))
        self.metrics.embedded(outcome)
        headers = {
            "x-truncated": str(outcome.truncated),
            "x-model-fingerprint": self.info.fingerprint,
            "server-timing": ", ".join(
                f"{name};dur={1000 * (ended - begun):.2f}" for name, (begun, ended) in outcome.phases.items()
            ),
        }
        return json_response(content, headers | dict(parsed.headers(result)))

    async def offload_body(self, request: Request, write: Callable[[bytes | bytearray], bytes]) -> Response:
        """Respond to a request about tokens: `write` turns its body into the response."""
        with self.admission.request() as body_budget, self._returning_memory(body_budget):
            body = await read_body(request, self.settings.payload_limit, body_budget)
            return json_response(await self._offload(len(body), partial(write, body)))

    async def _offload(self, size: int, work: Callable[[], T]) -> T:
        """Run `work` in the event loop for a small body, in a thread for others."""
        if size < INLINE_BODY_BYTES:
            return work()
        pool = self._large if size >= LARGE_BODY_BYTES else None
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _prepare(
        self, parse: Callable[[bytes | bytearray], ParsedBody], received: list[bytearray]
    ) -> tuple[ParsedBody, Tokenized, int]:
        """Parse a body and tokenize its texts, freeing both early. ApiError 429 if the queue is full."""
        parsed = parse(received.pop())
        texts, parsed.texts = parsed.texts, []
        if texts and isinstance(texts[0], list):
            texts = self._ids.read(texts, parsed.ids_model)
        max_tokens = MAX_ESTIMATED_TOKENS if parsed.truncate == "mean" else self.spec.max_tokens
        estimate = sum(min(len(text) // CHARACTERS_PER_TOKEN + 2, max_tokens) for text in texts)
        with self.admission.budget(len(texts)).tokenizing(estimate):
            return parsed, self._tokenize(texts, parsed), sum(map(len, texts))

    def _tokenize(self, texts: Sequence[Any], parsed: ParsedBody) -> Tokenized:
        """Tokenize chunk by chunk, because the tokenizer's objects are large."""
        keep_end = parsed.keep_end and parsed.truncate == "end"
        windows: list[list[IntArray]] = []
        cut: dict[int, int] = {}
        tokens = 0
        for start, chunk in _chunks(texts):
            part = self._tokenize_chunk(chunk, start, "mean" if keep_end else parsed.truncate, parsed)
            if keep_end:
                part = self._keep_ends(part)
            cut |= {start + index: count for index, count in part.cut.items()}
            windows += part.windows
            tokens += sum(part.tokens)
            check_tokens(tokens)
        return Tokenized(windows, cut)

    def _tokenize_chunk(
        self, texts: Sequence[Any], start: int, truncate: Truncate, parsed: ParsedBody
    ) -> Tokenized:
        try:
            return self.embedder.tokenize(texts, truncate=truncate)
        except ValueError as error:  # an id outside the vocabulary; all ids of a request are one chunk
            raise ApiError("bad_token_ids", str(error), param=parsed.field) from error
        except TextTooLong as error:
            raise ApiError(
                "text_too_long",
                f"{parsed.field}[{start + error.index}] has {error.tokens} tokens, the model reads "
                f"{error.limit}; shorten it, or {parsed.cut_advice}",
                param=parsed.field,
            ) from error

    def _keep_ends(self, tokenized: Tokenized) -> Tokenized:
        """Return each text as one window of its last tokens, as many as the model reads."""
        max_pieces = self.spec.max_tokens - 2
        windows: list[list[IntArray]] = []
        for of_text in tokenized.windows:
            if len(of_text) > 1:
                last = np.concatenate([ids[1:-1] for ids in of_text[-2:]])[-max_pieces:]
                of_text = [np.concatenate([of_text[0][:1], last, of_text[0][-1:]])]  # [CLS] … [SEP]
            windows.append(of_text)
        counts = enumerate(zip(tokenized.windows, tokenized.tokens, strict=True))
        return Tokenized(windows, {i: count for i, (of_text, count) in counts if len(of_text) > 1})

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise ApiError 400 unless `dimensions` is 1 to the model's number of components."""
        if dimensions is not None and not 1 <= dimensions <= self.spec.dim:
            message = f"dimensions is {dimensions}; send 1 to {self.spec.dim}"
            raise ApiError("bad_field", message, param="dimensions")

    def check_characters(self, texts: Iterable[Any], field: str) -> None:
        """Raise ApiError 400 if a request to /tokenize has more than MAX_TOKENIZE_CHARACTERS."""
        characters = sum(map(len, texts))
        if characters > MAX_TOKENIZE_CHARACTERS:
            raise ApiError(
                "too_many_tokens",
                f"{field} has {characters} characters; send at most {MAX_TOKENIZE_CHARACTERS} in a request",
                param=field,
            )

    def replace_keys(self, keys: tuple[str, ...]) -> None:
        """Replace the API keys. ValueError: a key cannot be sent in a header."""
        self.settings = replace(self.settings, api_keys=keys)
        self.keys = Keys(keys)

    async def check(self) -> None:
        """Run an inference and compare it with the known vector; ApiError 503 if it differs."""
        try:
            await asyncio.to_thread(self.embedder.self_check)
        except SelfCheckFailed as error:
            raise ApiError("wrong_vectors", str(error)) from error
        self.ready = True

    async def warm_up(self) -> None:
        """Compile the model for all input shapes, unless the settings switch this off."""
        self.prepared = True
        if self.settings.warm_up:
            await asyncio.to_thread(self.embedder.warm_up)

    def warm_up_in_background(self) -> None:
        """Compile in the background: a mounted application gets no startup event."""
        self.prepared = True
        if self.settings.warm_up:
            self._large.submit(self.embedder.warm_up).add_done_callback(_log_failure)

    @contextmanager
    def _returning_memory(self, body_budget: BodyBudget) -> Iterator[None]:
        """Return the memory of a large request to the operating system; malloc alone would keep it."""
        try:
            yield
        finally:
            if body_budget.size >= LARGE_BODY_BYTES:
                asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._large.submit, _trim)


def _log_failure(future: Any) -> None:
    if error := future.exception():
        log.error("compiling the model in the background failed", exc_info=error)


def _trim() -> None:
    with suppress(AttributeError, OSError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _chunks(texts: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield (start, part) for the parts of a list of texts. Lists of token ids are yielded as one part."""
    if texts and isinstance(texts[0], list):
        yield 0, texts
        return
    start = characters = 0
    for end, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= CHUNK_CHARACTERS or end - start == CHUNK_TEXTS or end == len(texts):
            yield start, texts[start:end]
            start, characters = end, 0


class SlicedResponse(Response):
    """A large response, sent in slices: the socket's buffer then needs no second copy."""

    def __init__(self, content: bytes | bytearray, headers: Mapping[str, str]) -> None:
        self._content = memoryview(content)
        super().__init__(headers=dict(headers) | {"content-length": str(len(content))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for start in range(0, len(self._content), SLICE_BYTES):
            message: Message = {
                "type": "http.response.body",
                "body": bytes(self._content[start : start + SLICE_BYTES]),
                "more_body": start + SLICE_BYTES < len(self._content),
            }
            await send(message)


def json_response(content: bytes | bytearray, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with status 200 and this JSON."""
    if len(content) <= SLICE_BYTES:
        return Response(bytes(content), headers=headers, media_type="application/json")
    return SlicedResponse(content, {"content-type": "application/json"} | dict(headers or {}))


def write_rows(begin: bytes, rows: Iterable[object], end: bytes) -> bytearray:
    """Return `begin`, a JSON list of the rows, and `end`.

    Rows are encoded one by one to save memory: a Python float has 24 bytes.
    """
    content = bytearray(begin + b"[")
    for number, row in enumerate(rows):
        content += b"," if number else b""
        content += encode_json(row)
    content += b"]" + end
    return content


def json_numbers(vector: FloatArray) -> Any:
    """Return a vector as a JSON list for `encode_json`; numbers have only the digits that a float32 needs."""
    return msgspec.Raw(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))


async def _run_here(work: Callable[[], T]) -> T:
    return work()


async def _or_client_disconnect(vectors: asyncio.Future[FloatArray], request: Request) -> FloatArray:
    """Wait for the vectors; if the client disconnects, remove its texts from the queue.

    Watching for a disconnect costs more than embedding a short text, so it starts after
    WATCH_DISCONNECT_AFTER_S.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    disconnect: asyncio.Future[Message] | None = None

    def listen() -> None:
        nonlocal disconnect
        disconnect = asyncio.ensure_future(request.receive())
        disconnect.add_done_callback(lambda _: vectors.cancel())

    timer = asyncio.get_running_loop().call_later(WATCH_DISCONNECT_AFTER_S, listen)
    try:
        return await vectors
    except asyncio.CancelledError:
        if disconnect is not None and disconnect.done() and not disconnect.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if disconnect is not None:
            disconnect.cancel()
