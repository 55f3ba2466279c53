"""What says no before any work is done."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from support.asgi import JSON, ask, embed, post, send

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app, limits
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.limits import INITIAL_TOKENS_PER_S, MIN_QUEUE_TOKENS, Admission, Keys, QueueBudget

BODY = b'{"input": "a"}'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time as the queue sees it: `now`, in seconds, moves only when a test moves it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(limits, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_any_of_the_keys_opens() -> None:
    """And nothing else, unless there are none: 401, with the scheme that is wanted."""
    keys = Keys(["one", "two"])
    for authorization in ("Bearer one", "bearer  two ", "Bearer two"):
        keys.check(authorization)
    keys.check(None, "one")  # as clients of Azure send it
    keys.check("Basic x", "one")
    Keys([]).check(None)
    Keys([]).check("Bearer anything")  # clients must send something
    wrong = (None, "", "Bearer", "Bearer three", "one", "Basic one", "Bearer ü")
    for given in (*((one, None) for one in wrong), (None, "three"), ("Bearer three", "one"), (None, "")):
        with pytest.raises(ApiError) as refused:
            keys.check(*given)
        assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
        assert "Bearer" == refused.value.headers["www-authenticate"]
    for key in ("", " a", "a\n", "schlüssel"):  # an empty key would open to everybody; others never match
        with pytest.raises(ValueError, match="API key"):
            Settings(api_keys=("fine", key))
    with pytest.raises(ValueError, match="truncate='middle'; choose one of end, error, mean"):
        Settings(truncate="middle")  # type: ignore[arg-type]


def test_the_key_guards_what_says_something(shipped: Embedder) -> None:
    """Texts, tokens, models and metrics need it; pages and health do not, unless health must."""
    app = create_app(shipped, Settings(api_keys=("key",), warm_up=False))
    guarded = create_app(shipped, Settings(api_keys=("key",), protect_health=True, warm_up=False))
    key, azure = JSON | {"authorization": "Bearer key"}, JSON | {"api-key": "key"}

    for path in ("/v1/embeddings", "/tokenize", "/v1/models", "/metrics", "/no-such-page"):
        method = "POST" if path in ("/v1/embeddings", "/tokenize") else "GET"
        assert 401 == ask(app, method, path, BODY).status, path
        assert 401 != ask(app, method, path, BODY, key).status, path
    assert (401, 200) == (
        post(app, "/", {"inputs": "a"}).status,
        post(app, "/", {"inputs": "a"}, azure).status,
    )
    for path in ("/", "/docs", "/openapi.json", "/health", "/readyz", "/livez"):
        expected = 401 if path in ("/health", "/readyz", "/livez") else 200
        assert (200, expected) == (ask(app, "GET", path).status, ask(guarded, "GET", path).status), path


def test_requests_bodies_and_tokens_are_bounded() -> None:
    """One request, byte or token over a bound is a 429, too much for ever a 400; all is given back."""
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
            with pytest.raises(ApiError, match="8000 bytes of other requests are in progress") as large:
                second.take(1)
    with pytest.raises(ApiError) as never, budget.queued(2048 * 256 + 1):
        pass

    assert [429, 429, 429, 400] == [refused.value.status for refused in (busy, full, large, never)]
    assert ("1", "max_tokens_per_request") == (full.value.headers["retry-after"], never.value.code)
    assert (0, 0, 0) == (admission.requests, admission.body_bytes, admission.tokens)


def test_requests_of_many_texts_and_those_being_tokenized() -> None:
    """Indexers wait in a longer queue of their own; while a request is tokenized its estimate counts."""
    admission = Admission(10, 1.0, 1000)
    budget = admission.budget(32)

    with admission.budget(33).queued(8 * INITIAL_TOKENS_PER_S):
        budget.check()
        with pytest.raises(ApiError, match="at most 524288 tokens") as refused:
            admission.budget(33).check()
        assert 8 * INITIAL_TOKENS_PER_S == admission.tokens
    assert (429, "8") == (refused.value.status, refused.value.headers["retry-after"])
    with budget.tokenizing(INITIAL_TOKENS_PER_S):
        assert INITIAL_TOKENS_PER_S == budget.tokens
        with pytest.raises(ApiError, match="try again later"), budget.tokenizing(1):
            pass
    with budget.tokenizing(1), budget.queued(5):
        assert 6 == budget.tokens
    assert 0 == budget.tokens


@pytest.mark.parametrize("tokens_per_s", [4_000, 400_000])
def test_the_queue_is_as_long_as_the_machine_is_fast(clock: SimpleNamespace, tokens_per_s: int) -> None:
    """After some seconds of load what may wait is a second of work, on slow machines and on fast ones."""
    budget = QueueBudget(1.0)

    with budget.queued(MIN_QUEUE_TOKENS):  # something always waits
        for _ in range(20):
            with budget.queued(tokens_per_s):
                clock.now += 1.0

        with budget.queued(int(0.95 * tokens_per_s) - MIN_QUEUE_TOKENS):
            budget.check()
            with budget.queued(int(0.1 * tokens_per_s)), pytest.raises(ApiError):
                budget.check()


def test_a_slow_moment_is_not_for_ever(clock: SimpleNamespace) -> None:
    """After an hour in which nothing was done a few batches may wait, and soon a second of work again.

    Requests that find no company say nothing about speed: they leave room for the burst that may come.
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
        stalled.check()  # with 9 of the 10 that it does in a second
        quiet.check()


def test_bodies_of_another_type_or_too_large_are_refused(shipped: Embedder) -> None:
    """Only JSON, said to be so; at the limit a body is read, one byte over it is 413, however it comes."""
    app = create_app(shipped, Settings(payload_limit=100, warm_up=False))
    fits = BODY.ljust(100)
    kinds = {None: 415, "text/plain": 415, "application/x-www-form-urlencoded": 415}

    for kind, status in (kinds | {"Application/JSON; charset=utf-8": 200}).items():
        answer = embed(app, fits, {"content-type": kind} if kind else {})
        assert (status, status == 415) == (answer.status, "false" == answer.headers.get("x-should-retry"))
    assert 413 == post(app, "/api/show", fits + b" ").status
    endless = [b" " * 100] * 1000
    for chunks in ([fits + b" "], [fits[:50], fits[50:], b" "], endless):
        answer = asyncio.run(send(app, "POST", "/v1/embeddings", chunks=chunks))
        assert (413, "request_too_large") == (answer.status, answer.json["error"]["code"])
        assert "close" == answer.headers["connection"]
    assert len(endless) > 990  # after some times the limit it is read no further
