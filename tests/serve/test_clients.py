"""Clients as people use them, unmodified, against a real server: each gets the vectors of `encode`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clients import ranks
from support.serving import Running, running

from ov_minilm import Embedder
from ov_minilm.spec import FloatArray

TEXTS = ["hello world", "", "naïve café 😉", "The cat sat on the mat; nobody minded.", "word " * 300]
KEY = "a-key"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server that wants a key."""
    with running("--api-key", KEY, TIKTOKEN_CACHE_DIR=str(ranks())) as server:
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


def ask(code: str, server: Running, *command: str, texts: list[str] = TEXTS, **options: Any) -> FloatArray:
    """Run a client in a process of its own; what it prints is a list of vectors."""
    environment = {
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": KEY,
        "TEXTS": json.dumps(texts),
        "TIKTOKEN_CACHE_DIR": str(ranks()),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks a web site at import
    }
    done = subprocess.run(
        [*(command or (sys.executable, "-c")), code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)


def test_langchain_as_it_comes(server: Running, vectors: FloatArray) -> None:
    """With default settings LangChain sends token ids of cl100k; they are read as what they are."""
    pytest.importorskip("langchain_openai")
    code = """
import json, os
from langchain_openai import OpenAIEmbeddings
embeddings = OpenAIEmbeddings()
texts = json.loads(os.environ["TEXTS"])
print(json.dumps(embeddings.embed_documents(texts) + [embeddings.embed_query(text) for text in texts]))
"""
    texts = [text for text in TEXTS if text]  # LangChain sends no request for an empty text
    expected = vectors[[bool(text) for text in TEXTS]]

    assert np.array_equal(np.tile(expected, (2, 1)), ask(code, server, texts=texts))


def test_langchain_under_another_model_name(server: Running, vectors: FloatArray) -> None:
    """Ids that prove themselves are read right; those that may be either are refused with the way out."""
    pytest.importorskip("langchain_openai")
    code = """
import json, os
from langchain_openai import OpenAIEmbeddings
texts = json.loads(os.environ["TEXTS"])
embeddings = OpenAIEmbeddings(model="all-MiniLM-L6-v2")
found = [embeddings.embed_query(text) for text in texts[1:]]
try:
    embeddings.embed_query(texts[0])
except Exception as error:
    assert "check_embedding_ctx_length=False" in str(error), error
else:
    raise SystemExit("hello world was embedded")
embeddings = OpenAIEmbeddings(model="all-MiniLM-L6-v2", check_embedding_ctx_length=False)
print(json.dumps([embeddings.embed_query(texts[0]), *found]))
"""

    assert np.array_equal(vectors[[0, 3]], ask(code, server, texts=[TEXTS[0], TEXTS[3]]))


def test_llama_index(server: Running, vectors: FloatArray) -> None:
    """LlamaIndex's OpenAIEmbedding, batch and query."""
    pytest.importorskip("llama_index.embeddings.openai")
    code = """
import json, os
from llama_index.embeddings.openai import OpenAIEmbedding
texts = json.loads(os.environ["TEXTS"])
embedding = OpenAIEmbedding(api_base=os.environ["OPENAI_BASE_URL"])
print(json.dumps(embedding.get_text_embedding_batch(texts) + [embedding.get_query_embedding(texts[0])]))
"""

    assert np.array_equal(vectors[[0, 1, 2, 3, 4, 0]], ask(code, server))


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": None}], ids=str)
def test_what_litellm_sends(server: Running, vectors: FloatArray, form: dict[str, Any]) -> None:
    """Its requests go through the openai package too: as they are, for numbers, and with a null for them."""
    openai = pytest.importorskip("openai")

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        body = {"model": "all-MiniLM-L6-v2", "input": TEXTS, **form}
        answer = client.post("/embeddings", cast_to=object, body=body)

    assert np.array_equal(vectors, np.array([one["embedding"] for one in answer["data"]], np.float32))


@pytest.mark.slow  # a quarter of a minute to import
def test_litellm(server: Running, vectors: FloatArray) -> None:
    """The gateway's own client, with and without encoding_format."""
    pytest.importorskip("litellm")
    code = """
import json, os
import litellm
texts = json.loads(os.environ["TEXTS"])
found = []
for options in ({}, {"encoding_format": "float"}, {"encoding_format": None}):
    answer = litellm.embedding(model="openai/all-MiniLM-L6-v2", input=texts, **options)
    found += [one["embedding"] for one in answer.data]
print(json.dumps(found))
"""

    assert np.array_equal(np.tile(vectors, (3, 1)), ask(code, server))


def test_azure_openai(server: Running, vectors: FloatArray) -> None:
    """Azure's client of the openai package: another path, and the key in `api-key`."""
    openai = pytest.importorskip("openai")

    with openai.AzureOpenAI(azure_endpoint=server.url, api_key=KEY, api_version="2024-10-21") as client:
        found = client.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS)

    assert np.array_equal(vectors, np.array([one.embedding for one in found.data], np.float32))


CODES = {  # what people write for a server of Text Embeddings Inference, or for Ollama
    "huggingface_hub": """
from huggingface_hub import InferenceClient
client = InferenceClient(URL, token=KEY)
show([*client.feature_extraction(texts[:-1]), *client.feature_extraction(texts[-1], truncate=True)])
""",
    "huggingface_hub /embed": """
import asyncio
from huggingface_hub import AsyncInferenceClient
client = AsyncInferenceClient(f"{URL}/embed", token=KEY)
options = {"normalize": True, "truncate": True, "truncation_direction": "right"}
show(asyncio.run(client.feature_extraction(texts, **options)))
""",
    "langchain_huggingface": """
from huggingface_hub import InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings
embeddings = HuggingFaceEndpointEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2")
embeddings.client = InferenceClient(URL, token=KEY)
show(embeddings.embed_documents(texts[:-1]) + [embeddings.embed_query(texts[-1])])
""",
    "llama_index.embeddings.text_embeddings_inference": """
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
embedding = TextEmbeddingsInference(model_name="", base_url=URL, auth_token=KEY)
show(embedding.get_text_embedding_batch(texts))
""",
    "chromadb HuggingFaceEmbeddingServer": """
from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer
os.environ["CHROMA_HUGGINGFACE_API_KEY"] = KEY
show(HuggingFaceEmbeddingServer(url=f"{URL}/embed", api_key_env_var="CHROMA_HUGGINGFACE_API_KEY")(texts))
""",
    "ollama": """
import ollama
client = ollama.Client(URL, headers={"authorization": f"Bearer {KEY}"})
assert "all-minilm:latest" in [model.model for model in client.list().models]
assert "bert" == client.show("all-minilm").details.family
assert 1 == len(client.ps().models)
older = client.embeddings("all-minilm", texts[-1])["embedding"]
show([*client.embed("all-minilm:l6-v2", texts[:-1]).embeddings, older])
""",
    "ollama AsyncClient": """
import asyncio, ollama
client = ollama.AsyncClient(URL, headers={"authorization": f"Bearer {KEY}"})
show(asyncio.run(client.embed("all-minilm", texts)).embeddings)
""",
    "langchain_ollama": """
from langchain_ollama import OllamaEmbeddings
options = {"headers": {"authorization": f"Bearer {KEY}"}}
embeddings = OllamaEmbeddings(
    model="all-minilm", base_url=URL, client_kwargs=options, validate_model_on_init=True
)
show(embeddings.embed_documents(texts[:-1]) + [embeddings.embed_query(texts[-1])])
""",
    "llama_index.embeddings.ollama": """
from llama_index.embeddings.ollama import OllamaEmbedding
options = {"headers": {"authorization": f"Bearer {KEY}"}}
embedding = OllamaEmbedding(model_name="all-minilm", base_url=URL, client_kwargs=options)
show(embedding.get_text_embedding_batch(texts))
""",
    "chromadb OllamaEmbeddingFunction": """
from chromadb.utils.embedding_functions import OllamaEmbeddingFunction
os.environ["OLLAMA_API_KEY"] = KEY
show(OllamaEmbeddingFunction(url=URL, model_name="chroma/all-minilm-l6-v2-f32")(texts))
""",
}
PROLOGUE = """
import json, os
KEY, URL = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
texts = json.loads(os.environ["TEXTS"])
def show(vectors):
    print(json.dumps([[float(number) for number in vector] for vector in vectors]))
"""


@pytest.mark.parametrize("client", CODES)
def test_clients_of_the_other_apis(server: Running, vectors: FloatArray, client: str) -> None:
    """Each gets the vectors of `encode`, bit for bit, of awkward texts and a long one."""
    pytest.importorskip(client.split()[0])
    texts = [text.strip() for text in TEXTS if text]  # LlamaIndex strips texts, and refuses empty ones
    expected = vectors[[bool(text) for text in TEXTS]]

    assert np.array_equal(expected, ask(PROLOGUE + CODES[client], server, texts=texts))


OLLAMA = "import ollama; client = ollama.Client(URL, headers={'authorization': f'Bearer {KEY}'}); client."
HUB = "from huggingface_hub import InferenceClient; InferenceClient(URL, token=%s).feature_extraction(%s)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (OLLAMA + "embed('llama3', 'a')", "404"),
        (OLLAMA + "generate('all-minilm', 'a')", "cannot generate text"),
        (HUB % ("KEY", "[]"), "400"),
        (HUB % ("'x'", "'a'"), "401"),
    ],
)
def test_errors_reach_the_clients_of_the_other_apis(server: Running, code: str, said: str) -> None:
    """Each raises its own error, with the status or the words of the server."""
    pytest.importorskip(code.split()[1].rstrip(";"))
    with pytest.raises(AssertionError, match=said):
        ask(PROLOGUE + code, server)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which npm installed the clients that people use from Node."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    names = ["ollama@0.6", "openai@6", "ai@6", "@ai-sdk/openai@3", "@ai-sdk/openai-compatible@2"]
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", *names],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install {' '.join(names)}: {done.stderr[-200:]}")
    return folder


def test_openai_node(server: Running, vectors: FloatArray, packages: Path) -> None:
    """The official client for JavaScript, which asks for base64, and for numbers when told."""
    code = """
import OpenAI from "openai";
const client = new OpenAI();
const input = JSON.parse(process.env.TEXTS);
const first = await client.embeddings.create({model: "text-embedding-3-small", input});
const second = await client.embeddings.create({model: "any", input, encoding_format: "float"});
console.log(JSON.stringify([...first.data, ...second.data].map((one) => one.embedding)));
"""

    found = ask(code, server, "node", "--input-type=module", "--eval", cwd=packages)

    assert np.array_equal(np.tile(vectors, (2, 1)), found)


def test_vercel_ai_sdk(server: Running, vectors: FloatArray, packages: Path) -> None:
    """Embed and embedMany of the AI SDK, through its OpenAI provider and its compatible one."""
    code = """
import { embed, embedMany } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
const values = JSON.parse(process.env.TEXTS);
const [baseURL, apiKey] = [process.env.OPENAI_BASE_URL, process.env.OPENAI_API_KEY];
const found = [];
const compatible = createOpenAICompatible({name: "it", baseURL, apiKey});
for (const provider of [createOpenAI({baseURL, apiKey}), compatible]) {
  const model = provider.textEmbeddingModel("all-MiniLM-L6-v2");
  found.push(...(await embedMany({model, values})).embeddings);
  found.push((await embed({model, value: values[0]})).embedding);
}
console.log(JSON.stringify(found));
"""

    found = ask(code, server, "node", "--input-type=module", "--eval", cwd=packages)

    assert np.array_equal(vectors[[0, 1, 2, 3, 4, 0] * 2], found)


def test_ollama_node(server: Running, vectors: FloatArray, packages: Path) -> None:
    """Ollama's client for JavaScript."""
    code = """
import { Ollama } from "ollama";
const headers = {authorization: `Bearer ${process.env.OPENAI_API_KEY}`};
const client = new Ollama({host: process.env.OPENAI_BASE_URL.replace("/v1", ""), headers});
const input = JSON.parse(process.env.TEXTS);
console.log(JSON.stringify((await client.embed({model: "all-minilm", input})).embeddings));
"""

    assert np.array_equal(vectors, ask(code, server, "node", "--input-type=module", "--eval", cwd=packages))


def test_curl(server: Running, vectors: FloatArray) -> None:
    """The line that `serve --help` shows."""
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
