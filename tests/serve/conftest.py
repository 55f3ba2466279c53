"""An application and a server with a key, for the tests of this folder."""

from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp
from support.serving import KEY, Running, cl100k_folder, running

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app


@pytest.fixture(scope="session")
def app(shipped: Embedder) -> ASGIApp:
    """An application with default settings, which compiles a grid when a request needs it."""
    return create_app(shipped, Settings(warm_up=False))


@pytest.fixture(scope="session")
def keyed_server() -> Iterator[Running]:
    """A server that requires the API key KEY and reads token ids of cl100k."""
    with running("--api-key", KEY, TIKTOKEN_CACHE_DIR=str(cl100k_folder())) as server:
        yield server
