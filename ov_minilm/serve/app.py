"""The ASGI application: routes, API keys, error responses, metrics and the access log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.serve import ollama, openai, openapi, tei
from ov_minilm.serve.access import AccessLog, Outcome, request_context
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.metrics import CONTENT_TYPE
from ov_minilm.serve.service import Handlers, Service, json_response
from ov_minilm.serve.settings import Settings

if TYPE_CHECKING:
    from ov_minilm.serve.tracing import Tracing

# URLs that need no key, because they reveal nothing about texts or traffic.
PUBLIC_PATHS = {"/": "GET", "/docs": "GET", "/openapi.json": "GET"}
METERED_PATHS = {
    *("/v1/embeddings", "/tokenize"),
    *("/embed", "/", "/invocations", "/similarity", "/decode"),
    *("/api/embed", "/api/embeddings"),
}
HEALTH_PATHS = {"/health", "/livez", "/readyz", "/ping"}
PAGE_HEADERS = {  # the pages of this server load nothing from other sites, and no other site may frame them
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
ErrorWriter = Callable[[ApiError], tuple[int, bytes]]

log = logging.getLogger("ov_minilm.serve")


class Application:
    """Handles every request: URL, request id, API key, errors, metrics and the access log."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tracing: Tracing | None = None
        if service.settings.otlp_endpoint:
            from ov_minilm.serve.tracing import Tracing  # tracing needs its own extra

            self._tracing = Tracing(service.settings.otlp_endpoint)
        openai_api = openai.OpenAI(service)
        tei_routes, ollama_routes = tei.Tei(service, openai_api).routes(), ollama.Ollama(service).routes()
        pages: dict[str, Handlers] = {
            "/health": {"GET": self._readiness},
            "/readyz": {"GET": self._readiness},
            "/ping": {"GET": self._readiness},
            "/livez": {"GET": self._liveness},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
            "/docs": {"GET": self._docs},
        }
        self._routes = {**openai_api.routes(), **tei_routes, **ollama_routes, **pages}
        self._routes["/"] = {"GET": self._page, **tei_routes["/"]}
        self._model_routes: Handlers = {"GET": openai_api.model}
        # the fields of the body of /tokenize show which API it belongs to
        self._tei_paths = tei_routes.keys() - {"/tokenize"}
        self._access = AccessLog(service.settings.access_log)
        self._id_prefix = uuid4().hex  # request ids are this prefix and a number
        self._request_numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Websockets get no response; the ASGI server then refuses them."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if not self._service.prepared:
                self._service.warm_up_in_background()
            await self._respond(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._service.check()
            await self._service.warm_up()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode("latin-1")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._id_prefix}-{next(self._request_numbers):x}"
        request_context.set((request_id, headers.get(b"traceparent", b"").decode("latin-1")))
        outcome = scope["outcome"] = Outcome()
        path = canonical_path(_within_mount(scope))
        scope["error_response"] = self._error_writer(path, scope["method"])
        status = 499

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode("ascii")))
                if self._service.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            self._check_key(path, scope["method"], headers)
            request = Request(scope, receive)
            response = await self._handler(path, scope)(request)
            await response(scope, receive, send_with_id)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the shutdown timed out and cancelled this request
            if not self._service.draining:
                raise
            timed_out = ApiError("draining", "the server shut down before the response was ready; try again")
            await _refuse(timed_out, scope)(scope, receive, send_with_id)
        except Exception as error:
            await self._respond_with_error(error, scope, receive, send_with_id)
        seconds = time.perf_counter() - started
        if path in METERED_PATHS and (path, scope["method"]) not in PUBLIC_PATHS.items():
            self._service.metrics.count(path, status, seconds, outcome.refused)
        self._access.write(scope, status, seconds, request_id, outcome)
        if self._tracing is not None:
            self._tracing.write(scope, started, status, request_id, outcome)

    async def _respond_with_error(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error.

        A separate method, so that no local variable keeps the exception: exception -> traceback -> frame ->
        exception would be a cycle that holds the request's body until the next garbage collection.
        """
        if isinstance(error, ApiError):
            refused = error
        else:
            log.error("a request failed", exc_info=error)
            self._service.ready = False  # not ready until a check gives the right vector again
            refused = ApiError("failed", "internal error; the server's log has the details")
        scope["outcome"].refused = refused.status
        await _refuse(refused, scope)(scope, receive, send)

    def _handler(self, path: str, scope: Scope) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of this URL and method. ApiError 404, 405."""
        handlers = self._routes.get(path)
        if handlers is None and path.startswith("/v1/models/"):
            scope["path_params"] = {"name": path.removeprefix("/v1/models/")}
            handlers = self._model_routes
        if handlers is None:
            raise ApiError("no_such_url", self._advice(path, scope))
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in handlers:
            allow = ", ".join([*handlers, *(["HEAD"] if "GET" in handlers else []), "OPTIONS"])
            if method == "OPTIONS":
                return partial(_options, allow)
            message = f"{path} does not accept {scope['method']}; send {allow}"
            raise ApiError("bad_method", message, headers={"allow": allow})
        return handlers[method]

    def _advice(self, path: str, scope: Scope) -> str:
        """Return the message for a URL that does not exist; it names the URL that was probably meant."""
        host = dict(scope["headers"]).get(b"host", b"HOST:PORT").decode("latin-1")
        base = f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}"
        problem = f"{scope['path']!r:.200} does not exist on this server"
        known_route = max(
            (route for route in self._routes if route != "/" and path.endswith(route)), key=len, default=None
        )
        if known_route is None:
            return f"{problem}; OpenAI clients use the base URL {base}/v1, others {base}; see {base}/docs"
        prefix = "/v1" if known_route.startswith("/v1") else ""
        return f"{problem}; for {known_route} set the base URL of the client to {base}{prefix}"

    def _error_writer(self, path: str, method: str) -> ErrorWriter:
        """Return the function that writes errors in the form of this URL's API."""
        if path.startswith("/api/"):
            return ollama.error_response
        if path in self._tei_paths and (path, method) not in PUBLIC_PATHS.items():
            return tei.error_response
        return openai.error_response

    def _check_key(self, path: str, method: str, headers: dict[bytes, bytes]) -> None:
        """Raise ApiError 401 if the request needs a key and has no valid one."""
        if PUBLIC_PATHS.get(path) == ("GET" if method == "HEAD" else method):
            return
        if path in HEALTH_PATHS and not self._service.settings.protect_health:
            return
        given = (headers.get(name) for name in (b"authorization", b"api-key"))
        self._service.keys.check(*(None if key is None else key.decode("latin-1") for key in given))

    async def _liveness(self, _: Request) -> Response:
        """GET /livez: 200 while the process runs."""
        return json_response(b'{"status":"alive"}')

    async def _readiness(self, _: Request) -> Response:
        """GET /health, /readyz and /ping: 200 if the model gives right vectors and no shutdown has begun."""
        if self._service.draining:
            raise ApiError("draining", "this server is shutting down")
        if not self._service.ready:
            await self._service.check()
        if not self._service.all_ready():
            raise ApiError("starting", "a worker of this server is not ready yet; try again")
        return json_response(b'{"status":"ready"}')

    async def _metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self._service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def _openapi(self, _: Request) -> Response:
        """GET /openapi.json: generated from the request and response types."""
        max_texts, spec = self._service.settings.max_client_batch_size, self._service.spec
        return json_response(openapi.document(max_texts, spec.dim, spec.vocab_size))

    async def _docs(self, _: Request) -> Response:
        """GET /docs."""
        return Response(_file("docs.html"), media_type="text/html", headers=PAGE_HEADERS)

    async def _page(self, _: Request) -> Response:
        """GET /: the playground."""
        return Response(_file("page.html"), media_type="text/html", headers=PAGE_HEADERS)


def create_app(embedder: Embedder, settings: Settings | None = None) -> ASGIApp:
    """Return the server as an ASGI application, for any ASGI server or to mount in another application.

    A mounted application gets no startup event, so it compiles the model while it answers its first
    requests. The caller closes the embedder after the server has stopped.

    Args:
        embedder: makes the vectors.
        settings: limits, keys and names; None: the defaults.

    Example:
        embedder = Embedder.open()
        app = create_app(embedder, Settings(api_keys=("secret",)))  # uvicorn module:app
    """
    return application(Service(embedder, settings or Settings()))


def application(service: Service) -> ASGIApp:
    """Return the ASGI application for a service, with CORS if its settings allow origins."""
    app: ASGIApp = Application(service)
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            allow_private_network=True,  # browsers ask before a public site may reach a private address
            expose_headers=["x-request-id", "x-truncated", "x-model-fingerprint", "server-timing"],
        )
    return app


def canonical_path(path: str) -> str:
    """Return the path in the form of the routes: no doubled slashes, no model prefix, at most one /v1."""
    names = [name for name in path.split("/") if name]
    if names[:2] in (["openai", "deployments"], ["v1", "engines"]):  # /openai/deployments/{name}/embeddings
        names = ["v1", *names[3:][-1:]]  # the name may have slashes
    elif names[:1] == ["openai"]:
        names = names[1:]
    while names[:2] == ["v1", "v1"]:
        names = names[1:]
    if names[:1] == ["embeddings"]:  # a base URL without /v1
        names = ["v1", *names]
    return "/" + "/".join(names)


def _within_mount(scope: Scope) -> str:
    """Return the path relative to where this application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path


def _refuse(error: ApiError, scope: Scope) -> Response:
    status, body = scope["error_response"](error)
    return Response(body, status, error.headers, "application/json")


async def _options(allow: str, _: Request) -> Response:
    return Response(status_code=204, headers={"allow": allow})


def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
