"""All errors that the server sends: a table of conditions, with the status of each in each API.

The statuses are those of OpenAI's API, of Text Embeddings Inference (with its error type), and of Ollama. The
message of an error is the same in all three APIs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

encode_json = msgspec.json.Encoder().encode


class Condition(NamedTuple):
    """One kind of error."""

    status: int  # status in OpenAI's API, pages and health checks
    code: str | None  # code in OpenAI's API, for programs
    tei: tuple[int, str]  # status and error_type in Text Embeddings Inference
    ollama: int  # status in Ollama's API


CONDITIONS = {
    "bad_http": Condition(400, None, (400, "validation"), 400),
    "bad_json": Condition(400, None, (400, "validation"), 400),
    "bad_field": Condition(400, None, (422, "validation"), 400),
    "bad_token_ids": Condition(400, None, (422, "tokenizer"), 400),
    "ambiguous_token_ids": Condition(400, "ambiguous_token_ids", (422, "tokenizer"), 400),
    "cl100k_unavailable": Condition(400, "cl100k_unavailable", (422, "tokenizer"), 400),
    "no_texts": Condition(400, None, (400, "empty"), 400),
    "too_many_texts": Condition(400, "array_above_max_length", (413, "validation"), 400),
    "text_too_long": Condition(400, "context_length_exceeded", (413, "validation"), 400),
    "too_many_tokens": Condition(400, "max_tokens_per_request", (413, "validation"), 400),
    "unsupported": Condition(400, "unsupported", (424, "backend"), 400),
    "bad_key": Condition(401, "invalid_api_key", (401, "unauthorized"), 401),
    "no_such_model": Condition(404, "model_not_found", (404, "validation"), 404),
    "no_such_url": Condition(404, "unknown_url", (404, "validation"), 404),
    "bad_method": Condition(405, "method_not_allowed", (405, "validation"), 405),
    "too_slow": Condition(408, "request_timeout", (408, "validation"), 408),
    "body_too_large": Condition(413, "request_too_large", (413, "validation"), 413),
    "bad_media_type": Condition(415, None, (415, "validation"), 415),
    "overloaded": Condition(429, "rate_limit_exceeded", (429, "overloaded"), 503),
    "failed": Condition(500, "internal_error", (424, "backend"), 500),
    "not_implemented": Condition(501, "not_implemented", (424, "backend"), 501),
    "wrong_vectors": Condition(503, "wrong_vectors", (503, "unhealthy"), 503),
    "starting": Condition(503, "starting", (503, "unhealthy"), 503),
    "draining": Condition(503, "draining", (503, "unhealthy"), 503),
    "bad_http_version": Condition(505, None, (505, "validation"), 505),
}


class ApiError(Exception):
    """The error of a request that is refused or has failed; `condition` is a key of CONDITIONS."""

    def __init__(
        self,
        condition: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param  # the invalid field of the request
        self.condition = CONDITIONS[condition]
        self.status, self.code = self.condition.status, self.condition.code
        self.headers = dict(headers or {})
        if self.status in (429, 503):
            self.headers.setdefault("retry-after", "1")
        elif self.status < 500:
            self.headers["x-should-retry"] = "false"
