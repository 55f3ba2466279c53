"""What all adapters share: one Embedder behind them, errors when they are made, and what an import costs."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.processes import python

import ov_minilm.integrations as integrations
from ov_minilm import ManifestInvalid
from ov_minilm.integrations import Adapter

# A module of ours -> the library that it may load.
LIBRARIES = {
    "chroma": "chromadb",
    "fastembed": "",
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "sentence_transformers": "",
    "sentence_transformers_module": "sentence_transformers",
    "sklearn": "sklearn",
}
FILES = sorted(path.stem for path in Path(integrations.__file__).parent.glob("[!_]*.py"))


def test_every_adapter_is_named_here() -> None:
    """A new file has its import cost tested too."""
    assert sorted(LIBRARIES) == FILES


@pytest.mark.parametrize("name", FILES)
def test_an_adapter_is_small(name: str) -> None:
    """70 lines suffice for each: what is longer belongs into the package itself."""
    assert len((Path(integrations.__file__).parent / f"{name}.py").read_text().splitlines()) <= 70


@pytest.mark.parametrize("name", FILES)
def test_an_adapter_names_its_own_library_only(name: str) -> None:
    """Beside Python, numpy and this package, the file imports one library: its own."""
    tree = ast.parse((Path(integrations.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    found = {
        module.split(".")[0]
        for node in ast.walk(tree)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    own = {LIBRARIES[name], "torch"} if name == "sentence_transformers_module" else {LIBRARIES[name]}
    assert found - sys.stdlib_module_names - {"numpy", "ov_minilm"} <= own


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


@pytest.mark.parametrize("name", [name for name, library in LIBRARIES.items() if library])
def test_a_missing_library_names_its_extra(name: str) -> None:
    """The ImportError says what to install, by the name of an extra that exists."""
    done = python(
        f"import sys; sys.modules[{LIBRARIES[name]!r}] = None\n"
        f"try: import ov_minilm.integrations.{name}\n"
        "except ImportError as error: print(error)"
    )

    message = done.stdout.strip()
    assert 0 == done.returncode, done.stderr
    assert LIBRARIES[name] in message
    assert message.endswith(f"pip install 'ov-minilm[{extra_of(name)}]'")
    assert f'\n{extra_of(name)} = ["' in pyproject()


def test_adapters_share_one_embedder() -> None:
    """Adapters of the same artefact, device and threads run the same compiled models; others do not."""
    assert Adapter().embedder is Adapter(truncate="mean").embedder
    assert Adapter().embedder is not Adapter(threads=1).embedder


def test_an_adapter_travels() -> None:
    """Copies and pickles hold plain values and find the Embedder where they arrive."""
    adapter = Adapter(threads=1, truncate="mean")

    for other in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):  # noqa: S301
        assert other.embedder is adapter.embedder
        assert "mean" == other.truncate


def adapter(path: str) -> Any:
    """Return the class of an adapter by "module.Class"; skip without its library."""
    name, _, kind = path.partition(".")
    pytest.importorskip(LIBRARIES[name] or "ov_minilm", reason="pip install -e '.[integrations]'")
    return getattr(import_module(f"ov_minilm.integrations.{name}"), kind)


NAME = "all-MiniLM-L6-v2"
ADAPTERS = {  # a class -> those of its methods that take texts
    "chroma.MiniLMEmbeddingFunction": ("__call__", "embed_query"),
    "fastembed.TextEmbedding": ("embed", "passage_embed", "query_embed"),
    "langchain.MiniLMEmbeddings": ("embed_documents",),
    "llama_index.MiniLMEmbedding": ("get_text_embedding_batch",),
    "sentence_transformers.SentenceTransformer": ("encode", "encode_query", "encode_document"),
    "sklearn.MiniLMVectorizer": ("fit", "transform", "fit_transform"),
}


@pytest.mark.parametrize(
    "path", [*ADAPTERS, "haystack.MiniLMTextEmbedder", "haystack.MiniLMDocumentEmbedder"]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"model": NAME, "device": "cpu"}, {"model": f"sentence-transformers/{NAME}", "device": "Cpu"}],
    ids=str,
)
def test_names_of_the_model_and_of_devices_are_those_of_other_libraries(
    path: str, options: dict[str, str]
) -> None:
    """The model in the package has its usual names, devices are written in any case: one Embedder for all."""
    assert adapter(path)(**options).embedder is Adapter().embedder


@pytest.mark.parametrize(
    ("path", "arguments", "options"),
    [
        ("fastembed.TextEmbedding", (), {"model_name": f"sentence-transformers/{NAME}"}),
        ("fastembed.TextEmbedding", (f"sentence-transformers/{NAME}",), {}),
        ("llama_index.MiniLMEmbedding", (), {"model_name": f"sentence-transformers/{NAME}"}),
        ("sentence_transformers.SentenceTransformer", (NAME,), {"device": None}),
        ("sentence_transformers.SentenceTransformer", (), {"model_name_or_path": NAME, "device": "cpu"}),
    ],
)
def test_lines_written_for_other_libraries_work(
    path: str, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    """The keyword arguments that stand in most programs need no change."""
    assert adapter(path)(*arguments, **options).embedder is Adapter().embedder


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("langchain.MiniLMEmbeddings", {"model_name": NAME}, "not model_name: write model=$"),
        ("langchain.MiniLMEmbeddings", {"model_kwargs": {}}, "not model_kwargs: write device=$"),
        ("langchain.MiniLMEmbeddings", {"encode_kwargs": {}}, "not encode_kwargs: vectors have length one$"),
        ("langchain.MiniLMEmbeddings", {"modell": 1}, "takes model, device, threads, truncate; not modell$"),
        ("chroma.MiniLMEmbeddingFunction", {"model_name": NAME}, "not model_name: write model=$"),
        ("chroma.MiniLMEmbeddingFunction", {"preferred_providers": []}, ": write device=$"),
        ("fastembed.TextEmbedding", {"cache_dir": "c"}, "model_name; not cache_dir: nothing is fetched$"),
        ("fastembed.TextEmbedding", {"providers": []}, "not providers: write device=$"),
        ("haystack.MiniLMTextEmbedder", {"prefix": "q: "}, "not prefix: write it before the texts$"),
        ("llama_index.MiniLMEmbedding", {"max_length": 256}, "not max_length: write truncate=$"),
        ("sentence_transformers.SentenceTransformer", {"revision": "c"}, "not revision: nothing is fetched$"),
        ("sentence_transformers.SentenceTransformer", {"trust_remote_code": True}, ": nothing is fetched$"),
        ("sentence_transformers_module.MiniLMModule", {"model_name_or_path": NAME}, ": write model=$"),
        ("sklearn.MiniLMVectorizer", {"n_jobs": 2}, "MiniLMVectorizer takes model, .*; not n_jobs$"),
    ],
)  # fmt: skip
def test_other_arguments_are_refused_with_what_to_write(
    path: str, options: dict[str, Any], message: str
) -> None:
    """The error is one line: what the class takes, and what to write instead."""
    with pytest.raises(TypeError, match=message):
        adapter(path)(**options)


@pytest.mark.parametrize("path", ["fastembed.TextEmbedding", "sentence_transformers.SentenceTransformer"])
def test_another_model_is_not_replaced_by_ours(path: str) -> None:
    """A model that is not here is refused, with the way to convert it."""
    with pytest.raises(
        ManifestInvalid, match="all-MiniLM-L6-v2; convert other models first: ov-minilm convert BAAI"
    ):
        adapter(path)("BAAI/bge-small-en-v1.5")


FRAME = pd.DataFrame({"text": ["a kettle", "a lamp"]})
NO_TEXTS: list[Any] = [FRAME, {"k": "a kettle"}, {"a kettle"}, FRAME.to_numpy(), b"a", "a"]
ONE_STR = ("fastembed", "sentence_transformers")  # take one str where a list is due, as these libraries do


@pytest.mark.parametrize(
    ("path", "method", "texts"),
    [
        (path, method, texts)
        for path, methods in ADAPTERS.items()
        for method in methods
        for texts in NO_TEXTS[: -1 if path.startswith(ONE_STR) else None]
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_holds_no_texts_is_refused_everywhere(path: str, method: str, texts: Any) -> None:
    """Frames, mappings, sets, 2-D arrays and bytes, and a str where a list is due, are a TypeError."""
    with pytest.raises(TypeError, match=r"^expected an iterable of str, not .* (pass|decode) "):
        getattr(adapter(path)(), method)(texts)


def test_wrong_values_are_refused_when_an_adapter_is_made(tmp_path: Path) -> None:
    """A folder without a model and an option that does not exist are not left for the first text."""
    with pytest.raises(ManifestInvalid, match="not found"):
        Adapter(model=str(tmp_path))
    with pytest.raises(ValueError, match="truncate='middle'"):
        Adapter(truncate="middle")  # type: ignore[arg-type]


def extra_of(name: str) -> str:
    """Return the extra that an adapter's docstring names."""
    path = Path(integrations.__file__).parent / f"{name}.py"
    return path.read_text().splitlines()[0].rpartition("Extra: ")[2].strip('."')


def pyproject() -> str:
    """Return the project file's text."""
    return (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
