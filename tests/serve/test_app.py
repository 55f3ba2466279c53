"""The application from outside, without a network: what a request gets back."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from support.asgi import JSON, Answer, Waiting, ask, embed, post, send
from support.processes import left_by_twenty, until

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app
from ov_minilm.serve.app import application
from ov_minilm.serve.service import Service

V1 = "/v1/embeddings"
BODY = b'{"input": "a"}'
SITE = "https://app.example"


def test_request_ids_and_methods(app: ASGIApp) -> None:
    """A client's own id comes back if it is harmless; OPTIONS is answered for every URL, HEAD as GET."""
    for given, echoed in (("mine-1", True), ("a b", False), ("x" * 129, False), ("é", False)):
        answer = ask(app, "HEAD", "/v1/models", headers={"x-request-id": given})
        assert (200, echoed) == (answer.status, given == answer.headers["x-request-id"])
    for path, allow in ((V1, "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS")):
        answer = ask(app, "OPTIONS", path)
        assert (204, allow) == (answer.status, answer.headers["allow"])


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [("failure", 500, "internal_error"), ("hang up", 0, None), ("end of the server", 503, "draining")],
)
def test_a_request_that_waits_may_end(
    shipped: Embedder, caplog: pytest.LogCaptureFixture, how: str, status: int, code: str | None
) -> None:
    """A failure says nothing but in the log; who leaves gives up the place; who waits too long hears so."""
    service = Service(waiting := Waiting(shipped), Settings())
    service.ready, service.draining = True, how == "end of the server"
    app, leave = application(service), asyncio.Event()

    async def end() -> Answer:
        request = asyncio.ensure_future(send(app, "POST", V1, BODY, leave=leave))
        await waiting.count(1)
        if how == "failure":
            waiting.futures[0].set_exception(RuntimeError("secret path"))
        elif how == "hang up":
            leave.set()
        else:
            request.cancel()
        return await request

    answer = asyncio.run(end())

    assert status == answer.status
    assert code is None or code == answer.json["error"]["code"]
    assert (0, 0) == (service.admission.requests, service.admission.tokens)
    assert (how != "failure") == waiting.futures[0].cancelled() == service.ready
    assert b"secret" not in answer.body
    assert (how == "failure") == ("secret path" in caplog.text)
    dropped = 'te_request_failure_total{err="dropped"} 1.0'
    assert (how == "hang up") == (dropped in service.metrics.render().decode())
    if service.draining:  # it is alive but not ready, and every answer closes its connection
        assert (503, "1") == ((one := ask(app, "GET", "/readyz")).status, one.headers["retry-after"])
        assert (200, "close") == ((one := ask(app, "GET", "/livez")).status, one.headers["connection"])


def test_a_full_queue_refuses_at_once_and_recovers(shipped: Embedder) -> None:
    """The request over the bound hears 429 while the others wait; when they are done there is room again."""
    waiting = Waiting(shipped)
    app = create_app(waiting, Settings(max_concurrent_requests=2))

    async def crowd() -> list[Answer]:
        accepted = [asyncio.ensure_future(send(app, "POST", V1, BODY)) for _ in range(2)]
        await waiting.count(2)
        refused = [await send(app, "POST", path, BODY) for path in (V1, "/embed", "/api/embed")]
        for future in waiting.futures:
            future.set_result(shipped.encode(["a"]))
        answers = await asyncio.gather(*accepted)
        again = asyncio.ensure_future(send(app, "POST", V1, BODY))
        await waiting.count(3)
        waiting.futures[2].set_result(shipped.encode(["a"]))
        return [*refused, *answers, await again]

    answers = asyncio.run(crowd())

    assert [429, 429, 503, 200, 200, 200] == [answer.status for answer in answers]
    assert "rate_limit_exceeded" == answers[0].json["error"]["code"]
    assert 'te_request_failure_total{err="overloaded"} 3.0' in ask(app, "GET", "/metrics").body.decode()
    for one in answers[:3]:
        assert ("1", None) == (one.headers["retry-after"], one.headers.get("x-should-retry"))


@pytest.mark.parametrize("cosine", [1.0, 0.5])
def test_readiness_is_a_right_vector(shipped: Embedder, cosine: float) -> None:
    """Ready after an inference that matched the golden vector; a wrong one, or none, is a 503."""
    waiting = Waiting(shipped)
    waiting.cosine = cosine
    app = create_app(waiting)

    for path in ("/health", "/readyz", "/ping"):
        answer = ask(app, "GET", path)
        if cosine == 1.0:
            assert (200, {"status": "ready"}) == (answer.status, answer.json)
        else:
            assert (503, "wrong_vectors") == (answer.status, answer.json["error"]["code"])
            assert "cosine 0.5000" in answer.message
    assert 200 == ask(app, "GET", "/livez").status


@pytest.mark.parametrize("body", [BODY, b'{"input": 5}', b'{"input": "a", "dimensions": 500}', b"{"])
def test_a_request_leaves_no_cycles(app: ASGIApp, body: bytes) -> None:
    """Answered or refused, what it held is freed at once: no large body waits for a garbage collection."""
    assert left_by_twenty(lambda: send(app, "POST", V1, body)) < 20


def test_cross_origin_only_where_it_is_allowed(app: ASGIApp, shipped: Embedder) -> None:
    """Off by default; with an origin, its pages may ask and read errors, others may not."""
    asks = {
        "origin": SITE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "access-control-request-private-network": "true",  # from a public page to this network
    }
    opened = create_app(shipped, Settings(cors_origins=(SITE,), api_keys=("key",), warm_up=False))
    allow, private = "access-control-allow-origin", "access-control-allow-private-network"

    preflight = ask(opened, "OPTIONS", V1, headers=asks)
    other = ask(opened, "OPTIONS", V1, headers=asks | {"origin": "https://evil.example"})
    refused = embed(opened, {"input": "a"}, JSON | {"origin": SITE})

    assert allow not in ask(app, "OPTIONS", V1, headers=asks).headers
    assert (200, SITE, "true") == (preflight.status, preflight.headers[allow], preflight.headers[private])
    assert allow not in other.headers
    assert (401, SITE) == (refused.status, refused.headers[allow])
    exposed = refused.headers["access-control-expose-headers"]
    assert "x-request-id, x-truncated, x-model-fingerprint, server-timing" == exposed


@pytest.mark.parametrize("base", ["/embed", "/a/b"])
def test_it_can_be_a_part_of_another_application(shipped: Embedder, base: str) -> None:
    """Mounted under any path, everything is as at the root: keys, open pages, metrics and error shapes."""
    app = create_app(shipped, Settings(api_keys=("k",), warm_up=False))
    outer: ASGIApp = Starlette(routes=[Mount(base, app=app)])
    key = JSON | {"authorization": "Bearer k"}

    assert np.array_equal(shipped.encode(["a"]), post(outer, f"{base}{V1}", {"input": "a"}, key).vectors)
    assert "empty" == post(outer, f"{base}/embed", {"inputs": []}, key).json["error_type"]
    for page in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"):
        assert 200 == ask(outer, "GET", f"{base}{page}").status, page
    assert 401 == post(outer, f"{base}{V1}", {"input": "a"}).status
    assert "unknown_url" == ask(outer, "GET", f"{base}/nothing", b"", key).json["error"]["code"]
    metrics = ask(outer, "GET", f"{base}/metrics", b"", key).body.decode()
    for path, count in ((V1, 2.0), ("/embed", 1.0)):
        assert f'te_request_count_total{{method="{path}"}} {count}' in metrics


def test_the_model_is_compiled_before_or_beside_the_first_request(shipped: Embedder) -> None:
    """At startup; nobody tells a mounted application that the server started, so its first request does."""
    warmed: list[str] = []

    class Warm(Waiting):
        def warm_up(self) -> dict[str, float]:
            warmed.append(threading.current_thread().name)
            return {}

    asyncio.run(Service(shipped, Settings()).warm_up())
    assert set(shipped.info.grids) == set(shipped.info.compiled)  # no request waits for a compiler
    for settings in (Settings(warm_up=False), Settings()):
        assert [] == warmed
        app = Starlette(routes=[Mount("/x", app=create_app(Warm(shipped), settings))])
        assert [200] * 3 == [ask(app, "GET", "/x/livez").status for _ in range(3)]
    until(lambda: len(warmed) > 0)
    assert 1 == len(warmed)


URLS = """/v1/embeddings/ /v1/v1/embeddings //v1//embeddings /embeddings //embeddings
/openai/deployments/any/embeddings /openai/v1/embeddings"""
BASE = "set the base URL of the client to http://host:80"
BOTH = "OpenAI clients use the base URL http://host:80/v1, others http://host:80"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *((path, None) for path in URLS.split()),
        ("/v1/api/embed", f"for /api/embed {BASE}"),
        ("/embed/embed", f"for /embed {BASE}"),
        ("/api/v1/embeddings", f"for /v1/embeddings {BASE}/v1"),
        ("/v1/chat/completions", BOTH),
    ],
)
def test_urls_that_clients_make_are_answered(app: ASGIApp, path: str, said: str | None) -> None:
    """Slashes and prefixes, no /v1, and Azure's paths; a wrong one is 404 with the base URL to set."""
    answer = post(app, path, {"input": "a"}, JSON | {"host": "host:80"})

    assert (404 if said else 200) == answer.status
    assert said is None or said in answer.message
