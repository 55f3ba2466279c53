"""The part of Ollama's API that is about embeddings: requests, responses and errors."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone
from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ov_minilm._version import __version__
from ov_minilm.serve.errors import ApiError, encode_json
from ov_minilm.serve.limits import read_body
from ov_minilm.serve.parsing import check_count, read
from ov_minilm.serve.service import (
    Embedded,
    Handlers,
    ParsedBody,
    Service,
    json_numbers,
    json_response,
    write_rows,
)
from ov_minilm.spec import MINILM

# Ollama's names of all-MiniLM-L6-v2. The tag 33m is missing, because it is another model, with 12 layers.
MINILM_NAME = re.compile(
    r"(?:[\w./-]+/)?all-minilm(?:(?::(?:latest|22m|l6-v2)[\w.-]*)|(?:-l6-v2[\w.-]*(?::[\w.-]+)?))?"
)
MINILM_TAGS = ("all-minilm:latest", "all-minilm:l6-v2", "all-minilm:22m")
NEVER_EXPIRES = "0001-01-01T00:00:00Z"  # Go's zero time, shown by Ollama as "Never": the model stays loaded

ModelName = Annotated[str | None, Meta(description="a name from /api/tags")]
Ignored = Annotated[Any, Meta(description="anything; it is ignored: the model is always loaded")]
Options = Annotated[dict[str, Any] | None, Meta(description="an object; it is ignored")]


class OllamaEmbedRequest(Struct):
    """The body of POST /api/embed."""

    model: ModelName = None
    input: Annotated[str | list[str] | None, Meta(description="a text or a list of texts")] = None
    truncate: Annotated[
        bool | None,
        Meta(description="true (cut texts that are too long, the default) or false (refuse them)"),
    ] = None
    dimensions: Annotated[
        int | None, Meta(description="an integer: keep this many components, scaled to unit length")
    ] = None
    keep_alive: Ignored = None
    options: Options = None


class OllamaEmbedResponse(Struct):
    """The response of POST /api/embed. Durations are nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None


class OllamaEmbeddingsRequest(Struct):
    """The body of POST /api/embeddings, the older form."""

    model: ModelName = None
    prompt: Annotated[str | None, Meta(description="a text")] = None
    keep_alive: Ignored = None
    options: Options = None


class OllamaEmbeddingsResponse(Struct):
    """The response of POST /api/embeddings."""

    embedding: list[float]


class OllamaShowRequest(Struct):
    """The body of POST /api/show."""

    model: ModelName = None
    name: ModelName = None
    verbose: Annotated[bool | None, Meta(description="true or false; it is ignored")] = None


class Details(Struct):
    """The kind of the model."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(Struct):
    """A name of the model."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class OllamaRunningModel(Struct):
    """The model in memory."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class OllamaModels(Struct):
    """The response of GET /api/tags."""

    models: list[OllamaModel]


class OllamaRunningModels(Struct):
    """The response of GET /api/ps."""

    models: list[OllamaRunningModel]


class OllamaShowResponse(Struct):
    """The response of POST /api/show."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(Struct):
    """The response of GET /api/version: of this server."""

    version: str


class OllamaErrorResponse(Struct):
    """The response to every request that is refused or fails."""

    error: str


def error_response(error: ApiError) -> tuple[int, bytes]:
    """Return the status and the JSON body of an error in Ollama's form."""
    return error.condition.ollama, encode_json(OllamaErrorResponse(error.message))


class Ollama:
    """The handlers of Ollama's URLs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        spec = service.spec
        self._is_minilm = service.info.model == MINILM.name
        per_layer = 4 * spec.dim * (spec.dim + 1) + spec.intermediate * (2 * spec.dim + 1) + 5 * spec.dim
        self._parameters = (spec.vocab_size + 512 + 2 + 2) * spec.dim + spec.layers * per_layer
        self._digest = hashlib.sha256(service.info.fingerprint.encode()).hexdigest()
        self._bytes = self._parameters * (1 if service.info.weights == "int8" else 4)
        self._modified = datetime.fromtimestamp(service.started, timezone.utc).isoformat()
        self._details = Details(
            parent_model="",
            format="openvino",
            family="bert",
            families=["bert"],
            parameter_size=f"{self._parameters / 1e6:.0f}M",
            quantization_level={"int8": "INT8", "f32": "F32"}.get(service.info.weights, service.info.weights),
        )

    def routes(self) -> dict[str, Handlers]:
        """Return {URL: {method: handler}}."""
        text = "this server has an embedding model; it cannot generate text"
        store = (
            "this server serves the one model it was started with; it cannot pull, change or remove models"
        )
        refused = {
            **dict.fromkeys(("/api/generate", "/api/chat"), ("POST", "unsupported", text)),
            **dict.fromkeys(
                ("/api/pull", "/api/push", "/api/create", "/api/copy"), ("POST", "not_implemented", store)
            ),
            "/api/delete": ("DELETE", "not_implemented", store),
        }
        return {
            "/api/embed": {"POST": self.embed},
            "/api/embeddings": {"POST": self.embeddings},
            "/api/tags": {"GET": self.tags},
            "/api/ps": {"GET": self.running},
            "/api/show": {"POST": self.show},
            "/api/version": {"GET": self.version},
            **{
                path: {method: partial(self.refuse, condition, reason)}
                for path, (method, condition, reason) in refused.items()
            },
        }

    async def embed(self, request: Request) -> Response:
        """POST /api/embed."""
        return await self._service.embed(request, self._read_embed, any_type=True)

    def _read_embed(self, body: bytes | bytearray) -> ParsedBody:
        request = read(body, OllamaEmbedRequest)
        name = self._check_model(request.model)
        texts = (
            [request.input] if isinstance(request.input, str) and request.input else list(request.input or ())
        )
        check_count(texts, self._service.settings.max_client_batch_size, "input")
        dimensions = request.dimensions if 0 < (request.dimensions or 0) < self._service.spec.dim else None

        def write(result: Embedded) -> bytearray:
            end = b',"total_duration":%d,"load_duration":0,"prompt_eval_count":%d}'
            return write_rows(
                b'{"model":%b,"embeddings":' % encode_json(name),
                map(json_numbers, result.shortened(dimensions)),
                end % (int(1e9 * result.seconds), result.tokens),
            )

        return ParsedBody(
            texts,
            "error" if request.truncate is False else "end",
            write,
            cut_advice='omit "truncate": false; the input length exceeds the context length',
        )

    async def embeddings(self, request: Request) -> Response:
        """POST /api/embeddings."""
        return await self._service.embed(request, self._read_embeddings, any_type=True)

    def _read_embeddings(self, body: bytes | bytearray) -> ParsedBody:
        request = read(body, OllamaEmbeddingsRequest)
        self._check_model(request.model)

        def write(found: Embedded) -> bytes:
            return encode_json(OllamaEmbeddingsResponse(json_numbers(found.vectors.ravel())))

        return ParsedBody([request.prompt] if request.prompt else [], "end", write)

    def _check_model(self, name: str | None) -> str:
        """Return the name if this server has a model of this name.

        ApiError 400 without a name, 404 for another.
        """
        if not name:
            raise ApiError("bad_field", "model is missing; send a name from /api/tags", param="model")
        accepted_names = {own.lower().removesuffix(":latest") for own in self._service.names}
        alias = self._is_minilm and not self._service.settings.strict_model
        if name.lower().removesuffix(":latest") in accepted_names or (
            alias and MINILM_NAME.fullmatch(name.lower())
        ):
            return name
        raise ApiError(
            "no_such_model",
            f"model {name!r:.200} not found; this server has {', '.join(self._tags())}",
            param="model",
        )

    def _tags(self) -> list[str]:
        tags = [name if ":" in name else f"{name}:latest" for name in self._service.names]
        return [*(MINILM_TAGS if self._is_minilm and not self._service.settings.strict_model else ()), *tags]

    async def tags(self, _: Request) -> Response:
        """GET /api/tags."""
        models = [
            OllamaModel(name, name, self._modified, self._bytes, self._digest, self._details)
            for name in self._tags()
        ]
        return json_response(encode_json(OllamaModels(models)))

    async def running(self, _: Request) -> Response:
        """GET /api/ps."""
        name, length = self._tags()[0], self._service.spec.max_tokens
        model = OllamaRunningModel(
            name, name, self._bytes, self._digest, self._details, NEVER_EXPIRES, 0, length
        )
        return json_response(encode_json(OllamaRunningModels([model])))

    async def show(self, request: Request) -> Response:
        """POST /api/show."""
        with self._service.admission.request() as body_budget:
            body = await read_body(request, self._service.settings.payload_limit, body_budget, any_type=True)
        request_body = read(body, OllamaShowRequest)
        self._check_model(request_body.model or request_body.name)
        spec = self._service.spec
        response = OllamaShowResponse(
            license="Apache-2.0",
            modelfile="",
            parameters="",
            template="",
            details=self._details,
            model_info={
                "general.architecture": "bert",
                "general.parameter_count": self._parameters,
                "bert.block_count": spec.layers,
                "bert.attention.head_count": spec.heads,
                "bert.context_length": spec.max_tokens,
                "bert.embedding_length": spec.dim,
                "bert.feed_forward_length": spec.intermediate,
            },
            capabilities=["embedding"],
            modified_at=self._modified,
        )
        return json_response(encode_json(response))

    async def version(self, _: Request) -> Response:
        """GET /api/version."""
        return json_response(encode_json(OllamaVersion(__version__)))

    async def refuse(self, condition: str, reason: str, _: Request) -> Response:
        """Refuse a URL that this server does not support. ApiError 400, 501."""
        raise ApiError(condition, reason)
