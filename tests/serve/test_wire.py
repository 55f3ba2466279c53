"""The three APIs without a network: vectors equal those of `encode`, and each API has its errors."""

import codecs
import dataclasses
import hashlib
import json
import time
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from starlette.types import ASGIApp
from support.asgi import JSON, SuppliedVectors, ask, post

from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.serve import Settings, create_app

# the answers report truncated texts
pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")

OPENAI, TEI, OLLAMA = "/v1/embeddings", "/embed", "/api/embed"
MINILM = {"model": "all-minilm"}
LONG = "start " + "word " * 300 + "end"
LONG_END = "word " * 253 + "end"  # the last 256 tokens of LONG
SHORT_TEXTS = ["b", "a", "", "naïve café 😉"]
MANY_TEXTS = [f"text number {i} of many" for i in range(600)]  # enough for several chunks


def embedding_request(path: str, texts: Any) -> dict[str, Any]:
    """Return the body that asks an API for embeddings."""
    return MINILM | {"input": texts} if path in (OPENAI, OLLAMA) else {"inputs": texts}


@pytest.mark.parametrize("path", [OPENAI, TEI, "/", "/invocations", OLLAMA])
@pytest.mark.parametrize(
    "text_input", ["hello world", SHORT_TEXTS, MANY_TEXTS], ids=["text", "list", "long list"]
)
def test_vectors_equal_encode(app: ASGIApp, shipped: Embedder, path: str, text_input: Any) -> None:
    """Vectors are equal to the bit and in order; a byte order mark (RFC 8259) is ignored."""
    texts = [text_input] if isinstance(text_input, str) else text_input
    tokens = sum(shipped.count_tokens(texts))

    answer = post(app, path, codecs.BOM_UTF8 + json.dumps(embedding_request(path, text_input)).encode())

    headers = answer.headers
    assert np.array_equal(shipped.encode(texts), answer.vectors)
    assert ("0", shipped.info.fingerprint) == (headers["x-truncated"], headers["x-model-fingerprint"])
    if path == OPENAI:
        assert list(range(len(texts))) == [item["index"] for item in answer.json["data"]]
        assert {"prompt_tokens": tokens, "total_tokens": tokens} == answer.json["usage"]
    elif path == OLLAMA:
        names = ("model", "prompt_eval_count", "load_duration")
        assert ("all-minilm", tokens, 0) == tuple(answer.json[name] for name in names)
        assert 10**4 < answer.json["total_duration"] < 60 * 10**9
    else:
        counts = {"type": "cpu", "tokens": str(tokens), "characters": str(sum(map(len, texts)))}
        assert counts == {name: headers[f"x-compute-{name}"] for name in counts}
        for name in ("compute", "total", "tokenization", "queue", "inference"):
            assert 0 <= int(headers[f"x-{name}-time"]) < 60_000


@pytest.mark.parametrize("number", [0, 1, 384, 1000, None])
def test_dimensions_of_ollama(app: ASGIApp, shipped: Embedder, number: int | None) -> None:
    """As in Ollama, dimensions beyond the model's are ignored; the other APIs refuse them."""
    answer = post(app, OLLAMA, embedding_request(OLLAMA, ["a", "b"]) | {"dimensions": number})

    assert np.array_equal(shrink(shipped.encode(["a", "b"]), 1 if number == 1 else 384), answer.vectors)


@pytest.mark.parametrize(
    ("server", "path", "field", "header", "result"),
    [
        ("end", OPENAI, {}, "", "end"),
        ("error", OPENAI, {}, "mean", "mean"),
        ("error", OPENAI, {"truncate": "end"}, "mean", "end"),
        ("end", OPENAI, {"truncate": "error"}, "mean", 'send "truncate": "end" to cut it or "mean"'),
        ("error", OPENAI, {}, "", 'send "truncate": "end" to cut it or "mean"'),
        ("mean", TEI, {}, "", "mean"),
        ("error", TEI, {"truncate": None}, "", 'send "truncate": true to cut it'),
        ("error", TEI, {"truncate": True}, "", "end"),
        ("end", TEI, {"truncate": False}, "", 'send "truncate": true to cut it'),
        *(("end", TEI, {"truncation_direction": side}, "", "keep end") for side in ("left", "Left")),
        ("end", TEI, {"truncation_direction": "Right"}, "", "end"),
        ("error", OLLAMA, {}, "", "end"),
        ("end", OLLAMA, {"truncate": False}, "", "the input length exceeds the context length"),
    ],
)
def test_long_texts(shipped: Embedder, server: Any, path: str, field: Any, header: str, result: str) -> None:
    """A long text is cut, averaged or refused, as the field, the header or the server's option says."""
    app = create_app(shipped, Settings(truncate=server, warm_up=False))
    headers = JSON | ({"x-truncate": header} if header else {})

    answer = post(app, path, embedding_request(path, ["a", LONG]) | field, headers)

    if result not in ("end", "mean", "keep end"):
        assert (413 if path == TEI else 400) == answer.status
        assert path != TEI or answer.json["error_type"] == "validation"
        assert "[1] has 304 tokens, the model reads 256; shorten it, or " in answer.message
        assert result in answer.message
        return
    mean = result == "mean"
    text = LONG_END if result == "keep end" else LONG
    assert np.array_equal(shipped.encode(["a", text], truncate="mean" if mean else "end"), answer.vectors)
    assert ("0" if mean else "1") == answer.headers["x-truncated"]
    assert path != OPENAI or 3 + (306 if mean else 256) == answer.json["usage"]["total_tokens"]


def test_long_texts_in_a_long_list(app: ASGIApp) -> None:
    """Truncated texts have their index in the whole list, although lists are tokenized in chunks."""
    assert "2" == post(app, OPENAI, {"input": [LONG, *MANY_TEXTS[:511], LONG]}).headers["x-truncated"]
    refused = post(app, OPENAI, {"input": [*MANY_TEXTS, LONG], "truncate": "error"})
    assert "input[600] has 304 tokens" in refused.message


def test_token_ids_can_be_embedded_and_decoded(app: ASGIApp, shipped: Embedder) -> None:
    """Ids from both forms of /tokenize give the same vectors as the texts; /decode gives texts back."""
    texts = ["hello world", "word " * 300]
    our_tokens = post(app, "/tokenize", {"input": texts}).json
    tei_tokens = post(app, "/tokenize", {"inputs": texts[:1]}).json
    ids = [item["windows"] for item in our_tokens["data"]]

    assert [(0, False), (1, True)] == [(item["index"], item["truncated"]) for item in our_tokens["data"]]
    assert sum(map(len, (*ids[0], *ids[1]))) == our_tokens["usage"]["total_tokens"]
    assert "all-MiniLM-L6-v2" == our_tokens["model"]
    vectors = shipped.encode(texts)
    assert np.array_equal(vectors, post(app, OPENAI, {"input": [windows[0] for windows in ids]}).vectors)
    assert np.array_equal(vectors[:1], post(app, OPENAI, {"input": ids[0][0]}).vectors)
    tei_ids = [[token["id"] for token in tokens] for tokens in tei_tokens]
    assert np.array_equal(vectors[:1], post(app, TEI, {"inputs": tei_ids}).vectors)
    for given, options, decoded in (
        (ids[0][0], {}, ["hello world"]),
        ([[7592], [101, 2088, 102]], {}, ["hello", "world"]),
        ([101, 7592, 102], {"skip_special_tokens": False}, ["[CLS] hello [SEP]"]),
        ([30_521], {}, ["##～"]),  # the last id of the vocabulary
    ):
        assert decoded == post(app, "/decode", {"ids": given} | options).json


def test_token_offsets(app: ASGIApp) -> None:
    """TEI's /tokenize gives the bytes of each token in the text, cuts nothing, and can omit [CLS]."""
    text = "Naïve 😉 tokenization"
    default, with_special, without_special = (
        post(app, "/tokenize", {"inputs": text} | options).json[0]
        for options in ({}, {"add_special_tokens": True}, {"add_special_tokens": False})
    )

    assert default == with_special == [with_special[0], *without_special, with_special[-1]]
    assert {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None} == with_special[0]
    assert ["Naïve", "😉", "token", "ization"] == [token["text"] for token in without_special]
    for token in without_special:
        assert not token["special"]
        assert token["text"].encode() == text.encode()[token["start"] : token["stop"]]
    assert 304 == len(post(app, "/tokenize", {"inputs": LONG}).json[0])
    half_pair = post(app, "/tokenize", rb'{"inputs": ["\ud83d a", "b"]}').json  # half a surrogate pair
    assert ["a", "b"] == [tokens[-2]["text"] for tokens in half_pair]


def test_similarity_and_prompts(shipped: Embedder) -> None:
    """/similarity gives cosines in order; a prompt and its text are embedded as one text."""

    class Prompted(SuppliedVectors):
        spec = property(lambda _: dataclasses.replace(shipped.spec, prompts={"query": "query: "}))
        asubmit = Embedder.asubmit

    app = create_app(Prompted(shipped), Settings(warm_up=False))
    texts, query_prompt = ["a cat", "a dog", "interest rates", "a cat"], {"prompt_name": "query"}
    inputs = {"inputs": {"source_sentence": texts[0], "sentences": texts[1:]}}

    for prompt, options in (("", {}), ("query: ", {"parameters": query_prompt})):
        first, *others = shipped.encode([prompt + text for text in texts])
        cosines = np.array(post(app, "/similarity", inputs | options).json, np.float32)
        assert np.array_equal(np.stack(others) @ first, cosines)
    vectors = post(app, TEI, {"inputs": ["a", "b"]} | query_prompt).vectors
    assert np.array_equal(shipped.encode(["query: a", "query: b"]), vectors)
    assert "query" == post(app, "/tokenize", {"inputs": "a"} | query_prompt).json[0][1]["text"]
    assert "cannot be used with token ids" in post(app, TEI, {"inputs": [[101, 102]]} | query_prompt).message
    assert "no such prompt; it has query" in post(app, TEI, {"inputs": "a", "prompt_name": "x"}).message


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (OLLAMA, {"input": []}, '"embeddings":[]'),
        (OLLAMA, {"input": ""}, '"embeddings":[]'),
        (OLLAMA, {"input": None}, '"embeddings":[]'),
        ("/api/embeddings", {}, '{"embedding":[]}'),
        ("/api/embeddings", {"prompt": "a"}, '{"embedding":[-'),
        ("/api/show", {}, '"capabilities":["embedding"]'),
    ],
)
def test_ollama_requests_without_a_text_or_content_type(
    app: ASGIApp, shipped: Embedder, path: str, body: Any, expected: str
) -> None:
    """Without a text the model is loaded; only requests with an Origin must have JSON's content type."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    web_page = form | {"origin": "https://evil.example"}
    answers = [post(app, path, MINILM | body, headers) for headers in ({}, form, web_page)]

    assert [200, 200, 415] == [answer.status for answer in answers]
    assert expected in answers[0].body.decode()
    if "prompt" in body:
        assert np.array_equal(shipped.encode("a"), np.array(answers[1].json["embedding"], np.float32))


SERVED = """all-minilm all-minilm:latest all-minilm:l6-v2 all-minilm:22m all-minilm:22m-l6-v2-fp16 ALL-MiniLM
chroma/all-minilm-l6-v2-f32 all-MiniLM-L6-v2 all-MiniLM-L6-v2:latest sentence-transformers/all-MiniLM-L6-v2"""
OTHER_MODELS = "all-minilm:33m all-minilm:l12-v2 nomic-embed-text"  # 33m and l12-v2 have 12 layers
TAGS = "all-minilm:latest, all-minilm:l6-v2, all-minilm:22m, all-MiniLM-L6-v2:latest"


@pytest.mark.parametrize("name", [*SERVED.split(), *OTHER_MODELS.split()])
def test_ollama_model_names(app: ASGIApp, name: str) -> None:
    """Ollama's names and tags of the model are served; for another model, 404 lists the names."""
    bodies = [
        (OLLAMA, {"model": name, "input": "a"}),
        ("/api/embeddings", {"model": name, "prompt": "a"}),
        ("/api/show", {"model": name}),
        ("/api/show", {"name": name}),
    ]
    for path, body in bodies:
        answer = post(app, path, body)
        if name in SERVED.split():
            assert 200 == answer.status
        else:
            assert 404 == answer.status
            assert f"model '{name}' not found; this server has {TAGS}, sentence-" in answer.message


def test_served_model_names(shipped: Embedder) -> None:
    """The operator's names are listed; an answer has the name in the request, or the first name."""
    names = ("mine", "team/ours", "my:tag")
    settings = Settings(served_model_names=names, warm_up=False)
    app = create_app(shipped, settings)
    strict = create_app(shipped, dataclasses.replace(settings, strict_model=True))
    listed = ask(app, "GET", "/v1/models").json["data"]

    assert [(name, "ov_minilm") for name in names] == [(model["id"], model["owned_by"]) for model in listed]
    assert 0 <= time.time() - listed[0]["created"] < 600
    assert listed[1] == ask(app, "GET", "/v1/models/team/ours").json
    for name, served in (("mine", "mine"), ("team/ours", "team/ours"), ("gpt", "mine"), (None, "mine")):
        assert served == post(app, OPENAI, {"input": "a", "model": name}).json["model"]
        assert (200 if name == served else 404) == post(strict, OPENAI, {"input": "a", "model": name}).status
    for name, status in (("mine", 200), ("mine:latest", 200), ("MY:tag", 200), ("all-minilm", 404)):
        assert status == post(strict, OLLAMA, {"input": "a", "model": name}).status
    tags = ask(strict, "GET", "/api/tags").json["models"]
    assert ["mine:latest", "team/ours:latest", "my:tag"] == [tag["name"] for tag in tags]


@pytest.mark.parametrize(
    ("weights", "truncate", "dtype", "level", "size"),
    [
        ("int8", "end", "int8", "INT8", 22_565_376),
        ("int8", "mean", "int8", "INT8", 22_565_376),
        ("f32", "error", "float32", "F32", 4 * 22_565_376),
    ],
)
def test_model_description(
    shipped: Embedder, weights: str, truncate: Any, dtype: str, level: str, size: int
) -> None:
    """/info has the limits by which TEI's clients size batches; Ollama's pages describe the same model."""

    class Described(SuppliedVectors):
        info = property(lambda _: dataclasses.replace(shipped.info, weights=weights))

    app = create_app(Described(shipped), Settings(truncate=truncate, warm_up=False))
    info, (tag, *_) = ask(app, "GET", "/info").json, ask(app, "GET", "/api/tags").json["models"]
    (loaded,) = ask(app, "GET", "/api/ps").json["models"]
    model = post(app, "/api/show", {"name": "all-minilm"}).json
    modified = tag.pop("modified_at")

    limits = {"max_input_length": 256, "max_client_batch_size": 2048, "max_concurrent_requests": 512}
    limits |= {"max_batch_tokens": 512, "auto_truncate": truncate != "error"}
    assert info == info | limits | {"model_id": "sentence-transformers/all-MiniLM-L6-v2"}
    names = ("model_sha", "model_dtype", "served_model_name", "tokenization_workers")
    facts = (shipped.info.fingerprint, dtype, "all-MiniLM-L6-v2", shipped.info.threads)
    assert (*facts, {"embedding": {"pooling": "mean"}}) == tuple(
        info[name] for name in (*names, "model_type")
    )
    details = {"parent_model": "", "format": "openvino", "family": "bert", "families": ["bert"]}
    details |= {"parameter_size": "23M", "quantization_level": level}
    expected = dict.fromkeys(("name", "model"), "all-minilm:latest") | {"details": details, "size": size}
    assert expected | {"digest": hashlib.sha256(shipped.info.fingerprint.encode()).hexdigest()} == tag
    assert loaded == tag | {"context_length": 256, "size_vram": 0, "expires_at": "0001-01-01T00:00:00Z"}
    expected_sizes = {"block_count": 6, "attention.head_count": 12, "context_length": 256}
    expected_sizes |= {"embedding_length": 384, "feed_forward_length": 1536}
    model_info = {"general.architecture": "bert", "general.parameter_count": 22_565_376}
    model_info |= {f"bert.{name}": value for name, value in expected_sizes.items()}
    assert (model_info, details, modified) == (model["model_info"], model["details"], model["modified_at"])
    assert ("Apache-2.0", ["embedding"]) == (model["license"], model["capabilities"])
    assert datetime.fromisoformat(modified).tzinfo is not None
    assert info["version"] == ask(app, "GET", "/api/version").json["version"]


NAMES = "this server has all-MiniLM-L6-v2, sentence-transformers/all-MiniLM-L6-v2"
TOO_MANY = ["a"] * 2049
TEXT_OF_100_001 = "a" * 100_001  # one character more than /tokenize accepts
SIMILARITY_WITH_NO_SENTENCE, SIMILARITY_WITH_2049_SENTENCES = (
    {"inputs": {"source_sentence": "a", "sentences": sentences}} for sentences in ([], ["a"] * 2048)
)
UNSUPPORTED = "embed_all embed_sparse rerank predict"
MODEL_STORE_URLS = "POST /api/pull, POST /api/push, POST /api/create, POST /api/copy, DELETE /api/delete"


ERRORS: list[tuple[str, Any, str, str]] = [  # status; then code and param, or error_type (TEI)
    ("GET /v1/embedding", b"", "404 unknown_url None", "'/v1/embedding' does not exist on this server"),
    ("GET /v1/embeddings/", b"", "405 method_not_allowed None", "does not accept GET; send POST, OPTIONS"),
    ("GET /v1/models/gpt", b"", "404 model_not_found model", f"the model 'gpt' does not exist; {NAMES}"),
    (OPENAI, {"input": "a", "dimensions": 385}, "400 None dimensions", "dimensions is 385; send 1 to 384"),
    (OPENAI, {"input": LONG, "truncate": "error"}, "400 context_length_exceeded input", "input[0] has"),
    (OPENAI, {"input": [101, 40_000]}, "400 ambiguous_token_ids input", "OpenAI's cl100k"),
    ("/tokenize", {"input": TOO_MANY}, "400 array_above_max_length input", "input has 2049 entries"),
    (
        "/tokenize",
        {"input": TEXT_OF_100_001},
        "400 max_tokens_per_request input",
        "input has 100001 characters",
    ),
    (TEI, {"inputs": []}, "400 empty", "inputs is an empty list"),
    ("/tokenize", {"inputs": []}, "400 empty", "inputs is an empty list"),
    ("/decode", {"ids": []}, "400 empty", "ids is an empty list"),
    ("/similarity", SIMILARITY_WITH_NO_SENTENCE, "400 empty", "inputs.sentences is an empty list"),
    (TEI, {"inputs": TOO_MANY}, "413 validation", "inputs has 2049 entries; this server accepts 2048"),
    ("/similarity", SIMILARITY_WITH_2049_SENTENCES, "413 validation", "inputs has 2049 entries"),
    ("/tokenize", {"inputs": TOO_MANY}, "413 validation", "inputs has 2049 entries"),
    ("/tokenize", {"inputs": TEXT_OF_100_001}, "413 validation", "characters; send at most 100000"),
    ("/decode", {"ids": [[1]] * 2049}, "413 validation", "ids has 2049 entries"),
    (TEI, {"inputs": {"a": 1}}, "422 validation", "inputs is an object; expected a text, a list of texts"),
    (TEI, {"inputs": "a", "truncation_direction": 1}, "422 validation", 'expected "right" (keep the start'),
    (TEI, {"inputs": "a", "prompt_name": "q"}, "422 validation", "no such prompt; it has no prompts"),
    (TEI, {"inputs": "a", "dimensions": 385}, "422 validation", "send 1 to 384"),
    ("/decode", {"ids": [[1], [30_522]]}, "422 tokenizer", "ids[1] has an id over 30521"),
    ("/tokenize", {"inputs": 5}, "422 validation", "expected a text or a list of texts"),
    ("/tokenize", rb'{"inputs": ["\ud83d", 5]}', "422 validation", "inputs[1] is 5; expected a text or"),
    *((f"/{name}", {"inputs": "a"}, "424 backend", "; ") for name in UNSUPPORTED.split()),
    (TEI, b"{", "400 validation", "not valid JSON"),
    ("GET /embed", b"", "405 validation", "/embed does not accept GET; send POST, OPTIONS"),
    (OLLAMA, {"input": "a"}, "400", "model is missing; send a name from /api/tags"),
    ("/api/embeddings", {"prompt": "a"}, "400", "model is missing"),
    (OLLAMA, MINILM | {"input": 5}, "400", "input is 5; expected a text or a list of texts"),
    (OLLAMA, MINILM | {"input": TOO_MANY}, "400", "input has 2049 entries"),
    *((f"/api/{name}", MINILM, "400", "it cannot generate text") for name in ("generate", "chat")),
    *((url, MINILM, "501", "it cannot pull, change or remove") for url in MODEL_STORE_URLS.split(", ")),
    ("GET /api/nothing", b"", "404", "'/api/nothing' does not exist"),
]


@pytest.mark.parametrize(("url", "body", "kind", "message"), ERRORS)
def test_errors_have_the_form_of_the_api(app: ASGIApp, url: str, body: Any, kind: str, message: str) -> None:
    """Statuses, codes and fields are those that each API documents, and the message names the remedy."""
    method, path = url.split() if " " in url else ("POST", url)

    answer = ask(app, method, path, body)

    error = answer.json if isinstance(answer.json["error"], str) else answer.json["error"]
    fields = {3: {"message", "type", "param", "code"}, 2: {"error", "error_type"}, 1: {"error"}}
    assert fields[len(kind.split())] == error.keys()
    names = ("code", "param", "error_type")
    assert kind.split() == [str(answer.status), *(str(error[name]) for name in names if name in error)]
    assert message in answer.message
    headers = answer.headers["content-type"], answer.headers.get("x-should-retry")
    assert ("application/json", None if answer.status == 501 else "false") == headers
    assert len(answer.headers["x-request-id"]) > 32
    assert (answer.status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(
    ("settings", "body", "headers", "param", "message"),
    [
        ({"strict_model": True}, {"model": "ada"}, {}, "model", f"the model 'ada' does not exist; {NAMES}"),
        ({"strict_model": True}, {}, {}, "model", f"no model was named; {NAMES}"),
        ({}, {}, {"x-truncate": "NONE"}, "x-truncate", "x-truncate is 'NONE'; choose end, error or mean"),
        ({"token_ids": "native"}, {"input": [[7592], [40_000]]}, {}, "input", "text 1 is 40000"),
        ({"max_client_batch_size": 1}, {"input": ["a", "b"]}, {}, "input", "accepts 1 in a request"),
    ],
)
def test_settings_are_enforced(
    shipped: Embedder, settings: Any, body: Any, headers: Any, param: str, message: str
) -> None:
    """A request that the operator's settings forbid is refused with the field and what is allowed."""
    app = create_app(shipped, Settings(**settings, warm_up=False))

    answer = post(app, OPENAI, {"input": "a"} | body, JSON | headers)

    assert message in answer.message
    assert param == answer.json["error"]["param"]
