"""Bodies that nobody would send: whatever comes, the answer is one, and never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp
from support.asgi import Answer, send

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app

FIELDS = (
    *("input", "model", "encoding_format", "dimensions", "user", "truncate", "other"),
    *("inputs", "truncation_direction", "prompt_name", "normalize", "ids", "skip_special_tokens"),
    *("add_special_tokens", "prompt", "keep_alive", "options", "source_sentence", "sentences", "parameters"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 100_300),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["float", "base64", "end", "mean", "text-embedding-3-small", "all-minilm", "\ud83d"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=7)
WHOLE = st.one_of(OBJECTS, VALUES).map(lambda value: json.dumps(value).encode())


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """JSON with bytes lost, doubled or replaced."""
    body = bytearray(
        draw(OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")))
    )
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


BODIES = st.one_of(WHOLE, _damaged(), st.binary(max_size=60))
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json"] * 9 + ["text/plain", ""])},
    optional={
        "x-truncate": st.sampled_from(["end", "mean", "error", "START", ""]),
        "x-request-id": st.text(st.characters(max_codepoint=255), max_size=140),
        "content-length": st.sampled_from(["-1", "x", "99999999999999999999"]),
    },
)


@pytest.fixture(scope="module")
def app(shipped: Embedder) -> ASGIApp:
    """A real application with a small body limit."""
    return create_app(shipped, Settings(payload_limit=4000, access_log="off"))


def _check_any(answer: Answer) -> None:
    """Check an answer of the other APIs: a result, or an error in words, and never a failure."""
    assert answer.status in (200, 400, 404, 413, 415, 422), answer
    if answer.status != 200:
        error = answer.json["error"]
        assert error["message"] if isinstance(error, dict) else error


def _check(answer: Answer) -> None:
    assert answer.status in (200, 400, 413, 415), answer
    body: Any = answer.json
    if answer.status == 200:
        assert {"object", "data", "model", "usage"} == body.keys()
        assert list(range(len(body["data"]))) == [one["index"] for one in body["data"]]
    else:
        assert {"error"} == body.keys()
        error = body["error"]
        assert {"message", "type", "param", "code"} == error.keys()
        assert isinstance(error["message"], str)
        assert "invalid_request_error" == error["type"]
        assert isinstance(error["code"], str | None)
        assert isinstance(error["param"], str | None)


def _fuzz(app: ASGIApp, examples: int, path: str, check: Callable[[Answer], None] = _check) -> None:
    loop = asyncio.new_event_loop()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES, HEADERS)
    def send_it(body: bytes, headers: dict[str, str]) -> None:
        check(loop.run_until_complete(asyncio.wait_for(send(app, "POST", path, body, headers), 30)))

    try:
        send_it()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("examples", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_body_breaks_embeddings(app: ASGIApp, examples: int) -> None:
    """Random JSON, damaged JSON and noise: 200 or a refusal in OpenAI's shape, soon."""
    _fuzz(app, examples, "/v1/embeddings")


@pytest.mark.parametrize(
    "path",
    ["/embed", "/similarity", "/tokenize", "/decode", "/api/embed", "/api/embeddings", "/api/show"],
)
@pytest.mark.parametrize("examples", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_body_breaks_the_other_apis(app: ASGIApp, path: str, examples: int) -> None:
    """The same for every other URL that takes a body."""
    _fuzz(app, examples, path, _check_any)
