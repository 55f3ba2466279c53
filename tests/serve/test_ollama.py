"""Ollama's API: vectors of `encode`, its names and tags, its own statuses and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.types import ASGIApp
from support.asgi import ask

from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.serve import Settings, create_app

pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")  # answers count instead

LONG = "word " * 300


@pytest.fixture(scope="module")
def app(shipped: Embedder) -> ASGIApp:
    """An application with default settings."""
    return create_app(shipped, Settings(warm_up=False))


@pytest.mark.parametrize("given", ["hello world", ["b", "", "naïve café 😉", LONG]], ids=["text", "texts"])
def test_vectors_are_those_of_encode(app: ASGIApp, shipped: Embedder, given: Any) -> None:
    """Bit for bit, in order, with the name that was asked for, tokens, and nanoseconds."""
    texts = [given] if isinstance(given, str) else given
    body = {"model": "all-minilm:l6-v2", "input": given, "keep_alive": "5m", "options": {"num_ctx": 8}}

    answer = ask(app, "POST", "/api/embed", body).json

    assert np.array_equal(shipped.encode(texts), np.array(answer["embeddings"], np.float32))
    assert "all-minilm:l6-v2" == answer["model"]
    assert sum(min(256, count) for count in shipped.count_tokens(texts)) == answer["prompt_eval_count"]
    assert answer["total_duration"] > answer["load_duration"] == 0


def test_the_older_form(app: ASGIApp, shipped: Embedder) -> None:
    """One prompt, one vector; no prompt, none."""
    answer = ask(app, "POST", "/api/embeddings", {"model": "all-minilm", "prompt": "hello world"})
    empty = ask(app, "POST", "/api/embeddings", {"model": "all-minilm"})

    assert np.array_equal(shipped.encode("hello world"), np.array(answer.json["embedding"], np.float32))
    assert {"embedding": []} == empty.json


@pytest.mark.parametrize("given", [None, "", []], ids=repr)
def test_nothing_to_embed_is_no_error(app: ASGIApp, given: Any) -> None:
    """Ollama answers an empty list: clients load a model so."""
    answer = ask(app, "POST", "/api/embed", {"model": "all-minilm", "input": given})

    assert (200, []) == (answer.status, answer.json["embeddings"])


def test_dimensions_are_the_first_ones_of_unit_length(app: ASGIApp, shipped: Embedder) -> None:
    """More than there are, or none, are all: as Ollama has it."""
    for dimensions, expected in (
        (8, shrink(shipped.encode(["a"]), 8)),
        (1000, shipped.encode(["a"])),
        (0, shipped.encode(["a"])),
    ):
        answer = ask(
            app, "POST", "/api/embed", {"model": "all-minilm", "input": "a", "dimensions": dimensions}
        )
        assert np.array_equal(expected, np.array(answer.json["embeddings"], np.float32))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("all-minilm", True),
        ("all-minilm:latest", True),
        ("all-minilm:l6-v2", True),
        ("all-minilm:22m", True),
        ("all-minilm:22m-l6-v2-fp16", True),
        ("chroma/all-minilm-l6-v2-f32", True),  # the default of Chroma's function
        ("ALL-MiniLM", True),
        ("all-MiniLM-L6-v2", True),
        ("all-MiniLM-L6-v2:latest", True),
        ("sentence-transformers/all-MiniLM-L6-v2", True),
        ("all-minilm:33m", False),  # 12 layers: other vectors
        ("all-minilm:l12-v2", False),
        ("nomic-embed-text", False),
    ],
)
def test_names_of_the_model(app: ASGIApp, name: str, known: bool) -> None:
    """Its names and tags are served; another model is 404, as Ollama says it."""
    answer = ask(app, "POST", "/api/embed", {"model": name, "input": "a"})
    shown = ask(app, "POST", "/api/show", {"model": name})

    assert (200 if known else 404) == answer.status == shown.status
    if not known:
        assert {"error"} == answer.json.keys()
        assert f"model '{name}' not found" in answer.json["error"]


def test_names_that_were_given(shipped: Embedder) -> None:
    """A served name works with and without :latest; a strict server knows no others."""
    strict = create_app(shipped, Settings(served_model_names=("mine",), strict_model=True, warm_up=False))

    for name, status in (("mine", 200), ("mine:latest", 200), ("all-minilm", 404)):
        assert status == ask(strict, "POST", "/api/embed", {"model": name, "input": "a"}).status
    assert ["mine:latest"] == [model["name"] for model in ask(strict, "GET", "/api/tags").json["models"]]


def test_what_there_is(app: ASGIApp) -> None:
    """Tags, what is loaded, what the model is, and the version, with the keys that Ollama gives."""
    tags = ask(app, "GET", "/api/tags").json["models"]
    loaded = ask(app, "GET", "/api/ps").json["models"]
    shown = ask(app, "POST", "/api/show", {"name": "all-minilm"}).json

    assert {"name", "model", "modified_at", "size", "digest", "details"} == tags[0].keys()
    assert "all-minilm:latest" == tags[0]["name"] == loaded[0]["name"]
    assert 64 == len(tags[0]["digest"])
    assert ("bert", "23M", "INT8") == (
        tags[0]["details"]["family"],
        tags[0]["details"]["parameter_size"],
        tags[0]["details"]["quantization_level"],
    )
    assert (256, 0) == (loaded[0]["context_length"], loaded[0]["size_vram"])
    assert ["embedding"] == shown["capabilities"]
    assert (384, 256, 22_565_376) == tuple(
        shown["model_info"][key]
        for key in ("bert.embedding_length", "bert.context_length", "general.parameter_count")
    )
    assert ask(app, "GET", "/api/version").json["version"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        (
            "POST",
            "/api/embed",
            {"model": "all-minilm", "input": LONG, "truncate": False},
            400,
            "exceeds the context length",
        ),
        ("POST", "/api/embed", {"input": "a"}, 400, "model is missing"),
        (
            "POST",
            "/api/embed",
            {"model": "all-minilm", "input": 5},
            400,
            "input is 5; expected a text or a list",
        ),
        ("POST", "/api/embed", {"model": "all-minilm", "input": [["a"]]}, 400, "input[0] is a list"),
        ("POST", "/api/embed", {"model": "all-minilm", "input": ["a"] * 2049}, 400, "2049 entries"),
        ("POST", "/api/embed", b"", 400, "not valid JSON"),
        ("POST", "/api/generate", {"model": "all-minilm"}, 400, "cannot generate text"),
        ("POST", "/api/chat", {"model": "all-minilm"}, 400, "cannot generate text"),
        ("POST", "/api/pull", {"model": "llama3"}, 501, "cannot pull"),
        ("DELETE", "/api/delete", {"model": "all-minilm"}, 501, "cannot pull, change or remove"),
        ("GET", "/api/embed", b"", 405, "/api/embed does not accept GET"),
        ("GET", "/api/nothing", b"", 404, "'/api/nothing' does not exist"),
    ],
)
def test_errors_are_its_own(app: ASGIApp, method: str, path: str, body: Any, status: int, said: str) -> None:
    """One key, `error`, and one sentence that says what to do."""
    answer = ask(app, method, path, body)

    assert (status, {"error"}) == (answer.status, set(answer.json))
    assert said in answer.json["error"]


def test_a_full_queue_is_503(shipped: Embedder) -> None:
    """As Ollama says that it is busy; with Retry-After."""
    app = create_app(shipped, Settings(max_concurrent_requests=1, warm_up=False))
    app.__getattribute__("_service").admission.requests = 1

    answer = ask(app, "POST", "/api/embed", {"model": "all-minilm", "input": "a"})

    assert (503, "1") == (answer.status, answer.headers["retry-after"])


def test_a_body_needs_no_type_unless_a_page_sends_it(app: ASGIApp) -> None:
    """The curl lines of Ollama's pages send none; a web page of another site could not send JSON unasked."""
    body = {"model": "all-minilm", "input": "a"}
    form = {"content-type": "application/x-www-form-urlencoded"}

    assert 200 == ask(app, "POST", "/api/embed", body, {}).status
    assert 200 == ask(app, "POST", "/api/embed", body, form).status
    assert 415 == ask(app, "POST", "/api/embed", body, form | {"origin": "https://evil.example"}).status
