"""The application from outside, without a network: what a request gets back."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from support.asgi import JSON, Answer, Waiting, ask, embed, send
from support.processes import left_by_twenty, until

from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.serve import Settings, create_app
from ov_minilm.serve.app import application
from ov_minilm.serve.service import Service
from ov_minilm.spec import Grid

pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")  # answers count instead

BODY = b'{"input": "a"}'
LONG = "word " * 300


@pytest.fixture(scope="module")
def app(shipped: Embedder) -> ASGIApp:
    """An application with default settings."""
    return create_app(shipped)


def test_vectors_are_those_of_encode(app: ASGIApp, shipped: Embedder) -> None:
    """In the order of the input, bit for bit, as numbers and as base64; usage counts tokens."""
    texts = ["b", "a", "", "naïve café"]

    numbers = embed(app, {"input": texts})
    packed = embed(app, {"input": texts, "encoding_format": "base64"})

    expected = shipped.encode(texts)
    assert np.array_equal(expected, numbers.vectors)
    assert np.array_equal(expected, packed.vectors)
    assert sum(shipped.count_tokens(texts)) == numbers.json["usage"]["total_tokens"]
    assert ("0", shipped.info.fingerprint) == (
        numbers.headers["x-truncated"],
        numbers.headers["x-model-fingerprint"],
    )


@pytest.mark.parametrize("form", ["float", "base64"])
def test_large_requests_leave_the_event_loop(app: ASGIApp, shipped: Embedder, form: str) -> None:
    """2,048 texts are read and answered in a thread; the vectors are the same."""
    texts = [f"text number {i} of many" for i in range(2048)]

    answer = embed(app, {"input": texts, "encoding_format": form})

    assert np.array_equal(shipped.encode(texts), answer.vectors)


def test_dimensions_are_the_first_ones_of_unit_length(app: ASGIApp, shipped: Embedder) -> None:
    """As OpenAI shortens vectors; more than there are is refused."""
    answer = embed(app, {"input": "a", "dimensions": 8})
    refused = embed(app, {"input": "a", "dimensions": 385})

    assert np.array_equal(shrink(shipped.encode("a"), 8), answer.vectors[0])
    assert (400, "dimensions") == (refused.status, refused.json["error"]["param"])
    assert "dimensions is 385; send 1 to 384" == refused.json["error"]["message"]


def test_native_ids_give_the_vectors_of_their_text(app: ASGIApp, shipped: Embedder) -> None:
    """What /tokenize says can be sent back, as one text or as a list of them."""
    texts = ["hello world", LONG]
    tokens = ask(app, "POST", "/tokenize", {"input": texts}).json

    ids = [one["windows"] for one in tokens["data"]]
    assert [1, 2] == list(map(len, ids))
    assert [False, True] == [one["truncated"] for one in tokens["data"]]
    assert sum(map(len, (*ids[0], *ids[1]))) == tokens["usage"]["total_tokens"]
    assert np.array_equal(shipped.encode(texts), embed(app, {"input": [one[0] for one in ids]}).vectors)
    assert np.array_equal(shipped.encode(texts[:1]), embed(app, {"input": ids[0][0]}).vectors)


@pytest.mark.parametrize(
    ("settings", "field", "header", "expected"),
    [
        (Settings(), None, None, "end"),
        (Settings(truncate="mean"), None, None, "mean"),
        (Settings(truncate="error"), None, "mean", "mean"),
        (Settings(truncate="error"), "end", "mean", "end"),
    ],
)
def test_long_texts(
    shipped: Embedder, settings: Settings, field: str | None, header: str | None, expected: Any
) -> None:
    """Cut or averaged: as the field says, else the header, else the server; what was cut is counted."""
    headers = JSON | ({"x-truncate": header} if header else {})

    answer = embed(create_app(shipped, settings), {"input": ["a", LONG], "truncate": field}, headers)

    assert np.array_equal(shipped.encode(["a", LONG], truncate=expected), answer.vectors)
    assert ("1" if expected == "end" else "0") == answer.headers["x-truncated"]
    assert 3 + (256 if expected == "end" else 304) == answer.json["usage"]["total_tokens"]


def test_long_texts_are_refused_if_they_shall_be(app: ASGIApp) -> None:
    """400 with the index, both numbers, and the way out; a header that says nothing known is refused too."""
    answer = embed(app, {"input": ["a", LONG], "truncate": "error"})
    unknown = embed(app, {"input": "a"}, JSON | {"x-truncate": "NONE"})

    error = answer.json["error"]
    assert (400, "input", "context_length_exceeded") == (answer.status, error["param"], error["code"])
    assert "input[1] has 302 tokens, the model reads 256" in error["message"]
    assert (400, "x-truncate") == (unknown.status, unknown.json["error"]["param"])


def test_models_have_the_names_that_were_given(shipped: Embedder) -> None:
    """Listed and described, slashes and all; answers say the name that was asked for, or the first."""
    app = create_app(shipped, Settings(served_model_names=("mine", "team/ours")))

    listed = ask(app, "GET", "/v1/models").json

    assert ["mine", "team/ours"] == [model["id"] for model in listed["data"]]
    assert listed["data"][1] == ask(app, "GET", "/v1/models/team/ours").json
    for asked, said in (("mine", "mine"), ("team/ours", "team/ours"), ("text-embedding-3-small", "mine")):
        assert said == embed(app, {"input": "a", "model": asked}).json["model"]
    missing = ask(app, "GET", "/v1/models/gpt-4")
    assert (404, "model_not_found") == (missing.status, missing.json["error"]["code"])


def test_strict_servers_know_their_names_only(shipped: Embedder) -> None:
    """With strict_model another name, or none, is a 404 that lists what there is."""
    app = create_app(shipped, Settings(strict_model=True))

    assert 200 == embed(app, {"input": "a", "model": "all-MiniLM-L6-v2"}).status
    assert 200 == embed(app, {"input": "a", "model": "sentence-transformers/all-MiniLM-L6-v2"}).status
    for model in ("text-embedding-3-small", None):
        answer = embed(app, {"input": "a", "model": model})
        assert (404, "model_not_found", "model") == (
            answer.status,
            answer.json["error"]["code"],
            answer.json["error"]["param"],
        )
        assert "all-MiniLM-L6-v2" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embedding", 404, "unknown_url"),
        ("GET", "/v1/embeddings/", 405, "method_not_allowed"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 400, None),
    ],
)
def test_every_error_has_openais_shape(
    app: ASGIApp, method: str, path: str, status: int, code: str | None
) -> None:
    """No shape of a framework leaks: four keys, JSON, and a request id."""
    answer = ask(app, method, path, b"{}")

    assert (status, "application/json") == (answer.status, answer.headers["content-type"])
    assert {"message", "type", "param", "code"} == answer.json["error"].keys()
    assert code == answer.json["error"]["code"]
    assert "false" == answer.headers["x-should-retry"]
    assert len(answer.headers["x-request-id"]) > 32
    assert (status == 405) == ("allow" in answer.headers)


def test_request_ids_are_echoed_if_they_are_harmless(app: ASGIApp) -> None:
    """A client's own id comes back; one with blanks, quotes of log lines or no end is replaced."""
    for given, echoed in (("mine-1", True), ("a b", False), ("x" * 129, False), ("é", False)):
        answer = ask(app, "GET", "/livez", headers={"x-request-id": given})
        assert echoed == (given == answer.headers["x-request-id"])


def test_a_failure_is_ours_and_says_nothing(shipped: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    """An engine that fails is a 500 in the same shape; its message stays in the log."""
    waiting = Waiting(shipped)
    service = Service(waiting, Settings())
    service.ready = True

    answer = asyncio.run(_end(application(service), waiting, RuntimeError("secret path")))

    assert (500, "server_error", "internal_error") == (
        answer.status,
        answer.json["error"]["type"],
        answer.json["error"]["code"],
    )
    assert b"secret" not in answer.body
    assert "secret path" in caplog.text
    assert not service.ready  # until an inference is right again
    assert (0, 0) == (service.admission.requests, service.admission.tokens)


async def _end(app: ASGIApp, waiting: Waiting, error: Exception) -> Answer:
    request = asyncio.ensure_future(send(app, "POST", "/v1/embeddings", b'{"input": "a"}'))
    while not waiting.futures:
        await asyncio.sleep(0)
    waiting.futures[0].set_exception(error)
    return await request


def test_a_full_queue_refuses_at_once_and_recovers(shipped: Embedder) -> None:
    """The request over the bound hears 429 while the others wait; when they are done there is room again."""
    waiting = Waiting(shipped)
    app = create_app(waiting, Settings(max_concurrent_requests=2))
    vectors = shipped.encode(["a"])

    async def crowd() -> tuple[Answer, list[Answer], int]:
        accepted = [asyncio.ensure_future(send(app, "POST", "/v1/embeddings", BODY)) for _ in range(2)]
        while len(waiting.futures) < 2:
            await asyncio.sleep(0)
        refused = await send(app, "POST", "/v1/embeddings", BODY)
        for future in waiting.futures:
            future.set_result(vectors)
        answers = await asyncio.gather(*accepted)
        again = asyncio.ensure_future(send(app, "POST", "/v1/embeddings", BODY))
        while len(waiting.futures) < 3:
            await asyncio.sleep(0)
        waiting.futures[2].set_result(vectors)
        return refused, answers, (await again).status

    refused, answers, later = asyncio.run(crowd())

    assert (429, "rate_limit_exceeded", "1") == (
        refused.status,
        refused.json["error"]["code"],
        refused.headers["retry-after"],
    )
    assert "x-should-retry" not in refused.headers
    assert [200, 200, 200] == [*(answer.status for answer in answers), later]


def test_who_leaves_gives_up_the_place(shipped: Embedder) -> None:
    """A client that hangs up takes its texts out of the queue, and gets no answer."""
    waiting = Waiting(shipped)
    service = Service(waiting, Settings())
    leave = asyncio.Event()

    async def hang_up() -> Answer:
        request = asyncio.ensure_future(
            send(application(service), "POST", "/v1/embeddings", BODY, leave=leave)
        )
        while not waiting.futures:
            await asyncio.sleep(0)
        leave.set()
        return await request

    answer = asyncio.run(hang_up())

    assert 0 == answer.status
    assert waiting.futures[0].cancelled()
    assert (0, 0) == (service.admission.requests, service.admission.tokens)
    assert 'te_request_failure_total{err="dropped"} 1.0' in service.metrics.render().decode()


def test_ids_that_do_not_exist_are_refused(shipped: Embedder) -> None:
    """An id over the vocabulary is a 400 that names it, not a failure."""
    settings = Settings(token_ids="native")  # noqa: S106  # no password

    answer = embed(create_app(shipped, settings), {"input": [[7592], [40_000]]})

    assert (400, "input") == (answer.status, answer.json["error"]["param"])
    assert "text 1 is 40000" in answer.json["error"]["message"]


def test_readiness_is_a_right_vector(shipped: Embedder) -> None:
    """Ready after an inference that matched the golden vector; a wrong one, or none, is a 503."""
    right = ask(create_app(shipped), "GET", "/readyz")
    broken = Waiting(shipped)
    broken.cosine = 0.5
    app = create_app(broken)

    answer = ask(app, "GET", "/health")

    assert 200 == right.status
    assert (503, "wrong_vectors") == (answer.status, answer.json["error"]["code"])
    assert "cosine 0.5000" in answer.json["error"]["message"]
    assert 200 == ask(app, "GET", "/livez").status


def test_a_server_that_ends_is_alive_but_not_ready(shipped: Embedder) -> None:
    """While draining /readyz says 503, embeddings still come, and every answer closes its connection."""
    service = Service(shipped, Settings())
    service.draining = True
    app = application(service)

    ready, alive, embedded = ask(app, "GET", "/readyz"), ask(app, "GET", "/livez"), embed(app, {"input": "a"})

    assert (503, "1") == (ready.status, ready.headers["retry-after"])
    assert (200, 200) == (alive.status, embedded.status)
    assert "close" == embedded.headers["connection"]


def test_who_waits_when_the_time_is_over_hears_so(shipped: Embedder) -> None:
    """A server that must end now answers 503 in its own shape: the client may ask another."""
    waiting = Waiting(shipped)
    service = Service(waiting, Settings())
    service.draining = True

    async def end() -> Answer:
        request = asyncio.ensure_future(send(application(service), "POST", "/v1/embeddings", BODY))
        while not waiting.futures:
            await asyncio.sleep(0)
        request.cancel()
        return await request

    answer = asyncio.run(end())

    assert (503, "draining", "1") == (
        answer.status,
        answer.json["error"]["code"],
        answer.headers["retry-after"],
    )
    assert waiting.futures[0].cancelled()


@pytest.mark.parametrize(
    "body",
    [{"input": "a"}, {"input": []}, {"input": 5}, {"input": "a", "dimensions": 5000}, b"{"],
    ids=["answered", "empty", "type", "dimensions", "torn"],
)
def test_a_request_leaves_no_cycles(app: ASGIApp, body: Any) -> None:
    """Answered or refused, what it held is freed at once: no large body waits for a garbage collection."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    assert left_by_twenty(lambda: send(app, "POST", "/v1/embeddings", content)) < 20


def test_after_warming_up_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits for a compiler, whatever texts come."""
    texts = ["short", "a text of some words", "of many words " * 15, "of very many words " * 60]

    def refuse(grid: Grid) -> Any:
        raise AssertionError(f"compiles {grid}")

    with Embedder.open() as embedder:
        asyncio.run(Service(embedder, Settings()).warm_up())
        monkeypatch.setattr(embedder._engine, "_compile", refuse)

        for count in (1, 2, 9, 70):
            for text in texts:
                embedder.encode([text] * count, progress=False)

        assert set(embedder.info.grids) == set(embedder.info.compiled)


def test_cross_origin_only_where_it_is_allowed(shipped: Embedder) -> None:
    """Off by default; with an origin, its pages may ask and read errors, others may not."""
    asks = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    closed = create_app(shipped)
    opened = create_app(shipped, Settings(cors_origins=("https://app.example",), api_keys=("key",)))

    assert "access-control-allow-origin" not in ask(closed, "OPTIONS", "/v1/embeddings", headers=asks).headers
    preflight = ask(opened, "OPTIONS", "/v1/embeddings", headers=asks)
    assert (200, "https://app.example") == (
        preflight.status,
        preflight.headers["access-control-allow-origin"],
    )
    private = {"access-control-request-private-network": "true"}  # from a public page to this network
    assert (200, "true") == (
        (allowed := ask(opened, "OPTIONS", "/v1/embeddings", headers=asks | private)).status,
        allowed.headers["access-control-allow-private-network"],
    )
    other = ask(opened, "OPTIONS", "/v1/embeddings", headers=asks | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    refused = embed(opened, {"input": "a"}, JSON | {"origin": "https://app.example"})
    assert (401, "https://app.example") == (
        refused.status,
        refused.headers["access-control-allow-origin"],
    )


@pytest.mark.parametrize("base", ["", "/embed", "/a/b"])
def test_it_can_be_a_part_of_another_application(shipped: Embedder, base: str) -> None:
    """Mounted under any path, everything is as at the root: keys, open pages, metrics and error shapes."""
    app = create_app(shipped, Settings(api_keys=("k",), warm_up=False))
    outer: ASGIApp = Starlette(routes=[Mount(base, app=app)]) if base else app
    key = JSON | {"authorization": "Bearer k"}

    answer = ask(outer, "POST", f"{base}/v1/embeddings", {"input": "a"}, key)
    theirs = ask(outer, "POST", f"{base}/embed", {"inputs": []}, key)

    assert np.array_equal(shipped.encode("a"), answer.vectors[0])
    assert "empty" == theirs.json["error_type"]
    for page in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/health"):
        assert 200 == ask(outer, "GET", f"{base}{page}").status, page
    assert 401 == ask(outer, "POST", f"{base}/v1/embeddings", {"input": "a"}).status
    assert "unknown_url" == ask(outer, "GET", f"{base}/nothing", b"", key).json["error"]["code"]
    metrics = ask(outer, "GET", f"{base}/metrics", b"", key).body.decode()
    assert 'te_request_count_total{method="/v1/embeddings"} 2.0' in metrics
    assert 'te_request_count_total{method="/embed"} 1.0' in metrics


def test_a_mounted_application_warms_up_beside_its_first_request(shipped: Embedder) -> None:
    """Nobody tells it that the server started, so the first request does, once."""
    warmed: list[str] = []

    class Warm(Waiting):
        def warm_up(self) -> None:
            warmed.append(threading.current_thread().name)

    for settings in (Settings(warm_up=False), Settings()):
        assert [] == warmed
        app = Starlette(routes=[Mount("/x", app=create_app(Warm(shipped), settings))])
        for _ in range(3):
            assert 200 == ask(app, "GET", "/x/livez").status
    until(lambda: len(warmed) > 0)
    assert 1 == len(warmed)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/embeddings/", "/v1/v1/embeddings", "//v1//embeddings", "/embeddings", "//embeddings"),
        *("/openai/deployments/any/embeddings", "/openai/v1/embeddings"),
    ],
)
def test_urls_that_clients_make_are_answered(app: ASGIApp, path: str) -> None:
    """A slash at the end, doubled slashes and prefixes, no /v1, and the paths of Azure's clients."""
    assert 200 == ask(app, "POST", path, {"input": "a"}).status


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/api/embed", "but /api/embed: set the base URL of the client to http://host:80"),
        ("/api/embed/api/embed", "but /api/embed: set the base URL of the client to http://host:80"),
        ("/embed/embed", "but /embed: set the base URL of the client to http://host:80"),
        ("/api/v1/embeddings", "but /v1/embeddings: set the base URL of the client to http://host:80/v1"),
        (
            "/v1/chat/completions",
            "OpenAI clients use the base URL http://host:80/v1, others http://host:80",
        ),
    ],
)
def test_urls_that_are_wrong_say_what_to_type(app: ASGIApp, path: str, said: str) -> None:
    """404 with the base URL that the client should have."""
    answer = ask(app, "POST", path, {"input": "a"}, JSON | {"host": "host:80"})

    assert 404 == answer.status
    error = answer.json["error"]
    assert said in (error if isinstance(error, str) else error["message"])


def test_options_tell_the_methods(app: ASGIApp) -> None:
    """OPTIONS is answered for every URL, as RFC 9110 has it; HEAD as GET."""
    answer = ask(app, "OPTIONS", "/v1/embeddings")

    assert (204, "POST, OPTIONS") == (answer.status, answer.headers["allow"])
    assert "GET, HEAD, OPTIONS" == ask(app, "OPTIONS", "/v1/models").headers["allow"]
    assert 200 == ask(app, "HEAD", "/v1/models").status


def test_everybody_gets_their_own_bits_in_a_crowd(shipped: Embedder) -> None:
    """Many clients at once, short and long texts in shared grids: each vector is that of the text alone."""
    app = create_app(shipped, Settings(max_queue_seconds=60))
    order = random.Random(0)  # noqa: S311  # no secret
    texts = [" ".join(f"word{order.randrange(99)}" for _ in range(order.randrange(40))) for _ in range(200)]
    requests = [order.sample(texts, order.choice([1, 1, 1, 3, 20])) for _ in range(150)]
    alone = {text: shipped.encode(text) for text in texts}

    async def crowd() -> list[Answer]:
        bodies = [
            b'{"input": [%s]}' % b", ".join(b'"%s"' % text.encode() for text in one) for one in requests
        ]
        return await asyncio.gather(*(send(app, "POST", "/v1/embeddings", body) for body in bodies))

    answers = asyncio.run(crowd())

    for asked, answer in zip(requests, answers, strict=True):
        assert np.array_equal(np.stack([alone[text] for text in asked]), answer.vectors)


def test_threads_and_the_server_share_an_embedder(app: ASGIApp, shipped: Embedder) -> None:
    """An application may encode beside the server it runs."""
    texts = ["one text", "and another one"]
    expected = shipped.encode(texts)
    found: list[bool] = []

    def encode() -> None:
        found.extend(np.array_equal(expected, shipped.encode(texts)) for _ in range(20))

    thread = threading.Thread(target=encode)
    thread.start()
    served = [np.array_equal(expected, embed(app, {"input": texts}).vectors) for _ in range(20)]
    thread.join()

    assert [True] * 40 == found + served
