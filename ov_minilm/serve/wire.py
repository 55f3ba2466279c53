"""The shapes of OpenAI's embeddings API: what comes in, what goes out, and every error.

Reading is strict about what is known (a wrong type is an error that names its place) and indifferent to
unknown fields; null is the same as absent, as clients send it for whatever they leave open.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ov_minilm.serve.settings import Truncate
from ov_minilm.spec import FloatArray

MAX_ID = 100_255  # the last of cl100k that stands for text; the model's own vocabulary is smaller
MAX_CHARACTERS = 1_000_000  # of one text

Text = Annotated[str, Meta(max_length=MAX_CHARACTERS)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_ID)]


class EmbeddingRequest(Struct):
    """The body of POST /v1/embeddings."""

    input: Annotated[  # a list is of one kind, which no type here says: see items()
        Text | list[Text | TokenId | list[TokenId]],
        Meta(description="A text, a list of texts, a list of token ids, or a list of such lists."),
    ]
    model: Annotated[
        str | None, Meta(description="One of /v1/models; another name is served too, unless --strict-model.")
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description="Numbers, the default, or base64 of little-endian float32."),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Keep so many components, of unit length again."),
    ] = None
    user: Annotated[str | None, Meta(description="Ignored.")] = None
    truncate: Annotated[
        Truncate | None,
        Meta(description="Of texts that are too long for the model: cut, refuse, or average windows."),
    ] = None


class TokenizeRequest(Struct):
    """The body of POST /tokenize."""

    input: Annotated[Text | list[Text], Meta(description="A text or a list of texts.")]


class Embedding(Struct, tag_field="object", tag="embedding"):
    """One vector: numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str


class Usage(Struct):
    """Tokens that were embedded, [CLS] and [SEP] included; what was cut off does not count."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(Struct):
    """The answer of POST /v1/embeddings, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Tokens(Struct, tag_field="object", tag="tokens"):
    """The token ids of one text, as the model reads them: window after window."""

    index: int
    windows: list[list[int]]
    truncated: bool


class TokenizeResponse(Struct):
    """The answer of POST /tokenize."""

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
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[Model]


class ErrorBody(Struct):
    """What went wrong. `param` names the field, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Struct):
    """The answer to everything that is refused or failed."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if status == 429:
            self.kind = "rate_limit_error"
        elif status >= 500:
            self.kind = "server_error"
        else:
            self.kind = "invalid_request_error"
        if status in (429, 503):
            self.headers.setdefault("retry-after", "1")
        elif status < 500:
            self.headers["x-should-retry"] = "false"

    def body(self) -> bytes:
        """Return the JSON."""
        return encode(ErrorResponse(ErrorBody(self.message, self.kind, self.param, self.code)))


_PLACE = re.compile(r"(?:- at `\$\.|required field `)(\w+)")  # in a message of msgspec
encode = msgspec.json.Encoder().encode
_decoders: dict[type[Struct], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (EmbeddingRequest, TokenizeRequest)
}


def read_embedding_request(body: bytes) -> EmbeddingRequest:
    """Parse a body; ApiError 400 says what is wrong and where."""
    return _read(body, EmbeddingRequest)  # type: ignore[no-any-return]


def read_tokenize_request(body: bytes) -> TokenizeRequest:
    """Parse a body; ApiError 400 says what is wrong and where."""
    return _read(body, TokenizeRequest)  # type: ignore[no-any-return]


def _read(body: bytes, kind: type[Struct]) -> Any:
    try:
        try:
            return _decoders[kind].decode(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(_read_surrogates(body), kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        raise ApiError(400, str(error), param=place[1] if place else None) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid JSON in UTF-8: {error}") from error


def _read_surrogates(body: bytes) -> Any:
    """Read again what the fast reader refuses.

    Clients that cut texts in the middle of an emoji send half of a surrogate pair, escaped. That is no text,
    but Python's reader takes it, and the tokenizer makes it U+FFFD, as everywhere.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    return json.loads(body.decode("utf-8"), parse_constant=refuse)


def items(value: str | list[Any], most: int) -> list[str] | list[list[int]]:
    """Return the texts, or the lists of token ids, that an input stands for: 1 to `most` of them."""
    found: list[Any] = [value] if isinstance(value, str) else value
    kinds = set(map(type, found))
    if kinds == {int}:  # the ids of a single text
        found, kinds = [found], {list}
    if not found:
        raise ApiError(400, "input is an empty list; send at least one text", param="input")
    if len(kinds) > 1:
        names = sorted({str: "texts", int: "numbers", list: "lists"}[kind] for kind in kinds)
        raise ApiError(400, f"input mixes {' and '.join(names)}; send one kind", param="input")
    if len(found) > most:
        raise ApiError(
            400,
            f"input has {len(found)} entries, this server takes {most} a request; send several requests",
            param="input",
            code="array_above_max_length",
        )
    if kinds == {list} and [] in found:
        index = found.index([])
        raise ApiError(400, f"input[{index}] is an empty list of token ids", param="input")
    return found


def embedding_response(vectors: FloatArray, form: str | None, model: str, tokens: int) -> bytes:
    """Return the JSON for vectors [N, D]: as numbers, or as base64, which is a third of the size."""
    if form == "base64":
        data = [Embedding(i, to_base64(vector)) for i, vector in enumerate(vectors)]
    else:
        data = [Embedding(i, numbers) for i, numbers in enumerate(vectors.tolist())]
    return encode(EmbeddingResponse("list", data, model, Usage(tokens, tokens)))


def to_base64(vector: FloatArray) -> str:
    """Return little-endian float32, as OpenAI's clients read it."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
