"""Request bodies for the three wire APIs; Python's json module says what must come.

A body is made from the schema of a URL, and then perhaps damaged. A whole one must be answered 200. Each 200
holds the vectors of exactly the texts that json sees, in order; all else is refused in words.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any

import numpy as np
from starlette.types import ASGIApp
from support.asgi import Answer, Waiting, send

from fuzzing.files import TEXTS, Finding
from fuzzing.stub import vector
from ov_minilm import Embedder
from ov_minilm.runtime.output import shrink
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.serve import Settings, create_app
from ov_minilm.spec import FloatArray

PATHS = ("/v1/embeddings", "/embed", "/", "/similarity", "/api/embed", "/api/embeddings", "/tokenize")
JUNK: tuple[Any, ...] = (
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


class HashedVectors(Waiting):
    """The real tokenizer, and for each text the vector of its token ids, at once."""

    def __init__(self, real: Embedder) -> None:
        super().__init__(real)
        self._tokens = real._tokens  # which POST /tokenize copies

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
    found = np.resize(vector(" ".join(str(ids.tolist()) for ids in windows)), 384)
    return found / np.linalg.norm(found)


class Requests:
    """One application, asked many times."""

    def __init__(self, embedder: Embedder, *, real: bool) -> None:
        self._real = embedder
        self._vectors = real
        served: Embedder = embedder if real else HashedVectors(embedder)
        self._app: ASGIApp = create_app(served, Settings(payload_limit=200_000, access_log="off"))
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """End its threads."""
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def run_case(self, seed: int) -> str:
        """Ask once; return "done" or "refused".

        Raises:
            Finding: the answer is not right.
        """
        rng = random.Random(seed)  # noqa: S311  # no secrets
        path = rng.choice(PATHS)
        asked = _make(rng, path)
        right = True
        if rng.random() < 0.5:
            asked, right = _damage(rng, asked), False
        escaped = rng.random() < 0.5 or "\\ud8" in json.dumps(asked)  # half a pair is no UTF-8
        body = json.dumps(asked, ensure_ascii=escaped).encode()
        if rng.random() < 0.15:
            body, right = _damage_bytes(rng, body), False
        headers = {"content-type": "application/json"}
        sent: bytes | list[bytes] = body
        if rng.random() < 0.1:
            cuts = sorted(rng.randrange(len(body) + 1) for _ in range(3))
            sent = [body[start:end] for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True)]
        call = send(self._app, "POST", path, sent, headers)
        answer = self._loop.run_until_complete(asyncio.wait_for(call, 60))
        if answer.status == 200:
            self._check(path, body, answer)
            return "done"
        if answer.status not in (400, 404, 413, 422):
            raise Finding(f"{path}: {answer.status} {answer.body[:300]!r}")
        if right:
            raise Finding(f"{path}: {answer.status} {answer.body[:300]!r} for {body[:300]!r}")
        error = answer.json["error"]
        if not (error["message"] if isinstance(error, dict) else error):
            raise Finding(f"{path}: no words in {answer.body!r}")
        return "refused"

    def _check(self, path: str, body: bytes, answer: Answer) -> None:
        try:
            asked: Any = json.loads(body.decode("utf-8", "replace"))  # in fields that are not read
        except ValueError as error:
            raise Finding(f"{path}: answered what is no JSON: {body[:300]!r}") from error
        names = {"/v1/embeddings": "input", "/api/embed": "input", "/api/embeddings": "prompt"}
        found = answer.json
        if path == "/tokenize":
            self._check_tokens(asked, found)
            return
        value = asked.get(names.get(path, "inputs"))
        if path == "/similarity":
            value = [value["source_sentence"], *value["sentences"]]
        texts: list[Any] = [value] if isinstance(value, str) else list(value or ())
        if texts and isinstance(texts[0], int):
            texts = [texts]
        if path.startswith("/api"):
            texts = texts if texts != [""] or isinstance(value, list) else []
        expected = self._expected(texts, asked)
        if path == "/similarity":
            got = np.array(found, np.float32)
            expected = (expected[1:] @ expected[0]).astype(np.float32)
        elif path == "/v1/embeddings":
            rows = [one["embedding"] for one in found["data"]]
            got = np.array([_floats(row) for row in rows], np.float32)
            if [one["index"] for one in found["data"]] != list(range(len(texts))):
                raise Finding(f"{path}: wrong indices for {body[:300]!r}")
            if texts and isinstance(texts[0], str):
                total = sum(self._tokenized(texts, asked).tokens)
                if found["usage"] != {"prompt_tokens": total, "total_tokens": total}:
                    raise Finding(f"{path}: usage is {found['usage']}, {total} tokens were read")
        else:
            rows = found
            if path == "/api/embed":
                rows = found["embeddings"]
            elif path == "/api/embeddings":
                rows = [found["embedding"]] if texts else []
            got = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 384)
        if got.shape != expected.shape or not np.allclose(got, expected, atol=1e-6):
            raise Finding(f"{path}: wrong vectors {got.shape}, {expected.shape} for {body[:300]!r}")

    def _tokenized(self, texts: list[Any], asked: dict[str, Any]) -> Tokenized:
        mean = asked.get("truncate") == "mean"
        return self._real.tokenize(texts, truncate="mean" if mean else "end")

    def _expected(self, texts: list[Any], asked: dict[str, Any]) -> FloatArray:
        """Return the vectors [N, D] of what was asked for."""
        if self._vectors and texts:
            vectors = self._real.submit(self._tokenized(texts, asked)).result()
        else:
            windows = self._tokenized(texts, asked).windows if texts else []
            rows = [ids_vector(of_text) for of_text in windows]
            vectors = np.array(rows, np.float32).reshape(-1, 384)
        dimensions = asked.get("dimensions")
        if isinstance(dimensions, int) and 0 < dimensions <= 384 and len(vectors):
            return shrink(vectors, dimensions)
        return vectors

    def _check_tokens(self, asked: dict[str, Any], found: Any) -> None:
        value = asked.get("input", asked.get("inputs"))
        texts = [value] if isinstance(value, str) else value
        if "inputs" in asked:
            value = asked["inputs"]
            texts = [value] if isinstance(value, str) else value
            if len(found) != len(texts):
                raise Finding(f"/tokenize: {len(found)} lists for {len(texts)} texts")
            return
        ids = [
            [window.tolist() for window in one] for one in self._real.tokenize(texts, truncate="mean").windows
        ]
        if [one["windows"] for one in found["data"]] != ids:
            raise Finding(f"/tokenize: wrong ids for {asked}")


def _floats(row: Any) -> Any:
    return np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row


def _texts(rng: random.Random) -> str | list[str]:
    """Make what every API takes: a text, or a list of some."""
    pool = (*TEXTS, "\ud83d", "x" * 5000, "word " * 300, "字" * 600)
    if rng.random() < 0.3:
        return rng.choice(pool)
    return [rng.choice(pool) for _ in range(rng.choice((1, 1, 2, 3, 8, 40)))]


def _some(rng: random.Random, options: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.35}


def _make(rng: random.Random, path: str) -> dict[str, Any]:
    """Make a body that is right."""
    texts = _texts(rng)
    if path == "/v1/embeddings":
        options: dict[str, tuple[Any, ...]] = {
            "model": ("all-MiniLM-L6-v2", "text-embedding-3-small", None),
            "encoding_format": ("float", "base64", None),
            "dimensions": (1, 8, 384, None),
            "user": ("u", None),
            "truncate": ("end", "mean", None),
            "other": JUNK,
        }
        return {"input": texts, **_some(rng, options)}
    if path == "/tokenize":
        return {rng.choice(("input", "inputs")): texts}
    if path == "/similarity":
        sentences = [texts] if isinstance(texts, str) else texts
        return {"inputs": {"source_sentence": rng.choice(TEXTS), "sentences": sentences}}
    if path == "/api/embed":
        options = {
            "truncate": (True, None),
            "dimensions": (8, 384, None),
            "keep_alive": JUNK,
            "options": ({}, None),
        }
        return {"model": "all-minilm", "input": texts, **_some(rng, options)}
    if path == "/api/embeddings":
        return {"model": "all-minilm", "prompt": rng.choice(TEXTS), **_some(rng, {"keep_alive": JUNK})}
    options = {
        "truncate": (True, None),
        "normalize": (True, False, None),
        "dimensions": (8, 384, None),
        "truncation_direction": ("right", "Right", None),
    }
    return {"inputs": texts, **_some(rng, options)}


def _damage(rng: random.Random, asked: dict[str, Any]) -> Any:
    """Put something else in place of a value, a key or the whole."""
    chance = rng.random()
    if chance < 0.05:
        return rng.choice(JUNK)
    name = rng.choice(list(asked))
    if chance < 0.15:
        return {(f"{name}_" if one == name else one): value for one, value in asked.items()}
    changed = dict(asked)
    value = changed[name]
    if isinstance(value, list) and value and rng.random() < 0.5:
        value = list(value)
        value[rng.randrange(len(value))] = rng.choice(JUNK)
        changed[name] = value
    elif isinstance(value, dict) and value:
        changed[name] = {**value, rng.choice(list(value)): rng.choice(JUNK)}
    else:
        changed[name] = rng.choice(JUNK)
    return changed


def _damage_bytes(rng: random.Random, body: bytes) -> bytes:
    content = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content) + 1)
        content[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4)) if rng.random() < 0.5 else b'"'
    return bytes(content)
