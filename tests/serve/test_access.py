"""The lines of the log: each has the id of its request, and a failure has its traceback."""

import json
import logging
import sys

import pytest
from starlette.types import ASGIApp
from support.asgi import post

from ov_minilm.serve.access import JsonLines, TextLines, request_context


def test_lines_name_their_request() -> None:
    """In text the request id ends the first line, before the traceback; in JSON it is a field."""
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "it %s", ("failed",), sys.exc_info())
    token = request_context.set(("mine", ""))
    first, *trace = TextLines("%(message)s").format(record).splitlines()
    actual = json.loads(JsonLines().format(record))
    request_context.reset(token)

    expected = {"level": "error", "logger": "a", "message": "it failed", "request_id": "mine"}
    assert ("it failed (request mine)", "RuntimeError: broken") == (first, trace[-1])
    assert actual == actual | expected
    assert actual["trace"].endswith("RuntimeError: broken")


def test_access_line(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """A line has client, method, path, status, time, texts, tokens, truncated texts and request id."""
    with caplog.at_level("INFO", "ov_minilm.access"):
        answer = post(app, "/v1/embeddings", {"input": ["a b", "c"]})

    start, _, end = caplog.messages[-1].partition(" ms, ")
    assert start.startswith("127.0.0.1 POST '/v1/embeddings' 200 ")
    assert f"2 texts, 7 tokens, 0 truncated, {answer.headers['x-request-id']}" == end
