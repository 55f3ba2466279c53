"""The API of Text Embeddings Inference: vectors of `encode`, and its own statuses and shapes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from starlette.types import ASGIApp
from support.asgi import Answer, Waiting, ask

from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.serve import Settings, create_app

pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")  # answers count instead

LONG = "start " + "word " * 300 + "end"


@pytest.fixture(scope="module")
def app(shipped: Embedder) -> ASGIApp:
    """An application with default settings."""
    return create_app(shipped, Settings(warm_up=False))


def _vectors(answer: Answer) -> Any:
    assert 200 == answer.status, answer.body
    return np.array(answer.json, np.float32)


@pytest.mark.parametrize("path", ["/embed", "/", "/invocations", "/embed/"])
@pytest.mark.parametrize("inputs", ["hello world", ["hello world"], ["b", "a", "", "naïve café 😉"]], ids=str)
def test_vectors_are_those_of_encode(app: ASGIApp, shipped: Embedder, path: str, inputs: Any) -> None:
    """A list of vectors, for one text too, bit for bit, with its headers."""
    texts = [inputs] if isinstance(inputs, str) else inputs

    answer = ask(app, "POST", path, {"inputs": inputs, "truncate": True, "normalize": False})

    assert np.array_equal(shipped.encode(texts), _vectors(answer))
    headers = answer.headers
    assert str(sum(shipped.count_tokens(texts))) == headers["x-compute-tokens"]
    assert str(sum(map(len, texts))) == headers["x-compute-characters"]
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert headers[name].isdecimal()


def test_long_texts_lose_the_end_that_is_asked_for(app: ASGIApp, shipped: Embedder) -> None:
    """Cut at the right by default; at the left the last 254 pieces stay; what was cut is counted."""
    right = ask(app, "POST", "/embed", {"inputs": LONG})
    left = ask(app, "POST", "/embed", {"inputs": ["a", LONG], "truncation_direction": "left"})

    assert np.array_equal(shipped.encode([LONG]), _vectors(right))
    assert np.array_equal(shipped.encode(["a", "word " * 253 + "end"]), _vectors(left))
    assert ("1", "1") == (right.headers["x-truncated"], left.headers["x-truncated"])


def test_truncation_follows_the_server_where_a_request_does_not_say(shipped: Embedder) -> None:
    """`truncate` absent or null is what the operator chose, and /info says it."""
    strict = create_app(shipped, Settings(truncate="error", warm_up=False))

    assert [413, 413, 200, 413] == [
        ask(strict, "POST", "/embed", {"inputs": LONG, **options}).status
        for options in ({}, {"truncate": None}, {"truncate": True}, {"truncate": False})
    ]
    assert ask(strict, "GET", "/info").json["auto_truncate"] is False


def test_dimensions_are_the_first_ones_of_unit_length(app: ASGIApp, shipped: Embedder) -> None:
    """As Text Embeddings Inference shortens vectors."""
    answer = ask(app, "POST", "/embed", {"inputs": "a", "dimensions": 8})

    assert np.array_equal(shrink(shipped.encode(["a"]), 8), _vectors(answer))


def test_token_ids_are_taken(app: ASGIApp, shipped: Embedder) -> None:
    """What /tokenize lists can be embedded."""
    tokens = ask(app, "POST", "/tokenize", {"inputs": ["hello world", "a text"]}).json
    ids = [[token["id"] for token in one] for one in tokens]

    assert np.array_equal(
        shipped.encode(["hello world", "a text"]), _vectors(ask(app, "POST", "/embed", {"inputs": ids}))
    )


def test_similarity_is_the_cosine(app: ASGIApp, shipped: Embedder) -> None:
    """One number a sentence, in order."""
    texts = ["a cat", "a dog", "interest rates", "a cat"]
    vectors = shipped.encode(texts)

    answer = ask(
        app, "POST", "/similarity", {"inputs": {"source_sentence": texts[0], "sentences": texts[1:]}}
    )

    assert np.array_equal(vectors[1:] @ vectors[0], np.array(answer.json, np.float32))


def test_tokens_have_their_places_in_bytes(app: ASGIApp) -> None:
    """Every token with the slice of the text that it stands for; nothing is cut; special ones have none."""
    text = "Naïve 😉 tokenization"
    with_special, without = (
        ask(app, "POST", "/tokenize", {"inputs": text, "add_special_tokens": special}).json[0]
        for special in (True, False)
    )

    assert without == with_special[1:-1]
    assert [True, *[False] * len(without), True] == [token["special"] for token in with_special]
    assert {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None} == with_special[0]
    assert ["Naïve", "😉", "token", "ization"] == [token["text"] for token in without]
    for token in without:
        assert token["text"].encode() == text.encode()[token["start"] : token["stop"]]
    assert 304 == len(ask(app, "POST", "/tokenize", {"inputs": LONG}).json[0])


def test_decode_gives_the_text_back(app: ASGIApp) -> None:
    """One list of ids, or several, with and without [CLS] and [SEP]."""
    ids = [101, 7592, 2088, 102]

    assert ["hello world"] == ask(app, "POST", "/decode", {"ids": ids}).json
    assert ["hello world"] * 2 == ask(app, "POST", "/decode", {"ids": [ids, ids]}).json
    kept = ask(app, "POST", "/decode", {"ids": ids, "skip_special_tokens": False}).json
    assert ["[CLS] hello world [SEP]"] == kept


def test_info_tells_what_clients_ask_for(app: ASGIApp) -> None:
    """The limits by which clients size their batches."""
    info = ask(app, "GET", "/info").json

    assert "sentence-transformers/all-MiniLM-L6-v2" == info["model_id"]
    assert {"embedding": {"pooling": "mean"}} == info["model_type"]
    assert (256, 2048, 512, 512, True) == (
        info["max_input_length"],
        info["max_client_batch_size"],
        info["max_batch_tokens"],
        info["max_concurrent_requests"],
        info["auto_truncate"],
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "said"),
    [
        ("/embed", {"inputs": []}, 400, "empty", "inputs is an empty list"),
        ("/tokenize", {"inputs": []}, 400, "empty", "inputs is an empty list"),
        ("/decode", {"ids": []}, 400, "empty", "ids is an empty list"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "empty", "sentences"),
        ("/embed", {"inputs": ["a"] * 2049}, 413, "validation", "2049 entries; this server accepts 2048"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": ["a"] * 2048}},
            413,
            "validation",
            "2049",
        ),
        (
            "/embed",
            {"inputs": LONG, "truncate": False},
            413,
            "validation",
            "inputs[0] has 304 tokens, the model reads 256",
        ),
        ("/embed", {"inputs": {"a": 1}}, 422, "validation", "inputs is an object; expected a text"),
        ("/embed", {"input": "a"}, 422, "validation", "inputs is missing; expected a text"),
        ("/embed", {"inputs": "a", "truncate": "END"}, 422, "validation", 'truncate is "END"; expected true'),
        (
            "/embed",
            {"inputs": "a", "truncation_direction": "up"},
            422,
            "validation",
            '"right" (keep the start',
        ),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "validation", "no such prompt"),
        ("/embed", {"inputs": "a", "dimensions": 385}, 422, "validation", "send 1 to 384"),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422, "validation", "at least 1"),
        ("/embed", {"inputs": [[101, 40_000, 102]]}, 422, "tokenizer", "ambiguous|vocabulary"),
        ("/decode", {"ids": [30_522]}, 422, "tokenizer", "over 30521"),
        ("/tokenize", {"inputs": 5}, 422, "validation", "expected a text or a list of texts"),
        ("/embed_all", {"inputs": "a"}, 424, "backend", "none for each token"),
        ("/embed_sparse", {"inputs": "a"}, 424, "backend", "dense vectors"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 424, "backend", "not a re-ranker"),
        ("/predict", {"inputs": "a"}, 424, "backend", "not a classifier"),
        ("/embed", b"{", 400, "validation", "not valid JSON"),
    ],
)
def test_errors_are_its_own(app: ASGIApp, path: str, body: Any, status: int, kind: str, said: str) -> None:
    """Statuses and types as it documents them, and a message that says what to do."""
    answer = ask(app, "POST", path, body)

    assert {"error", "error_type"} == answer.json.keys()
    assert (status, kind) == (answer.status, answer.json["error_type"])
    assert any(part in answer.json["error"] for part in said.split("|")), answer.json


def test_errors_before_a_body_is_read_have_the_shape_too(shipped: Embedder) -> None:
    """No key, another method, another type of body, and a queue that is full."""
    guarded = create_app(shipped, Settings(api_keys=("k",), warm_up=False))
    full = create_app(shipped, Settings(max_concurrent_requests=1, warm_up=False))
    full.__getattribute__("_service").admission.requests = 1

    for app, method, headers, status, kind in (
        (guarded, "POST", {"content-type": "application/json"}, 401, "unauthorized"),
        (full, "GET", {}, 405, "validation"),
        (full, "POST", {"content-type": "application/json"}, 429, "overloaded"),
    ):
        answer = ask(app, method, "/embed", b'{"inputs": "a"}', headers)
        assert (status, kind) == (answer.status, answer.json["error_type"])


def test_prompts_of_a_model_go_before_its_texts(shipped: Embedder) -> None:
    """With the name of a prompt, prompt and text are embedded as one, as sentence-transformers does."""

    class Prompted(Waiting):
        @property
        def spec(self) -> Any:
            return dataclasses.replace(super().spec, prompts={"query": "query: "})

        def asubmit(self, tokenized: Any, *, started: Any = None) -> Any:
            return self._real.asubmit(tokenized, started=started)

    app = create_app(Prompted(shipped), Settings(warm_up=False))
    answer = ask(app, "POST", "/embed", {"inputs": ["a", "b"], "prompt_name": "query"})

    assert np.array_equal(shipped.encode(["query: a", "query: b"]), _vectors(answer))
