"""The table of errors: what each API makes of a condition."""

from __future__ import annotations

import json

import pytest

from ov_minilm.serve import ollama, openai, tei
from ov_minilm.serve.errors import CONDITIONS, ApiError

NEVER, LATER = {"x-should-retry": "false"}, {"retry-after": "1"}
TEI_TYPES = {"unhealthy": 503, "backend": 424, "overloaded": 429, "tokenizer": 422, "empty": 400}


@pytest.mark.parametrize(
    ("condition", "openais", "teis", "ollamas", "headers"),
    [
        ("bad_json", (400, "invalid_request_error"), (400, "validation"), 400, NEVER),
        ("bad_field", (400, "invalid_request_error"), (422, "validation"), 400, NEVER),
        ("bad_token_ids", (400, "invalid_request_error"), (422, "tokenizer"), 400, NEVER),
        ("no_texts", (400, "invalid_request_error"), (400, "empty"), 400, NEVER),
        ("text_too_long", (400, "invalid_request_error"), (413, "validation"), 400, NEVER),
        ("bad_key", (401, "invalid_request_error"), (401, "unauthorized"), 401, NEVER),
        ("no_such_model", (404, "invalid_request_error"), (404, "validation"), 404, NEVER),
        ("bad_media_type", (415, "invalid_request_error"), (415, "validation"), 415, NEVER),
        ("overloaded", (429, "rate_limit_error"), (429, "overloaded"), 503, LATER),
        ("failed", (500, "server_error"), (424, "backend"), 500, {}),
        ("draining", (503, "server_error"), (503, "unhealthy"), 503, LATER),
    ],
)
def test_each_api_has_its_own_statuses_and_shape(
    condition: str, openais: tuple[int, str], teis: tuple[int, str], ollamas: int, headers: dict[str, str]
) -> None:
    """OpenAI's errors have four keys, TEI's two, Ollama's one; clients are told whether to come back."""
    error = ApiError(condition, "words", param="input")
    whole = {"message": "words", "type": openais[1], "param": "input", "code": CONDITIONS[condition].code}
    answers = [
        (openais[0], {"error": whole}),
        (teis[0], {"error": "words", "error_type": teis[1]}),
        (ollamas, {"error": "words"}),
    ]

    found = (api.error_answer(error) for api in (openai, tei, ollama))

    assert answers == [(status, json.loads(body)) for status, body in found]
    assert headers == error.headers
    for _, _, (
        status,
        kind,
    ), ollamas_own in CONDITIONS.values():  # the types have the statuses of TEI's pages
        assert status == TEI_TYPES.get(kind, status)
        assert 400 <= ollamas_own < 600
