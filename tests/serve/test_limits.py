"""API keys and limits, which refuse requests before any work is done."""

import asyncio
from types import SimpleNamespace

import pytest
from support.asgi import JSON, ask, post, send

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app, limits
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.limits import INITIAL_TOKENS_PER_S, MIN_QUEUE_TOKENS, Admission, Keys, QueueBudget

OPENAI = "/v1/embeddings"
BODY = b'{"input": "a"}'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for the queue: `now`, in seconds, changes only if a test sets it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(limits, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


WRONG_HEADERS = (None, "", "Bearer", "Bearer three", "one", "Basic one", "Bearer ü")


def test_keys() -> None:
    """Each key of the list is accepted, others get 401; a server without keys needs none."""
    keys = Keys(["one", "two"])
    for header in ("Bearer one", "bearer  two ", "Bearer two"):
        keys.check(header)
    keys.check(None, "one")  # the header api-key of Azure's clients
    keys.check("Basic x", "one")
    wrong_keys = (None, "three"), ("Bearer three", "one"), (None, "")
    for given in (*((header, None) for header in WRONG_HEADERS), *wrong_keys):
        Keys([]).check(*given)
        with pytest.raises(ApiError) as refused:
            keys.check(*given)
        assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
        assert "Bearer" == refused.value.headers["www-authenticate"]


def test_invalid_settings() -> None:
    """Keys that a header cannot contain are refused; for a wrong choice, the error lists the valid ones."""
    for key in ("", " a", "a\n", "schlüssel"):
        with pytest.raises(ValueError, match="API key"):
            Settings(api_keys=("fine", key))
    with pytest.raises(ValueError, match="truncate='middle'; choose one of end, error, mean"):
        Settings(truncate="middle")  # type: ignore[arg-type]


def test_urls_that_need_a_key(shipped: Embedder) -> None:
    """The APIs and metrics need a key; pages need none, and health only with `protect_health`."""
    app = create_app(shipped, Settings(api_keys=("key",), warm_up=False))
    protected = create_app(shipped, Settings(api_keys=("key",), protect_health=True, warm_up=False))
    key = JSON | {"authorization": "Bearer key"}

    for path in ("/v1/embeddings", "/tokenize", "/", "/v1/models", "/metrics", "/x"):
        method = "POST" if path in ("/v1/embeddings", "/tokenize", "/") else "GET"
        assert 401 == ask(app, method, path, BODY).status, path
        assert 401 != ask(app, method, path, BODY, key).status, path
    assert 200 == post(app, "/", {"inputs": "a"}, JSON | {"api-key": "key"}).status
    for path in ("/", "/docs", "/openapi.json", "/health", "/readyz", "/livez"):
        expected = 401 if path in ("/health", "/readyz", "/livez") else 200
        for method in ("GET", "HEAD"):
            found = (ask(server, method, path).status for server in (app, protected))
            assert (200, expected) == tuple(found), path


def test_limits_of_requests_bodies_and_tokens() -> None:
    """A request that must wait gets 429, one that can never be accepted 400; counts return to 0."""
    admission = Admission(2, 1.0, 1000)
    budget = admission.budget(1)

    with admission.request() as first, budget.queued(INITIAL_TOKENS_PER_S - 1), budget.queued(500):
        first.take(7000)
        assert (1, 7000) == (admission.requests, admission.body_bytes)
        assert INITIAL_TOKENS_PER_S + 499 == admission.tokens
        with pytest.raises(ApiError) as busy, budget.queued(1):
            pass
        with admission.request() as second:
            with pytest.raises(ApiError, match="2 requests are in progress") as full, admission.request():
                pass
            second.take(1000)
            with pytest.raises(ApiError, match="the bodies of other requests have 8000 bytes") as large:
                second.take(1)
    with pytest.raises(ApiError) as never, budget.queued(2048 * 256 + 1):
        pass

    assert [429, 429, 429, 400] == [refused.value.status for refused in (busy, full, large, never)]
    assert ("1", "max_tokens_per_request") == (full.value.headers["retry-after"], never.value.code)
    assert (0, 0, 0) == (admission.requests, admission.body_bytes, admission.tokens)


def test_queue_of_long_requests() -> None:
    """Requests with over 32 texts have a longer queue; their tokens are estimated before they are counted."""
    admission = Admission(10, 1.0, 1000)
    budget = admission.budget(32)

    with admission.budget(33).queued(8 * INITIAL_TOKENS_PER_S):
        budget.check()
        with pytest.raises(ApiError, match="the limit is 524288") as refused:
            admission.budget(33).check()
        assert 8 * INITIAL_TOKENS_PER_S == admission.tokens
    assert (429, "8") == (refused.value.status, refused.value.headers["retry-after"])
    with (
        budget.tokenizing(INITIAL_TOKENS_PER_S),
        pytest.raises(ApiError, match="later"),
        budget.tokenizing(1),
    ):
        pass
    with budget.tokenizing(1), budget.queued(5):
        assert 6 == budget.tokens
    assert 0 == budget.tokens


@pytest.mark.parametrize("tokens_per_s", [4_000, 400_000])
def test_queue_follows_the_speed(clock: SimpleNamespace, tokens_per_s: int) -> None:
    """After 20 s of load the queue holds one second of work, on slow and on fast machines."""
    budget = QueueBudget(1.0)

    with budget.queued(MIN_QUEUE_TOKENS):  # keeps the queue from becoming empty
        for _ in range(20):
            with budget.queued(tokens_per_s):
                clock.now += 1.0

        with budget.queued(int(0.95 * tokens_per_s) - MIN_QUEUE_TOKENS):
            budget.check()
            with budget.queued(int(0.1 * tokens_per_s)), pytest.raises(ApiError):
                budget.check()


def test_queue_recovers_from_a_stall(clock: SimpleNamespace) -> None:
    """Soon after an hour without progress, one second of work is accepted again.

    Requests that run alone do not change the measured speed, so a burst is still accepted.
    """
    stalled, quiet = QueueBudget(1.0), QueueBudget(1.0)
    with stalled.queued(MIN_QUEUE_TOKENS):
        clock.now += 3600.0
    for _ in range(100):
        with stalled.queued(MIN_QUEUE_TOKENS - 1), stalled.queued(MIN_QUEUE_TOKENS):
            clock.now += 0.1
        with quiet.queued(14):
            clock.now += 1.0

    with stalled.queued(9 * MIN_QUEUE_TOKENS), quiet.queued(INITIAL_TOKENS_PER_S - 1):
        stalled.check()  # less than the work of one second
        quiet.check()


def test_content_type_and_size_of_bodies(shipped: Embedder) -> None:
    """A body must be application/json; a body over the limit gets 413 and is not read to its end."""
    app = create_app(shipped, Settings(payload_limit=100, warm_up=False))
    fits = BODY.ljust(100)

    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "Application/JSON; charset=utf-8"):
        answer = post(app, OPENAI, fits, {"content-type": kind} if kind else {})
        expected = (200, None) if "JSON" in kind else (415, "false")
        assert expected == (answer.status, answer.headers.get("x-should-retry"))
    assert 413 == post(app, "/api/show", fits + b" ").status
    long_body_parts = [b" " * 100] * 1000
    for parts in ([fits + b" "], [fits[:50], fits[50:], b" "], long_body_parts):
        answer = asyncio.run(send(app, "POST", OPENAI, parts))
        assert (413, "request_too_large") == (answer.status, answer.json["error"]["code"])
        assert "close" == answer.headers["connection"]
    assert len(long_body_parts) > 990
