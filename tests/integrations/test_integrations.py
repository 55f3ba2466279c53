"""What all adapters share: exact vectors, one Embedder, errors when made, and what an import costs."""

from __future__ import annotations

import ast
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

LIBRARIES = {  # a module of ours -> the library that it may load
    "chroma": "chromadb",
    "fastembed": "",
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "sentence_transformers": "",
    "sentence_transformers_module": "sentence_transformers",
    "sklearn": "sklearn",
}
FOLDER = Path(integrations.__file__).parent
FILES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
NAME = "all-MiniLM-L6-v2"
TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are.", ""]
PROMPTS = {"query": "query: ", "passage": "passage: "}  # those of e5

Call = Callable[[list[str]], Any]


def each(call: Callable[[str], Any]) -> Call:
    """Let a call that takes one text take many."""
    return lambda texts: [call(text) for text in texts]


def awaited(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a coroutine function be called as others are."""
    return lambda given: asyncio.run(call(given))


def documents(run: Callable[..., Any]) -> Call:
    """Let a component of Haystack take texts; what it is given stays as it was."""

    def call(texts: list[str]) -> list[Any]:
        given = [import_module("haystack").Document(content=text) for text in texts]
        found = [document.embedding for document in run(given)["documents"]]
        assert not any(document.embedding for document in given)
        return found

    return call


def in_library(module: Any) -> Any:
    """Return the library's own class around our module."""
    return import_module("sentence_transformers").SentenceTransformer(modules=[module])


# A class -> the calls of one of its objects that take texts as queries, as passages, or as they are.
CALLS: dict[str, Callable[[Any], dict[str, list[Call]]]] = {
    "chroma.MiniLMEmbeddingFunction": lambda it: {"query": [it.embed_query], "passage": [it]},
    "fastembed.TextEmbedding": lambda it: {
        "query": [it.query_embed, each(lambda text: next(it.query_embed(text)))],
        "passage": [it.passage_embed, each(lambda text: next(it.passage_embed(text)))],
        "": [it.embed, each(lambda text: next(it.embed(text)))],
    },
    "haystack.MiniLMTextEmbedder": lambda it: {
        "query": [
            each(lambda text: it.run(text)["embedding"]),
            each(lambda text: awaited(it.run_async)(text)["embedding"]),
        ]
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
        "passage": [
            partial(it.encode, prompt_name="passage") if it.embedder.spec.prompts else it.encode_document
        ],
        "": [it.encode, lambda texts: it.encode((text for text in texts), batch_size=2)],
    },
    "sentence_transformers_module.MiniLMModule": lambda it: {
        "query": [in_library(it).encode_query, each(in_library(it).encode_query)],
        "passage": [
            partial(in_library(it).encode, prompt_name="passage" if it.embedder.spec.prompts else None)
        ],
        "": [in_library(it).encode, partial(in_library(it).encode, convert_to_tensor=True, batch_size=2)],
    },
    "sklearn.MiniLMVectorizer": lambda it: {
        "": [it.fit_transform, lambda t: it.transform(np.array(t, object)), lambda t: it.transform(iter(t))]
    },
}


def adapter(path: str) -> Any:
    """Return the class of an adapter by "module.Class"; skip without its library."""
    name, _, kind = path.partition(".")
    pytest.importorskip(LIBRARIES[name] or "ov_minilm", reason="pip install -e '.[integrations]'")
    return getattr(import_module(f"ov_minilm.integrations.{name}"), kind)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The artefact in the package, as if it had been trained with prompts."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(SHIPPED, folder)
    manifest = Manifest.read(folder)
    spec = replace(manifest.spec, prompts=PROMPTS)
    replace(manifest, spec=spec, fingerprint=fingerprint(spec, manifest.files)).write(folder)
    return str(folder)


@pytest.mark.parametrize("path", CALLS)
def test_vectors_are_those_of_the_embedder(path: str, prompted: str, shipped: Embedder) -> None:
    """Every call, awaited ones too, gives the exact vectors of texts after their prompt; none for none."""
    for model, prompts in ((None, {}), (prompted, PROMPTS)):
        made = adapter(path)(model=model)
        for kind, calls in CALLS[path](made).items():
            expected = shipped.encode([prompts.get(kind, "") + text for text in TEXTS])
            for call in calls:
                assert np.array_equal(expected, np.array([*map(np.asarray, call(TEXTS))], np.float32)), kind
                assert path.startswith("chroma") or [] == list(call([]))  # Chroma itself refuses no texts


def test_an_adapter_is_small_and_names_its_own_library_only() -> None:
    """In 70 lines, each file imports Python, numpy, this package and one library; all are tested here."""
    for path in FOLDER.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        found = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
        found |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        own = {LIBRARIES.get(path.stem, ""), "numpy", "ov_minilm"}
        own |= {"torch"} if path.stem == "sentence_transformers_module" else set()
        own |= {"typing_extensions"} if path.stem == "__init__" else set()
        assert {name.split(".")[0] for name in found} - sys.stdlib_module_names <= own, path
        assert path.stem == "__init__" or len(path.read_text(encoding="utf-8").splitlines()) <= 70, path
    assert sorted(LIBRARIES) == sorted(FILES) == sorted({path.partition(".")[0] for path in CALLS})


def test_a_missing_library_names_its_extra() -> None:
    """The ImportError says what to install, by the name of an extra that exists."""
    foreign = {name: library for name, library in LIBRARIES.items() if library}
    done = python(
        f"import sys; sys.modules |= dict.fromkeys({list(foreign.values())})\n"
        f"for name in {list(foreign)}:\n"
        "    try: __import__(f'ov_minilm.integrations.{name}')\n"
        "    except ImportError as error: print(error)"
    )

    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 0 == done.returncode, done.stderr
    for (name, library), message in zip(foreign.items(), done.stdout.splitlines(), strict=True):
        (extra,) = re.findall(r"Extra: ([\w-]+)\.", (FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        assert f'\n{extra} = ["' in project
        assert library in message
        assert message.endswith(f"pip install 'ov-minilm[{extra}]'")


def test_adapters_share_one_embedder_and_travel() -> None:
    """Equal artefact, device and threads run the same compiled models, in copies and pickles too."""
    made = Adapter(threads=1, truncate="mean")

    assert Adapter().embedder is Adapter(truncate="mean").embedder is not made.embedder
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert (made.embedder, "mean") == (other.embedder, other.truncate)


OFFICIAL = f"sentence-transformers/{NAME}"


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
def test_names_are_those_of_other_libraries(path: str, options: dict[str, Any]) -> None:
    """The model in the package has its usual names, devices are written in any case: one Embedder for all."""
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
        ("llama_index.MiniLMEmbedding", {"thread": 1}, r"takes .*threads.*; not thread$"),
        ("sentence_transformers.SentenceTransformer", {"trust_remote_code": True}, ": nothing is fetched$"),
        ("sentence_transformers_module.MiniLMModule", {"model_name_or_path": NAME}, ": write model=$"),
        ("sklearn.MiniLMVectorizer", {"n_jobs": 2}, "MiniLMVectorizer takes model, .*; not n_jobs$"),
        ("fastembed.TextEmbedding", {"model_name": "BAAI/bge"}, f"{NAME}; .*: ov-minilm convert BAAI"),
        ("sentence_transformers.SentenceTransformer", {"model_name_or_path": "BAAI/bge"}, "convert BAAI"),
        ("langchain.MiniLMEmbeddings", {"model": "."}, "manifest.json: not found"),
        ("langchain.MiniLMEmbeddings", {"truncate": "middle"}, "truncate='middle'"),
        ("llama_index.MiniLMEmbedding", {"model": "nowhere"}, "no such folder"),
        ("llama_index.MiniLMEmbedding", {"truncate": "middle"}, "'end', 'error' or 'mean'"),
        ("llama_index.MiniLMEmbedding", {"model_name": "BAAI/bge"}, "'BAAI/bge', but this model is sente"),
    ],
)
def test_wrong_arguments_are_refused_when_an_adapter_is_made(
    path: str, options: dict[str, Any], message: str
) -> None:
    """One line: what the class takes and what to write instead; no value is left for the first text."""
    with pytest.raises((TypeError, ManifestInvalid, ValueError), match=message) as caught:
        adapter(path)(**options)

    assert isinstance(caught.value, TypeError) == ("; not " in str(caught.value))


TAKE_TEXTS = {  # a class -> those of its methods that take a list of texts
    "chroma.MiniLMEmbeddingFunction": ("__call__", "embed_query"),
    "fastembed.TextEmbedding": ("embed", "passage_embed", "query_embed"),
    "langchain.MiniLMEmbeddings": ("embed_documents",),
    "llama_index.MiniLMEmbedding": ("get_text_embedding_batch",),
    "sentence_transformers.SentenceTransformer": ("encode", "encode_query", "encode_document"),
    "sklearn.MiniLMVectorizer": ("fit", "transform", "fit_transform"),
}
FRAME = pd.DataFrame({"text": ["a kettle", "a lamp"]})
NO_TEXTS: list[Any] = [FRAME, {"k": "a kettle"}, {"a kettle"}, FRAME.to_numpy(), b"a", "a"]


@pytest.mark.parametrize(("path", "method"), [(p, name) for p, names in TAKE_TEXTS.items() for name in names])
def test_what_holds_no_texts_is_refused_everywhere(path: str, method: str) -> None:
    """Frames, mappings, sets, 2-D arrays and bytes, and a str where a list is due, are a TypeError."""
    one_str = path.startswith(("fastembed", "sentence_transformers"))  # take one, as these libraries do
    for texts in NO_TEXTS[: -1 if one_str else None]:
        with pytest.raises(TypeError, match=r"^expected an iterable of str, not .* (pass|decode) "):
            getattr(adapter(path)(), method)(texts)


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "encode"])
def test_calls_written_for_the_libraries_still_fit(method: str) -> None:
    """Each argument that concerns one process has the place, name and default of the library's method."""
    path = "sentence_transformers.SentenceTransformer" if method == "encode" else "fastembed.TextEmbedding"
    library = pytest.importorskip(path.partition(".")[0], reason="pip install -e '.[guests]'")
    theirs, ours = (
        [
            (one.name, one.default)
            for one in inspect.signature(getattr(kind, method)).parameters.values()
            if one.kind is not one.VAR_KEYWORD and one.name not in ("self", "inputs", "sentences")
        ]
        for kind in (getattr(library, path.partition(".")[2]), adapter(path))
    )

    assert theirs[: len(ours)] == ours
    assert method != "encode" or ours[-1][0] == "truncate_dim"  # what follows there is for several processes
    assert method == "encode" or len(theirs) == len(ours)


def test_fastembed_yields_vectors_while_texts_are_read() -> None:
    """The first vectors of an endless stream are there at once."""
    model = adapter("fastembed.TextEmbedding")()

    assert 384 == model.embedding_size == len(next(iter(model.embed(f"text {n}" for n in count()))))


def test_llama_index_stores_its_values() -> None:
    """An embedding comes back from the library's dictionary with its model and its options."""
    kind = adapter("llama_index.MiniLMEmbedding")

    made = kind.from_dict(kind(threads=1, truncate="mean").to_dict())

    assert (1, "mean", 1) == (made.threads, made.truncate, made.embedder.info.threads)


def test_haystack_embeds_meta_and_stores_pipelines(shipped: Embedder) -> None:
    """Named fields come first, a line each; a pipeline goes through YAML, if told to trust the adapter."""
    haystack = pytest.importorskip("haystack", reason="pip install -e '.[haystack]'")
    embedder = adapter("haystack.MiniLMDocumentEmbedder")(meta_fields_to_embed=("title", "year"))
    given = [
        haystack.Document(content="Body.", meta={"title": "Head", "no": "x"}),
        haystack.Document(meta={"year": 1}),
    ]
    pipeline = haystack.Pipeline()
    pipeline.add_component("embedder", adapter("haystack.MiniLMTextEmbedder")(threads=1))

    vectors = [document.embedding for document in embedder.run(given)["documents"]]
    again = haystack.Pipeline.loads(pipeline.dumps(), allowed_modules=["ov_minilm.integrations.haystack"])

    assert np.array_equal(shipped.encode(["Head\nBody.", "1\n"]), np.array(vectors, np.float32))
    assert 1 == again.to_dict()["components"]["embedder"]["init_parameters"]["threads"]
    assert shipped.encode("a").tolist() == again.run({"embedder": {"text": "a"}})["embedder"]["embedding"]
