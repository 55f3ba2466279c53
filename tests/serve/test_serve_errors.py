"""The table of errors: what each API makes of a condition."""

from __future__ import annotations

import json

import pytest

from ov_minilm.serve import ollama, openai, tei
from ov_minilm.serve.errors import CONDITIONS, ApiError

TEI_TYPES = {"unhealthy": 503, "backend": 424, "overloaded": 429, "tokenizer": 422, "empty": 400}


@pytest.mark.parametrize(
    ("condition", "status", "kind", "headers"),
    [
        ("bad_json", 400, "invalid_request_error", {"x-should-retry": "false"}),
        ("bad_key", 401, "invalid_request_error", {"x-should-retry": "false"}),
        ("bad_media_type", 415, "invalid_request_error", {"x-should-retry": "false"}),
        ("overloaded", 429, "rate_limit_error", {"retry-after": "1"}),
        ("failed", 500, "server_error", {}),
        ("draining", 503, "server_error", {"retry-after": "1"}),
    ],
)
def test_errors_say_whether_to_come_back(
    condition: str, status: int, kind: str, headers: dict[str, str]
) -> None:
    """OpenAI's errors have all four keys; clients are told not to repeat what cannot get better."""
    error = ApiError(condition, "words", param="input")

    found, body = openai.error_answer(error)

    code = CONDITIONS[condition].code
    assert status == found == error.status
    assert {"error": {"message": "words", "type": kind, "param": "input", "code": code}} == json.loads(body)
    assert headers == error.headers


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_has_each_apis_own_shape(condition: str) -> None:
    """Text Embeddings Inference's types have the statuses that it documents; Ollama has one key."""
    error = ApiError(condition, "words")

    status, body = tei.error_answer(error)
    kind = json.loads(body)["error_type"]

    assert {"error": "words", "error_type": kind} == json.loads(body)
    assert status == TEI_TYPES.get(kind, status)
    assert {"error": "words"} == json.loads(ollama.error_answer(error)[1])
    assert 400 <= ollama.error_answer(error)[0] < 600
