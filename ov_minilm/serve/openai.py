"""OpenAI's embeddings API: requests, responses and errors; and our own form of /tokenize."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Literal, cast, get_args

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from ov_minilm.serve.errors import ApiError, encode_json
from ov_minilm.serve.parsing import read, texts_or_ids
from ov_minilm.serve.service import (
    Embedded,
    Handlers,
    ParsedBody,
    Service,
    json_numbers,
    json_response,
    write_rows,
)
from ov_minilm.serve.settings import Truncate
from ov_minilm.spec import FloatArray

MAX_ID = 100_255  # the last text token of cl100k, the larger one of the two vocabularies that are accepted

TokenId = Annotated[int, Meta(ge=0, le=MAX_ID)]


class EmbeddingRequest(Struct):
    """The body of POST /v1/embeddings."""

    # texts_or_ids() refuses lists that mix texts and ids; types of msgspec cannot express this
    input: Annotated[
        str | list[str | TokenId | list[TokenId]],
        Meta(
            description="a text, a list of texts, a list of token ids (integers from 0 to "
            f"{MAX_ID}), or a list of such lists"
        ),
    ]
    model: Annotated[
        str | None,
        Meta(description="a name from /v1/models; other names are accepted too, unless --strict-model"),
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description='"float" (numbers, the default) or "base64" (of little-endian float32)'),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="an integer, at least 1: keep this many components, scaled to unit length"),
    ] = None
    user: Annotated[str | None, Meta(description="a text; it is ignored")] = None
    truncate: Annotated[
        Truncate | None,
        Meta(
            description='"end" (cut), "error" (refuse) or "mean" (average windows), for texts that are too '
            "long for the model"
        ),
    ] = None


class TokenizeRequest(Struct):
    """A body of POST /tokenize."""

    input: Annotated[str | list[str], Meta(description="a text or a list of texts")]


class Embedding(Struct, tag_field="object", tag="embedding"):
    """One vector: numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str


class Usage(Struct):
    """Number of embedded tokens, with [CLS] and [SEP] and without tokens that were cut off."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(Struct):
    """The response of POST /v1/embeddings, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Tokens(Struct, tag_field="object", tag="tokens"):
    """The token ids of one text, one list for each window that the model reads."""

    index: int
    windows: list[list[int]]
    truncated: bool


class TokenizeResponse(Struct):
    """A response of POST /tokenize."""

    object: Literal["list"]
    data: list[Tokens]
    model: str
    usage: Usage


class Model(Struct, tag_field="object", tag="model"):
    """A name under which the model is served."""

    id: str
    created: int  # seconds since 1970: when the server started
    owned_by: str


class ModelList(Struct):
    """The response of GET /v1/models."""

    object: Literal["list"]
    data: list[Model]


class ErrorBody(Struct):
    """An error. `param` is the invalid field, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Struct):
    """The response to every request that is refused or fails."""

    error: ErrorBody


def error_response(error: ApiError) -> tuple[int, bytes]:
    """Return the status and the JSON body of an error in OpenAI's form."""
    if error.status == 429:
        kind = "rate_limit_error"
    else:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return error.status, encode_json(ErrorResponse(ErrorBody(error.message, kind, error.param, error.code)))


class OpenAI:
    """The handlers of OpenAI's URLs."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> dict[str, Handlers]:
        """Return {URL: {method: handler}}, without /v1/models/{name}."""
        return {
            "/v1/embeddings": {"POST": self.embeddings},
            "/v1/models": {"GET": self.models},
        }

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        header = request.headers.get("x-truncate")
        return await self._service.embed(request, lambda body: self._read(body, header))

    def _read(self, body: bytes | bytearray, header: str | None) -> ParsedBody:
        request = read(body, EmbeddingRequest)
        model = self._model_name(request.model)
        self._service.check_dimensions(request.dimensions)
        if header not in (None, *get_args(Truncate)):
            message = f"x-truncate is {header!r}; choose end, error or mean"
            raise ApiError("bad_field", message, param="x-truncate")
        form, dimensions = request.encoding_format, request.dimensions

        def write(result: Embedded) -> bytearray:
            return embedding_response(result.shortened(dimensions), form, model, result.tokens)

        return ParsedBody(
            texts_or_ids(request.input, self._service.settings.max_client_batch_size, "input"),
            request.truncate or cast("Truncate | None", header) or self._service.settings.truncate,
            write,
            cut_advice='send "truncate": "end" to cut it or "mean" to average its windows',
            ids_model=request.model,
        )

    def _model_name(self, requested: str | None) -> str:
        """Return the model's name for the response. ApiError 404 for unknown names with --strict-model."""
        names = self._service.names
        if requested in names:
            return requested
        if self._service.settings.strict_model:
            problem = (
                "no model was named" if requested is None else f"the model {requested!r:.200} does not exist"
            )
            message = f"{problem}; this server has {', '.join(names)}"
            raise ApiError("no_such_model", message, param="model")
        return names[0]

    def tokens(self, request: TokenizeRequest) -> bytes:
        """Return the response of POST /tokenize with `input`: token ids, a list for each window."""
        texts = texts_or_ids(request.input, self._service.settings.max_client_batch_size, "input")
        self._service.check_characters(texts, "input")
        tokenized = self._service.embedder.tokenize(texts, truncate="mean")
        data = [
            Tokens(index, [ids.tolist() for ids in windows], len(windows) > 1)
            for index, windows in enumerate(tokenized.windows)
        ]
        total = sum(tokenized.tokens)
        return encode_json(TokenizeResponse("list", data, self._service.names[0], Usage(total, total)))

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return json_response(
            encode_json(ModelList("list", [self._model(name) for name in self._service.names]))
        )

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}; ids may contain slashes."""
        name = request.path_params["name"]
        if name not in self._service.names:
            raise ApiError(
                "no_such_model",
                f"the model {name!r:.200} does not exist; this server has {', '.join(self._service.names)}",
                param="model",
            )
        return json_response(encode_json(self._model(name)))

    def _model(self, name: str) -> Model:
        return Model(name, self._service.started, "ov_minilm")


def embedding_response(vectors: FloatArray, form: str | None, model: str, tokens: int) -> bytearray:
    """Return the JSON for vectors [N, D] float32: numbers, or base64, which has a third of the size."""
    rows: Iterable[Any] = (
        Embedding(i, to_base64(vector) if form == "base64" else json_numbers(vector))
        for i, vector in enumerate(vectors)
    )
    end = b',"model":%b,"usage":%b}' % (encode_json(model), encode_json(Usage(tokens, tokens)))
    return write_rows(b'{"object":"list","data":', rows, end)


def to_base64(vector: FloatArray) -> str:
    """Return a vector [D] as base64 of little-endian float32, as OpenAI's clients read it."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
