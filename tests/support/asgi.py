"""The application without a network: one request, one answer; and an embedder that waits for the test."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Message

from ov_minilm import Embedder
from ov_minilm.artefact.golden import MIN_COSINE
from ov_minilm.errors import SelfCheckFailed
from ov_minilm.spec import FloatArray

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def vectors(self) -> FloatArray:
        """The embeddings, of any of the APIs and formats."""
        assert 200 == self.status, self.body
        found = self.json
        if isinstance(found, dict):
            found = (
                found["embeddings"] if "embeddings" in found else [one["embedding"] for one in found["data"]]
            )
        if isinstance(found[0], str):
            return np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in found])
        return np.array(found, np.float32)

    @property
    def message(self) -> str:
        """The message of an error, in any of the APIs."""
        error: Any = self.json["error"]
        return str(error["message"] if isinstance(error, dict) else error)


async def send(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] = JSON,
    *,
    leave: asyncio.Event | None = None,
    chunks: list[bytes] | None = None,
) -> Answer:
    """Send one request; `leave` set means that the client hangs up.

    `chunks` stand for the body in parts: those that are read are taken from it.
    """
    messages: list[Message] = []
    parts = [body] if chunks is None else chunks
    gone = leave or asyncio.Event()

    async def receive() -> Message:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        messages.append(message)

    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
    scope |= {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    scope |= {"scheme": "http", "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000)}
    given = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await app(scope | {"headers": given}, receive, keep)
    if not messages:
        return Answer(0, {}, b"")
    start, *rest = messages
    assert [True] * (len(rest) - 1) + [False] == [one.get("more_body", False) for one in rest]
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], names, b"".join(message.get("body", b"") for message in rest))


def ask(app: ASGIApp, method: str, path: str, body: Any = b"", headers: Mapping[str, str] = JSON) -> Answer:
    """Send one request on an event loop of its own; a body that is not bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(send(app, method, path, content, headers))


def post(app: ASGIApp, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Answer:
    """Send a POST."""
    return ask(app, "POST", path, body, headers)


def embed(app: ASGIApp, body: Any, headers: Mapping[str, str] = JSON) -> Answer:
    """POST /v1/embeddings."""
    return ask(app, "POST", "/v1/embeddings", body, headers)


class Waiting(Embedder):
    """A real embedder but for its vectors, which come when the test gives them, and its self-check."""

    def __init__(self, real: Embedder) -> None:
        self.__dict__.update(vars(real))
        self.cosine = 1.0  # of the self-check
        self.futures: list[Future[FloatArray]] = []

    def warm_up(self) -> dict[str, float]:
        """Do nothing: there is nothing to compile."""
        return {}

    def self_check(self) -> float:
        """Give the cosine that the test wants."""
        if self.cosine < MIN_COSINE:
            raise SelfCheckFailed("CPU", self.cosine, MIN_COSINE)
        return self.cosine

    def asubmit(
        self, tokenized: Any, *, started: Callable[[], object] | None = None
    ) -> asyncio.Future[FloatArray]:
        """Return a future that the test ends; it runs at once."""
        del tokenized
        if started is not None:
            started()
        self.futures.append(Future())
        return asyncio.wrap_future(self.futures[-1])

    async def count(self, futures: int) -> None:
        """Wait until this many requests wait."""
        while len(self.futures) < futures:
            await asyncio.sleep(0)
