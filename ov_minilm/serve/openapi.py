"""openapi.json: the description of the three APIs, generated from the types of their bodies."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from ov_minilm._version import __version__
from ov_minilm.serve import ollama, openai, tei
from ov_minilm.serve.errors import CONDITIONS

STATUS_DESCRIPTIONS = {
    400: "The request is invalid; the message has the field",
    401: "No API key, or a wrong one",
    404: "The model does not exist",
    408: "The request did not arrive in time",
    413: "The body is too large, has too many texts, or has a text that is too long",
    415: "The content type is not JSON",
    422: "A field is invalid; the message has its name",
    424: "The model does not support this, or the server failed",
    429: "The queue is full; `Retry-After` has the seconds to wait",
    500: "The server failed",
    501: "Not supported by this server",
    503: "The server is starting or shutting down, or its queue is full",
}
TAGS = {
    "OpenAI": "OpenAI's API for embeddings.",
    "TEI": "The API of Text Embeddings Inference.",
    "Ollama": "Ollama's API for embeddings.",
    "OpenAI or TEI": "`inputs`: the form of Text Embeddings Inference; `input`: that of ov_minilm.",
    "Server": "The state of the server.",
}
ERRORS = {  # tag -> schema of its errors, and the statuses that a request with a body may get
    "OpenAI": ("ErrorResponse", {condition.status for condition in CONDITIONS.values()}),
    "TEI": ("TeiErrorResponse", {condition.tei[0] for condition in CONDITIONS.values()}),
    "Ollama": ("OllamaErrorResponse", {condition.ollama for condition in CONDITIONS.values()}),
    "OpenAI or TEI": (
        "EitherErrorResponse",
        {status for condition in CONDITIONS.values() for status in (condition.status, condition.tei[0])},
    ),
}
EXAMPLES = {  # bodies of requests
    "EmbeddingRequest": {"model": "all-MiniLM-L6-v2", "input": ["one text", "another"]},
    "EmbedRequest": {"inputs": ["one text", "another"], "truncate": True},
    "SimilarityRequest": {"inputs": {"source_sentence": "a cat", "sentences": ["a dog", "interest rates"]}},
    "TokenizeInputsRequest": {"inputs": "one text"},
    "DecodeRequest": {"ids": [101, 2028, 3793, 102]},
    "OllamaEmbedRequest": {"model": "all-minilm", "input": ["one text", "another"]},
    "OllamaEmbeddingsRequest": {"model": "all-minilm", "prompt": "one text"},
    "OllamaShowRequest": {"model": "all-minilm"},
}
NUMBERS = {"type": "array", "items": {"type": "number"}}
HEADERS = {
    "x-truncated": "Number of texts that were cut at their end",
    "server-timing": "Milliseconds of tokenization, in the queue, and of inference",
    "x-model-fingerprint": "Identifies the model and its weights: store it beside an index",
}


@cache
def document(max_texts: int, dim: int, vocabulary: int) -> bytes:
    """Return openapi.json, with the limits of this server and its model."""
    kinds = (
        *(openai.EmbeddingRequest, openai.EmbeddingResponse, openai.TokenizeRequest, openai.TokenizeResponse),
        *(openai.ModelList, openai.Model, openai.ErrorResponse),
        *(tei.EmbedRequest, tei.SimilarityRequest, tei.TokenizeInputsRequest, tei.Token, tei.DecodeRequest),
        *(tei.Info, tei.TeiErrorResponse),
        *(ollama.OllamaEmbedRequest, ollama.OllamaEmbedResponse, ollama.OllamaEmbeddingsRequest),
        *(ollama.OllamaEmbeddingsResponse, ollama.OllamaShowRequest, ollama.OllamaShowResponse),
        *(ollama.OllamaModels, ollama.OllamaRunningModels, ollama.OllamaVersion, ollama.OllamaErrorResponse),
    )
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind, name in (
        *(("EmbeddingRequest", "input"), ("TokenizeRequest", "input")),
        *(("EmbedRequest", "inputs"), ("TokenizeInputsRequest", "inputs")),
    ):
        _bound_lists(schemas[kind]["properties"][name], max_texts)
    for kind in ("EmbeddingRequest", "EmbedRequest"):
        schemas[kind]["properties"]["dimensions"]["anyOf"][0]["maximum"] = dim
    ids = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": vocabulary - 1},
        "minItems": 1,
    }
    lists = {"type": "array", "items": ids, "minItems": 1, "maxItems": max_texts}
    schemas["DecodeRequest"]["properties"]["ids"] |= {"anyOf": [ids, lists]}
    schemas["DecodeRequest"]["properties"]["ids"].pop("items")
    schemas["DecodeRequest"]["properties"]["ids"].pop("type")
    sentences = schemas["SimilarityInput"]["properties"]["sentences"]
    sentences |= {"minItems": 1, "maxItems": max(1, max_texts - 1)}
    schemas["OllamaEmbedRequest"]["properties"]["input"]["anyOf"][1]["maxItems"] = max_texts
    for kind in ("OllamaEmbedRequest", "OllamaEmbeddingsRequest"):
        schemas[kind]["required"] = ["model"]
        schemas[kind]["properties"]["model"] = {
            "type": "string",
            "description": "a name from /api/tags",
        }
    schemas["EitherErrorResponse"] = {"anyOf": [_reference("ErrorResponse"), _reference("TeiErrorResponse")]}
    vectors = {"type": "array", "items": NUMBERS}
    token_lists = {"type": "array", "items": {"type": "array", "items": _reference("Token")}}
    texts = {"type": "array", "items": {"type": "string"}}
    x_truncate = {
        "name": "x-truncate",
        "in": "header",
        "description": "The same as the field `truncate`, for clients that cannot add fields.",
        "schema": {"enum": ["end", "error", "mean"]},
    }
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    tokenize = [_reference("TokenizeInputsRequest"), _reference("TokenizeRequest")]
    response_forms = [token_lists, _reference("TokenizeResponse")]
    embed = _posted("TEI", "Embed texts", "EmbedRequest", vectors, headers=HEADERS)
    page = {
        "tags": ["Server"],
        "summary": "A page to try the server",
        "responses": {
            "200": {"description": "Done", "content": {"text/html": {"schema": {"type": "string"}}}}
        },
    }
    paths: dict[str, dict[str, Any]] = {
        "/v1/embeddings": _posted(
            "OpenAI", "Embed texts", "EmbeddingRequest", "EmbeddingResponse", [x_truncate], HEADERS
        ),
        "/v1/models": {"get": _operation("OpenAI", "List the names of the model", "ModelList", (401,))},
        "/v1/models/{model}": {
            "get": _operation("OpenAI", "Describe one name", "Model", (401, 404), parameters=[model])
        },
        "/embed": embed,
        "/": {**embed, "get": page},
        "/similarity": _posted("TEI", "Compare a text with others", "SimilarityRequest", NUMBERS),
        "/tokenize": _posted(
            "OpenAI or TEI", "List the tokens of texts", {"anyOf": tokenize}, {"anyOf": response_forms}
        ),
        "/decode": _posted("TEI", "Turn token ids into texts", "DecodeRequest", texts),
        "/info": {"get": _operation("TEI", "Describe the server", "Info", (401,))},
        "/api/embed": _posted(
            "Ollama", "Embed texts", "OllamaEmbedRequest", "OllamaEmbedResponse", headers=HEADERS
        ),
        "/api/embeddings": _posted(
            "Ollama", "Embed a text", "OllamaEmbeddingsRequest", "OllamaEmbeddingsResponse", headers=HEADERS
        ),
        "/api/tags": {"get": _operation("Ollama", "List the names of the model", "OllamaModels", (401,))},
        "/api/ps": {
            "get": _operation("Ollama", "Describe the model in memory", "OllamaRunningModels", (401,))
        },
        "/api/show": _posted("Ollama", "Describe the model", "OllamaShowRequest", "OllamaShowResponse"),
        "/api/version": {"get": _operation("Ollama", "Return the version", "OllamaVersion", (401,))},
        "/health": {"get": _operation("Server", "200 when ready", {"type": "object"}, (401, 503))},
        "/readyz": {"get": _operation("Server", "200 when ready", {"type": "object"}, (401, 503))},
        "/livez": {"get": _operation("Server", "200 while the process runs", {"type": "object"}, (401,))},
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "ov_minilm",
                "version": __version__,
                "description": "Sentence embeddings of all-MiniLM-L6-v2, by the APIs of OpenAI, "
                "Text Embeddings Inference and Ollama.",
            },
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}, {}],
        }
    )


def _bound_lists(schema: dict[str, Any], max_items: int) -> None:
    """Add what types cannot express: a list has entries of one kind, at least 1 and at most `max_items`."""
    text, array = schema["anyOf"]
    kinds = array["items"].get("anyOf", [array["items"]])
    lists = [{"type": "array", "items": kind, "minItems": 1, "maxItems": max_items} for kind in kinds]
    for choice in lists:
        if choice["items"]["type"] == "array":
            choice["items"] = choice["items"] | {"minItems": 1}
        elif choice["items"]["type"] == "integer":
            del choice["maxItems"]  # a list of integers is one text, so its length has no limit
    schema["anyOf"] = [text, *lists]


def _posted(
    tag: str,
    summary: str,
    body: str | dict[str, Any],
    response_schema: str | dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    errors = tuple(sorted(ERRORS[tag][1] & STATUS_DESCRIPTIONS.keys()))
    operation = _operation(tag, summary, response_schema, errors, parameters=parameters, headers=headers)
    content = _json(_reference(body) if isinstance(body, str) else body)
    content["application/json"]["example"] = EXAMPLES[
        body if isinstance(body, str) else "TokenizeInputsRequest"
    ]
    return {"post": operation | {"requestBody": {"required": True, "content": content}}}


def _operation(
    tag: str,
    summary: str,
    response_schema: str | dict[str, Any],
    errors: tuple[int, ...],
    *,
    parameters: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done"}
    success["content"] = _json(
        _reference(response_schema) if isinstance(response_schema, str) else response_schema
    )
    if headers:
        success["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
        }
    shape = _json(_reference(ERRORS.get(tag, ERRORS["OpenAI"])[0]))
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {"200": success}
        | {str(status): {"description": STATUS_DESCRIPTIONS[status], "content": shape} for status in errors},
    }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
