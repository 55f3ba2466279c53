"""An application and two servers that most of these tests ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp
from support.clients import KEY, ranks
from support.serving import Running, running

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app


@pytest.fixture(scope="session")
def app(shipped: Embedder) -> ASGIApp:
    """An application with default settings, which compiles nothing before it needs it."""
    return create_app(shipped, Settings(warm_up=False))


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server without a key and with a small body limit."""
    with running("--payload-limit", "100000", "--access-log", "json") as server:
        yield server


@pytest.fixture(scope="session")
def keyed() -> Iterator[Running]:
    """A server that wants a key and reads token ids of cl100k."""
    with running("--api-key", KEY, TIKTOKEN_CACHE_DIR=str(ranks())) as server:
        yield server
