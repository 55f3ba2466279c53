"""Requests to the application without a network, and an embedder whose vectors the test supplies."""

import asyncio
import base64
import json
from collections.abc import Mapping
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
    """The response to a request; status 0 if the application sent no response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)

    @property
    def vectors(self) -> FloatArray:  # [N, D]
        """The embeddings, from any of the APIs and formats."""
        assert 200 == self.status, self.body
        rows = self.json
        if isinstance(rows, dict):
            rows = rows["embeddings"] if "embeddings" in rows else [row["embedding"] for row in rows["data"]]
        if isinstance(rows[0], str):
            return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
        return np.array(rows, np.float32)

    @property
    def message(self) -> str:
        """The message of an error, from any of the APIs."""
        error: Any = self.json["error"]
        return str(error["message"] if isinstance(error, dict) else error)


async def send(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes | list[bytes] = b"",
    headers: Mapping[str, str] = JSON,
    *,
    disconnected: asyncio.Event | None = None,
) -> Answer:
    """Send one request. If the body is a list of parts, those that the application reads are removed.

    The client disconnects when the event is set.
    """
    messages: list[Message] = []
    parts = [body] if isinstance(body, bytes) else body

    async def receive() -> Message:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await (disconnected or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        messages.append(message)

    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
    scope |= {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    scope |= {"scheme": "http", "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000)}
    scope["headers"] = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await app(scope, receive, keep)
    if not messages:
        return Answer(0, {}, b"")
    start, *rest = messages
    assert [True] * (len(rest) - 1) + [False] == [part.get("more_body", False) for part in rest]
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], names, b"".join(part.get("body", b"") for part in rest))


def ask(app: ASGIApp, method: str, path: str, body: Any = b"", headers: Mapping[str, str] = JSON) -> Answer:
    """Send one request in a new event loop; a body that is not bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(send(app, method, path, content, headers))


def post(app: ASGIApp, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Answer:
    """Send a POST request with a JSON body."""
    return ask(app, "POST", path, body, headers)


class SuppliedVectors(Embedder):
    """A real embedder, but the test supplies its vectors and the cosine of its self-check."""

    def __init__(self, real: Embedder) -> None:
        self.__dict__.update(vars(real))
        self.cosine = 1.0
        self.futures: list[Future[FloatArray]] = []  # one per call; the test sets its result

    def warm_up(self) -> dict[str, float]:
        """Compile nothing."""
        return {}

    def self_check(self) -> float:
        """Return `cosine`, or fail if it is too low."""
        if self.cosine < MIN_COSINE:
            raise SelfCheckFailed("CPU", self.cosine, MIN_COSINE)
        return self.cosine

    def asubmit(self, tokenized: Any, *, started: Any = None) -> asyncio.Future[FloatArray]:
        """Return a future for the test to resolve; the call starts at once."""
        del tokenized
        if started is not None:
            started()
        self.futures.append(Future())
        return asyncio.wrap_future(self.futures[-1])

    async def until_called(self, calls: int) -> None:
        """Wait until `asubmit` has been called this many times."""
        while len(self.futures) < calls:
            await asyncio.sleep(0)
