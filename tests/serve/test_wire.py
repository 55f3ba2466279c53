"""The three APIs over one application: vectors of `encode`, and of each API its names, shapes and errors."""

from __future__ import annotations

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
from support.asgi import JSON, Waiting, ask, post

from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.serve import Settings, create_app

pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")  # answers count instead

V1, TEI, OLLAMA = "/v1/embeddings", "/embed", "/api/embed"
MINILM = {"model": "all-minilm"}
LONG = "start " + "word " * 300 + "end"
TAIL = "word " * 253 + "end"  # what the model reads of it from the end
FEW = ["b", "a", "", "naïve café 😉"]
MANY = [f"text number {i} of many" for i in range(600)]  # read in chunks, and answered in a thread


def _body(path: str, texts: Any) -> dict[str, Any]:
    return MINILM | {"input": texts} if path in (V1, OLLAMA) else {"inputs": texts}


@pytest.mark.parametrize(
    ("path", "given"),
    [
        *((path, given) for path in (V1, TEI, "/", "/invocations", OLLAMA) for given in ("hello world", FEW)),
        *((path, MANY) for path in (V1, TEI)),
    ],
)
def test_vectors_are_those_of_encode(app: ASGIApp, shipped: Embedder, path: str, given: Any) -> None:
    """In the order of the input, bit for bit; tokens, characters and times are counted."""
    texts = [given] if isinstance(given, str) else given
    tokens = sum(shipped.count_tokens(texts))

    answer = post(app, path, _body(path, given))

    headers = answer.headers
    assert np.array_equal(shipped.encode(texts), answer.vectors)
    assert ("0", shipped.info.fingerprint) == (headers["x-truncated"], headers["x-model-fingerprint"])
    if path == V1:
        assert list(range(len(texts))) == [one["index"] for one in answer.json["data"]]
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


@pytest.mark.parametrize(
    ("path", "more", "kept"),
    [
        (V1, {"encoding_format": "base64"}, 384),
        (V1, {"encoding_format": "base64", "dimensions": 8}, 8),
        (V1, {"encoding_format": "float", "dimensions": 384, "user": "u"}, 384),
        (TEI, {"dimensions": 8, "normalize": False}, 8),
        (OLLAMA, {"dimensions": 8, "keep_alive": "5m"}, 8),
        (OLLAMA, {"dimensions": 1, "options": {"num_ctx": 8}}, 1),
        *((OLLAMA, {"dimensions": number}, 384) for number in (0, 384, 1000, None)),
    ],
)
def test_formats_and_dimensions(app: ASGIApp, shipped: Embedder, path: str, more: Any, kept: int) -> None:
    """Dimensions are the first ones, of unit length again; base64 is little-endian float32."""
    answer = post(app, path, _body(path, ["a", "b"]) | more)

    assert np.array_equal(shrink(shipped.encode(["a", "b"]), kept), answer.vectors)
    if path == V1:
        expected = str if more["encoding_format"] == "base64" else list
        assert isinstance(answer.json["data"][0]["embedding"], expected)


@pytest.mark.parametrize(
    ("server", "path", "more", "header", "expected"),
    [
        ("end", V1, {}, "", "end"),
        ("error", V1, {}, "mean", "mean"),
        ("error", V1, {"truncate": "end"}, "mean", "end"),
        ("end", V1, {"truncate": "error"}, "mean", ""),
        ("error", V1, {}, "", ""),
        ("mean", TEI, {}, "", "mean"),
        ("error", TEI, {"truncate": None}, "", ""),
        ("error", TEI, {"truncate": True}, "", "end"),
        ("end", TEI, {"truncate": False}, "", ""),
        *(("end", TEI, {"truncation_direction": end}, "", TAIL) for end in ("left", "Left")),
        ("end", TEI, {"truncation_direction": "Right"}, "", "end"),
        ("error", OLLAMA, {}, "", "end"),
        ("end", OLLAMA, {"truncate": False}, "", ""),
    ],
)
def test_long_texts(shipped: Embedder, server: Any, path: str, more: Any, header: str, expected: Any) -> None:
    """Cut, averaged or refused: as the field says, else the header, else the server; the cut are counted."""
    app = create_app(shipped, Settings(truncate=server, warm_up=False))
    headers = JSON | ({"x-truncate": header} if header else {})

    answer = post(app, path, _body(path, ["a", LONG]) | more, headers)

    if not expected:
        advice = {
            V1: '"end" to cut it or "mean"',
            TEI: "true to cut it",
            OLLAMA: "the input length exceeds the context length",
        }
        assert (413 if path == TEI else 400) == answer.status
        assert "[1] has 304 tokens, the model reads 256; shorten it, or " in answer.said
        assert advice[path] in answer.said
        return
    text = TAIL if expected == TAIL else LONG
    vectors = shipped.encode(["a", text], truncate="mean" if expected == "mean" else "end")
    assert np.array_equal(vectors, answer.vectors)
    assert ("0" if expected == "mean" else "1") == answer.headers["x-truncated"]
    assert path != V1 or 3 + (306 if expected == "mean" else 256) == answer.json["usage"]["total_tokens"]


def test_a_byte_order_mark_is_ignored(app: ASGIApp, shipped: Embedder) -> None:
    """Before the body of any API, as RFC 8259 allows: programs on Windows put one before UTF-8."""
    for path in (V1, TEI, OLLAMA):
        body = codecs.BOM_UTF8 + json.dumps(_body(path, "a")).encode()
        assert np.array_equal(shipped.encode(["a"]), post(app, path, body).vectors)


def test_cut_texts_are_counted_in_every_chunk(app: ASGIApp) -> None:
    """A long list is tokenized in chunks: the first and last of each count; an index is the list's."""
    assert "2" == post(app, V1, {"input": [LONG, *MANY[:511], LONG]}).headers["x-truncated"]
    assert "input[600] has 304 tokens" in post(app, V1, {"input": [*MANY, LONG], "truncate": "error"}).said


def test_what_tokenize_lists_can_be_embedded(app: ASGIApp, shipped: Embedder) -> None:
    """In either form, as one text or as several, with the vectors of the texts; /decode gives texts back."""
    texts = ["hello world", "word " * 300]
    tokens = post(app, "/tokenize", {"input": texts}).json
    theirs = [[token["id"] for token in one] for one in post(app, "/tokenize", {"inputs": texts[:1]}).json]

    ids = [one["windows"] for one in tokens["data"]]
    assert [(0, False), (1, True)] == [(one["index"], one["truncated"]) for one in tokens["data"]]
    assert sum(map(len, (*ids[0], *ids[1]))) == tokens["usage"]["total_tokens"]
    assert "all-MiniLM-L6-v2" == tokens["model"]
    assert np.array_equal(shipped.encode(texts), post(app, V1, {"input": [one[0] for one in ids]}).vectors)
    assert np.array_equal(shipped.encode(texts[:1]), post(app, V1, {"input": ids[0][0]}).vectors)
    assert np.array_equal(shipped.encode(texts[:1]), post(app, TEI, {"inputs": theirs}).vectors)
    for given, more, found in (
        (ids[0][0], {}, ["hello world"]),
        ([[7592], [101, 2088, 102]], {}, ["hello", "world"]),
        ([101, 7592, 102], {"skip_special_tokens": False}, ["[CLS] hello [SEP]"]),
        ([30_521], {}, ["##～"]),  # the last there is
    ):
        assert found == post(app, "/decode", {"ids": given, **more}).json


def test_tokens_have_their_places_in_bytes(app: ASGIApp) -> None:
    """Every token with the slice of the text that it stands for; nothing is cut; special ones have none."""
    text = "Naïve 😉 tokenization"
    bodies: list[dict[str, Any]] = [{}, {"add_special_tokens": True}, {"add_special_tokens": False}]
    default, framed, bare = (post(app, "/tokenize", {"inputs": text, **one}).json[0] for one in bodies)

    assert default == framed == [framed[0], *bare, framed[-1]]
    assert {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None} == framed[0]
    assert ["Naïve", "😉", "token", "ization"] == [token["text"] for token in bare]
    for token in bare:
        assert not token["special"]
        assert token["text"].encode() == text.encode()[token["start"] : token["stop"]]
    assert 304 == len(post(app, "/tokenize", {"inputs": LONG}).json[0])
    half = post(app, "/tokenize", rb'{"inputs": ["\ud83d a", "b"]}').json  # of a surrogate pair
    assert ["a", "b"] == [one[-2]["text"] for one in half]


def test_similarity_is_the_cosine_and_prompts_go_before_texts(shipped: Embedder) -> None:
    """One number a sentence, in order; prompt and text are embedded as one, as sentence-transformers does."""

    class Prompted(Waiting):
        spec = property(lambda _: dataclasses.replace(shipped.spec, prompts={"query": "query: "}))
        asubmit = Embedder.asubmit

    app = create_app(Prompted(shipped), Settings(warm_up=False))
    texts, named = ["a cat", "a dog", "interest rates", "a cat"], {"prompt_name": "query"}
    inputs = {"inputs": {"source_sentence": texts[0], "sentences": texts[1:]}}

    for prompt, more in (("", {}), ("query: ", {"parameters": named})):
        first, *others = shipped.encode([prompt + text for text in texts])
        found = np.array(post(app, "/similarity", inputs | more).json, np.float32)
        assert np.array_equal(np.stack(others) @ first, found)
    vectors = post(app, TEI, {"inputs": ["a", "b"], **named}).vectors
    assert np.array_equal(shipped.encode(["query: a", "query: b"]), vectors)
    assert "query" == post(app, "/tokenize", {"inputs": "a", **named}).json[0][1]["text"]
    assert "cannot be used with token ids" in post(app, TEI, {"inputs": [[101, 102]], **named}).said
    assert "no such prompt; it has query" in post(app, TEI, {"inputs": "a", "prompt_name": "x"}).said


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("embed", {"input": []}, '"embeddings":[]'),
        ("embed", {"input": ""}, '"embeddings":[]'),
        ("embed", {"input": None}, '"embeddings":[]'),
        ("embeddings", {}, '{"embedding":[]}'),
        ("embeddings", {"prompt": "a"}, '{"embedding":[-'),
        ("show", {}, '"capabilities":["embedding"]'),
    ],
)
def test_ollama_takes_any_content_type_and_nothing_to_embed(
    app: ASGIApp, shipped: Embedder, name: str, body: dict[str, Any], said: str
) -> None:
    """No text is no error: clients load a model so. Only a web page must say that it sends JSON."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    evil = form | {"origin": "https://evil.example"}
    answers = [post(app, f"/api/{name}", MINILM | body, headers) for headers in ({}, form, evil)]

    assert [200, 200, 415] == [answer.status for answer in answers]
    assert said in answers[0].body.decode()
    if "prompt" in body:
        assert np.array_equal(shipped.encode("a"), np.array(answers[1].json["embedding"], np.float32))


SERVED = """all-minilm all-minilm:latest all-minilm:l6-v2 all-minilm:22m all-minilm:22m-l6-v2-fp16 ALL-MiniLM
chroma/all-minilm-l6-v2-f32 all-MiniLM-L6-v2 all-MiniLM-L6-v2:latest sentence-transformers/all-MiniLM-L6-v2"""
OTHERS = "all-minilm:33m all-minilm:l12-v2 nomic-embed-text"  # 12 layers, or other vectors altogether
TAGS = "all-minilm:latest, all-minilm:l6-v2, all-minilm:22m, all-MiniLM-L6-v2:latest"


@pytest.mark.parametrize("name", [*SERVED.split(), *OTHERS.split()])
def test_names_for_ollama(app: ASGIApp, name: str) -> None:
    """The model's names and tags are served; another model is 404, as Ollama says it."""
    named, other = {"model": name}, name in OTHERS.split()
    asked = [("embed", named | {"input": "a"}), ("embeddings", named | {"prompt": "a"}), ("show", named)]
    answers = [post(app, f"/api/{url}", body) for url, body in [*asked, ("show", {"name": name})]]

    assert [404 if other else 200] * 4 == [answer.status for answer in answers]
    assert not other or f"model '{name}' not found; this server has {TAGS}, sentence-" in answers[0].said


def test_names_that_were_given(shipped: Embedder) -> None:
    """Listed and described, slashes and all; answers say the name that was asked for, or the first."""
    names = ("mine", "team/ours", "my:tag")
    app = create_app(shipped, Settings(served_model_names=names, warm_up=False))
    strict = create_app(shipped, Settings(served_model_names=names, strict_model=True, warm_up=False))
    listed = ask(app, "GET", "/v1/models").json["data"]

    assert [(name, "ov_minilm") for name in names] == [(model["id"], model["owned_by"]) for model in listed]
    assert 0 <= time.time() - listed[0]["created"] < 600
    assert listed[1] == ask(app, "GET", "/v1/models/team/ours").json
    for name, said in (("mine", "mine"), ("team/ours", "team/ours"), ("gpt", "mine"), (None, "mine")):
        assert said == post(app, V1, {"input": "a", "model": name}).json["model"]
        assert (200 if name == said else 404) == post(strict, V1, {"input": "a", "model": name}).status
    for name, status in (("mine", 200), ("mine:latest", 200), ("MY:tag", 200), ("all-minilm", 404)):
        assert status == post(strict, OLLAMA, {"input": "a", "model": name}).status
    tags = ask(strict, "GET", "/api/tags").json["models"]
    assert ["mine:latest", "team/ours:latest", "my:tag"] == [tag["name"] for tag in tags]


def test_what_the_model_is(app: ASGIApp, shipped: Embedder) -> None:
    """TEI's limits by which clients size their batches; Ollama's tags, what is loaded, and the version."""
    info, tags = ask(app, "GET", "/info").json, ask(app, "GET", "/api/tags").json["models"]
    (loaded,) = ask(app, "GET", "/api/ps").json["models"]
    shown = post(app, "/api/show", {"name": "all-minilm"}).json
    fingerprint, threads = shipped.info.fingerprint, shipped.info.threads

    facts = {"model_id": "sentence-transformers/all-MiniLM-L6-v2", "served_model_name": "all-MiniLM-L6-v2"}
    facts |= {"model_sha": fingerprint, "model_dtype": "int8", "version": info["version"]}
    limits: dict[str, Any] = {"max_input_length": 256, "max_client_batch_size": 2048, "auto_truncate": True}
    limits |= {"max_concurrent_requests": 512, "max_batch_tokens": 512, "tokenization_workers": threads}
    limits |= {"model_type": {"embedding": {"pooling": "mean"}}, "max_batch_requests": None}
    assert facts | limits | {"sha": None, "docker_label": None} == info
    details = {"parent_model": "", "format": "openvino", "family": "bert", "families": ["bert"]}
    details |= {"parameter_size": "23M", "quantization_level": "INT8"}
    same = {"name": "all-minilm:latest", "model": "all-minilm:latest", "size": 22_565_376, "details": details}
    same |= {"digest": hashlib.sha256(fingerprint.encode()).hexdigest()}
    modified = tags[0].pop("modified_at")
    assert same == tags[0]
    assert datetime.fromisoformat(modified).tzinfo is not None
    assert loaded == same | {"context_length": 256, "size_vram": 0, "expires_at": "0001-01-01T00:00:00Z"}
    about: dict[str, Any] = {"block_count": 6, "attention.head_count": 12, "context_length": 256}
    about |= {"embedding_length": 384, "feed_forward_length": 1536}
    about = {f"bert.{name}": value for name, value in about.items()}
    about |= {"general.architecture": "bert", "general.parameter_count": 22_565_376}
    expected = {"capabilities": ["embedding"], "details": details, "license": "Apache-2.0"}
    expected |= {"model_info": about, "modified_at": modified}
    assert expected | dict.fromkeys(("modelfile", "parameters", "template"), "") == shown
    assert info["version"] == ask(app, "GET", "/api/version").json["version"]


def test_what_another_model_is(shipped: Embedder) -> None:
    """Weights in FP32 have four bytes; a server that refuses long texts says so."""

    class Fp32(Waiting):
        info = property(lambda _: dataclasses.replace(shipped.info, weights="f32"))

    app = create_app(Fp32(shipped), Settings(truncate="error", warm_up=False))
    info, (tag, *_) = ask(app, "GET", "/info").json, ask(app, "GET", "/api/tags").json["models"]

    assert ("float32", False) == (info["model_dtype"], info["auto_truncate"])
    assert (4 * 22_565_376, "F32") == (tag["size"], tag["details"]["quantization_level"])


HAS = "this server has all-MiniLM-L6-v2, sentence-transformers/all-MiniLM-L6-v2"
LATIN = "a" * 100_001  # one character more than /tokenize takes
FULL, EMPTY = ({"inputs": {"source_sentence": "a", "sentences": ["a"] * number}} for number in (2048, 0))
REFUSED = {"inputs": ["a", LONG], "truncate": False}
STORE = "POST /api/pull, POST /api/push, POST /api/create, POST /api/copy, DELETE /api/delete"
ERRORS: list[tuple[str, Any, str, str]] = [  # status and code, param or type
    ("GET /v1/embedding", b"", "404 unknown_url None", "'/v1/embedding' does not exist on this server"),
    ("GET /v1/embeddings/", b"", "405 method_not_allowed None", "does not accept GET; send POST, OPTIONS"),
    ("DELETE /v1/models", b"", "405 method_not_allowed None", "send GET, HEAD, OPTIONS"),
    ("GET /v1/models/gpt", b"", "404 model_not_found model", f"the model 'gpt' does not exist; {HAS}"),
    (V1, {}, "400 None input", "input is missing"),
    (V1, {"input": "a", "dimensions": 385}, "400 None dimensions", "dimensions is 385; send 1 to 384"),
    (V1, REFUSED | {"input": LONG, "truncate": "error"}, "400 context_length_exceeded input", "input[0] has"),
    (V1, {"input": [101, 40_000]}, "400 ambiguous_token_ids input", "OpenAI's cl100k"),
    (V1, {"input": ["a"] * 2049}, "400 array_above_max_length input", "input has 2049 entries"),
    ("/tokenize", {"input": ["a"] * 2049}, "400 array_above_max_length input", "input has 2049 entries"),
    ("/tokenize", {"input": LATIN}, "400 max_tokens_per_request input", "input has 100001 characters"),
    (TEI, {"inputs": []}, "400 empty", "inputs is an empty list"),
    ("/tokenize", {"inputs": []}, "400 empty", "inputs is an empty list"),
    ("/decode", {"ids": []}, "400 empty", "ids is an empty list"),
    ("/similarity", EMPTY, "400 empty", "inputs.sentences is an empty list"),
    (TEI, {"inputs": ["a"] * 2049}, "413 validation", "inputs has 2049 entries; this server accepts 2048"),
    ("/similarity", FULL, "413 validation", "inputs has 2049 entries"),
    ("/tokenize", {"inputs": ["a"] * 2049}, "413 validation", "inputs has 2049 entries"),
    ("/tokenize", {"inputs": LATIN}, "413 validation", "100001 characters; send at most 100000"),
    ("/decode", {"ids": [[1]] * 2049}, "413 validation", "ids has 2049 entries"),
    (TEI, REFUSED, "413 validation", "inputs[1] has 304 tokens"),
    (TEI, {"inputs": {"a": 1}}, "422 validation", "inputs is an object; expected a text, a list of texts"),
    (TEI, {"inputs": "a", "truncate": "END"}, "422 validation", 'is "END"; expected true (cut texts'),
    (TEI, {"inputs": "a", "truncation_direction": 1}, "422 validation", 'expected "right" (keep the start'),
    (TEI, {"inputs": "a", "prompt_name": "q"}, "422 validation", "no such prompt; it has no prompts"),
    (TEI, {"inputs": "a", "dimensions": 385}, "422 validation", "send 1 to 384"),
    ("/decode", {"ids": [[1], [30_522]]}, "422 tokenizer", "ids[1] has an id over 30521"),
    ("/tokenize", {"inputs": 5}, "422 validation", "expected a text or a list of texts"),
    ("/tokenize", rb'{"inputs": ["\ud83d", 5]}', "422 validation", "inputs[1] is 5; expected a text or"),
    ("/embed_all", {"inputs": "a"}, "424 backend", "none for each token"),
    ("/embed_sparse", {"inputs": "a"}, "424 backend", "dense vectors"),
    ("/rerank", {"query": "a", "texts": ["b"]}, "424 backend", "not a re-ranker"),
    ("/predict", {"inputs": "a"}, "424 backend", "not a classifier"),
    (TEI, b"{", "400 validation", "not valid JSON"),
    ("GET /embed", b"", "405 validation", "/embed does not accept GET; send POST, OPTIONS"),
    (OLLAMA, {"input": "a"}, "400", "model is missing; send a name from /api/tags"),
    ("/api/embeddings", {"prompt": "a"}, "400", "model is missing"),
    (OLLAMA, MINILM | {"input": 5}, "400", "input is 5; expected a text or a list of texts"),
    (OLLAMA, MINILM | {"input": ["a"] * 2049}, "400", "input has 2049 entries"),
    (OLLAMA, MINILM | {"truncate": 5}, "400", "truncate is 5; expected true (cut texts that are too long"),
    *((f"/api/{name}", MINILM, "400", "it cannot generate text") for name in ("generate", "chat")),
    *((url, MINILM, "501", "it cannot pull, change or remove") for url in STORE.split(", ")),
    ("GET /api/nothing", b"", "404", "'/api/nothing' does not exist"),
]


@pytest.mark.parametrize(("url", "body", "kind", "said"), ERRORS)
def test_errors_are_those_of_the_api(app: ASGIApp, url: str, body: Any, kind: str, said: str) -> None:
    """Statuses, codes and shapes as each API documents them, and a message that says what to do."""
    method, path = url.split() if " " in url else ("POST", url)

    answer = ask(app, method, path, body)

    found = answer.json if isinstance(answer.json["error"], str) else answer.json["error"]
    shapes = {3: {"message", "type", "param", "code"}, 2: {"error", "error_type"}, 1: {"error"}}
    assert shapes[len(kind.split())] == found.keys()
    names = ("code", "param", "error_type")
    assert kind.split() == [str(answer.status), *(str(found[name]) for name in names if name in found)]
    assert said in answer.said
    headers = answer.headers["content-type"], answer.headers.get("x-should-retry")
    assert ("application/json", None if answer.status == 501 else "false") == headers
    assert len(answer.headers["x-request-id"]) > 32
    assert (answer.status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(
    ("settings", "body", "headers", "param", "said"),
    [
        ({"strict_model": True}, {"model": "ada"}, {}, "model", f"the model 'ada' does not exist; {HAS}"),
        ({"strict_model": True}, {}, {}, "model", f"no model was named; {HAS}"),
        ({"strict_model": True}, {"model": "sentence-transformers/all-MiniLM-L6-v2"}, {}, "", ""),
        ({}, {}, {"x-truncate": "NONE"}, "x-truncate", "x-truncate is 'NONE'; choose end, error or mean"),
        ({"token_ids": "native"}, {"input": [[7592], [40_000]]}, {}, "input", "text 1 is 40000"),
        ({"max_client_batch_size": 1}, {"input": ["a", "b"]}, {}, "input", "accepts 1 in a request"),
    ],
)
def test_what_an_operator_chose(
    shipped: Embedder, settings: Any, body: Any, headers: Any, param: str, said: str
) -> None:
    """Names, policies and limits are those of the settings, and a refusal says what there is."""
    app = create_app(shipped, Settings(**settings, warm_up=False))

    answer = post(app, V1, {"input": "a"} | body, JSON | headers)

    assert said == "" if answer.status == 200 else said in answer.said
    assert param == ("" if answer.status == 200 else answer.json["error"]["param"])
