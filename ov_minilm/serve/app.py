"""The ASGI application: routes, and what happens to a request from its first byte to its answer."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ov_minilm.errors import SelfCheckFailed, TextTooLong
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.serve import openapi, wire
from ov_minilm.serve.access import AccessLog, Outcome
from ov_minilm.serve.limits import Admission, Keys, read_body
from ov_minilm.serve.metrics import CONTENT_TYPE, Metrics
from ov_minilm.serve.settings import Settings, Truncate
from ov_minilm.serve.token_ids import TokenIdReader
from ov_minilm.serve.wire import ApiError
from ov_minilm.spec import FloatArray

if TYPE_CHECKING:
    from ov_minilm.serve.tracing import Tracing

T = TypeVar("T")

# What the event loop does itself, a millisecond at most; more is done in a thread.
READ_HERE = 262_144  # bytes of a body to parse
TOKENIZE_HERE = 4096  # bytes of a body to tokenize
ANSWER_HERE = 32  # vectors to write
PATIENCE = 0.25  # seconds before a client that waits is watched
OPEN = {"/", "/docs", "/openapi.json"}  # say nothing about texts or traffic: no key needed
EMBEDDINGS = "/v1/embeddings"
COUNTED = {EMBEDDINGS, "/tokenize"}
HEALTH = {"/health", "/livez", "/readyz"}
PAGE_HEADERS = {  # our pages load nothing from elsewhere, and nobody frames them
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log = logging.getLogger("ov_minilm.serve")


class Service:
    """The handlers, around one embedder."""

    def __init__(self, embedder: Embedder, settings: Settings) -> None:
        self.settings = settings
        self.admission = Admission(settings.max_concurrent_requests, settings.max_queue_seconds)
        self.metrics = Metrics(self.admission, embedder)
        self.ready = False  # an inference gave the right vector
        self.draining = False  # told to end: answers what has come, and no more
        self._embedder = embedder
        self._ids = TokenIdReader(
            settings.token_ids, embedder.tokenize(["hello world"]).windows[0][0].tolist()
        )
        self._dim = embedder.encode([]).shape[1]
        self._keys = Keys(settings.api_keys)
        self._started = int(time.time())
        info = embedder.info
        self.names = settings.served_model_names or (info.model.rpartition("/")[2], info.model)
        self._fingerprint = info.fingerprint

    def routes(self) -> list[Route]:
        """Return every URL there is."""
        return [
            Route(EMBEDDINGS, self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/health", self.readiness),
            Route("/readyz", self.readiness),
            Route("/livez", self.liveness),
            Route("/metrics", self.figures),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
            Route("/", self.page),
        ]

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        outcome: Outcome = request.scope["outcome"]
        with self.admission.request():
            body = await read_body(request, self.settings.payload_limit)
            came = time.perf_counter()
            asked, items = await _here_or_aside(len(body) < READ_HERE, lambda: self._read(body))
            self.admission.lane(len(items)).check()  # before the work of tokenizing
            truncate = self._truncate(asked, request.headers.get("x-truncate"))
            tokenized = await _here_or_aside(
                len(body) < TOKENIZE_HERE, lambda: self._tokenize(items, asked.model, truncate)
            )
            outcome.texts, outcome.truncated = len(items), len(tokenized.truncated)
            outcome.tokens = tokens = sum(tokenized.tokens)
            queued = time.perf_counter()
            await asyncio.sleep(0)  # all that came in the same turn of the loop are submitted together
            with self.admission.lane(sum(map(len, tokenized.windows))).queued(tokens):
                began: list[float] = []
                vectors = await _unless_gone(
                    self._embedder.asubmit(tokenized, started=lambda: began.append(time.perf_counter())),
                    request,
                )
            embedded = time.perf_counter()
            answer = await _here_or_aside(
                len(vectors) <= ANSWER_HERE, lambda: self._answer(asked, vectors, tokens)
            )
        outcome.phases = {
            "tokenize": (came, queued),
            "queue": (queued, began[0]),
            "inference": (began[0], embedded),
        }
        self.metrics.embedded(outcome)
        headers = {
            "x-truncated": str(outcome.truncated),
            "x-model-fingerprint": self._fingerprint,
            "server-timing": ", ".join(
                f"{name};dur={1000 * (ended - begun):.2f}" for name, (begun, ended) in outcome.phases.items()
            ),
        }
        return Response(answer, media_type="application/json", headers=headers)

    def _read(self, body: bytes) -> tuple[wire.EmbeddingRequest, list[str] | list[list[int]]]:
        """Parse a request and return its texts, or its lists of token ids."""
        asked = wire.read_embedding_request(body)
        self._check_model(asked.model)
        if asked.dimensions is not None and asked.dimensions > self._dim:
            message = f"dimensions is {asked.dimensions}, this model has {self._dim}"
            raise ApiError(400, message, param="dimensions")
        return asked, wire.items(asked.input, self.settings.max_client_batch_size)

    def _truncate(self, asked: wire.EmbeddingRequest, header: str | None) -> Truncate:
        if header not in (None, *get_args(Truncate)):
            raise ApiError(400, f"x-truncate is {header!r}; choose end, error or mean", param="x-truncate")
        return asked.truncate or cast("Truncate | None", header) or self.settings.truncate

    def _tokenize(
        self, found: list[str] | list[list[int]], model: str | None, truncate: Truncate
    ) -> Tokenized:
        if isinstance(found[0], list):
            found = self._ids.read(found, model)
        try:
            return self._embedder.tokenize(found, truncate=truncate)
        except ValueError as error:  # an id that the vocabulary does not have
            raise ApiError(400, str(error), param="input") from error
        except TextTooLong as error:
            raise ApiError(
                400,
                f"input[{error.index}] has {error.tokens} tokens, the model reads {error.limit}; shorten it, "
                'or send "truncate": "end" to cut it or "mean" to average its windows',
                param="input",
                code="context_length_exceeded",
            ) from error

    def _answer(self, asked: wire.EmbeddingRequest, vectors: FloatArray, tokens: int) -> bytes:
        if asked.dimensions is not None:
            vectors = shrink(vectors, asked.dimensions)
        model = asked.model if asked.model in self.names else self.names[0]
        return wire.embedding_response(vectors, asked.encoding_format, model, tokens)

    def _check_model(self, name: str | None) -> None:
        if self.settings.strict_model and name not in self.names:
            said = "no model was named" if name is None else f"the model {name!r:.200} does not exist"
            raise ApiError(
                404, f"{said}; this server has {', '.join(self.names)}", param="model", code="model_not_found"
            )

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        with self.admission.request():
            body = await read_body(request, self.settings.payload_limit)
            answer = await _here_or_aside(len(body) < TOKENIZE_HERE, lambda: self._tokens(body))
        return Response(answer, media_type="application/json")

    def _tokens(self, body: bytes) -> bytes:
        texts = wire.items(wire.read_tokenize_request(body).input, self.settings.max_client_batch_size)
        tokenized = self._embedder.tokenize(texts, truncate="mean")
        data = [
            wire.Tokens(index, [ids.tolist() for ids in windows], len(windows) > 1)
            for index, windows in enumerate(tokenized.windows)
        ]
        tokens = sum(tokenized.tokens)
        return wire.encode(wire.TokenizeResponse("list", data, self.names[0], wire.Usage(tokens, tokens)))

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        models = [self._model(name) for name in self.names]
        return Response(wire.encode(wire.ModelList("list", models)), media_type="application/json")

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}; ids may hold slashes."""
        name = request.path_params["name"]
        if name not in self.names:
            raise ApiError(
                404,
                f"the model {name!r:.200} does not exist; this server has {', '.join(self.names)}",
                param="model",
                code="model_not_found",
            )
        return Response(wire.encode(self._model(name)), media_type="application/json")

    def _model(self, name: str) -> wire.Model:
        return wire.Model(name, self._started, "ov_minilm")

    async def liveness(self, _: Request) -> Response:
        """GET /livez: the process answers."""
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def readiness(self, _: Request) -> Response:
        """GET /health and /readyz: right vectors come out, and it is not about to end."""
        if self.draining:
            raise ApiError(503, "this server is about to end", code="draining")
        if not self.ready:
            await self.check()
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def check(self) -> None:
        """Run a real inference and compare it with the golden vector; ApiError 503 if it is another."""
        try:
            await asyncio.to_thread(self._embedder.self_check)
        except SelfCheckFailed as error:
            raise ApiError(503, str(error), code="wrong_vectors") from error
        self.ready = True

    async def warm_up(self) -> None:
        """Have everything compiled."""
        await asyncio.to_thread(self._embedder.warm_up)

    async def figures(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json: made from the types that read and write."""
        return Response(
            openapi.document(self.settings.max_client_batch_size, self._dim), media_type="application/json"
        )

    async def docs(self, _: Request) -> Response:
        """GET /docs."""
        return Response(_file("docs.html"), media_type="text/html", headers=PAGE_HEADERS)

    async def page(self, _: Request) -> Response:
        """GET /: a playground."""
        return Response(_file("page.html"), media_type="text/html", headers=PAGE_HEADERS)

    def check_key(self, path: str, authorization: str | None) -> None:
        """Refuse a request that needs a key and has none. ApiError 401."""
        if path in OPEN or (path in HEALTH and not self.settings.protect_health):
            return
        self._keys.check(authorization)


class Application:
    """The edge of the server: request id, key, errors in one shape, metrics and the access log."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tracing: Tracing | None = None
        if service.settings.otlp_endpoint:
            from ov_minilm.serve.tracing import Tracing  # an extra of its own

            self._tracing = Tracing(service.settings.otlp_endpoint)
        self._router = Router(service.routes(), redirect_slashes=False, lifespan=self._lifespan)
        self._access = AccessLog(service.settings.access_log)
        self._run = uuid4().hex  # request ids: unique to this run, and numbered
        self._numbers = count(1)

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        await self._service.check()
        if self._service.settings.warm_up:
            await self._service.warm_up()
        yield
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a websocket is refused by the server when nothing answers it."""
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode("latin-1")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._run}-{next(self._numbers):x}"
        outcome = scope["outcome"] = Outcome()
        scope["app"] = self
        status = 499

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode("ascii")))
                if self._service.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            key = headers.get(b"authorization")
            self._service.check_key(scope["path"], None if key is None else key.decode("latin-1"))
            if scope["path"] == EMBEDDINGS and scope["method"] == "POST" and not scope.get("root_path"):
                # Past the router, which takes 7 microseconds.
                response = await self._service.embeddings(Request(scope, receive))
                await response(scope, receive, named)
            else:
                await self._router(scope, receive, named)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the time to end is over
            if not self._service.draining:
                raise
            late = ApiError(503, "this server ended before the answer came; ask again", code="draining")
            await _refuse(late)(scope, receive, named)
        except Exception as error:
            await self._answer_error(error, scope, receive, named)
        seconds = time.perf_counter() - started
        if scope["path"] in COUNTED:
            self._service.metrics.count(scope["path"], status, seconds)
        self._access.write(scope, status, seconds, request_id, outcome)
        if self._tracing is not None:
            self._tracing.write(scope, started, status, request_id, outcome)

    async def _answer_error(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error.

        Not where it is caught: under a second name there, it and its traceback would hold each other, and the
        request's body, until the next garbage collection.
        """
        refused = _as_api_error(error, scope)
        if refused.status == 500:
            self._service.ready = False  # until an inference is right again
        await _refuse(refused)(scope, receive, send)


def create_app(embedder: Embedder, settings: Settings | None = None) -> ASGIApp:
    """Return the server as an ASGI application, for any ASGI server or to mount in another application.

    The embedder stays the caller's: close it after the server ended.
    """
    return application(Service(embedder, settings or Settings()))


def application(service: Service) -> ASGIApp:
    """Return the application around a service whose state the caller wants to see."""
    app: ASGIApp = Application(service)
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-truncated", "x-model-fingerprint", "server-timing"],
        )
    return app


def _as_api_error(error: Exception, scope: Scope) -> ApiError:
    """Return the error as the client hears it; what is nobody's fault but ours is logged with its trace."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 404:
        message = f"there is no {scope['path']!r:.200} here; the base URL of OpenAI's clients ends in /v1"
        return ApiError(404, message, code="unknown_url")
    if isinstance(error, HTTPException) and error.status_code == 405:
        message = f"{scope['method']} is not for {scope['path']}"
        return ApiError(405, message, code="method_not_allowed", headers=error.headers)
    log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed; its log says why", code="internal_error")


def _refuse(error: ApiError) -> Response:
    return Response(error.body(), error.status, error.headers, "application/json")


async def _here_or_aside(small: bool, work: Callable[[], T]) -> T:
    """Do small work in the event loop, and what would hold it up in a thread."""
    return work() if small else await asyncio.to_thread(work)


async def _unless_gone(found: asyncio.Future[FloatArray], request: Request) -> FloatArray:
    """Wait for the vectors; a client that leaves takes its texts out of the queue.

    Listening for that costs more than embedding a short text, so it begins when the answer takes long.
    """
    leaving: asyncio.Future[Message] | None = None

    def listen() -> None:
        nonlocal leaving
        leaving = asyncio.ensure_future(request.receive())
        leaving.add_done_callback(lambda _: found.cancel())

    timer = asyncio.get_running_loop().call_later(PATIENCE, listen)
    try:
        return await found
    except asyncio.CancelledError:
        if leaving is not None and leaving.done() and not leaving.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if leaving is not None:
            leaving.cancel()


def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
