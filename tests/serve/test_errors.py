"""The table of errors: what each API makes of a condition. test_wire has those that a body can cause."""

from __future__ import annotations

import json

import pytest

from ov_minilm.serve import ollama, openai, tei
from ov_minilm.serve.errors import CONDITIONS, ApiError

NEVER, LATER = {"x-should-retry": "false"}, {"retry-after": "1"}
TEI_TYPES = {"unhealthy": 503, "backend": 424, "overloaded": 429, "tokenizer": 422, "empty": 400}


@pytest.mark.parametrize(
    ("condition", "statuses", "openais", "teis", "headers"),
    [
        ("bad_key", (401, 401, 401), "invalid_request_error", "unauthorized", NEVER),
        ("too_slow", (408, 408, 408), "invalid_request_error", "validation", NEVER),
        ("overloaded", (429, 429, 503), "rate_limit_error", "overloaded", LATER),
        ("failed", (500, 424, 500), "server_error", "backend", {}),
        *((name, (503,) * 3, "server_error", "unhealthy", LATER) for name in ("draining", "wrong_vectors")),
    ],
)
def test_each_api_has_its_own_statuses_and_shape(
    condition: str, statuses: tuple[int, ...], openais: str, teis: str, headers: dict[str, str]
) -> None:
    """OpenAI's errors have four keys, TEI's two, Ollama's one; clients are told whether to come back."""
    error = ApiError(condition, "words", param="input")
    whole = {"message": "words", "type": openais, "param": "input", "code": CONDITIONS[condition].code}
    bodies = ({"error": whole}, {"error": "words", "error_type": teis}, {"error": "words"})

    found = [api.error_answer(error) for api in (openai, tei, ollama)]

    assert list(zip(statuses, bodies, strict=True)) == [(status, json.loads(body)) for status, body in found]
    assert headers == error.headers
    for one in CONDITIONS.values():  # the types have the statuses of TEI's pages
        assert one.tei[0] == TEI_TYPES.get(one.tei[1], one.tei[0])
