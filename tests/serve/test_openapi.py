"""openapi.json is true: what it promises is what the server does, tried by a generator of requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp
from support.asgi import ask, embed, post
from support.clients import ranks
from support.serving import running

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app, ollama, openai, tei
from ov_minilm.serve.service import Service

LARGE = ("--payload-limit", "200000000")  # a text at its limit, escaped, is 12 MB, and there may be many

jsonschema = pytest.importorskip("jsonschema")


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def test_requests_are_as_described(shipped: Embedder) -> None:
    """The schema and the server agree about what a request may be, the number of texts included."""
    settings = Settings(max_client_batch_size=4, token_ids="native", warm_up=False)  # noqa: S106  # no password
    app = create_app(shipped, settings)
    document = ask(app, "GET", "/openapi.json").json
    validator = _validator(document, {"$ref": "#/components/schemas/EmbeddingRequest"})
    right: list[Any] = ["a", ["a", ""], [1, 2], [[1], [2]]]
    wrong: list[Any] = [[], [[]], ["a", 1], ["a"] * 5, [-1], 5]
    bodies = [*(({"input": value}, True) for value in right), *(({"input": value}, False) for value in wrong)]
    bodies += [({"input": "a", "dimensions": None, "unknown": 1}, True)]
    bodies += [({"input": "a", "dimensions": 385}, False), ({"input": "a", "encoding_format": "hex"}, False)]

    for body, fits in bodies:
        assert fits == validator.is_valid(body), body
        assert (200 if fits else 400) == embed(app, body).status, body
    for count, fits in ((4, True), (5, False)):
        similar = {"inputs": {"source_sentence": "a", "sentences": ["a"] * (count - 1)}}
        for path, name, body in (
            ("/api/embed", "OllamaEmbedRequest", {"model": "all-minilm", "input": ["a"] * count}),
            ("/similarity", "SimilarityRequest", similar),
        ):
            schema = {"$ref": f"#/components/schemas/{name}"}
            assert (
                fits == _validator(document, schema).is_valid(body) == (post(app, path, body).status == 200)
            )


def test_every_answer_is_described(app: ASGIApp) -> None:
    """Each example of a body is answered, by its schema, and so are errors; pages load nothing from afar."""
    document = ask(app, "GET", "/openapi.json").json

    assert "3.1.0" == document["openapi"]
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):  # its descriptions are the words of errors
            assert all(field.get("description") for field in schema["properties"].values()), name
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            asked = operation.get("requestBody", {"content": {"application/json": {"example": None}}})
            body = asked["content"]["application/json"]["example"]
            answer = ask(app, method.upper(), path.replace("{model}", "all-MiniLM-L6-v2"), body)
            assert 200 == answer.status, path
            for kind, content in operation["responses"]["200"]["content"].items():
                assert answer.headers["content-type"].startswith(kind)
                if kind == "application/json":
                    _validator(document, content["schema"]).validate(answer.json)
    for name, url, body in (
        ("EmbeddingResponse", "POST /v1/embeddings", {"input": "a", "encoding_format": "base64"}),
        ("TokenizeResponse", "POST /tokenize", {"input": "a"}),
        ("ErrorResponse", "POST /v1/embeddings", {"input": []}),
        ("TeiErrorResponse", "POST /embed", {"inputs": []}),
        ("OllamaErrorResponse", "POST /api/embed", {"input": "a"}),
    ):
        schema = {"$ref": f"#/components/schemas/{name}"}
        method, path = url.split()
        _validator(document, schema).validate(ask(app, method, path, body).json)
        assert {"401", "413", "503"} <= document["paths"][path]["post"]["responses"].keys()
    for page in ("/", "/docs"):
        answer = ask(app, "GET", page)
        assert b"http://" not in answer.body.replace(b"http://127", b"")
        assert b"https://" not in answer.body
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_every_url_is_described(shipped: Embedder) -> None:
    """But for those that say what this model cannot do, and another name of one that is described."""
    service = Service(shipped, Settings(warm_up=False))
    apis = openai.OpenAI(service)
    urls = {*apis.routes(), *tei.Tei(service, apis).routes(), *ollama.Ollama(service).routes()}
    refused = "/embed_all /embed_sparse /predict /rerank /api/chat /api/copy /api/create /api/delete"
    refused += " /api/generate /api/pull /api/push"

    described = ask(create_app(shipped, Settings(warm_up=False)), "GET", "/openapi.json").json["paths"]
    assert {*refused.split(), "/invocations"} == urls - described.keys()


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Thousands of valid and invalid requests: no 500, no undocumented status, no answer off its schema."""
    pytest.importorskip("schemathesis")
    rejected = (
        "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 404, 405, 413, 415, 422, 429]\n"
    )
    (tmp_path / "schemathesis.toml").write_text(rejected, encoding="utf-8")
    options = ("--access-log", "off", "--token-ids", "cl100k", *LARGE)
    with running(*options, TIKTOKEN_CACHE_DIR=str(ranks())) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", "all", "--max-examples", "300", "--seed", "1", "--no-color"),
            *("--exclude-checks", "positive_data_acceptance"),  # to JSON Schema 1.0 is an integer
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout[-4000:] + done.stderr[-2000:]
