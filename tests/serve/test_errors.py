"""The statuses of errors that no request body causes; test_wire.py has those of wrong bodies."""

import json

import pytest

from ov_minilm.serve import ollama, openai, tei
from ov_minilm.serve.errors import ApiError

NEVER_RETRY, RETRY_LATER = {"x-should-retry": "false"}, {"retry-after": "1"}


@pytest.mark.parametrize(
    ("condition", "statuses", "openai_type", "tei_type", "headers"),
    [
        ("bad_key", (401, 401, 401), "invalid_request_error", "unauthorized", NEVER_RETRY),
        ("too_slow", (408, 408, 408), "invalid_request_error", "validation", NEVER_RETRY),
        ("overloaded", (429, 429, 503), "rate_limit_error", "overloaded", RETRY_LATER),
        ("failed", (500, 424, 500), "server_error", "backend", {}),
        ("draining", (503, 503, 503), "server_error", "unhealthy", RETRY_LATER),
        ("wrong_vectors", (503, 503, 503), "server_error", "unhealthy", RETRY_LATER),
    ],
)
def test_statuses(condition: str, statuses: object, openai_type: str, tei_type: str, headers: object) -> None:
    """Each API has its own status and type for an error; headers tell the client whether to retry."""
    error = ApiError(condition, "message")

    answers = [api.error_response(error) for api in (openai, tei, ollama)]

    assert statuses == tuple(status for status, _ in answers)
    assert openai_type == json.loads(answers[0][1])["error"]["type"]
    assert {"error": "message", "error_type": tei_type} == json.loads(answers[1][1])
    assert headers == error.headers
