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
            each(lambda t: it.run(t)["embedding"]),
            each(lambda t: awaited(it.run_async)(t)["embedding"]),
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
            it.encode_document if "passage" not in it.prompts else partial(it.encode, prompt_name="passage")
        ],
        "": [it.encode, lambda texts: it.encode((text for text in texts), batch_size=2)],
    },
    "sentence_transformers_module.MiniLMModule": lambda it: {
        "query": [in_library(it).encode_query, each(in_library(it).encode_query)],
        "passage": [
            partial(in_library(it).encode, prompt_name="passage" if it.embedder.spec.prompts else None)
        ],
        "": [
            in_library(it).encode,
            lambda texts: in_library(it).encode(texts, convert_to_tensor=True, batch_size=2),
        ],
    },
    "sklearn.MiniLMVectorizer": lambda it: {
        "": [
            it.fit_transform,
            lambda texts: it.transform(np.array(texts, object)),
            lambda t: it.transform(iter(t)),
        ]
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


def test_every_adapter_is_named_here() -> None:
    """A new file has its import cost and its vectors tested too."""
    assert sorted(LIBRARIES) == FILES == sorted({path.partition(".")[0] for path in CALLS})


@pytest.mark.parametrize("name", FILES)
def test_an_adapter_is_small_and_names_its_own_library_only(name: str) -> None:
    """In 70 lines, the file imports Python, numpy, this package and one library."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    found = {
        alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    found |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}

    own = {LIBRARIES[name], *(["torch"] if name == "sentence_transformers_module" else [])}
    assert found - sys.stdlib_module_names - {"numpy", "ov_minilm"} <= own
    assert len(text.splitlines()) <= 70


@pytest.mark.slow  # each imports a large library in a process of its own
@pytest.mark.parametrize("name", FILES)
def test_an_adapter_loads_its_own_library_only(name: str) -> None:
    """Importing an adapter imports no library of another, unless its own library does."""
    libraries = sorted({library for library in LIBRARIES.values() if library} | {"fastembed"})
    done = python(
        "import sys, warnings; warnings.simplefilter('ignore')\n"  # libraries warn while they load
        f"import {LIBRARIES[name] or 'ov_minilm'}; before = set(sys.modules)\n"
        f"import ov_minilm.integrations.{name}\n"
        f"print([library for library in {libraries} if library in sys.modules.keys() - before])"
    )

    assert (0, "[]\n") == (done.returncode, done.stdout), done.stderr


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
    ],
)
def test_other_arguments_are_refused_with_what_to_write(
    path: str, options: dict[str, Any], message: str
) -> None:
    """The error is one line: what the class takes, and what to write instead."""
    with pytest.raises(TypeError, match=message):
        adapter(path)(**options)


def test_wrong_values_are_refused_when_an_adapter_is_made(tmp_path: Path) -> None:
    """No folder, another model than ours and an unknown option are not left for the first text."""
    for path in ("fastembed.TextEmbedding", "sentence_transformers.SentenceTransformer"):
        with pytest.raises(
            ManifestInvalid, match=f"{NAME}; convert other models first: ov-minilm convert BAAI"
        ):
            adapter(path)("BAAI/bge-small-en-v1.5")
    with pytest.raises(ManifestInvalid, match="not found"):
        Adapter(model=str(tmp_path))
    with pytest.raises(ValueError, match="truncate='middle'"):
        Adapter(truncate="middle")  # type: ignore[arg-type]


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


def arguments(function: Callable[..., Any], last: str | None = None) -> list[tuple[str, object]]:
    """Return the names and defaults of a function's arguments, in order, up to the last."""
    found = [
        (one.name, one.default)
        for one in inspect.signature(function).parameters.values()
        if one.kind is not one.VAR_KEYWORD and one.name not in ("self", "inputs", "sentences")
    ]
    return found[: [name for name, _ in found].index(last) + 1] if last else found


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "encode"])
def test_calls_written_for_the_libraries_still_fit(method: str) -> None:
    """Each argument that concerns one process has the place, name and default of the library's method."""
    library, name, last = ("fastembed", "TextEmbedding", None)
    if method == "encode":
        library, name, last = ("sentence_transformers", "SentenceTransformer", "truncate_dim")
    theirs = getattr(pytest.importorskip(library, reason="pip install -e '.[guests]'"), name)

    assert arguments(getattr(theirs, method), last) == arguments(
        getattr(adapter(f"{library}.{name}"), method)
    )


def test_fastembed_yields_vectors_while_texts_are_read() -> None:
    """The first vectors of an endless stream are there at once."""
    model = adapter("fastembed.TextEmbedding")()

    assert 384 == model.embedding_size == len(next(iter(model.embed(f"text {n}" for n in count()))))


def test_llama_index_stores_and_checks_its_values() -> None:
    """They go through its dict; no folder, an unknown choice and another model fail when it is made."""
    kind = adapter("llama_index.MiniLMEmbedding")

    made = kind.from_dict(kind(threads=1, truncate="mean").to_dict())

    assert (1, "mean", 1) == (made.threads, made.truncate, made.embedder.info.threads)
    for options, message in (
        ({"model": "nowhere"}, "no such folder"),
        ({"truncate": "middle"}, "'end', 'error' or 'mean'"),
        ({"model_name": "BAAI/bge-m3"}, "model_name is 'BAAI/bge-m3', but this model is sentence-transf"),
    ):
        with pytest.raises((ManifestInvalid, ValueError), match=message):
            kind(**options)


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
