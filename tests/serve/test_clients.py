"""Clients as people use them, unmodified, against a real server: each gets the vectors of `encode`."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from serving import Running, running

from ov_minilm import Embedder
from ov_minilm.spec import FloatArray

TEXTS = ["hello world", "", "naïve café 😉", "The cat sat on the mat; nobody minded.", "word " * 300]
KEY = "a-key"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server that wants a key."""
    with running("--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="module")
def vectors(shipped: Embedder) -> FloatArray:
    """What every client must get, bit for bit."""
    return np.concatenate([shipped.encode(TEXTS[:-1]), shipped.encode(["word " * 254])])


def test_openai_python(server: Running, vectors: FloatArray) -> None:
    """The official client, which asks for base64 unless told otherwise, and for numbers when told."""
    openai = pytest.importorskip("openai")

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        by_default = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        as_numbers = client.embeddings.create(model="any", input=TEXTS[0], encoding_format="float")
        models = [model.id for model in client.models.list()]

    assert np.array_equal(vectors, np.array([one.embedding for one in by_default.data], np.float32))
    assert np.array_equal(vectors[0], np.array(as_numbers.data[0].embedding, np.float32))
    assert list(range(len(TEXTS))) == [one.index for one in by_default.data]
    assert "all-MiniLM-L6-v2" == by_default.model == models[0]
    assert by_default.usage.prompt_tokens == by_default.usage.total_tokens > 256


def test_openai_python_async(server: Running, vectors: FloatArray) -> None:
    """Many calls at once on one event loop, each with its own answer."""
    openai = pytest.importorskip("openai")

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(model="any", input=text) for text in TEXTS * 8)
            )
        return [answer.data[0].embedding for answer in answers]

    assert np.array_equal(np.tile(vectors, (8, 1)), np.array(asyncio.run(ask()), np.float32))


def test_openai_python_hears_errors(server: Running) -> None:
    """Errors become the client's own classes, with message, parameter and code."""
    openai = pytest.importorskip("openai")

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="any", input=TEXTS, dimensions=1000)
        with pytest.raises(openai.AuthenticationError) as stranger:
            client.with_options(api_key="another").embeddings.create(model="any", input="a")

    assert ("dimensions", None, "invalid_request_error") == (
        refused.value.param,
        refused.value.code,
        refused.value.type,
    )
    assert "invalid_api_key" == stranger.value.code


def test_curl(server: Running, vectors: FloatArray) -> None:
    """The line of the README."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--fail", f"{server.url}/v1/embeddings"),
            *("-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}"),
            *("-d", json.dumps({"input": TEXTS})),
        ],
        capture_output=True,
        check=True,
    )

    found = [one["embedding"] for one in json.loads(done.stdout)["data"]]
    assert np.array_equal(vectors, np.array(found, np.float32))
