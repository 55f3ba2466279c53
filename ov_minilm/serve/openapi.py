"""The description of the API, made from the types that read and write it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from ov_minilm._version import __version__
from ov_minilm.serve import wire

MEANINGS = {
    400: "The request is not what it must be; `message` says where",
    401: "No API key, or a wrong one",
    404: "No such model",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "The queue is full; `Retry-After` says when to try again",
    500: "The server failed",
    503: "The server is starting or ending",
}


@cache
def document(most_texts: int, dim: int) -> bytes:
    """Return openapi.json."""
    kinds = (
        wire.EmbeddingRequest,
        wire.EmbeddingResponse,
        wire.TokenizeRequest,
        wire.TokenizeResponse,
        wire.ModelList,
        wire.Model,
        wire.ErrorResponse,
    )
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind in ("EmbeddingRequest", "TokenizeRequest"):
        _say_what_lists_hold(schemas[kind]["properties"]["input"], most_texts)
    number, _ = schemas["EmbeddingRequest"]["properties"]["dimensions"]["anyOf"]
    number["maximum"] = dim
    truncate = {
        "name": "x-truncate",
        "in": "header",
        "description": "As the field `truncate`, for clients that cannot add fields.",
        "schema": {"enum": ["end", "error", "mean"]},
    }
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    posted = (400, 401, 404, 413, 415, 429, 500, 503)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "ov_minilm",
                "version": __version__,
                "description": "Sentence embeddings of all-MiniLM-L6-v2, as OpenAI's API has them.",
            },
            "paths": {
                "/v1/embeddings": {
                    "post": _operation(
                        "Embed texts",
                        "EmbeddingResponse",
                        posted,
                        body="EmbeddingRequest",
                        parameters=[truncate],
                        headers={
                            "x-truncated": "Texts that were cut at their end",
                            "server-timing": "Milliseconds to tokenize, in the queue, and of inference",
                            "x-model-fingerprint": "What decides the vectors: store it beside an index",
                        },
                    )
                },
                "/v1/models": {"get": _operation("List the names of the model", "ModelList", (401,))},
                "/v1/models/{model}": {
                    "get": _operation("Describe one name", "Model", (401, 404), parameters=[name])
                },
                "/tokenize": {
                    "post": _operation(
                        "Count and list tokens", "TokenizeResponse", posted, body="TokenizeRequest"
                    )
                },
                "/health": {"get": _operation("Tell whether it is ready", None, (401, 503))},
                "/readyz": {"get": _operation("Tell whether it is ready", None, (401, 503))},
                "/livez": {"get": _operation("Tell whether it runs", None, (401,))},
            },
            "components": {
                "schemas": schemas,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}, {}],
        }
    )


def _say_what_lists_hold(schema: dict[str, Any], most: int) -> None:
    """Write out that a list is of one kind, not empty, and bounded: the types cannot."""
    text, array = schema["anyOf"]
    kinds = array["items"].get("anyOf", [array["items"]])
    lists = [{"type": "array", "items": kind, "minItems": 1, "maxItems": most} for kind in kinds]
    for one in lists:
        if one["items"]["type"] == "array":
            one["items"] = one["items"] | {"minItems": 1}
        elif one["items"]["type"] == "integer":
            del one["maxItems"]  # the ids of a single text
    schema["anyOf"] = [text, *lists]


def _operation(
    summary: str,
    answer: str | None,
    errors: tuple[int, ...],
    *,
    body: str | None = None,
    parameters: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"description": "Done"}
    found["content"] = _json({"type": "object"} if answer is None else _reference(answer))
    if headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
        }
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": found}
        | {
            str(status): {"description": MEANINGS[status], "content": _json(_reference("ErrorResponse"))}
            for status in errors
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": _json(_reference(body))}
    return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
