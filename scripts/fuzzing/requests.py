"""Fuzz tests of requests to the three APIs; Python's json module gives the expected texts.

A body is generated from the schema of a URL, and half of the bodies are then damaged. A valid body must get
status 200. Every answer with status 200 must have the vectors of the texts that json reads, in order. Other
answers must have an error message.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any

import numpy as np
from starlette.types import ASGIApp
from support.asgi import Answer, SuppliedVectors, send

from fuzzing.files import TEXTS, WrongResult
from fuzzing.stub import vector
from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.serve import Settings, create_app
from ov_minilm.spec import FloatArray

PATHS = ("/v1/embeddings", "/embed", "/", "/similarity", "/api/embed", "/api/embeddings", "/tokenize")
WRONG_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        1e308,
        10**25,
        "",
        "x",
        "\ud83d",
        [],
        {},
        [None],
        [[]],
        [""],
        ["a", 1],
        [1, "a"],
    ),
    *(
        {"a": 1},
        [["a"]],
        [True],
        [1.0],
        [101, 7592, 102],
        [[101, 7592, 102], [101, 102]],
        [0],
        [10**9],
        "end",
    ),
)


class HashedVectors(SuppliedVectors):
    """Replaces the model: tokenizes texts and returns for each a vector that is a hash of its token ids."""

    def __init__(self, real: Embedder) -> None:
        super().__init__(real)
        self._tokens = real._tokens  # POST /tokenize copies the tokenizer

    def asubmit(self, tokenized: Tokenized, *, started: Any = None) -> asyncio.Future[FloatArray]:
        """Return the vectors [N, 384]."""
        if started is not None:
            started()
        rows = [ids_vector(windows) for windows in tokenized.windows]
        future: asyncio.Future[FloatArray] = asyncio.get_running_loop().create_future()
        future.set_result(np.array(rows, np.float32).reshape(-1, 384))
        return future


def ids_vector(windows: list[Any]) -> FloatArray:
    """Return a unit vector [384] that depends on every token."""
    found: FloatArray = np.resize(vector(" ".join(str(ids.tolist()) for ids in windows)), 384)
    unit: FloatArray = found / np.linalg.norm(found)
    return unit


class RequestFuzzer:
    """Sends random requests to one application."""

    def __init__(self, embedder: Embedder, *, real: bool) -> None:
        self._embedder = embedder
        self._real_vectors = real
        served: Embedder = embedder if real else HashedVectors(embedder)
        self._app: ASGIApp = create_app(served, Settings(payload_limit=200_000, access_log="off"))
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """End the threads of the event loop."""
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def run_case(self, seed: int) -> str:
        """Send one request; return "done" or "refused".

        Raises:
            WrongResult: the answer is wrong.
        """
        rng = random.Random(seed)  # noqa: S311  # not for security
        path = rng.choice(PATHS)
        request = _valid_body(rng, path)
        valid = True
        if rng.random() < 0.5:
            request, valid = _damage(rng, request), False
        # UTF-8 cannot express half of a surrogate pair, so JSON must escape it
        escaped = rng.random() < 0.5 or "\\ud8" in json.dumps(request)
        body = json.dumps(request, ensure_ascii=escaped).encode()
        if rng.random() < 0.15:
            body, valid = _damage_bytes(rng, body), False
        headers = {"content-type": "application/json"}
        sent: bytes | list[bytes] = body
        if rng.random() < 0.1:
            boundaries = sorted(rng.randrange(len(body) + 1) for _ in range(3))
            sent = [
                body[start:end] for start, end in zip((0, *boundaries), (*boundaries, len(body)), strict=True)
            ]
        call = send(self._app, "POST", path, sent, headers)
        answer = self._loop.run_until_complete(asyncio.wait_for(call, 60))
        if answer.status == 200:
            self._check(path, body, answer)
            return "done"
        if answer.status not in (400, 404, 413, 422):
            raise WrongResult(f"{path}: {answer.status} {answer.body[:300]!r}")
        if valid:
            raise WrongResult(f"{path}: {answer.status} {answer.body[:300]!r} for {body[:300]!r}")
        error = answer.json["error"]
        if not (error["message"] if isinstance(error, dict) else error):
            raise WrongResult(f"{path}: no message in {answer.body!r}")
        return "refused"

    def _check(self, path: str, body: bytes, answer: Answer) -> None:
        try:
            # the server accepts bytes that are invalid in UTF-8 in fields that it ignores
            request: Any = json.loads(body.decode("utf-8", "replace"))
        except ValueError as error:
            raise WrongResult(f"{path}: accepted invalid JSON: {body[:300]!r}") from error
        names = {"/v1/embeddings": "input", "/api/embed": "input", "/api/embeddings": "prompt"}
        found = answer.json
        if path == "/tokenize":
            self._check_tokens(request, found)
            return
        value = request.get(names.get(path, "inputs"))
        if path == "/similarity":
            value = [value["source_sentence"], *value["sentences"]]
        texts: list[Any] = [value] if isinstance(value, str) else list(value or ())
        if texts and isinstance(texts[0], int):
            texts = [texts]
        if path.startswith("/api"):
            texts = texts if texts != [""] or isinstance(value, list) else []
        expected = self._expected(texts, request)
        if path == "/similarity":
            actual = np.array(found, np.float32)
            expected = (expected[1:] @ expected[0]).astype(np.float32)
        elif path == "/v1/embeddings":
            rows = [item["embedding"] for item in found["data"]]
            actual = np.array([_floats(row) for row in rows], np.float32)
            if [item["index"] for item in found["data"]] != list(range(len(texts))):
                raise WrongResult(f"{path}: wrong indices for {body[:300]!r}")
            if texts and isinstance(texts[0], str):
                total = sum(self._tokenized(texts, request).tokens)
                if found["usage"] != {"prompt_tokens": total, "total_tokens": total}:
                    raise WrongResult(f"{path}: usage is {found['usage']}, {total} tokens were read")
        else:
            rows = found
            if path == "/api/embed":
                rows = found["embeddings"]
            elif path == "/api/embeddings":
                rows = [found["embedding"]] if texts else []
            actual = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 384)
        if actual.shape != expected.shape or not np.allclose(actual, expected, atol=1e-6):
            raise WrongResult(f"{path}: wrong vectors {actual.shape}, {expected.shape} for {body[:300]!r}")

    def _tokenized(self, texts: list[Any], request: dict[str, Any]) -> Tokenized:
        mean = request.get("truncate") == "mean"
        return self._embedder.tokenize(texts, truncate="mean" if mean else "end")

    def _expected(self, texts: list[Any], request: dict[str, Any]) -> FloatArray:
        """Return the vectors [N, D] that the request should get."""
        if self._real_vectors and texts:
            vectors = self._embedder.submit(self._tokenized(texts, request)).result()
        else:
            windows = self._tokenized(texts, request).windows if texts else []
            rows = [ids_vector(of_text) for of_text in windows]
            vectors = np.array(rows, np.float32).reshape(-1, 384)
        dimensions = request.get("dimensions")
        if isinstance(dimensions, int) and 0 < dimensions <= 384 and len(vectors):
            return shrink(vectors, dimensions)
        return vectors

    def _check_tokens(self, request: dict[str, Any], actual: Any) -> None:
        value: Any = request["inputs" if "inputs" in request else "input"]
        texts: list[str] = [value] if isinstance(value, str) else value
        if "inputs" in request:
            if len(actual) != len(texts):
                raise WrongResult(f"/tokenize: {len(actual)} lists for {len(texts)} texts")
            return
        ids = [
            [window.tolist() for window in item]
            for item in self._embedder.tokenize(texts, truncate="mean").windows
        ]
        if [item["windows"] for item in actual["data"]] != ids:
            raise WrongResult(f"/tokenize: wrong ids for {request}")


def _floats(row: Any) -> Any:
    return np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row


def _texts(rng: random.Random) -> str | list[str]:
    """Return a valid input of every API: a text, or a list of texts."""
    texts = (*TEXTS, "\ud83d", "x" * 5000, "word " * 300, "字" * 600)
    if rng.random() < 0.3:
        return rng.choice(texts)
    return [rng.choice(texts) for _ in range(rng.choice((1, 1, 2, 3, 8, 40)))]


def _random_subset(rng: random.Random, options: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.35}


def _valid_body(rng: random.Random, path: str) -> dict[str, Any]:
    """Return a valid body."""
    texts = _texts(rng)
    if path == "/v1/embeddings":
        options: dict[str, tuple[Any, ...]] = {
            "model": ("all-MiniLM-L6-v2", "text-embedding-3-small", None),
            "encoding_format": ("float", "base64", None),
            "dimensions": (1, 8, 384, None),
            "user": ("u", None),
            "truncate": ("end", "mean", None),
            "other": WRONG_VALUES,
        }
        return {"input": texts, **_random_subset(rng, options)}
    if path == "/tokenize":
        return {rng.choice(("input", "inputs")): texts}
    if path == "/similarity":
        sentences = [texts] if isinstance(texts, str) else texts
        return {"inputs": {"source_sentence": rng.choice(TEXTS), "sentences": sentences}}
    if path == "/api/embed":
        options = {
            "truncate": (True, None),
            "dimensions": (8, 384, None),
            "keep_alive": WRONG_VALUES,
            "options": ({}, None),
        }
        return {"model": "all-minilm", "input": texts, **_random_subset(rng, options)}
    if path == "/api/embeddings":
        return {
            "model": "all-minilm",
            "prompt": rng.choice(TEXTS),
            **_random_subset(rng, {"keep_alive": WRONG_VALUES}),
        }
    options = {
        "truncate": (True, None),
        "normalize": (True, False, None),
        "dimensions": (8, 384, None),
        "truncation_direction": ("right", "Right", None),
    }
    return {"inputs": texts, **_random_subset(rng, options)}


def _damage(rng: random.Random, request: dict[str, Any]) -> Any:
    """Replace a value, a key or the whole body by something wrong."""
    chance = rng.random()
    if chance < 0.05:
        return rng.choice(WRONG_VALUES)
    name = rng.choice(list(request))
    if chance < 0.15:
        return {(f"{name}_" if key == name else key): value for key, value in request.items()}
    changed = dict(request)
    value = changed[name]
    if isinstance(value, list) and value and rng.random() < 0.5:
        value = list(value)
        value[rng.randrange(len(value))] = rng.choice(WRONG_VALUES)
        changed[name] = value
    elif isinstance(value, dict) and value:
        changed[name] = {**value, rng.choice(list(value)): rng.choice(WRONG_VALUES)}
    else:
        changed[name] = rng.choice(WRONG_VALUES)
    return changed


def _damage_bytes(rng: random.Random, body: bytes) -> bytes:
    content = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content) + 1)
        content[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4)) if rng.random() < 0.5 else b'"'
    return bytes(content)
