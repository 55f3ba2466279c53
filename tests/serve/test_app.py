"""The application without a network: URLs, waiting requests, health, and use inside another application."""

import asyncio
import threading

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from support.asgi import JSON, Answer, SuppliedVectors, ask, post, send
from support.processes import objects_left_by_20, wait_until

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app
from ov_minilm.serve.app import application
from ov_minilm.serve.service import Service

OPENAI = "/v1/embeddings"
BODY = b'{"input": "a"}'
SITE = "https://app.example"


def test_request_ids_and_methods(app: ASGIApp) -> None:
    """A harmless request id of the client is returned; each URL answers OPTIONS, and HEAD like GET."""
    for given, returned in (("mine-1", True), ("a b", False), ("x" * 129, False), ("é", False)):
        answer = ask(app, "HEAD", "/v1/models", headers={"x-request-id": given})
        assert (200, returned) == (answer.status, given == answer.headers["x-request-id"])
    for path, allow in ((OPENAI, "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS")):
        answer = ask(app, "OPTIONS", path)
        assert (204, allow) == (answer.status, answer.headers["allow"])


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [("failure", 500, "internal_error"), ("disconnect", 0, None), ("shutdown", 503, "draining")],
)
def test_the_end_of_a_waiting_request(
    shipped: Embedder, caplog: pytest.LogCaptureFixture, event: str, status: int, code: str | None
) -> None:
    """Only the log describes a failure; a failed, cancelled or abandoned request leaves the queue."""
    service = Service(waiting := SuppliedVectors(shipped), Settings())
    service.ready, service.draining = True, event == "shutdown"
    app, disconnected = application(service), asyncio.Event()

    async def scenario() -> Answer:
        request = asyncio.ensure_future(send(app, "POST", OPENAI, BODY, disconnected=disconnected))
        await waiting.until_called(1)
        if event == "failure":
            waiting.futures[0].set_exception(RuntimeError("secret path"))
        elif event == "disconnect":
            disconnected.set()
        else:
            request.cancel()
        return await request

    answer = asyncio.run(scenario())

    assert status == answer.status
    assert code is None or code == answer.json["error"]["code"]
    assert (0, 0) == (service.admission.requests, service.admission.tokens)
    assert (event != "failure") == waiting.futures[0].cancelled() == service.ready
    assert b"secret" not in answer.body
    assert (event == "failure") == ("secret path" in caplog.text)
    dropped = 'te_request_failure_total{err="dropped"} 1.0'
    assert (event == "disconnect") == (dropped in service.metrics.render().decode())
    if event == "shutdown":
        ready, alive = ask(app, "GET", "/readyz"), ask(app, "GET", "/livez")
        assert (503, "1") == (ready.status, ready.headers["retry-after"])
        assert (200, "close") == (alive.status, alive.headers["connection"])


def test_a_full_queue(shipped: Embedder) -> None:
    """Requests over the limit are refused at once, and accepted again after an answer to another request."""
    waiting = SuppliedVectors(shipped)
    app = create_app(waiting, Settings(max_concurrent_requests=2))

    async def scenario() -> list[Answer]:
        accepted = [asyncio.ensure_future(send(app, "POST", OPENAI, BODY)) for _ in range(2)]
        await waiting.until_called(2)
        refused = [await send(app, "POST", path, BODY) for path in (OPENAI, "/embed", "/api/embed")]
        for future in waiting.futures:
            future.set_result(shipped.encode(["a"]))
        answers = await asyncio.gather(*accepted)
        next_request = asyncio.ensure_future(send(app, "POST", OPENAI, BODY))
        await waiting.until_called(3)
        waiting.futures[2].set_result(shipped.encode(["a"]))
        return [*refused, *answers, await next_request]

    answers = asyncio.run(scenario())

    assert [429, 429, 503, 200, 200, 200] == [answer.status for answer in answers]
    assert "rate_limit_exceeded" == answers[0].json["error"]["code"]
    assert 'te_request_failure_total{err="overloaded"} 3.0' in ask(app, "GET", "/metrics").body.decode()
    for refused in answers[:3]:
        assert ("1", None) == (refused.headers["retry-after"], refused.headers.get("x-should-retry"))


@pytest.mark.parametrize(("cosine", "status", "word"), [(1.0, 200, "ready"), (0.5, 503, "wrong_vectors")])
def test_readiness(shipped: Embedder, cosine: float, status: int, word: str) -> None:
    """/readyz is 200 if an inference gives the golden vector, and 503 if its vector is wrong."""
    waiting = SuppliedVectors(shipped)
    waiting.cosine = cosine
    app = create_app(waiting)

    for path in ("/health", "/readyz", "/ping"):
        answer = ask(app, "GET", path)
        assert (status, True) == (answer.status, f'"{word}"' in answer.body.decode())
    assert 200 == ask(app, "GET", "/livez").status


@pytest.mark.parametrize("body", [BODY, b'{"input": 5}', b'{"input": "a", "dimensions": 500}', b"{"])
def test_no_reference_cycles(app: ASGIApp, body: bytes) -> None:
    """An answered or refused request frees its memory at once, without a garbage collection."""
    assert objects_left_by_20(lambda: send(app, "POST", OPENAI, body)) < 20


def test_cross_origin_requests(app: ASGIApp, shipped: Embedder) -> None:
    """CORS is off by default; only pages of an allowed site may send requests and read errors."""
    app_with_cors = create_app(shipped, Settings(cors_origins=(SITE,), api_keys=("key",), warm_up=False))
    names = ("allow-origin", "allow-private-network", "expose-headers")
    preflight = {"origin": SITE, "access-control-request-method": "POST"}
    preflight |= {"access-control-request-headers": "authorization,content-type"}
    # Private Network Access: a public page asks to send requests to this network
    preflight |= {"access-control-request-private-network": "true"}
    foreign_origin = {"origin": "https://evil.example"}
    exposed = "x-request-id, x-truncated, x-model-fingerprint, server-timing"
    for server, method, headers, expected in (
        (app, "OPTIONS", preflight, (204, None, None, None)),
        (app_with_cors, "OPTIONS", preflight, (200, SITE, "true", None)),
        (app_with_cors, "OPTIONS", preflight | foreign_origin, (400, None, "true", None)),
        (app_with_cors, "POST", JSON | {"origin": SITE}, (401, SITE, None, exposed)),
    ):
        answer = ask(server, method, OPENAI, BODY, headers)
        actual = (answer.headers.get(f"access-control-{name}") for name in names)
        assert expected == (answer.status, *actual), headers


@pytest.mark.parametrize("base", ["/embed", "/a/b"])
def test_mounted_in_another_application(shipped: Embedder, base: str) -> None:
    """Vectors, keys, public pages, metrics and errors do not depend on the path of the application."""
    app = create_app(shipped, Settings(api_keys=("k",), warm_up=False))
    outer: ASGIApp = Starlette(routes=[Mount(base, app=app)])
    key = JSON | {"authorization": "Bearer k"}

    assert np.array_equal(shipped.encode(["a"]), post(outer, f"{base}{OPENAI}", {"input": "a"}, key).vectors)
    assert "empty" == post(outer, f"{base}/embed", {"inputs": []}, key).json["error_type"]
    for page in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"):
        assert 200 == ask(outer, "GET", f"{base}{page}").status, page
    assert 401 == post(outer, f"{base}{OPENAI}", {"input": "a"}).status
    assert "unknown_url" == ask(outer, "GET", f"{base}/nothing", b"", key).json["error"]["code"]
    metrics = ask(outer, "GET", f"{base}/metrics", b"", key).body.decode()
    for path, count in ((OPENAI, 2.0), ("/embed", 1.0)):
        assert f'te_request_count_total{{method="{path}"}} {count}' in metrics


def test_warm_up(shipped: Embedder) -> None:
    """All shapes are compiled at startup; a mounted application compiles them with its first request."""
    warmed: list[str] = []

    class WarmUpRecorder(SuppliedVectors):
        def warm_up(self) -> dict[str, float]:
            warmed.append(threading.current_thread().name)
            return {}

    asyncio.run(Service(shipped, Settings()).warm_up())
    assert set(shipped.info.grids) == set(shipped.info.compiled)
    for settings in (Settings(warm_up=False), Settings()):
        assert [] == warmed
        app = Starlette(routes=[Mount("/x", app=create_app(WarmUpRecorder(shipped), settings))])
        assert [200] * 3 == [ask(app, "GET", "/x/livez").status for _ in range(3)]
    wait_until(lambda: len(warmed) > 0)
    assert 1 == len(warmed)


ACCEPTED_URLS = """/v1/embeddings/ /v1/v1/embeddings //v1//embeddings /embeddings //embeddings
/openai/deployments/any/embeddings /openai/deployments/a%2Fb/embeddings /openai/v1/embeddings
/v1/engines/any/embeddings"""
SET_BASE = "set the base URL of the client to http://host:80"


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        *((path, None) for path in ACCEPTED_URLS.split()),
        ("/v1/api/embed", f"for /api/embed {SET_BASE}"),
        ("/embed/embed", f"for /embed {SET_BASE}"),
        ("/api/v1/embeddings", f"for /v1/embeddings {SET_BASE}/v1"),
        ("/v1/chat/completions", "OpenAI clients use the base URL http://host:80/v1, others http://host:80"),
    ],
)
def test_urls_of_clients(app: ASGIApp, path: str, advice: str | None) -> None:
    """Doubled slashes, a missing /v1 and Azure's paths are accepted; a 404 names the base URL to set."""
    answer = post(app, path, {"input": "a"}, JSON | {"host": "host:80"})

    assert (404 if advice else 200) == answer.status
    assert advice is None or advice in answer.message
