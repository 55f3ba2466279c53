"""What all adapters promise: exact vectors, one Embedder, errors in the constructor, and lazy imports."""

import asyncio
import copy
import inspect
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.processes import python

import ov_minilm.integrations as integrations
from ov_minilm import Embedder, ManifestInvalid
from ov_minilm.artefact.manifest import SHIPPED, Manifest, fingerprint
from ov_minilm.integrations import Adapter

LIBRARIES = {  # file of an adapter -> the library that it imports
    "chroma": "chromadb",
    "fastembed": "",
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "sentence_transformers": "",
    "sentence_transformers_module": "sentence_transformers",
    "sklearn": "sklearn",
}
ROOT = Path(__file__).parents[2]
FOLDER = Path(integrations.__file__).parent
NAME = "all-MiniLM-L6-v2"
OFFICIAL = f"sentence-transformers/{NAME}"
TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are.", ""]
PROMPTS = {"query": "query: ", "passage": "passage: "}  # the prompts of e5

Call = Callable[[list[str]], Any]


def each(call: Callable[[str], Any]) -> Call:
    """Return a function of many texts from a function of one text."""
    return lambda texts: [call(text) for text in texts]


def awaited(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a blocking function that does the same as a coroutine function."""
    return lambda argument: asyncio.run(call(argument))


def embedding_of(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a text from the run method of a Haystack component."""
    return lambda text: run(text)["embedding"]


def documents(run: Callable[..., Any]) -> Call:
    """Return a function of texts from the run method of a Haystack component, which must copy documents."""

    def call(texts: list[str]) -> list[Any]:
        originals = [import_module("haystack").Document(content=text) for text in texts]
        vectors = [document.embedding for document in run(originals)["documents"]]
        assert not any(document.embedding for document in originals)
        return vectors

    return call


def in_library(module: Any) -> Any:
    """Return a SentenceTransformer of the library with our module."""
    return import_module("sentence_transformers").SentenceTransformer(modules=[module])


# Class -> its methods that take texts as queries, as passages, or without a prompt.
CALLS: dict[str, Callable[[Any], dict[str, list[Call]]]] = {
    "chroma.MiniLMEmbeddingFunction": lambda it: {"query": [it.embed_query], "passage": [it]},
    "fastembed.TextEmbedding": lambda it: {
        "query": [it.query_embed, each(lambda text: next(it.query_embed(text)))],
        "passage": [it.passage_embed, each(lambda text: next(it.passage_embed(text)))],
        "": [it.embed, each(lambda text: next(it.embed(text)))],
    },
    "haystack.MiniLMTextEmbedder": lambda it: {
        "query": [each(embedding_of(it.run)), each(embedding_of(awaited(it.run_async)))]
    },
    "haystack.MiniLMDocumentEmbedder": lambda it: {
        "passage": [documents(run) for run in (it.run, awaited(it.run_async))]
    },
    "langchain.MiniLMEmbeddings": lambda it: {
        "query": [each(it.embed_query), each(awaited(it.aembed_query))],
        "passage": [it.embed_documents, awaited(it.aembed_documents)],
    },
    "llama_index.MiniLMEmbedding": lambda it: {
        "query": [each(it.get_query_embedding), each(awaited(it.aget_query_embedding))],
        "passage": [
            *(each(it.get_text_embedding), each(awaited(it.aget_text_embedding))),
            *(it.get_text_embedding_batch, awaited(it.aget_text_embedding_batch)),
        ],
    },
    "sentence_transformers.SentenceTransformer": lambda it: {
        "query": [it.encode_query, partial(it.encode, prompt_name="query"), each(it.encode_query)],
        "passage": [partial(it.encode, prompt_name="passage") if it.prompts["query"] else it.encode_document],
        "": [it.encode, lambda texts: it.encode((text for text in texts), batch_size=2)],
    },
    "sentence_transformers_module.MiniLMModule": lambda it: {
        "query": [in_library(it).encode_query, each(in_library(it).encode_query)],
        "passage": [partial(in_library(it).encode, prompt_name="passage" if it.prompts["query"] else None)],
        "": [in_library(it).encode, partial(in_library(it).encode, convert_to_tensor=True, batch_size=2)],
    },
    "sklearn.MiniLMVectorizer": lambda it: {
        "": [it.fit_transform, lambda t: it.transform(np.array(t, object)), lambda t: it.transform(iter(t))]
    },
}


def adapter(path: str) -> Any:
    """Return the class of an adapter by "file.Class"; skip the test if its library is missing."""
    name, _, kind = path.partition(".")
    pytest.importorskip(LIBRARIES[name] or "ov_minilm", reason="pip install -e '.[integrations]'")
    return getattr(import_module(f"ov_minilm.integrations.{name}"), kind)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the artefact in the package, with prompts in its manifest."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(SHIPPED, folder)
    manifest = Manifest.read(folder)
    spec = replace(manifest.spec, prompts=PROMPTS)
    replace(manifest, spec=spec, fingerprint=fingerprint(spec, manifest.files)).write(folder)
    return str(folder)


@pytest.mark.parametrize("path", CALLS)
def test_vectors_are_those_of_the_embedder(path: str, prompted: str, shipped: Embedder) -> None:
    """Every method, also if awaited, returns the exact vectors of prompt + text; no texts, no vectors."""
    for model, prompts in ((None, {}), (prompted, PROMPTS)):
        made = adapter(path)(model=model)
        for kind, calls in CALLS[path](made).items():
            expected = shipped.encode([prompts.get(kind, "") + text for text in TEXTS])
            for call in calls:
                assert np.array_equal(expected, np.array([*map(np.asarray, call(TEXTS))], np.float32)), kind
                assert path.startswith("chroma") or [] == list(call([]))  # Chroma itself refuses no texts


def test_an_adapter_is_short_and_imports_one_library() -> None:
    """An adapter has at most 70 lines, imports only its library, numpy and ours, and is tested here."""
    extra_imports = {"sentence_transformers_module": "torch", "__init__": "typing_extensions"}
    for path in FOLDER.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        imported = set(re.findall(r"^ *(?:from|import) (\w+)", source, re.MULTILINE))
        allowed = {LIBRARIES.get(path.stem, ""), "numpy", "ov_minilm", extra_imports.get(path.stem, "")}
        assert imported - sys.stdlib_module_names <= allowed, path
        assert path.stem == "__init__" or len(source.splitlines()) <= 70, path
    files = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    assert sorted(LIBRARIES) == files == sorted({path.partition(".")[0] for path in CALLS})


def test_a_missing_library_is_an_error_with_its_extra() -> None:
    """The ImportError says what to install; an extra with this name exists."""
    foreign = {name: library for name, library in LIBRARIES.items() if library}
    result = python(
        f"import sys; sys.modules |= dict.fromkeys({list(foreign.values())})\n"
        f"for name in {list(foreign)}:\n"
        "    try: __import__(f'ov_minilm.integrations.{name}')\n"
        "    except ImportError as error: print(error)"
    )

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 0 == result.returncode, result.stderr
    for (name, library), message in zip(foreign.items(), result.stdout.splitlines(), strict=True):
        (extra,) = re.findall(r"Extra: ([\w-]+)\.", (FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        assert f'\n{extra} = ["' in project
        assert library in message
        assert message.endswith(f"pip install 'ov-minilm[{extra}]'")


@pytest.mark.parametrize("path", CALLS)
def test_copies_and_pickles_share_the_embedder(path: str) -> None:
    """Adapters of equal artefact, device and threads share compiled models; other options differ."""
    embedder = adapter(path)(threads=1, truncate="mean")

    assert Adapter(threads=1).embedder is embedder.embedder is not Adapter().embedder
    for other in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):  # noqa: S301
        assert (embedder.embedder, "mean") == (other.embedder, other.truncate)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        *((path, {}) for path in CALLS),
        *((path, {"model": NAME, "device": "cpu"}) for path in CALLS),
        *((path, {"model": OFFICIAL, "device": "Cpu"}) for path in CALLS),
        ("fastembed.TextEmbedding", {"model_name": OFFICIAL}),
        ("llama_index.MiniLMEmbedding", {"model_name": OFFICIAL}),
        ("sentence_transformers.SentenceTransformer", {"model": NAME, "device": None}),
        ("sentence_transformers.SentenceTransformer", {"model_name_or_path": NAME, "device": "cpu"}),
    ],
)
def test_names_of_other_libraries_are_accepted(path: str, options: dict[str, Any]) -> None:
    """Usual names of the model in the package, and devices in lower case, all open the same Embedder."""
    assert adapter(path)(**options).embedder is Adapter().embedder
    if "model" in options and path.startswith(("fastembed", "sentence_transformers.")):
        assert adapter(path)(options["model"]).embedder is Adapter().embedder


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("langchain.MiniLMEmbeddings", {"model_name": NAME}, "not model_name: write model=$"),
        ("langchain.MiniLMEmbeddings", {"model_kwargs": {}}, "not model_kwargs: write device=$"),
        ("langchain.MiniLMEmbeddings", {"encode_kwargs": {}}, "not encode_kwargs: vectors have length one$"),
        ("langchain.MiniLMEmbeddings", {"modell": 1}, "takes model, device, threads, truncate; not modell$"),
        ("chroma.MiniLMEmbeddingFunction", {"preferred_providers": []}, ": write device=$"),
        ("fastembed.TextEmbedding", {"cache_dir": "c"}, "model_name; not cache_dir: nothing is fetched$"),
        ("haystack.MiniLMTextEmbedder", {"prefix": "q: "}, "not prefix: write it before the texts$"),
        ("llama_index.MiniLMEmbedding", {"max_length": 256}, "not max_length: write truncate=$"),
        ("sentence_transformers.SentenceTransformer", {"trust_remote_code": True}, ": nothing is fetched$"),
        ("sentence_transformers_module.MiniLMModule", {"model_name_or_path": NAME}, ": write model=$"),
        (
            "sklearn.MiniLMVectorizer",
            {"n_jobs": 2},
            "MiniLMVectorizer takes model, .*; not n_jobs: write threads=$",
        ),
        ("fastembed.TextEmbedding", {"model_name": "BAAI/bge"}, f"{NAME}; .*: ov-minilm convert BAAI"),
        ("sentence_transformers.SentenceTransformer", {"model_name_or_path": "BAAI/bge"}, "convert BAAI"),
        ("langchain.MiniLMEmbeddings", {"model": "."}, "manifest.json: not found"),
        ("langchain.MiniLMEmbeddings", {"truncate": "middle"}, "truncate='middle'"),
        ("llama_index.MiniLMEmbedding", {"model": "nowhere"}, "no such folder"),
        ("llama_index.MiniLMEmbedding", {"truncate": "middle"}, "'end', 'error' or 'mean'"),
        ("llama_index.MiniLMEmbedding", {"model_name": "BAAI/bge"}, "'BAAI/bge', but this model is sente"),
    ],
)
def test_the_constructor_refuses_wrong_arguments(path: str, options: dict[str, Any], message: str) -> None:
    """A wrong argument is an error before the first text; one line says what to write instead."""
    with pytest.raises((TypeError, ManifestInvalid, ValueError), match=message) as caught:
        adapter(path)(**options)

    assert isinstance(caught.value, TypeError) == ("; not " in str(caught.value))


METHODS = {  # class -> its methods that take a list of texts
    "chroma.MiniLMEmbeddingFunction": ("__call__", "embed_query"),
    "fastembed.TextEmbedding": ("embed", "passage_embed", "query_embed"),
    "langchain.MiniLMEmbeddings": ("embed_documents",),
    "llama_index.MiniLMEmbedding": ("get_text_embedding_batch",),
    "sentence_transformers.SentenceTransformer": ("encode", "encode_query", "encode_document"),
    "sklearn.MiniLMVectorizer": ("fit", "transform", "fit_transform"),
}
FRAME = pd.DataFrame({"text": ["a kettle", "a lamp"]})
NO_LISTS_OF_TEXTS: list[Any] = [FRAME, {"k": "a kettle"}, {"a kettle"}, FRAME.to_numpy(), b"a", "a"]


@pytest.mark.parametrize(("path", "method"), [(path, name) for path in METHODS for name in METHODS[path]])
def test_other_values_than_lists_of_texts_are_refused(path: str, method: str) -> None:
    """Frames, mappings, sets, 2-D arrays, bytes, and a str where a list is expected, raise TypeError."""
    takes_str = path.startswith(("fastembed", "sentence_transformers"))  # as the libraries do
    for value in NO_LISTS_OF_TEXTS[: -1 if takes_str else None]:
        with pytest.raises(TypeError, match=r"^expected an iterable of str, not .* (pass|decode) "):
            getattr(adapter(path)(), method)(value)


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "encode"])
def test_signatures_are_those_of_the_libraries(method: str) -> None:
    """Arguments have position, name and default of the library's, except those for several processes."""
    path = "sentence_transformers.SentenceTransformer" if method == "encode" else "fastembed.TextEmbedding"
    name, _, kind = path.partition(".")
    library = getattr(pytest.importorskip(name, reason="pip install -e '.[guests]'"), kind)
    theirs, ours = (
        [
            (argument.name, argument.default)
            for argument in inspect.signature(getattr(cls, method)).parameters.values()
            if argument.kind is not argument.VAR_KEYWORD
            and argument.name not in ("self", "inputs", "sentences")
        ]
        for cls in (library, adapter(path))
    )

    assert theirs[: len(ours)] == ours
    # the library's other arguments are for several processes
    assert method != "encode" or ours[-1][0] == "truncate_dim"
    assert method == "encode" or len(theirs) == len(ours)


def test_fastembed_yields_vectors_while_it_reads() -> None:
    """The first vector of an endless stream comes at once."""
    model = adapter("fastembed.TextEmbedding")()

    assert 384 == model.embedding_size == len(next(iter(model.embed(f"text {n}" for n in count()))))


def test_llama_index_stores_options() -> None:
    """An embedding restored from the library's dictionary has the same options and Embedder."""
    kind = adapter("llama_index.MiniLMEmbedding")

    made = kind.from_dict(kind(threads=1, truncate="mean").to_dict())

    assert (1, "mean", 1) == (made.threads, made.truncate, made.embedder.info.threads)


def test_haystack_embeds_meta_fields_and_stores_pipelines(shipped: Embedder) -> None:
    """Meta fields come first, one per line; YAML restores a pipeline if its reader trusts the adapter."""
    haystack = pytest.importorskip("haystack", reason="pip install -e '.[haystack]'")
    embedder = adapter("haystack.MiniLMDocumentEmbedder")(meta_fields_to_embed=("title", "year"))
    first = haystack.Document(content="Body.", meta={"title": "Head", "no": "x"})
    pipeline = haystack.Pipeline()
    pipeline.add_component("embedder", adapter("haystack.MiniLMTextEmbedder")(threads=1))

    embedded = embedder.run([first, haystack.Document(meta={"year": 1})])["documents"]
    restored = haystack.Pipeline.loads(pipeline.dumps(), allowed_modules=["ov_minilm.integrations.haystack"])

    vectors = np.array([document.embedding for document in embedded], np.float32)
    assert np.array_equal(shipped.encode(["Head\nBody.", "1\n"]), vectors)
    assert 1 == restored.to_dict()["components"]["embedder"]["init_parameters"]["threads"]
    assert shipped.encode("a").tolist() == restored.run({"embedder": {"text": "a"}})["embedder"]["embedding"]


TABLE = (ROOT / "docs/migrating.md").read_text(encoding="utf-8").partition("| from | install | write |\n")[2]
ROWS = {  # row of the table: library -> the lines that replace its lines
    cells[1].strip(): "\n".join(line.strip("` ") for line in cells[3].split("<br>"))
    for cells in (line.split("|") for line in TABLE.partition("\n\n")[0].splitlines()[1:])
}

SEARCHES = {  # library -> code of a search with our adapter
    "Haystack": """
from haystack import Document
from haystack.components.retrievers import InMemoryEmbeddingRetriever as Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from ov_minilm.integrations.haystack import MiniLMDocumentEmbedder
store = InMemoryDocumentStore()
store.write_documents(MiniLMDocumentEmbedder().run([Document(content=t) for t in TEXTS])["documents"])
pipeline = Pipeline()
pipeline.add_component("embedder", MiniLMTextEmbedder())
pipeline.add_component("retriever", Retriever(store, top_k=1))
pipeline.connect("embedder.embedding", "retriever.query_embedding")
found = pipeline.run({"embedder": {"text": QUESTION}})["retriever"]["documents"][0].content""",
    "LangChain": """
store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings())
found = store.similarity_search(QUESTION, k=1)[0].page_content""",
    "LlamaIndex": """
from llama_index.core import Document, VectorStoreIndex
index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])
found = index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].get_content()""",
    "Chroma": """
collection = chromadb.Client().get_collection("texts")
collection.add(ids=["0", "1"], documents=TEXTS)
found = collection.query(query_texts=[QUESTION], n_results=1)["documents"][0][0]""",
}
PRINT_CONNECTIONS = """
import sys, warnings; warnings.simplefilter("ignore")
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, arguments, flush=True)
sys.addaudithook(hook)
"""


@pytest.mark.filterwarnings("ignore")  # warnings of libraries, which other tests check
def test_the_lines_in_the_migration_table_run() -> None:
    """docs/migrating.md has a row for each adapter."""
    assert set(LIBRARIES) == set(re.findall(r"ov_minilm\.integrations\.(\w+)", "\n".join(ROWS.values())))
    for name in filter(None, LIBRARIES.values()):
        pytest.importorskip(name, reason="pip install -e '.[integrations]'")
    for lines in ROWS.values():
        exec(lines, {})  # noqa: S102  # lines of our page


@pytest.mark.slow
def test_searches_with_the_lines_of_the_migration_table(tmp_path: Path) -> None:
    """Vector stores of four libraries find the right text, and connect to nothing."""
    start = f'{PRINT_CONNECTIONS}TEXTS = {TEXTS[:2]}; QUESTION = "a pet indoors"\n'
    searches = (f"{ROWS[row]}{search}\nassert found == TEXTS[0], found\n" for row, search in SEARCHES.items())
    result = python(start + "".join(searches), HOME=str(tmp_path))

    assert (0, "") == (result.returncode, result.stdout), result.stderr
