"""What says no before any work is done."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from support.asgi import JSON, ask, embed, send

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app, limits
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.limits import INITIAL_TOKENS_PER_S, MIN_QUEUE_TOKENS, Admission, Keys, QueueBudget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time as the queue sees it: `now`, in seconds, moves only when a test moves it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(limits, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.mark.parametrize("authorization", ["Bearer one", "bearer  two ", "Bearer two"])
def test_any_of_the_keys_opens(authorization: str) -> None:
    """Several keys may be valid at once, so that they can be changed one after the other."""
    Keys(["one", "two"]).check(authorization)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer three", "one", "Basic one", "Bearer ü"]
)
def test_nothing_else_opens(authorization: str | None) -> None:
    """No key, another key, another scheme: 401, with the scheme that is wanted."""
    with pytest.raises(ApiError) as refused:
        Keys(["one", "two"]).check(authorization)

    assert (401, "invalid_api_key") == (refused.value.status, refused.value.code)
    assert "Bearer" == refused.value.headers["www-authenticate"]


def test_azures_header_opens_too() -> None:
    """Clients of Azure send `api-key: KEY`, which counts when there is no bearer."""
    Keys(["one"]).check(None, "one")
    Keys(["one"]).check("Basic x", "one")
    for authorization, api_key in ((None, "two"), ("Bearer two", "one"), (None, "")):
        with pytest.raises(ApiError):
            Keys(["one"]).check(authorization, api_key)


def test_without_keys_everybody_may_ask() -> None:
    """No key was set: whatever clients send, as they must send something, is fine."""
    Keys([]).check(None)
    Keys([]).check("Bearer anything")


@pytest.mark.parametrize("key", ["", " a", "a\n", "schlüssel"])
def test_keys_that_no_client_can_send_are_refused(key: str) -> None:
    """An empty key would open the door to everybody; others could never match."""
    with pytest.raises(ValueError, match="API key"):
        Settings(api_keys=("fine", key))


def test_the_key_guards_what_says_something(shipped: Embedder) -> None:
    """Texts, tokens, models and metrics need it; pages and health do not, unless health must."""
    app = create_app(shipped, Settings(api_keys=("key",)))
    guarded = create_app(shipped, Settings(api_keys=("key",), protect_health=True))

    for method, path in (
        *(("POST", "/v1/embeddings"), ("POST", "/tokenize")),
        *(("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/no-such-page")),
    ):
        assert 401 == ask(app, method, path, b'{"input": "a"}').status, path
        key = {"authorization": "Bearer key"} | JSON
        assert 401 != ask(app, method, path, b'{"input": "a"}', key).status, path
    for path in ("/", "/docs", "/openapi.json", "/health", "/readyz", "/livez"):
        assert 200 == ask(app, "GET", path).status, path
    for path in ("/health", "/readyz", "/livez"):
        assert 401 == ask(guarded, "GET", path).status, path


def test_a_full_house_says_so_at_once() -> None:
    """One request over the bound is a 429; a place that is given back is free again."""
    admission = Admission(1, 1.0, 1000)

    with admission.request():
        assert 1 == admission.requests
        with pytest.raises(ApiError, match="1 requests are in progress") as refused, admission.request():
            pass
    with admission.request():
        pass

    assert (429, "1") == (refused.value.status, refused.value.headers["retry-after"])
    assert 0 == admission.requests


def test_tokens_are_bounded_too() -> None:
    """With enough waiting the next one is a 429, however small; what is too large for ever is a 400."""
    budget = Admission(10, 1.0, 1000).budget(1)

    with budget.queued(INITIAL_TOKENS_PER_S - 1), budget.queued(500):
        assert INITIAL_TOKENS_PER_S + 499 == budget.tokens
        with pytest.raises(ApiError) as later, budget.queued(1):
            pass
    with pytest.raises(ApiError) as never, budget.queued(2048 * 256 + 1):
        pass

    assert (429, 400) == (later.value.status, never.value.status)
    assert "max_tokens_per_request" == never.value.code
    assert 0 == budget.tokens


def test_indexers_do_not_lock_out_small_requests() -> None:
    """Requests of many texts wait in a longer queue of their own, and are told to come back later."""
    admission = Admission(10, 1.0, 1000)

    with admission.budget(33).queued(8 * INITIAL_TOKENS_PER_S):
        admission.budget(32).check()
        with pytest.raises(ApiError, match="at most 524288 tokens") as refused:
            admission.budget(33).check()
        assert 8 * INITIAL_TOKENS_PER_S == admission.tokens

    assert (429, "8") == (refused.value.status, refused.value.headers["retry-after"])


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


def test_a_machine_that_stood_still_is_not_slow_for_ever(clock: SimpleNamespace) -> None:
    """After an hour in which nothing was done a few batches may wait, and soon a second of work again."""
    budget = QueueBudget(1.0)
    with budget.queued(MIN_QUEUE_TOKENS):
        clock.now += 3600.0

    for _ in range(100):
        with budget.queued(MIN_QUEUE_TOKENS - 1), budget.queued(MIN_QUEUE_TOKENS):
            clock.now += 0.1

    with budget.queued(9 * MIN_QUEUE_TOKENS):  # of the 10 that it does in a second
        budget.check()


def test_a_little_now_and_then_says_nothing_about_speed(clock: SimpleNamespace) -> None:
    """Requests that find no company leave room for the burst that may come."""
    budget = QueueBudget(1.0)

    for _ in range(100):
        with budget.queued(14):
            clock.now += 1.0
    with budget.queued(INITIAL_TOKENS_PER_S - 1):
        budget.check()


def test_a_request_is_admitted_by_what_it_will_cost() -> None:
    """While one is tokenized its estimate counts as waiting; the speed is measured without."""
    budget = QueueBudget(1.0)

    with budget.tokenizing(INITIAL_TOKENS_PER_S):
        assert INITIAL_TOKENS_PER_S == budget.tokens
        with pytest.raises(ApiError, match="try again later"), budget.tokenizing(1):
            pass
    with budget.tokenizing(1), budget.queued(5):
        assert 6 == budget.tokens
    assert 0 == budget.tokens


def test_bodies_are_bounded_together() -> None:
    """Eight at the limit may be in work; the next byte is a 429, until one of them is done."""
    admission = Admission(100, 1.0, 1000)

    with admission.request() as first:
        first.take(7000)
        with admission.request() as second:
            second.take(1000)
            with pytest.raises(ApiError, match="8000 bytes of other requests are in progress") as refused:
                second.take(1)
        second.take(0)
        assert 7000 == admission.body_bytes
    assert (429, 0) == (refused.value.status, admission.body_bytes)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "br"},
    ],
)
def test_other_types_are_refused(shipped: Embedder, headers: dict[str, str]) -> None:
    """Only JSON, said to be so: a web page of another site cannot send that unasked."""
    answer = embed(create_app(shipped), {"input": "a"}, headers)

    assert (415, "false") == (answer.status, answer.headers["x-should-retry"])


def test_a_body_may_have_a_charset(shipped: Embedder) -> None:
    """Content types carry parameters."""
    answer = embed(create_app(shipped), {"input": "a"}, {"content-type": "Application/JSON; charset=utf-8"})

    assert 200 == answer.status


def test_large_bodies_are_refused_before_they_are_parsed(shipped: Embedder) -> None:
    """At the limit a body is read; one byte over it is 413, in one piece or in many or without end."""
    app = create_app(shipped, Settings(payload_limit=100))
    fits = b'{"input": "a"}'.ljust(100)
    endless = [b" " * 100] * 1000

    assert 200 == embed(app, fits).status
    for chunks in ([fits + b" "], [fits[:50], fits[50:], b" "], endless):
        parts = list(chunks)
        answer = asyncio.run(send(app, "POST", "/v1/embeddings", chunks=parts))
        assert (413, "request_too_large", "close") == (
            answer.status,
            answer.json["error"]["code"],
            answer.headers["connection"],
        )
