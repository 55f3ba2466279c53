"""openapi.json describes the requests and answers of the server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp
from support.asgi import ask, post
from support.serving import cl100k_folder, running

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app, ollama, openai, tei
from ov_minilm.serve.service import Service

LARGE_BODIES = ("--payload-limit", "200000000")  # an escaped text at its limit has 12 MB

jsonschema = pytest.importorskip("jsonschema")


def validator(document: dict[str, Any], schema: str | dict[str, Any]) -> Any:
    """Return the validator of a schema, given whole or by its name."""
    whole = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
    return jsonschema.Draft202012Validator(whole | {"components": document["components"]})


def test_requests_are_described(shipped: Embedder) -> None:
    """The schema and the server accept the same requests, and the same number of texts."""
    settings = Settings(max_client_batch_size=4, token_ids="native", warm_up=False)  # noqa: S106  # no password
    app = create_app(shipped, settings)
    document = ask(app, "GET", "/openapi.json").json
    valid: list[Any] = ["a", ["a", ""], [1, 2], [[1], [2]]]
    invalid: list[Any] = [[], [[]], ["a", 1], ["a"] * 5, [-1], 5]
    bodies = [
        *(({"input": value}, True) for value in valid),
        *(({"input": value}, False) for value in invalid),
    ]
    bodies += [({"input": "a", "dimensions": None, "unknown": 1}, True)]
    bodies += [({"input": "a", "dimensions": 385}, False), ({"input": "a", "encoding_format": "hex"}, False)]
    cases = [("/v1/embeddings", "EmbeddingRequest", body, fits) for body, fits in bodies]
    for count, fits in ((4, True), (5, False)):
        similarity_request = {"inputs": {"source_sentence": "a", "sentences": ["a"] * (count - 1)}}
        texts = {"model": "all-minilm", "input": ["a"] * count}
        cases += [("/api/embed", "OllamaEmbedRequest", texts, fits)]
        cases += [("/similarity", "SimilarityRequest", similarity_request, fits)]

    for path, schema, body, fits in cases:
        assert fits == validator(document, schema).is_valid(body), body
        assert fits == (post(app, path, body).status == 200), body


def test_answers_are_described(app: ASGIApp) -> None:
    """Answers to examples and errors match their schemas; pages load nothing from other sites."""
    document = ask(app, "GET", "/openapi.json").json

    assert "3.1.0" == document["openapi"]
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):  # the descriptions are used in error messages
            assert all(field.get("description") for field in schema["properties"].values()), name
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            request = operation.get("requestBody", {"content": {"application/json": {"example": None}}})
            body = request["content"]["application/json"]["example"]
            answer = ask(app, method.upper(), path.replace("{model}", "all-MiniLM-L6-v2"), body)
            assert 200 == answer.status, path
            for kind, content in operation["responses"]["200"]["content"].items():
                assert answer.headers["content-type"].startswith(kind)
                if kind == "application/json":
                    validator(document, content["schema"]).validate(answer.json)
    for schema, path, body in (
        ("EmbeddingResponse", "/v1/embeddings", {"input": "a", "encoding_format": "base64"}),
        ("TokenizeResponse", "/tokenize", {"input": "a"}),
        ("ErrorResponse", "/v1/embeddings", {"input": []}),
        ("TeiErrorResponse", "/embed", {"inputs": []}),
        ("OllamaErrorResponse", "/api/embed", {"input": "a"}),
    ):
        validator(document, schema).validate(post(app, path, body).json)
        assert {"401", "413", "503"} <= document["paths"][path]["post"]["responses"].keys()
    for page in ("/", "/docs"):
        answer = ask(app, "GET", page)
        assert b"http://" not in answer.body.replace(b"http://127", b"")
        assert b"https://" not in answer.body
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_every_url_is_described(shipped: Embedder) -> None:
    """The schema has all paths except /invocations (another name of /embed) and paths that only refuse."""
    service = Service(shipped, Settings(warm_up=False))
    apis = openai.OpenAI(service)
    urls = {*apis.routes(), *tei.Tei(service, apis).routes(), *ollama.Ollama(service).routes()}
    refusing = "/embed_all /embed_sparse /predict /rerank /api/chat /api/copy /api/create /api/delete"
    refusing += " /api/generate /api/pull /api/push"

    described = ask(create_app(shipped, Settings(warm_up=False)), "GET", "/openapi.json").json["paths"]
    assert {*refusing.split(), "/invocations"} == urls - described.keys()


@pytest.mark.slow
def test_schemathesis(tmp_path: Path) -> None:
    """Thousands of random requests get no 500, no undocumented status, no answer against its schema."""
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 404, 405, 413, 415, 422, 429]\n"
    )
    options = ("--access-log", "off", "--token-ids", "cl100k", *LARGE_BODIES)
    with running(*options, TIKTOKEN_CACHE_DIR=str(cl100k_folder())) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", "all", "--max-examples", "300", "--seed", "1", "--no-color"),
            *("--request-timeout", "60", "--exclude-checks", "positive_data_acceptance"),  # 1.0 is an integer
        ]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout[-4000:] + result.stderr[-2000:]
