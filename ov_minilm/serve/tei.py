"""The API of Text Embeddings Inference: requests, responses and errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from tokenizers import Encoding, Tokenizer

from ov_minilm._version import __version__
from ov_minilm.serve.errors import ApiError, encode_json
from ov_minilm.serve.openai import OpenAI, TokenId
from ov_minilm.serve.openai import TokenizeRequest as TokenizeInputRequest
from ov_minilm.serve.parsing import check_count, read, texts_or_ids
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

TEXTS_OR_IDS = "a text, a list of texts, a list of token ids, or a list of such lists"
TRUNCATE = "true (cut texts that are too long) or false (refuse them); the default is the server's"

Truncated = Annotated[bool | None, Meta(description=TRUNCATE)]
Direction = Annotated[
    Literal["left", "right", "Left", "Right"] | None,
    Meta(description='"right" (keep the start of a text that is cut, the default) or "left" (keep its end)'),
]
PromptName = Annotated[
    str | None, Meta(description="the name of a prompt of the model, which goes before each text")
]


class EmbedRequest(Struct):
    """The body of POST /embed and POST /."""

    inputs: Annotated[str | list[str | TokenId | list[TokenId]], Meta(description=TEXTS_OR_IDS)]
    truncate: Truncated = None
    truncation_direction: Direction = None
    prompt_name: PromptName = None
    normalize: Annotated[
        bool | None,
        Meta(description="true or false; it is ignored: the model's vectors always have unit length"),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="an integer, at least 1: keep this many components, scaled to unit length"),
    ] = None


class SimilarityInput(Struct):
    """A text, and the texts to compare with it."""

    source_sentence: Annotated[str, Meta(description="a text")]
    sentences: Annotated[list[str], Meta(description="a list of texts")]


class SimilarityParameters(Struct):
    """How the texts of POST /similarity are embedded."""

    truncate: Truncated = None
    truncation_direction: Direction = None
    prompt_name: PromptName = None


class SimilarityRequest(Struct):
    """The body of POST /similarity."""

    inputs: Annotated[SimilarityInput, Meta(description="an object with source_sentence and sentences")]
    parameters: Annotated[
        SimilarityParameters | None, Meta(description="an object with truncate and truncation_direction")
    ] = None


class TokenizeInputsRequest(Struct):
    """A body of POST /tokenize, as Text Embeddings Inference has it."""

    inputs: Annotated[str | list[str], Meta(description="a text or a list of texts")]
    add_special_tokens: Annotated[bool, Meta(description="true or false: with [CLS] and [SEP]")] = True
    prompt_name: PromptName = None


class Token(Struct):
    """A token. `start` and `stop` are its place in the text, in bytes of UTF-8."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeRequest(Struct):
    """The body of POST /decode."""

    ids: Annotated[
        list[TokenId | list[TokenId]], Meta(description="a list of token ids, or a list of such lists")
    ]
    skip_special_tokens: Annotated[bool, Meta(description="true or false: without [CLS] and [SEP]")] = True


class ModelType(Struct):
    """The kind of the model."""

    embedding: dict[str, str]


class Info(Struct):
    """The response of GET /info."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class TeiErrorResponse(Struct):
    """The response to every request that is refused or fails."""

    error: str
    error_type: str


class _WhichTokenize(Struct):
    """The field that shows which of the two forms a body of POST /tokenize has."""

    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def error_response(error: ApiError) -> tuple[int, bytes]:
    """Return the status and the JSON body of an error in the form of Text Embeddings Inference."""
    status, kind = error.condition.tei
    return status, encode_json(TeiErrorResponse(error.message, kind))


class Tei:
    """The handlers of TEI's URLs."""

    def __init__(self, service: Service, openai: OpenAI) -> None:
        self._service = service
        self._openai = openai

    def routes(self) -> dict[str, Handlers]:
        """Return {URL: {method: handler}}."""
        embed, info = {"POST": self.embed}, {"GET": self.info}
        refusals = {
            "/embed_all": "this model gives one vector for each text and none for each token; use /embed",
            "/embed_sparse": "this model gives dense vectors, not sparse ones; use /embed",
            "/rerank": "this model is not a re-ranker; /similarity compares texts by their vectors",
            "/predict": "this model is not a classifier; use /embed for vectors",
        }
        return {
            "/embed": embed,
            "/": embed,
            "/invocations": embed,
            "/similarity": {"POST": self.similarity},
            "/tokenize": {"POST": self.tokenize},
            "/decode": {"POST": self.decode},
            "/info": info,
            **{path: {"POST": partial(self.refuse, reason)} for path, reason in refusals.items()},
        }

    async def embed(self, request: Request) -> Response:
        """POST /embed, POST / and POST /invocations."""
        return await self._service.embed(request, self._read_embed)

    def _read_embed(self, body: bytes | bytearray) -> ParsedBody:
        request = read(body, EmbedRequest)
        self._service.check_dimensions(request.dimensions)

        def write(result: Embedded) -> bytearray:
            return write_rows(b"", map(json_numbers, result.shortened(dimensions)), b"")

        dimensions = request.dimensions
        texts = texts_or_ids(request.inputs, self._service.settings.max_client_batch_size, "inputs")
        return self._parsed_body(texts, request, write)

    def _parsed_body(
        self, texts: list[Any], request: EmbedRequest | SimilarityParameters, write: Any
    ) -> ParsedBody:
        truncate: Truncate = self._service.settings.truncate
        if request.truncate is not None:
            truncate = "end" if request.truncate else "error"
        return ParsedBody(
            self._prompted(texts, request.prompt_name),
            truncate,
            write,
            field="inputs",
            keep_end=(request.truncation_direction or "right").lower() == "left",
            headers=_headers,
        )

    def _prompted(self, texts: list[Any], name: str | None) -> list[Any]:
        """Put the prompt of this name before each text."""
        if name is None:
            return texts
        prompts = self._service.spec.prompts
        if name not in prompts:
            known = f"it has {', '.join(sorted(prompts))}" if prompts else "it has no prompts"
            message = f"prompt_name is {name!r:.60}, this model has no such prompt; {known}"
            raise ApiError("bad_field", message, param="prompt_name")
        if not isinstance(texts[0], str):
            raise ApiError("bad_field", "prompt_name cannot be used with token ids", param="prompt_name")
        return [prompts[name] + text for text in texts]

    async def similarity(self, request: Request) -> Response:
        """POST /similarity: the cosines of one text with several others."""
        return await self._service.embed(request, self._read_similarity)

    def _read_similarity(self, body: bytes | bytearray) -> ParsedBody:
        request = read(body, SimilarityRequest)
        if not request.inputs.sentences:
            message = "inputs.sentences is an empty list; send at least one text"
            raise ApiError("no_texts", message, param="inputs")
        texts = [request.inputs.source_sentence, *request.inputs.sentences]
        check_count(texts, self._service.settings.max_client_batch_size, "inputs")

        def write(found: Embedded) -> bytes:
            return encode_json((found.vectors[1:] @ found.vectors[0]).tolist())

        return self._parsed_body(texts, request.parameters or SimilarityParameters(), write)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: a body with `inputs` has TEI's form, a body with `input` the form of ov_minilm."""

        def write(body: bytes | bytearray) -> bytes:
            try:
                tei_form = msgspec.json.decode(body, type=_WhichTokenize).inputs is not msgspec.UNSET
            except msgspec.DecodeError:  # `read` handles half of a surrogate pair, and refuses invalid JSON
                tei_form = b'"inputs"' in body
            if not tei_form:
                return self._openai.tokens(read(body, TokenizeInputRequest))
            request.scope["error_response"] = error_response
            return self._tokens(read(body, TokenizeInputsRequest))

        return await self._service.offload_body(request, write)

    def _tokens(self, request: TokenizeInputsRequest) -> bytes:
        texts = texts_or_ids(request.inputs, self._service.settings.max_client_batch_size, "inputs")
        self._service.check_characters(texts, "inputs")
        texts = self._prompted(texts, request.prompt_name)
        encodings = (
            self._tokenizer.encode(text, add_special_tokens=request.add_special_tokens)
            for text in _valid(texts)
        )
        rows = (_token_list(text, encoding) for text, encoding in zip(texts, encodings, strict=True))
        return bytes(write_rows(b"", rows, b""))

    async def decode(self, request: Request) -> Response:
        """POST /decode: token ids to text."""
        return await self._service.offload_body(request, self._decode)

    def _decode(self, body: bytes | bytearray) -> bytes:
        decode_request = read(body, DecodeRequest)
        lists = texts_or_ids(decode_request.ids, self._service.settings.max_client_batch_size, "ids")
        for index, ids in enumerate(lists):
            if max(map(int, ids)) >= self._service.spec.vocab_size:
                last = self._service.spec.vocab_size - 1
                message = f"ids[{index}] has an id over {last}, the last in this model's vocabulary"
                raise ApiError("bad_token_ids", message, param="ids")
        return encode_json([self._tokenizer.decode(ids, decode_request.skip_special_tokens) for ids in lists])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """A copy of the embedder's tokenizer without truncation."""
        tokenizer = Tokenizer.from_str(self._service.embedder._tokens._tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    async def info(self, _: Request) -> Response:
        """GET /info."""
        service = self._service
        server_info = Info(
            model_id=service.info.model,
            model_sha=service.info.fingerprint,
            model_dtype={"f32": "float32"}.get(service.info.weights, service.info.weights),
            served_model_name=service.names[0],
            model_type=ModelType({"pooling": service.spec.pooling}),
            max_concurrent_requests=service.settings.max_concurrent_requests,
            max_input_length=service.spec.max_tokens,
            max_batch_tokens=max(int(np.prod([*map(int, grid.split("x"))])) for grid in service.info.grids),
            max_batch_requests=None,
            max_client_batch_size=service.settings.max_client_batch_size,
            auto_truncate=service.settings.truncate != "error",
            tokenization_workers=service.info.threads,
            version=__version__,
            sha=None,
            docker_label=None,
        )
        return json_response(encode_json(server_info))

    async def refuse(self, reason: str, _: Request) -> Response:
        """Refuse a URL that needs another kind of model. ApiError 400."""
        raise ApiError("unsupported", reason)


def _headers(result: Embedded) -> Mapping[str, str]:
    """Return TEI's headers: times in milliseconds, and counts."""
    names = {"tokenize": "tokenization", "queue": "queue", "inference": "inference"}
    phases = {
        f"x-{names[name]}-time": str(round(1000 * (ended - begun)))
        for name, (begun, ended) in result.outcome.phases.items()
    }
    total = str(round(1000 * result.seconds))
    return phases | {
        "x-compute-type": "cpu",
        "x-compute-time": total,
        "x-total-time": total,
        "x-compute-characters": str(result.characters),
        "x-compute-tokens": str(result.tokens),
    }


def _valid(texts: list[str]) -> list[str]:
    """Return the texts with U+FFFD instead of half surrogate pairs, which the tokenizer refuses."""
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]


def _token_list(text: str, encoding: Encoding) -> list[Token]:
    at = [0]  # number of bytes before each character
    for character in text:
        at.append(at[-1] + len(character.encode("utf-8", "replace")))
    rows = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        Token(token_id, token, True, None, None)
        if special
        else Token(token_id, text[start:stop], False, at[start], at[stop])
        for token_id, token, special, (start, stop) in rows
    ]
