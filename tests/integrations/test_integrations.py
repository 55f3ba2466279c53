"""What all adapters share: one Embedder behind them, errors when they are made, and what an import costs."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from conftest import python

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
    """60 lines suffice for each: what is longer belongs into the package itself."""
    assert len((Path(integrations.__file__).parent / f"{name}.py").read_text().splitlines()) <= 60


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
