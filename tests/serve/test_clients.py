"""Real clients, unmodified, against a real server: each gets the vectors of `encode`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import KEY, Running, cl100k_folder

from ov_minilm import Embedder

pytestmark = pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")

# Without empty texts and spaces at the ends: LlamaIndex strips texts, some clients refuse empty ones.
TEXTS = ["hello world", "naïve café 😉", "The cat sat on the mat; nobody minded.", "word " * 299 + "word"]

# client -> the module to import and a note, and code whose last line gives the vectors, or fails as noted
CLIENTS = """
openai, which asks for base64 unless told otherwise
    client = openai.OpenAI()
    found = client.embeddings.create(model="text-embedding-3-small", input=texts)
    assert "all-MiniLM-L6-v2" == found.model == next(iter(client.models.list())).id
    assert found.usage.prompt_tokens == found.usage.total_tokens > 256
    rows(found)
openai, asking for numbers
    rows(openai.OpenAI().embeddings.create(model="any", input=texts, encoding_format="float"))
openai AsyncOpenAI, many calls at once
    client = openai.AsyncOpenAI()
    async def embed_all():
        calls = (client.embeddings.create(model="any", input=text) for text in texts * 8)
        return [rows(answer)[0] for answer in await asyncio.gather(*calls)]
    found = asyncio.run(embed_all())
    assert found == found[: len(texts)] * 8
    found[: len(texts)]
openai AzureOpenAI
    client = openai.AzureOpenAI(azure_endpoint=URL, api_key=KEY, api_version="2024-10-21")
    rows(client.embeddings.create(model="all-MiniLM-L6-v2", input=texts))
openai, refused: BadRequestError dimensions None invalid_request_error
    openai.OpenAI().embeddings.create(model="any", input=texts, dimensions=1000)
openai, refused: AuthenticationError None invalid_api_key
    openai.OpenAI(api_key="another").embeddings.create(model="any", input="a")
huggingface_hub
    client = huggingface_hub.InferenceClient(URL, token=KEY)
    [*client.feature_extraction(texts[:-1]), *client.feature_extraction(texts[-1], truncate=True)]
huggingface_hub AsyncInferenceClient
    client = huggingface_hub.AsyncInferenceClient(f"{URL}/embed", token=KEY)
    options = {"normalize": True, "truncate": True, "truncation_direction": "right"}
    asyncio.run(client.feature_extraction(texts, **options))
huggingface_hub, refused: inputs is an empty list
    huggingface_hub.InferenceClient(URL, token=KEY).feature_extraction([])
huggingface_hub, refused: 401
    huggingface_hub.InferenceClient(URL, token="x").feature_extraction("a")
ollama
    client = ollama.Client(URL, headers=bearer)
    assert "all-minilm:latest" in [model.model for model in client.list().models]
    assert "bert" == client.show("all-minilm").details.family
    assert 1 == len(client.ps().models)
    older = client.embeddings("all-minilm", texts[-1])["embedding"]
    [*client.embed("all-minilm:l6-v2", texts[:-1]).embeddings, older]
ollama AsyncClient
    asyncio.run(ollama.AsyncClient(URL, headers=bearer).embed("all-minilm", texts)).embeddings
ollama, refused: 404
    ollama.Client(URL, headers=bearer).embed("llama3", "a")
ollama, refused: cannot generate text
    ollama.Client(URL, headers=bearer).generate("all-minilm", "a")
"""
LIBRARIES = """
langchain_openai, which sends token ids of cl100k
    embeddings = langchain_openai.OpenAIEmbeddings()
    [embeddings.embed_query(texts[0]), *embeddings.embed_documents(texts)[1:]]
langchain_openai, refused: check_embedding_ctx_length=False
    langchain_openai.OpenAIEmbeddings(model="all-MiniLM-L6-v2").embed_query(texts[0])
langchain_openai with that
    options = {"model": "all-MiniLM-L6-v2", "check_embedding_ctx_length": False}
    langchain_openai.OpenAIEmbeddings(**options).embed_documents(texts)
llama_index.embeddings.text_embeddings_inference
    client = llama_index.embeddings.text_embeddings_inference.TextEmbeddingsInference
    client(model_name="", base_url=URL, auth_token=KEY).get_text_embedding_batch(texts)
chromadb.utils.embedding_functions of TEI
    client = chromadb.utils.embedding_functions.HuggingFaceEmbeddingServer
    client(url=f"{URL}/embed", api_key_env_var="OPENAI_API_KEY")(texts)
langchain_ollama
    options = {"base_url": URL, "client_kwargs": {"headers": bearer}, "validate_model_on_init": True}
    embeddings = langchain_ollama.OllamaEmbeddings(model="all-minilm", **options)
    embeddings.embed_documents(texts[:-1]) + [embeddings.embed_query(texts[-1])]
llama_index.embeddings.openai
    embedding = llama_index.embeddings.openai.OpenAIEmbedding(api_base=f"{URL}/v1")
    [embedding.get_query_embedding(texts[0]), *embedding.get_text_embedding_batch(texts)[1:]]
haystack.components.embedders
    options = {"api_base_url": f"{URL}/v1", "model": "all-MiniLM-L6-v2"}
    documents = [haystack.Document(content=text) for text in texts]
    found = haystack.components.embedders.OpenAIDocumentEmbedder(**options).run(documents)["documents"]
    query = haystack.components.embedders.OpenAITextEmbedder(**options).run(texts[0])["embedding"]
    [query, *(document.embedding for document in found[1:])]
langchain_huggingface
    import huggingface_hub
    model = "sentence-transformers/all-MiniLM-L6-v2"
    embeddings = langchain_huggingface.HuggingFaceEndpointEmbeddings(model=model)
    embeddings.client = huggingface_hub.InferenceClient(URL, token=KEY)
    embeddings.embed_documents(texts[:-1]) + [embeddings.embed_query(texts[-1])]
haystack_integrations.components.embedders.huggingface_api
    parts = haystack_integrations.components.embedders.huggingface_api
    options = {"api_type": "text_embeddings_inference", "api_params": {"url": URL}}
    options["token"] = haystack.utils.Secret.from_token(KEY)
    documents = [haystack.Document(content=text) for text in texts]
    found = parts.HuggingFaceAPIDocumentEmbedder(**options).run(documents)["documents"]
    query = parts.HuggingFaceAPITextEmbedder(**options).run(texts[0])["embedding"]
    [query, *(document.embedding for document in found[1:])]
qdrant_client with the vectors of TEI
    models, client = qdrant_client.models, qdrant_client.QdrantClient(":memory:")
    vectors = huggingface_hub.InferenceClient(URL, token=KEY).feature_extraction(texts, truncate=True)
    space = models.VectorParams(size=384, distance=models.Distance.DOT)
    client.create_collection("texts", vectors_config=space)
    points = [models.PointStruct(id=n, vector=vector.tolist()) for n, vector in enumerate(vectors)]
    client.upsert("texts", points)
    [point.vector for point in client.retrieve("texts", range(len(texts)), with_vectors=True)]
llama_index.embeddings.ollama
    options = {"base_url": URL, "client_kwargs": {"headers": bearer}}
    client = llama_index.embeddings.ollama.OllamaEmbedding(model_name="all-minilm", **options)
    client.get_text_embedding_batch(texts)
haystack_integrations.components.embedders.ollama
    options = {"model": "all-minilm", "url": URL}
    documents = [haystack.Document(content=text) for text in texts]
    found = haystack_integrations.components.embedders.ollama.OllamaDocumentEmbedder(**options).run(documents)
    [document.embedding for document in found["documents"]]
chromadb.utils.embedding_functions of Ollama
    client = chromadb.utils.embedding_functions.OllamaEmbeddingFunction
    client(url=URL, model_name="chroma/all-minilm-l6-v2-f32")(texts)
litellm
    options = {}, {"encoding_format": "float"}, {"encoding_format": None}
    found = [litellm.embedding(model="openai/all-MiniLM-L6-v2", input=texts, **more).data for more in options]
    found = [[item["embedding"] for item in data] for data in found]
    assert found[0] == found[1] == found[2]
    found[0]
"""
PROGRAM = """
import asyncio, importlib, json, os, re, sys, textwrap
KEY, URL = os.environ["OPENAI_API_KEY"], os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
bearer, texts = {"authorization": f"Bearer {KEY}"}, json.loads(os.environ["TEXTS"])
def rows(found):
    return [item.embedding for item in found.data]
for client in re.split(r"\\n(?=\\w)", sys.stdin.read().strip()):
    name, body = client.split("\\n", 1)
    *lines, last = textwrap.dedent(body).splitlines()
    try:
        exec("import " + re.match(r"[\\w.]+", name)[0], globals())
        exec("\\n".join(lines), globals())
        show = [[float(x) for x in vector] for vector in eval(last, globals())]
    except Exception as error:
        facts = (getattr(error, name, "") for name in ("param", "code", "type"))
        show = " ".join(map(str, (type(error).__name__, *facts, error)))
    print(json.dumps([name, show]), flush=True)
"""


def ask(keyed_server: Running, *command: str, text: str = "", cwd: Path | None = None) -> list[Any]:
    """Run clients in a new process; return [name, vectors or error] of each."""
    environment = {"OPENAI_BASE_URL": f"{keyed_server.url}/v1", "OPENAI_API_KEY": KEY, "OLLAMA_API_KEY": KEY}
    environment |= {"TEXTS": json.dumps(TEXTS), "TIKTOKEN_CACHE_DIR": str(cl100k_folder())}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # otherwise litellm downloads prices at import
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 200}
    result = subprocess.run(
        command, input=text, cwd=cwd, env=os.environ | environment, check=False, **options
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]


def check(shipped: Embedder, client: str, actual: Any) -> None:
    """Compare the vectors of a client with `encode`, or the error with the expected one."""
    _, _, error = client.partition(", refused: ")
    if error:
        assert error in actual, client
    else:
        assert isinstance(actual, list), actual
        assert np.array_equal(shipped.encode(TEXTS), np.array(actual, np.float32)), client


@pytest.mark.parametrize(
    "clients", [CLIENTS, pytest.param(LIBRARIES, marks=pytest.mark.slow)], ids=["official", "libraries"]
)
def test_python_clients(keyed_server: Running, shipped: Embedder, clients: str) -> None:
    """A client gets the exact vectors of `encode`, or raises its own error with the server's message.

    The official clients of the APIs take seconds to import, other libraries longer.
    """
    answers = dict(ask(keyed_server, sys.executable, "-c", PROGRAM, text=clients))

    assert re.findall(r"^\w.*", clients, re.MULTILINE) == list(answers)
    missing = [client for client, actual in answers.items() if "ModuleNotFoundError" in actual]
    for client in answers.keys() - missing:
        check(shipped, client, answers[client])
    if missing:
        pytest.skip(f"{missing} not installed: pip install -e '.[clients]'")


NODE = """
import OpenAI from "openai";
import { Ollama } from "ollama";
import { embed, embedMany } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
const input = JSON.parse(process.env.TEXTS);
const [baseURL, apiKey] = [process.env.OPENAI_BASE_URL, process.env.OPENAI_API_KEY];
const show = (name, vectors) => console.log(JSON.stringify([name, vectors]));
for (const encoding_format of [undefined, "float"]) {
  const answer = await new OpenAI().embeddings.create({model: "any", input, encoding_format});
  show("openai", answer.data.map((item) => item.embedding));
}
const headers = {authorization: `Bearer ${apiKey}`};
const ollama = new Ollama({host: baseURL.replace("/v1", ""), headers});
show("ollama", (await ollama.embed({model: "all-minilm", input})).embeddings);
for (const sdk of [createOpenAI({baseURL, apiKey}), createOpenAICompatible({name: "it", baseURL, apiKey})]) {
  const model = sdk.textEmbeddingModel("all-MiniLM-L6-v2");
  const [first, ...others] = (await embedMany({model, values: input})).embeddings;
  show("ai", [(await embed({model, value: input[0]})).embedding, ...others]);
}
"""
PACKAGES = ["ollama@0.6", "openai@6", "ai@6", "@ai-sdk/openai@3", "@ai-sdk/openai-compatible@2"]


@pytest.mark.slow  # npm downloads the packages
@pytest.mark.skipif(not shutil.which("node") or not shutil.which("npm"), reason="needs node and npm")
def test_node_clients(keyed_server: Running, shipped: Embedder, tmp_path: Path) -> None:
    """The packages openai and ollama, and two providers of the AI SDK, get the same vectors."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    if result.returncode:
        pytest.skip(f"npm cannot install {' '.join(PACKAGES)}: {result.stderr[-200:]}")

    answers = ask(keyed_server, "node", "--input-type=module", "--eval", NODE, cwd=tmp_path)

    assert ["openai", "openai", "ollama", "ai", "ai"] == [name for name, _ in answers]
    for name, vectors in answers:
        check(shipped, name, vectors)
