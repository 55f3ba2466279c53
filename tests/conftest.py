"""Fixtures for several test files: the shipped model, newly built artefacts, and evaluation texts."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import checkpoints
from support.artefact_cache import ArtefactCache
from support.checkpoints import FAST_KINDS, KINDS
from support.processes import python, run
from support.serving import Running, running

from ov_minilm import Embedder
from ov_minilm.convert.source import PACKAGE
from ov_minilm.drift.evaluation import FOLDER_VARIABLE, Evaluation, find
from ov_minilm.spec import FloatArray

GOLDEN = Path(__file__).parent / "golden"

# Other libraries in the tests report usage over the network unless these variables are set.
os.environ |= {"HAYSTACK_TELEMETRY_ENABLED": "False", "ANONYMIZED_TELEMETRY": "False"}


SLOW_TIMEOUT_S = 1800  # timeout of slow tests; pyproject.toml has that of all other tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests marked slow a longer timeout."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name compressed bytes by length: they contain the time, but workers need equal test ids."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) and val[:2] == b"\x1f\x8b" else None


@pytest.fixture(scope="session")
def shipped() -> Iterator[Embedder]:
    """The model in the package, as `encode` opens it."""
    with Embedder.open() as embedder:
        yield embedder


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server without a key, with a small body limit and a log in JSON."""
    with running("--payload-limit", "100000", "--access-log", "json") as server:
        yield server


@pytest.fixture(scope="module")  # because asyncio.run() fails while Playwright is open
def browser() -> Iterator[Any]:
    """Headless Chromium of this machine; skips the test without one."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium on this machine")  # which .ci/run tries to install
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def artefact_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> ArtefactCache:
    """The artefacts of this session and, with pytest's cache, of earlier ones."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # shared by all pytest-xdist workers
    cache = getattr(pytestconfig, "cache", None)
    return ArtefactCache(cache.mkdir("artefacts") if cache else session / "kept", session / "artefacts")


def require_installed(*modules: str) -> None:
    """Skip the test if one of these modules is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[convert,dev]'")


@pytest.fixture(scope="session")
def built(artefact_cache: ArtefactCache) -> Path:
    """A folder with fp32/, converted from the official checkpoint without torch."""
    require_installed("safetensors", PACKAGE.replace("-", "_"))
    heavy = "torch transformers sentence_transformers nncf optimum huggingface_hub".split()

    def make(out: Path) -> None:
        result = python(
            f"import sys; sys.modules |= dict.fromkeys({heavy})\n"
            f"sys.argv = ['', 'convert', {PACKAGE!r}, '--fp32-only', '-o', {str(out)!r}]\n"
            "from ov_minilm.cli import main; main()"
        )
        assert result.returncode == 0, result.stderr

    return artefact_cache.folder("fp32-only", make)


@pytest.fixture(scope="session")
def built_whole(artefact_cache: ArtefactCache) -> Path:
    """A folder with fp32/ and int8/, converted from the official checkpoint: minutes, for slow tests."""
    require_installed("nncf", "sentence_transformers", PACKAGE.replace("-", "_"))

    def make(out: Path) -> None:
        result = run("convert", PACKAGE, "-o", out, environment={FOLDER_VARIABLE: ""})
        assert result.returncode == 0, result.stderr.decode()

    return artefact_cache.folder("official", make)


@pytest.fixture(scope="session")
def converted(artefact_cache: ArtefactCache) -> Callable[[str], Path]:
    """Return a function that maps a kind of small checkpoint to the folder that checkpoints.py writes."""
    require_installed("nncf", "sentence_transformers", "onnx")

    def folder(kind: str) -> Path:
        names = [name for name in KINDS if (name in FAST_KINDS) == (kind in FAST_KINDS)]

        def make(out: Path) -> None:
            out.mkdir()
            subprocess.run([sys.executable, checkpoints.__file__, out, *names], check=True)

        return artefact_cache.folder("-".join(names), make) / kind

    return folder


@pytest.fixture(scope="session")
def fp32(built: Path) -> Iterator[Embedder]:
    """The FP32 artefact, run in FP32."""
    with Embedder.open(built / "fp32", precision="f32") as embedder:
        yield embedder


@pytest.fixture(scope="session")
def golden() -> tuple[list[str], FloatArray]:
    """Texts and their vectors by sentence-transformers; see golden/make.py."""
    return json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8")), np.load(GOLDEN / "vectors.npy")


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """STS-B and passages, from the folder named by the environment."""
    if not os.environ.get(FOLDER_VARIABLE):
        pytest.skip(f"{FOLDER_VARIABLE} names no folder with stsb_dev.tsv, stsb_test.tsv and passages.txt")
    return find([], [])
